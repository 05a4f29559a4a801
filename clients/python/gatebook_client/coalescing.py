"""Many `check()` calls at once become few calls on the wire.

Owns the checks of one asyncio connection that have no answer yet. A check that comes alone goes out at once as
`CheckAccess`; those that come while others are under way go out together as `BatchCheckAccess`. Rules:

1. only checks that state the same for the whole batch (`Shared`) travel together;
2. checks are gathered for one turn of the event loop, and no longer unless `HOLDING_MAX` calls are under way;
3. a check keeps its own deadline and its own cancellation; a call ends when nobody waits for it any more;
4. an answer that is not one result for each item, in order and under its id, is an error for all of its checks;
5. an error of one item is that check's alone, and a batch that is refused or fails for what one of its items may
   have caused is asked again in smaller ones, down to single checks: nobody gets another's error;
6. a failed call is tried again for the price of one retry, with those of its checks that still wait;
7. at most `CHECKS_MAX` checks are open; one more is refused here.

Everything runs on the event loop of the connection, without locks.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import time
from collections.abc import Callable, Sequence

import grpc
import grpc.aio

from gatebook.v1 import access_service_pb2 as access_pb2
from gatebook.v1 import types_pb2
from gatebook_client.asking import Asking, read_outcomes, receipt_level
from gatebook_client.attempts import AsyncMethod, Line
from gatebook_client.credentials import Metadata, metadata_of
from gatebook_client.decision import Decision, read_decision
from gatebook_client.errors import (
    ConnectionClosedError,
    CredentialsError,
    GatebookClientError,
    MalformedAnswerError,
    OverloadedError,
    RejectedError,
    ServiceFaultError,
)
from gatebook_client.open_checks import OpenCheck, Queue, Shared, SharedCall, left_seconds, take
from gatebook_client.packing import batch_request, one_request, pack, pack_enforcer
from gatebook_client.question import Check, ReceiptName
from gatebook_client.retry import wait_seconds

HOLDING_MAX = 2
"""The calls under way that make further checks wait for company: one is decided while another is on its way."""
HOLDING_SECONDS = 0.25
"""A call that takes longer keeps nobody waiting any more."""
CALLS_MAX = 16
"""The calls under way of one connection, slow ones included."""
CHECKS_MAX = 10_000
"""The checks of one connection that have no answer yet."""
REVISION_BITS_MAX = 63

_TOO_LARGE = frozenset({"LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"})
_OF_ALL = frozenset(
    {"UNAUTHENTICATED", "POLICY_SET_REQUIRED", "POLICY_SET_NOT_FOUND", "NO_ACTIVE_REVISION", "REVISION_NOT_ACTIVE"}
)
"""Reasons that concern every check of a batch alike."""
_OF_SIZE = ("items_in_flight", "bytes_in_flight")
"""How the limits end that a batch may be over by itself, for good."""

ReadError = Callable[[], GatebookClientError]
"""Reads an error; each caller gets an exception of its own."""


class Coalescing:
    """The open checks of one connection."""

    def __init__(
        self,
        line: Line,
        asking: Asking,
        check_access: AsyncMethod[bytes, access_pb2.CheckAccessResponse | None],
        batch_check_access: AsyncMethod[bytes, access_pb2.BatchCheckAccessResponse | None],
    ) -> None:
        """Takes the connection's state, how it asks, and two methods that take requests as bytes."""
        self._line = line
        self._asking = asking
        self._check_access = check_access
        self._batch_check_access = batch_check_access
        self._enforcer = pack_enforcer(asking.declared)
        self._open: set[OpenCheck] = set()
        self._queues: dict[Shared, Queue] = {}
        self._calls: set[SharedCall] = set()
        self._holding = 0
        self._is_scheduled = False
        self._ids = itertools.count()

    async def ask(
        self, check: Check, *, at_least: int, receipt: ReceiptName, timeout_seconds: float | None
    ) -> Decision:
        """Asks one check, in whatever company.

        Raises:
            GatebookClientError: there is no decision, so the answer is no.
            ValueError: an argument cannot be sent as it is.
        """
        deadline = self._line.deadline(timeout_seconds)
        packed = pack(check, self._enforcer)
        receipt_level(receipt)
        if type(at_least) is not int or at_least.bit_length() > REVISION_BITS_MAX:
            raise ValueError(f"at_least: `{at_least}` is not the number of a revision")
        asked = self._asking.asked(check, receipt)
        if not self._line.is_open:
            raise ConnectionClosedError
        if len(self._open) >= CHECKS_MAX:
            raise OverloadedError(
                f"{CHECKS_MAX} checks of this connection wait for an answer: ask fewer at once",
                reason="CLIENT_OVERLOADED",
            )
        loop = asyncio.get_running_loop()
        one = OpenCheck(packed, Shared(at_least, receipt), deadline, loop.create_future())
        timer = loop.call_later(deadline - time.monotonic(), one.expire)
        self._open.add(one)
        self._enqueue(one)
        try:
            return read_decision(await one.answer, asked)
        finally:
            timer.cancel()
            self._open.discard(one)
            one.leave()

    def close(self) -> None:
        """Ends every open check with `ConnectionClosedError`."""
        self._queues.clear()
        for one in self._open:
            one.fail(ConnectionClosedError())
        for call in self._calls:
            if call.task is not None:
                call.task.cancel()

    def _enqueue(self, one: OpenCheck) -> None:
        """Lets a check wait to be sent."""
        one.call = None
        one.queue = self._queues.setdefault(one.shared, {})
        one.queue[one] = None
        self._schedule()

    def _schedule(self) -> None:
        """Sends what waits when this turn of the event loop is over: until then others may join."""
        if self._queues and not self._is_scheduled and self._has_room():
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._send)

    def _has_room(self) -> bool:
        return self._holding < HOLDING_MAX and len(self._calls) < CALLS_MAX

    def _send(self) -> None:
        """Begins calls for what waits, as long as there is room."""
        self._is_scheduled = False
        while self._queues and self._has_room():
            shared, queue = next(iter(self._queues.items()))
            checks = take(queue, shared.items_max)
            del self._queues[shared]
            if queue:
                self._queues[shared] = queue  # its turn comes after those that state something else
            if checks:
                self._begin(SharedCall(checks, shared))

    def _begin(self, call: SharedCall, wait: float = 0.0) -> None:
        """Begins a call, after a wait where it is another attempt."""
        self._holding += 1
        self._calls.add(call)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(HOLDING_SECONDS, self._release, call)
        call.task = loop.create_task(self._run(call, wait))

        def end(task: asyncio.Task[None]) -> None:
            timer.cancel()
            self._calls.discard(call)
            self._release(call)
            # A bug of ours is raised to those who wait for the call, since nobody waits for its task.
            bug = None if task.cancelled() else task.exception()
            for one in call.still_waiting():
                one.fail(bug or ConnectionClosedError())

        call.task.add_done_callback(end)

    def _release(self, call: SharedCall) -> None:
        """Keeps nobody waiting for a call any more."""
        self._holding -= call.is_holding
        call.is_holding = False
        self._schedule()

    async def _run(self, call: SharedCall, wait: float | None) -> None:
        """Makes the attempts of a call, until each of its checks has what is its own."""
        while wait is not None:
            if wait:
                self._release(call)
                await asyncio.sleep(wait)
            call.checks = call.still_waiting()
            if not call.checks:
                return
            call.attempts += 1
            read_error = await self._attempt(call)
            if read_error is None:
                return
            wait = self._take_failure(call, read_error)

    async def _attempt(self, call: SharedCall) -> ReadError | None:
        """Makes one attempt; returns None, or how to read the error when it failed as a whole."""
        try:
            if len(call.checks) == 1:
                await self._ask_one(call)
            else:
                await self._ask_batch(call)
        except grpc.RpcError as failure:
            return functools.partial(self._line.read_error, failure)
        except grpc.aio.UsageError:
            return ConnectionClosedError
        except (MalformedAnswerError, CredentialsError) as failure:
            return functools.partial(type(failure), failure.message)
        self._line.budget.earn()
        return None

    async def _metadata(self, call: SharedCall) -> Metadata | None:
        return await metadata_of(self._line.terms.token, time.monotonic() + left_seconds(call.checks))

    async def _ask_one(self, call: SharedCall) -> None:
        (one,) = call.checks
        request = one_request(self._head(call, access_pb2.CheckAccessRequest), one.packed)
        metadata = await self._metadata(call)
        response = await self._check_access(request, timeout=left_seconds(call.checks), metadata=metadata)
        # grpc.aio gives None for bytes that do not parse.
        if response is None or not response.HasField("decision"):
            raise MalformedAnswerError("the answer holds no decision")
        one.give(response.decision)

    async def _ask_batch(self, call: SharedCall) -> None:
        ids = [str(next(self._ids)) for _ in call.checks]
        head = self._head(call, access_pb2.BatchCheckAccessRequest)
        request = batch_request(head, [one.packed for one in call.checks], ids)
        metadata = await self._metadata(call)
        response = await self._batch_check_access(request, timeout=left_seconds(call.checks), metadata=metadata)
        outcomes = read_outcomes(response, ids)
        for one, outcome in zip(call.checks, outcomes, strict=True):
            if isinstance(outcome, types_pb2.Decision):
                one.give(outcome)
            elif one.call is call:
                self._take_item_error(call, one, outcome)

    def _head(
        self, call: SharedCall, message: type[access_pb2.CheckAccessRequest | access_pb2.BatchCheckAccessRequest]
    ) -> bytes:
        """Returns the fields of a request that are not about one check."""
        return message(
            request_id=call.request_id,
            policy_set=self._asking.policy_set,
            at_least=call.shared.at_least,
            receipt_level=receipt_level(call.shared.receipt),
        ).SerializeToString()

    def _take_item_error(self, call: SharedCall, one: OpenCheck, error: GatebookClientError) -> None:
        """Gives a check the error of its item, or another attempt of its own where that may help."""
        left = one.deadline - time.monotonic()
        terms = self._line.terms.retries
        wait = wait_seconds(terms, self._line.budget, error, attempt=call.attempts, left_seconds=left)
        if wait is None:
            one.fail(error)
        else:
            call.waiting -= 1  # INVARIANT: `waiting` counts the checks whose `call` this is
            self._begin(SharedCall([one], call.shared, call.attempts), wait)

    def _take_failure(self, call: SharedCall, read_error: ReadError) -> float | None:
        """Decides what becomes of a call that failed as a whole: returns how long to wait before the next attempt."""
        error = read_error()
        count = len(call.checks)
        checks = call.still_waiting()
        if count > 1 and isinstance(error, RejectedError | ServiceFaultError) and error.reason not in _OF_ALL:
            self._ask_in_parts(checks, count // 2 if error.reason in _TOO_LARGE else 1)
            return None
        left = left_seconds(checks) if checks else 0.0
        terms = self._line.terms.retries
        wait = wait_seconds(terms, self._line.budget, error, attempt=call.attempts, left_seconds=left)
        now = time.monotonic()
        for one in checks:
            if wait is None or wait >= one.deadline - now:
                one.fail(read_error())
        if wait is not None and count > 1 and error.metadata.get("limit", "").endswith(_OF_SIZE):
            asyncio.get_running_loop().call_later(wait, self._ask_in_parts, call.detach(), count // 2)
            return None
        return wait

    def _ask_in_parts(self, checks: Sequence[OpenCheck], items_max: int) -> None:
        """Lets checks of a batch wait to be sent again, in smaller ones."""
        for one in checks:
            if not one.answer.done():
                one.shared = one.shared._replace(items_max=items_max)
                self._enqueue(one)
