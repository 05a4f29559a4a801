"""The workers that decide by this one's activations: how far each has come, and until when it may decide.

Rules:

1. a worker decides only while its lease runs, and a lease is extended only over the feed;
2. a publish is answered when every worker has folded it, or can decide no more;
3. a worker that has gone counts until its lease is over.
"""

from __future__ import annotations

import asyncio
import time

LEASE_SECONDS = 2.0
HEARTBEAT_SECONDS = 0.5
BEHIND_SECONDS_MAX = 60.0
"""How long a worker may take to compile what it was told; then its lease is let run out."""


class Follower:
    """One worker. Times are those of the machine's monotonic clock."""

    def __init__(self) -> None:
        """Begins with nothing folded and no lease."""
        self.folded = 0
        self.lease_until = 0.0
        self._behind_since = 0.0

    def extend(self, total: int) -> float:
        """Extends the lease of a worker that knows of all activations, or is about to; returns its end."""
        now = time.monotonic()
        if self.folded >= total:
            self._behind_since = now
        if now - self._behind_since <= BEHIND_SECONDS_MAX:
            self.lease_until = now + LEASE_SECONDS
        return self.lease_until

    def told(self, folded: int) -> None:
        """Is told by how many activations the worker decides."""
        self.folded = folded

    def join(self) -> None:
        """Begins to count how long the worker is behind."""
        self._behind_since = time.monotonic()


class Followers:
    """All workers but the first. Used on the event loop of the first."""

    def __init__(self) -> None:
        """Begins with none."""
        self._followers: dict[int, Follower] = {}
        self._moved = asyncio.Event()  # replaced and set whenever something is to be looked at again

    def join(self, worker: int) -> Follower:
        """Takes a worker that begins, or begins again, to follow."""
        follower = self._followers.setdefault(worker, Follower())
        follower.folded = 0
        follower.join()
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
