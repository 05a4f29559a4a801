"""The one text of each value, for hashing and for counting people.

Owns `canonical_text`: values that are equal in a store have the same text, in whatever type a driver
delivers them, and whoever hashes the same value under the same key gets the same hash.

    text         itself, in UTF-8
    bool         `true` or `false`
    int          decimal, `-` before a negative one
    numeric      decimal, without exponent, without zeros at the end: `12.5`; a float as it prints
    uuid         lower case, with hyphens
    date         `2026-06-18`
    timestamptz  in UTC with six digits: `2026-06-18T09:30:00.000000Z`; without zone it is UTC
    jsonb        JSON with sorted keys and no spaces
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from decimal import Decimal
from typing import Any

EXPONENT_MAX = 1_000


def canonical_text(value: Any) -> str:  # noqa: ANN401 - a row holds anything
    """Returns the text of a value that is not null.

    Raises:
        ValueError: There is no such text: the value is of another type, or no finite number.
    """
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float() | Decimal():
            return _decimal_text(Decimal(repr(value)) if isinstance(value, float) else value)
        case uuid.UUID():
            return str(value)
        case dt.datetime():
            return in_utc(value).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")
        case dt.date():
            return value.isoformat()
        case dict() | list():
            return _json_text(value)
        case _:
            message = "a value has no canonical text"
            raise ValueError(message)


def in_utc(time: dt.datetime) -> dt.datetime:
    """Returns a time in UTC; one without zone is taken to be in UTC."""
    if time.utcoffset() is None:
        return time.replace(tzinfo=dt.UTC)
    try:
        return time.astimezone(dt.UTC)
    except OverflowError as err:
        message = "a time is out of range in UTC"
        raise ValueError(message) from err


def _json_text(value: dict[Any, Any] | list[Any]) -> str:
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, RecursionError) as err:
        message = "a value is no JSON"
        raise ValueError(message) from err


def _decimal_text(number: Decimal) -> str:
    if not number.is_finite() or abs(number.adjusted()) > EXPONENT_MAX:
        message = "a number is not finite, or has too many digits"
        raise ValueError(message)
    text = f"{number:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text
