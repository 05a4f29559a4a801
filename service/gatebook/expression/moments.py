"""The time of a decision, and `timeMatch`, which asks it.

Owns what a policy may know of the time. No clock is read here: whoever decides brings a `Moment`, which stands among
the tokens of the request as `NOW`, a name that no model can give to a token. Times are UTC, to the second, as Casbin
writes them: `2026-12-31 00:00:00`, or `_` for none. A time that is written otherwise is UNKNOWN.

A moment notes until when what it was asked stays as it is, so that no answer is used beyond that.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, Self

import msgspec

NOW: Final = "now()"
TIME_MATCH: Final = "timeMatch"
UNBOUNDED: Final = "_"
BOUNDS_MAX = 16_384
"""How many times are remembered as they were read."""

_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}", re.ASCII)
_TICK = timedelta(microseconds=1)


class Moment(str):
    """The time of one decision, as a text that sorts as times do. Belongs to that decision alone.

    `until` is when the first of the answers that it gave may be another; None: never.
    """

    __slots__ = ("until",)

    until: datetime | None

    def __new__(cls, now: datetime) -> Self:
        """Takes the time; one without a zone counts as it is written."""
        written = now if now.tzinfo is None else now.astimezone(UTC).replace(tzinfo=None)
        moment = super().__new__(cls, written.isoformat(" ", "microseconds"))
        moment.until = None
        return moment

    def note(self, change_time: datetime) -> None:
        """Notes when an answer may be another."""
        if self.until is None or change_time < self.until:
            self.until = change_time


class _Bound(msgspec.Struct, frozen=True):
    """A time as a text that sorts as times do; `time` is the same in UTC."""

    text: str
    time: datetime


_NO_BOUND = _Bound("", datetime.min.replace(tzinfo=UTC))


def time_match(start: str, end: str, now: str) -> bool | None:
    """Tells whether `now`, a `Moment`, lies after `start` and before `end`; unknown where one of them is no time."""
    begins, ends = _bound(start), _bound(end)
    if begins is None or ends is None:
        return None
    if begins is not _NO_BOUND and now <= begins.text:
        change_time = begins.time + _TICK
        holds = False
    elif ends is not _NO_BOUND and now < ends.text:
        change_time = ends.time
        holds = True
    else:
        return ends is _NO_BOUND
    if isinstance(now, Moment):
        now.note(change_time)
    return holds


def is_time(text: str) -> bool:
    """Tells whether a text is a time, or `_`."""
    return _bound(text) is not None


def never_holds(start: str, end: str) -> bool:
    """Tells whether no time lies between two."""
    begins, ends = _bound(start), _bound(end)
    return None not in (begins, ends) and UNBOUNDED not in (start, end) and start >= end


def time_complaint(text: str) -> str:
    """Returns what is wrong with a time, and what to write; nothing where all is well."""
    shown = text if len(text) <= 60 else f"{text[:60]}..."  # noqa: PLR2004  # as much as fits a line
    return "" if is_time(text) else f"`{shown}` is no time: write one in UTC, as `2026-12-31 00:00:00`, or `_` for none"


class AtTime(msgspec.Struct, frozen=True):
    """`timeMatch` as the condition of links: of the two parameters of a link, or of these instead."""

    parameters: tuple[object, ...] | None = None

    def __call__(self, *_written: object) -> None:
        """Has no answer without a time."""

    def at(self, now: object, written: tuple[object, ...]) -> bool | None:
        """Tells whether the link holds at a moment."""
        match written if self.parameters is None else self.parameters, now:
            case (str() as start, str() as end), str():
                return time_match(start, end, now)
        return None


@lru_cache(maxsize=BOUNDS_MAX)
def _bound(text: str) -> _Bound | None:
    if text == UNBOUNDED:
        return _NO_BOUND
    if not _TIME.fullmatch(text):
        return None
    try:
        return _Bound(f"{text}.000000", datetime.fromisoformat(text).replace(tzinfo=UTC))
    except ValueError:
        return None
