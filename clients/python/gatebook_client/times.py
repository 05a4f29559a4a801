"""Times, cut to a unit.

Owns `truncated`, the mask `truncate`: in UTC, weeks begin on Monday (ISO 8601).
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from gatebook_client.canonical import in_utc

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

_FIRST_DAYS: Mapping[str, Callable[[dt.date], dt.date]] = {
    "year": lambda day: dt.date(day.year, 1, 1),
    "quarter": lambda day: dt.date(day.year, day.month - (day.month - 1) % 3, 1),
    "month": lambda day: dt.date(day.year, day.month, 1),
    "week": lambda day: dt.date.fromordinal(day.toordinal() - day.weekday()),
    "day": lambda day: day,
}
_UNITS: Final = frozenset({*_FIRST_DAYS, "hour"})


def truncated(value: Any, unit: str) -> Any:  # noqa: ANN401 - a row holds anything
    """Returns the beginning of the unit that a time or date lies in, in the type that it came in.

    A time with a zone comes back in UTC; one without is taken to be in UTC; a text in ISO 8601 stays a text.

    Raises:
        ValueError: The unit is unknown, or the value is no time, or a date that the unit would not change.
    """
    if unit not in _UNITS:
        message = f"unit `{unit}` is unknown"
        raise ValueError(message)
    match value:
        case None:
            return None
        case str() if _DATE.fullmatch(value):
            return _date(dt.date.fromisoformat(value), unit).isoformat()
        case str():
            return _time(in_utc(_parsed(value)), unit).isoformat().replace("+00:00", "Z")
        case dt.datetime():
            cut = _time(in_utc(value), unit)
            return cut if value.utcoffset() is not None else cut.replace(tzinfo=None)
        case dt.date():
            return _date(value, unit)
        case _:
            message = "a value is no time"
            raise ValueError(message)


def _parsed(text: str) -> dt.datetime:
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError:
        message = "a text is no time"
        raise ValueError(message) from None


def _time(time: dt.datetime, unit: str) -> dt.datetime:
    """Cuts a time in UTC."""
    if unit == "hour":
        return time.replace(minute=0, second=0, microsecond=0)
    return dt.datetime.combine(_FIRST_DAYS[unit](time.date()), dt.time(), dt.UTC)


def _date(day: dt.date, unit: str) -> dt.date:
    if unit in ("hour", "day"):
        message = f"unit `{unit}` would leave a date as it is"
        raise ValueError(message)
    return _FIRST_DAYS[unit](day)
