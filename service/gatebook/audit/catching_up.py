"""An index that is far behind: how far it is, how fast, and when it will be there.

Owns what is said of it, to the log every few seconds and to who asks meanwhile. An index is far behind when it is
built anew, because it was missing, damaged or of another version, or after a backup was put back.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from gatebook.errors import BookUnavailableError

NEAR_ENTRIES = 100_000
"""Who asks waits for so many, which takes seconds; where there are more they are told at once."""
SAY_SECONDS = 10.0


class CatchingUp:
    """Watches an index on its way. Has one owner, who calls."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Takes a clock."""
        self._clock = clock
        self._began: tuple[float, int] | None = None  # when the way began, and at how many entries
        self._said = 0.0

    def note(self, indexed: int, wanted: int) -> None:
        """Takes note of how far the index is; says so from time to time, and when it is there."""
        now = self._clock()
        if self._began is None:
            if wanted - indexed > NEAR_ENTRIES:
                self._began, self._said = (now, indexed), now - SAY_SECONDS
            else:
                return
        log = structlog.get_logger("gatebook.audit")
        began, first = self._began
        if indexed >= wanted:
            log.info("index built", entries=indexed - first, seconds=round(now - began, 1))
            self._began = None
        elif now >= self._said + SAY_SECONDS:
            self._said = now
            log.info("index is being built", indexed=indexed, of=wanted, rate=self._rate(indexed))

    def require_near(self, indexed: int, wanted: int) -> None:
        """Requires that an index is not far behind.

        Raises:
            BookUnavailableError: it is; says how far it has come, and when it will be there.
        """
        behind = wanted - indexed
        if behind <= NEAR_ENTRIES:
            return
        message = f"the index is being built and covers {indexed} of {wanted} entries ({100 * indexed // wanted} %)"
        rate = self._rate(indexed)
        ready = f", ready in about {behind // rate + 1} s" if rate else ""
        raise BookUnavailableError(f"{message}{ready}: ask again then")

    def _rate(self, indexed: int) -> int:
        """Returns entries per second on the way so far; 0 where it has only begun."""
        if self._began is None:
            return 0
        began, first = self._began
        return int((indexed - first) / max(self._clock() - began, 0.001))
