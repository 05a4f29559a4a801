"""Counts of what happens, for whoever asks later: numbers in memory, without a lock.

Owns nothing that an answer depends on: tallies begin at zero with the process. Rules:

1. one thread writes a tally, and writes it in well under a microsecond;
2. any thread reads it, and sees a number that was true a moment ago.
"""

from __future__ import annotations

from bisect import bisect_left
from contextvars import ContextVar
from itertools import accumulate

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000)
BYTES = tuple(4**power for power in range(5, 12))
"""1 KiB to 4 MiB."""

COMMITS: ContextVar[list[tuple[float, float]] | None] = ContextVar("commits", default=None)
"""Where the commits of the call under way are noted, if somebody traces it."""
COMMITS_MAX = 100
"""Commits of one call that are noted; those of a long stream beyond are left out."""


class Distribution:
    """How often a value was at most so much. For one writing thread."""

    __slots__ = ("_counts", "bounds", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Takes the upper bounds, growing, of which each includes itself."""
        self.bounds = bounds
        self.total = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, value: float) -> None:
        """Counts a value."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[int]:
        """Returns how many values were at most each bound, and last how many there were at all."""
        return list(accumulate(self._counts))
