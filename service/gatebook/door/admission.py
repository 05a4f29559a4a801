"""Counts what is under way, and refuses what there is no room for.

Rules:

1. a call is admitted or refused before any work is done for it: within the quota of its caller, and within
   the limits of the server (`Limits`);
2. what is admitted is counted until its block ends, however it ends;
3. the last quarter of each limit of the server is kept for callers who have little under way, so that one
   who asks for everything cannot keep the others out;
4. a refusal names the limit, and when it may be worth asking again;
5. a server that is stopping admits nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping

from gatebook.config import Limits, Quota
from gatebook.door.caller import Caller
from gatebook.door.share import CHANGE, COSTS, READ, Share, Shares
from gatebook.errors import DrainingError, OverloadedError

QUIET_SECONDS = 0.2
RESERVED_PART = 4
"""One part in so many of each limit is kept for callers who have little under way."""
LITTLE_PART = 20
"""What is little: no more than one part in so many of the limit."""
RETRY_SECONDS_MAX = 10.0


class Admission:
    """Admits calls and the checks in them. Used on the event loop only, and shared by all transports."""

    def __init__(self, limits: Limits, quotas: Mapping[str, Quota] | None = None) -> None:
        """Takes the limits, and the quotas of callers who have one of their own, by their id."""
        self.limits = limits
        self.shares = Shares(limits, quotas or {})
        self.calls_in_flight = 0
        self.streams_in_flight = 0
        self.changes_in_flight = 0
        self.items_in_flight = 0
        self.bytes_in_flight = 0
        self.draining = asyncio.Event()
        self._last_call_time = 0.0

    def call(self, caller: Caller, operation: str, *, stream: bool = False) -> CallHeld:
        """Returns the block of a call, which is admitted when the block begins and in flight until it ends.

        The block raises:
            DrainingError: the server is stopping.
            OverloadedError: too many calls, streams or changes are in flight, or the caller calls too often.
        """
        return CallHeld(self, caller, operation, stream)

    def items(self, caller: Caller, count: int, size_bytes: int = 0) -> ItemsHeld:
        """Returns the block of checks, which are admitted when the block begins and in flight until it ends.

        The block raises:
            OverloadedError: too many checks, or bytes of them, are in flight, or the caller checks too often.
        """
        return ItemsHeld(self, caller, count, size_bytes)

    @contextlib.contextmanager
    def request(self, caller: Caller, size_bytes: int) -> Iterator[None]:
        """Counts a large request as long as it is in hand.

        Raises:
            OverloadedError: too many bytes are in flight.
        """
        share = self.shares.of(caller, time.monotonic())
        if share.bytes + size_bytes > share.quota.bytes_in_flight:
            raise self.refuse("this caller has too many bytes in flight", "caller_bytes_in_flight")
        if is_full(self.limits.bytes_in_flight_max, self.bytes_in_flight, share.bytes, size_bytes):
            raise self.refuse("too many bytes are in flight", "bytes_in_flight")
        with self.answer(caller, size_bytes):
            yield

    @contextlib.contextmanager
    def answer(self, caller: Caller, size_bytes: int) -> Iterator[None]:
        """Counts an answer until it is taken. It is not refused: its decisions are written; later calls are."""
        share = self.shares.of(caller, time.monotonic())
        share.bytes += size_bytes
        self.bytes_in_flight += size_bytes
        try:
            yield
        finally:
            share.bytes -= size_bytes
            self.bytes_in_flight -= size_bytes

    def take_quotas(self, quotas: Mapping[str, Quota]) -> None:
        """Replaces the quotas of callers who have one of their own. What is under way stays counted."""
        self.shares.take_quotas(quotas, time.monotonic())

    def refuse(self, message: str, limit: str, seconds: float = 0.0) -> OverloadedError:
        """Builds the refusal of what is over a limit; `seconds` is when there is room again, if that is known."""
        return OverloadedError(message, min(RETRY_SECONDS_MAX, max(seconds, self.limits.retry_seconds)), limit=limit)

    def began(self) -> float:
        """Takes note that a call came, whether or not it is admitted; returns the time of the monotonic clock.

        Raises:
            DrainingError: the server is stopping.
        """
        self._last_call_time = now = time.monotonic()
        if self.draining.is_set():
            raise DrainingError("the server is stopping; ask again", self.limits.retry_seconds)
        return now

    async def drain(self, seconds: float) -> None:
        """Refuses new calls, and waits until those under way are answered and no more come, or the time is over.

        What a transport itself drops while it stops is cancelled without an answer, so it stops only when it is quiet.
        """
        self.draining.set()
        quiet_since = began = time.monotonic()
        while (now := time.monotonic()) - began < seconds and now - quiet_since < QUIET_SECONDS:
            if self.calls_in_flight or self._last_call_time > quiet_since:
                quiet_since = now
            await asyncio.sleep(QUIET_SECONDS / 10)


class CallHeld:
    """One call in flight. A class, and no generator, since every call passes here."""

    __slots__ = ("_admission", "_caller", "_change", "_operation", "_share", "_stream")
    _change: bool
    _share: Share

    def __init__(self, admission: Admission, caller: Caller, operation: str, stream: bool) -> None:  # noqa: FBT001  # built in one place
        """Takes what counts, and what is to be counted."""
        self._admission = admission
        self._caller = caller
        self._operation = operation
        self._stream = stream

    def __enter__(self) -> None:
        """Admits the call, or refuses it."""
        admission = self._admission
        now = admission.began()
        share = self._share = admission.shares.of(self._caller, now)
        cost = COSTS.get(self._operation, READ)
        self._change = cost is CHANGE
        if over := self._over(admission.limits, share):
            message, limit = over
            raise admission.refuse(message, limit)
        if wait := share.pay(cost, now):
            raise admission.refuse(f"this caller calls too often: `{self._operation}`", f"caller_{cost.limit}", wait)
        share.calls += 1
        share.streams += self._stream
        share.changes += self._change
        admission.calls_in_flight += 1
        admission.streams_in_flight += self._stream
        admission.changes_in_flight += self._change

    def _over(self, limits: Limits, share: Share) -> tuple[str, str] | None:  # a list of limits
        """Returns which limit the call is over, in words and by name."""
        admission, quota = self._admission, share.quota
        if share.calls >= quota.calls_in_flight:
            return "this caller has too many calls in flight", "caller_calls_in_flight"
        if is_full(limits.calls_in_flight_max, admission.calls_in_flight, share.calls, 1):
            return "too many calls are in flight", "calls_in_flight"
        if share.bytes > quota.bytes_in_flight:
            return "this caller does not take its answers", "caller_bytes_in_flight"
        if admission.bytes_in_flight > limits.bytes_in_flight_max:
            return "too many answers wait to be taken", "bytes_in_flight"
        if self._stream and share.streams >= quota.streams:
            return "this caller has too many streams open", "caller_streams"
        if self._stream and is_full(limits.streams_max, admission.streams_in_flight, share.streams, 1):
            return "too many streams are open", "streams"
        if self._change and share.changes >= quota.changes_in_flight:
            return "this caller has too many changes in flight", "caller_changes_in_flight"
        if self._change and admission.changes_in_flight >= limits.changes_in_flight_max:
            return "too many changes are in flight", "changes_in_flight"
        return None

    def __exit__(self, *_: object) -> None:
        """Lets go of the call."""
        share, admission = self._share, self._admission
        share.calls -= 1
        share.streams -= self._stream
        share.changes -= self._change
        admission.calls_in_flight -= 1
        admission.streams_in_flight -= self._stream
        admission.changes_in_flight -= self._change


class ItemsHeld:
    """Checks in flight."""

    __slots__ = ("_admission", "_caller", "_count", "_share", "_size_bytes")
    _share: Share

    def __init__(self, admission: Admission, caller: Caller, count: int, size_bytes: int) -> None:
        """Takes what counts, and what is to be counted."""
        self._admission = admission
        self._caller = caller
        self._count = count
        self._size_bytes = size_bytes

    def __enter__(self) -> None:
        """Admits the checks, or refuses them."""
        admission, count, size_bytes = self._admission, self._count, self._size_bytes
        limits = admission.limits
        now = time.monotonic()
        share = self._share = admission.shares.of(self._caller, now)
        quota = share.quota
        if share.items + count > quota.items_in_flight:
            message = f"this caller has {share.items} checks in flight"
            raise admission.refuse(message, "caller_items_in_flight")
        if is_full(limits.items_in_flight_max, admission.items_in_flight, share.items, count):
            raise admission.refuse("too many checks are in flight", "items_in_flight")
        if share.bytes + size_bytes > quota.bytes_in_flight:
            raise admission.refuse("this caller has too many bytes of checks in flight", "caller_bytes_in_flight")
        if is_full(limits.bytes_in_flight_max, admission.bytes_in_flight, share.bytes, size_bytes):
            raise admission.refuse("too many bytes of checks are in flight", "bytes_in_flight")
        if wait := share.pay_checks(count, now):
            raise admission.refuse("this caller checks too often", "caller_checks_per_second", wait)
        share.items += count
        share.bytes += size_bytes
        admission.items_in_flight += count
        admission.bytes_in_flight += size_bytes

    def __exit__(self, *_: object) -> None:
        """Lets go of the checks."""
        share, admission = self._share, self._admission
        share.items -= self._count
        share.bytes -= self._size_bytes
        admission.items_in_flight -= self._count
        admission.bytes_in_flight -= self._size_bytes


def is_full(limit: int, total: int, own: int, count: int) -> bool:
    """Tells whether there is no room for `count` more of a caller who has `own` of the `total` already.

    Up to three quarters of the limit there is room for anybody, and up to the limit for who has little.
    """
    if total + count <= limit - limit // RESERVED_PART:
        return False
    return total + count > limit or own + count > max(1, limit // LITTLE_PART)
