"""Checks without an answer: what waits to be sent, and what is under way together.

Owns `OpenCheck` and `SharedCall`, which change as `coalescing` says. A check is in a `queue`, or in a `call`, or in
neither when its caller knows the outcome or no longer wants it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

from gatebook.v1 import types_pb2
from gatebook_client.asking import new_request_id
from gatebook_client.attempts import LEAST_SECONDS
from gatebook_client.errors import DeadlineError
from gatebook_client.packing import Packed
from gatebook_client.question import ReceiptName

ITEMS_MAX = 128
BYTES_MAX = 1024 * 1024
"""What one batch holds: well below what the service takes, so that one is decided while another is on its way."""


class Shared(NamedTuple):
    """What all checks of one batch have in common, and how many may be in it."""

    at_least: int
    receipt: ReceiptName
    items_max: int = ITEMS_MAX


class OpenCheck:
    """One check without an answer."""

    __slots__ = ("answer", "call", "deadline", "packed", "queue", "shared")

    def __init__(
        self, packed: Packed, shared: Shared, deadline: float, answer: asyncio.Future[types_pb2.Decision]
    ) -> None:
        """Takes the check as bytes, its deadline on the monotonic clock, and where its caller waits."""
        self.packed = packed
        self.shared = shared
        self.deadline = deadline
        self.answer = answer
        self.queue: Queue | None = None
        self.call: SharedCall | None = None

    def give(self, decision: types_pb2.Decision) -> None:
        """Gives the caller the decision."""
        self._part()
        if not self.answer.done():
            self.answer.set_result(decision)

    def fail(self, error: BaseException) -> None:
        """Gives the caller an error."""
        self._part()
        if not self.answer.done():
            self.answer.set_exception(error)

    def expire(self) -> None:
        """Ends the check when its time is over; its call goes on for the others."""
        if not self.answer.done():
            self.answer.set_exception(DeadlineError("no answer came in time", reason="DEADLINE_EXCEEDED"))

    def leave(self) -> None:
        """Forgets the check: its caller knows, or no longer wants to. A call that nobody waits for ends."""
        queue, self.queue = self.queue, None
        if queue is not None:
            queue.pop(self, None)
        call = self._part()
        if call is not None and not call.waiting and call.task is not None:
            call.task.cancel()

    def _part(self) -> SharedCall | None:
        """Leaves the call, if there is one, and returns it."""
        call, self.call = self.call, None
        if call is not None:
            call.waiting -= 1
        return call


Queue = dict[OpenCheck, None]
"""Checks in the order in which they came; any of them may leave."""


class SharedCall:
    """One call for some checks, with its attempts. `waiting` counts the checks whose callers still want to know."""

    __slots__ = ("attempts", "checks", "is_holding", "request_id", "shared", "task", "waiting")

    def __init__(self, checks: Sequence[OpenCheck], shared: Shared, attempts: int = 0) -> None:
        """Takes checks that agree in `shared`; `attempts` is how often they were asked already."""
        self.checks = checks
        self.shared = shared
        self.attempts = attempts
        self.request_id = new_request_id()
        self.waiting = len(checks)
        self.is_holding = True
        self.task: asyncio.Task[None] | None = None
        for one in checks:
            one.queue, one.call = None, self

    def still_waiting(self) -> list[OpenCheck]:
        """Returns the checks whose callers still want to know."""
        return [one for one in self.checks if one.call is self and not one.answer.done()]

    def detach(self) -> list[OpenCheck]:
        """Takes those who still wait out of the call, and returns them."""
        found = self.still_waiting()
        for one in found:
            one.call = None
        self.waiting -= len(found)
        return found


def take(queue: Queue, items_max: int) -> list[OpenCheck]:
    """Takes from the front of a queue what fits one batch: at least one check, unless all are over."""
    taken: list[OpenCheck] = []
    size = 0
    for one in queue:
        size += len(one.packed.access)
        if len(taken) == items_max or (taken and size > BYTES_MAX):
            break
        taken.append(one)
    for one in taken:
        del queue[one]
    return [one for one in taken if not one.answer.done()]


def left_seconds(checks: Sequence[OpenCheck]) -> float:
    """Returns the time of the check that may wait longest; the others give up by themselves."""
    return max(LEAST_SECONDS, max(one.deadline for one in checks) - time.monotonic())
