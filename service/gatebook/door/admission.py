"""Counts what is under way, and refuses what there is no room for.

Rules:

1. a call is admitted or refused before any work is done for it, within the limits of `Limits`;
2. what is admitted is counted until its block ends, however it ends;
3. a server that is stopping admits nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

from gatebook.config import Limits
from gatebook.door.caller import Caller
from gatebook.errors import DrainingError, OverloadedError

QUIET_SECONDS = 0.2


class Admission:
    """Admits calls and the checks in them. Used on the event loop only, and shared by all transports."""

    def __init__(self, limits: Limits) -> None:
        """Takes the limits."""
        self._limits = limits
        self._items_in_flight = 0
        self._calls_in_flight = 0
        self._streams_in_flight = 0
        self._last_call_time = 0.0
        self.draining = asyncio.Event()

    @contextlib.contextmanager
    def call(self, caller: Caller, *, stream: bool = False) -> Iterator[None]:  # noqa: ARG002  # quotas count by caller
        """Admits a call, which is in flight until the block ends.

        Raises:
            DrainingError: the server is stopping.
            OverloadedError: too many calls or streams are in flight.
        """
        self._last_call_time = time.monotonic()
        if self.draining.is_set():
            raise DrainingError("the server is stopping; ask again", self._limits.retry_seconds)
        if self._calls_in_flight >= self._limits.calls_in_flight_max:
            raise OverloadedError("too many calls are in flight", self._limits.retry_seconds, limit="calls_in_flight")
        if stream and self._streams_in_flight >= self._limits.streams_max:
            raise OverloadedError("too many streams are open", self._limits.retry_seconds, limit="streams")
        self._calls_in_flight += 1
        self._streams_in_flight += stream
        try:
            yield
        finally:
            self._calls_in_flight -= 1
            self._streams_in_flight -= stream

    @contextlib.contextmanager
    def items(self, caller: Caller, count: int) -> Iterator[None]:  # noqa: ARG002  # as above
        """Admits `count` checks, which stay in flight until the block ends.

        Raises:
            OverloadedError: too many checks are in flight.
        """
        if self._items_in_flight + count > self._limits.items_in_flight_max:
            raise OverloadedError(
                f"{self._items_in_flight} checks are in flight", self._limits.retry_seconds, limit="items_in_flight"
            )
        self._items_in_flight += count
        try:
            yield
        finally:
            self._items_in_flight -= count

    async def drain(self, seconds: float) -> None:
        """Refuses new calls, and waits until those under way are answered and no more come, or the time is over.

        What a transport itself drops while it stops is cancelled without an answer, so it stops only when it is quiet.
        """
        self.draining.set()
        quiet_since = began = time.monotonic()
        while (now := time.monotonic()) - began < seconds and now - quiet_since < QUIET_SECONDS:
            if self._calls_in_flight or self._last_call_time > quiet_since:
                quiet_since = now
            await asyncio.sleep(QUIET_SECONDS / 10)
