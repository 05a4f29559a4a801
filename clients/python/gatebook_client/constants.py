"""Values that do not depend on the value: the zero value of a column type, and a constant.

Owns `zero` and `constant`, the masks `default` and `constant`. A driver may deliver a uuid, time or
date as a text: then the masked value is a text too. In place of a null it is of the native type.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

_READERS: Mapping[str, Callable[[str], Any]] = {
    "text": str,
    "int": int,
    "bigint": int,
    "numeric": Decimal,
    "bool": lambda text: {"true": True, "false": False}[text],
    "uuid": uuid.UUID,
    "timestamptz": dt.datetime.fromisoformat,
    "date": dt.date.fromisoformat,
    "jsonb": json.loads,
    "text[]": json.loads,
}
_ZEROS: Mapping[str, str] = {
    "text": "",
    "int": "0",
    "bigint": "0",
    "numeric": "0",
    "bool": "false",
    "uuid": "00000000-0000-0000-0000-000000000000",
    "timestamptz": "1970-01-01T00:00:00+00:00",
    "date": "1970-01-01",
    "jsonb": "{}",
    "text[]": "[]",
}


def zero(column_type: str, like: Any) -> Any:  # noqa: ANN401 - a row holds anything
    """Returns the zero value of a type, in the form of `like`.

    Raises:
        KeyError: The type is unknown.
    """
    return constant(_ZEROS[column_type], column_type, like)


def constant(text: str, column_type: str, like: Any) -> Any:  # noqa: ANN401 - a row holds anything
    """Returns the value that `text` is in a type, in the form of `like`.

    Raises:
        KeyError: The type is unknown.
        ValueError: The text is no value of the type.
    """
    value = _READERS[column_type](text)
    if isinstance(like, str):
        return text
    if isinstance(like, float) and isinstance(value, Decimal):
        return float(value)
    return value
