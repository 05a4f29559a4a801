"""The workers that decide by this one's activations: how far each has come, and until when it may decide.

Rules:

1. a worker decides only while its lease runs, and a lease is extended only over the feed;
2. a publish is answered when every worker has folded it, or can decide no more;
3. once it is answered, no lease of a worker that has not folded it is extended, whatever happened to it;
4. a worker that has gone, or says nothing, counts until its lease is over.
"""

from __future__ import annotations

import asyncio
import time

LEASE_SECONDS = 2.0
HEARTBEAT_SECONDS = 0.5
SILENT_SECONDS_MAX = 2.0
"""How long a worker may say nothing; it answers every heartbeat. Then its lease is let run out."""
BEHIND_SECONDS_MAX = 60.0
"""How long a worker may take to compile what it was told; then its lease is let run out."""


class Follower:
    """One worker. Times are those of the machine's monotonic clock."""

    def __init__(self) -> None:
        """Begins with nothing folded and no lease."""
        self.folded = 0
        self.lease_until = 0.0
        self._heard_time = self._behind_since = time.monotonic()

    def extend(self, total: int, settled: int) -> float:
        """Extends the lease of a worker that decides by all that was answered, and is about to by all; returns its end.

        Args:
            total: How many activations there are.
            settled: How many of them were answered to who published them.
        """
        now = time.monotonic()
        if self.folded >= total:
            self._behind_since = now
        is_close = now - self._behind_since <= BEHIND_SECONDS_MAX and now - self._heard_time <= SILENT_SECONDS_MAX
        if is_close and self.folded >= settled:
            self.lease_until = now + LEASE_SECONDS
        return self.lease_until

    def told(self, folded: int) -> None:
        """Is told by how many activations the worker decides."""
        self.folded = folded
        self._heard_time = time.monotonic()


class Followers:
    """All workers but the first. Used on the event loop of the first."""

    def __init__(self) -> None:
        """Begins with none."""
        self._followers: dict[int, Follower] = {}
        self.settled = 0
        """How many activations every worker decides by, or cannot decide at all."""
        self._moved = asyncio.Event()  # replaced and set whenever something is to be looked at again

    def join(self, worker: int) -> Follower:
        """Takes a worker that begins, or begins again, to follow."""
        follower = self._followers.setdefault(worker, Follower())
        follower.told(0)
        return follower

    def tell(self) -> None:
        """Wakes whoever waits for something to change: an activation, or a worker that has folded one."""
        self._moved.set()
        self._moved = asyncio.Event()

    async def moved(self, timeout_seconds: float) -> None:
        """Waits until something has changed, or the time is over."""
        event = self._moved
        try:
            async with asyncio.timeout(timeout_seconds):
                await event.wait()
        except TimeoutError:
            return

    async def settle(self, total: int) -> None:
        """Waits until no worker decides by fewer than `total` activations."""
        self.tell()
        while any(f.folded < total and f.lease_until > time.monotonic() for f in self._followers.values()):
            await self.moved(HEARTBEAT_SECONDS / 10)
        self.settled = total
