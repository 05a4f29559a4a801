"""How long a caller is waited for: for the rest of its request, and for it to take an answer.

Rules:

1. a request that is not whole after `request_seconds` ends its call; of those that take longer than a
   moment, only `slow_requests_max` are waited for, since each holds the part that has come;
2. a stream on which nothing was asked for `stream_idle_seconds` is ended;
3. an answer that is not taken within `send_seconds` ends the connection.

What is waited for is noted when it begins and struck out when it ends; a task looks ten times a second who is overdue.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from types import TracebackType
from typing import Any, Self

import structlog

from gatebook.config import Limits
from gatebook.errors import DeadlineExceededError, GatebookError, OverloadedError
from gatebook.rpc.hang_up import address_of, hang_up

LOOK_SECONDS = 0.1
MOMENT_LOOKS = 4
"""A request that is not whole at so many looks is a slow one. Looks and no seconds: a loop that is late reads late."""
SLOW_PART = 4
"""One caller has at most one part in so many of the slow requests."""


class Wait:
    """What is waited for, from the begin of the block to its end; a block that is overdue raises why."""

    __slots__ = ("_patience", "_task", "caller", "error", "looks", "since")

    def __init__(self, patience: Patience, caller: str) -> None:
        """Takes who keeps the time, and for whom is waited."""
        self._patience = patience
        self._task: asyncio.Task[Any] | None = None
        self.caller = caller
        self.since = 0.0
        self.looks = 0
        self.error: GatebookError | None = None

    def __enter__(self) -> Self:
        """Begins to wait, in the task that is cancelled where it takes too long."""
        self._task = asyncio.current_task()
        self.since = time.monotonic()
        self._patience.waits[self] = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends waiting.

        Raises:
            DeadlineExceededError: it took too long.
            OverloadedError: too many others take long as well.
        """
        self._patience.waits.pop(self, None)
        if self.error is not None and self._task is not None:
            self._task.uncancel()
            if kind is not None and issubclass(kind, asyncio.CancelledError):
                raise self.error from None

    def is_overdue(self, now: float) -> bool:
        """Tells whether it has taken too long."""
        raise NotImplementedError

    def give_up(self, error: GatebookError) -> None:
        """Ends the block with an error."""
        self.error = error
        if self._task is not None:
            self._task.cancel()


class Request(Wait):
    """Waits for the request of a call."""

    __slots__ = ()

    def is_overdue(self, now: float) -> bool:
        """Tells whether it is still not whole."""
        return now - self.since > self._patience.limits.request_seconds


class Next(Wait):
    """Waits for the next message of a stream."""

    __slots__ = ()

    def is_overdue(self, now: float) -> bool:
        """Tells whether nothing was asked for too long."""
        return now - self.since > self._patience.limits.stream_idle_seconds


class Taking(Wait):
    """Waits until a caller takes an answer."""

    __slots__ = ("peer",)

    def __init__(self, patience: Patience, caller: str, peer: str) -> None:
        """Takes whose connection is to be closed, as gRPC names it."""
        super().__init__(patience, caller)
        self.peer = peer

    def is_overdue(self, now: float) -> bool:
        """Tells whether it is still not taken."""
        return now - self.since > self._patience.limits.send_seconds


class Patience:
    """Keeps the time of all that is waited for. Used on the event loop only."""

    def __init__(self, limits: Limits) -> None:
        """Takes the limits."""
        self.limits = limits
        self.ports: set[int] = set()
        self.waits: dict[Wait, None] = {}  # in the order in which they began
        self._log = structlog.get_logger("gatebook.rpc")

    async def keep(self) -> None:
        """Looks who is overdue, until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            stuck = self.look(time.monotonic())
            if stuck:
                closed = await asyncio.to_thread(hang_up, stuck, self.ports)
                self._log.warning("hung up", connections=closed, reason="an answer was not taken in time")

    def look(self, now: float) -> set[tuple[str, int]]:
        """Ends what is overdue, and returns from where answers are not taken."""
        stuck: set[tuple[str, int]] = set()
        slow: Counter[str] = Counter()
        slow_max = self.limits.slow_requests_max
        for wait in list(self.waits):
            if wait.error is not None:
                continue
            wait.looks += 1
            if isinstance(wait, Taking):
                if wait.is_overdue(now) and (address := address_of(wait.peer)) is not None:
                    stuck.add(address)
            elif wait.is_overdue(now):
                wait.give_up(DeadlineExceededError("the caller sent nothing for too long"))
            elif isinstance(wait, Request) and wait.looks >= MOMENT_LOOKS:
                slow[wait.caller] += 1
                if slow[wait.caller] > slow_max // SLOW_PART or slow.total() > slow_max:
                    wait.give_up(
                        OverloadedError(
                            "too many requests come slowly", self.limits.retry_seconds, limit="slow_requests"
                        )
                    )
        return stuck
