"""Counts the calls that are over: rate, errors and duration of each operation.

Owns these tallies. Nothing in them names a caller or anything that a caller chose: each label is one of
few. Written on the event loop, read by any thread.
"""

from __future__ import annotations

from gatebook.door.door import Finished
from gatebook.tally import SECONDS, Distribution

NOBODY = "none"
"""The kind of a caller that was not recognised."""


class Meter:
    """Observes a door."""

    def __init__(self) -> None:
        """Begins at zero."""
        self.calls: dict[tuple[str, str, str], int] = {}
        """How many calls ended, by operation, code and kind of caller."""
        self.refusals: dict[tuple[str, str], int] = {}
        """How many calls ended with an error, by operation and reason."""
        self.seconds: dict[str, Distribution] = {}
        """How long the calls of an operation took."""

    def observe(self, finished: Finished) -> None:
        """Counts a call."""
        operation = finished.operation
        key = (operation, finished.code, finished.kind or NOBODY)
        self.calls[key] = self.calls.get(key, 0) + 1
        reason = finished.told.get("reason")
        if reason is not None:
            refused = (operation, str(reason))
            self.refusals[refused] = self.refusals.get(refused, 0) + 1
        seconds = self.seconds.get(operation)
        if seconds is None:
            seconds = self.seconds[operation] = Distribution(SECONDS)
        seconds.observe(finished.seconds)
