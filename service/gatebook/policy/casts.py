"""Rows as they come in JSON, cast to the types of the catalogue.

Owns what a value of a request means to a condition. Rules:

1. the result has every column of the dataset and no other; a column that is missing, null or cannot
   be cast exactly is None, which every condition reads as unknown;
2. numbers are exact or unknown: a proto `Struct` carries doubles, so a whole number beyond 2^53 that
   arrives as one may have been rounded, and counts only as text or as a JSON integer;
3. times are aware datetimes in UTC; a time without an offset is unknown, and so is a date for a time.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any, Final

from gatebook.policy.dataset import Dataset
from gatebook.policy.yaml_reader import utc_time

EXACT_DOUBLE_MAX: Final = 2**53
INT_BITS: Final = 32
BIGINT_BITS: Final = 64

_INTEGER_TEXT = re.compile(r"-?[0-9]{1,19}")
_DECIMAL_TEXT = re.compile(r"-?[0-9]{1,40}(?:\.[0-9]{1,40})?")
_UUID_TEXT = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_DATE_TEXT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME_TEXT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def cast_row(dataset: Dataset, row: Mapping[str, Any]) -> dict[str, Any]:
    """Casts a row to the dataset's column types; None stands for unknown."""
    return {name: cast_value(column.type, row.get(name)) for name, column in dataset.columns.items()}


def cast_value(column_type: str, value: object) -> Any:  # noqa: ANN401  # a value of any column type
    """Casts one JSON value; None when it is no value of the type."""
    return None if value is None else _CASTS[column_type](value)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: object) -> tuple[str, ...] | None:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        return None
    return tuple(value)


def _whole(value: object) -> int | None:
    """Returns a whole number that arrived exactly."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= EXACT_DOUBLE_MAX else None
    return int(value) if isinstance(value, str) and _INTEGER_TEXT.fullmatch(value) else None


def _integer(bits: int) -> Callable[[object], int | None]:
    def cast(value: object) -> int | None:
        number = _whole(value)
        return number if number is not None and -(1 << bits - 1) <= number < 1 << bits - 1 else None

    return cast


def _numeric(value: object) -> int | float | None:
    """Returns a decimal number as the conditions write one: whole, or the nearest double."""
    whole = _whole(value)
    if whole is not None:
        return whole
    if isinstance(value, str) and _DECIMAL_TEXT.fullmatch(value):
        value = float(value)
    if not isinstance(value, float) or not math.isfinite(value) or abs(value) > EXACT_DOUBLE_MAX:
        return None
    return value


def _bool(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _uuid(value: object) -> str | None:
    return str(uuid.UUID(value)) if isinstance(value, str) and _UUID_TEXT.fullmatch(value) else None


def _time(value: object) -> datetime | None:
    if not isinstance(value, str) or not _TIME_TEXT.fullmatch(value):
        return None
    return utc_time(value.upper())


def _date(value: object) -> date | None:
    if not isinstance(value, str) or not _DATE_TEXT.fullmatch(value):
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        return None


def _json(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


_CASTS: Final[Mapping[str, Callable[[object], Any]]] = {
    "text": _text,
    "text[]": _texts,
    "int": _integer(INT_BITS),
    "bigint": _integer(BIGINT_BITS),
    "numeric": _numeric,
    "bool": _bool,
    "uuid": _uuid,
    "timestamptz": _time,
    "date": _date,
    "jsonb": _json,
}
