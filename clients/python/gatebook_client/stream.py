"""Checks in a stream: asked as they come, answered as they are ready.

Owns both ends of `StreamCheckAccess`. At most `in_flight` checks are open at once: the next is taken
from the caller only when an answer came. Every check has its own deadline. A stream that breaks, or
ends with a check unanswered, raises; it is not tried again, and `on_error` does not apply to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Iterator

import grpc
import grpc.aio

from gatebook.v1 import access_service_pb2 as access_pb2
from gatebook.v1 import access_service_pb2_grpc as access_grpc
from gatebook_client.asking import Asking
from gatebook_client.attempts import Line
from gatebook_client.credentials import Metadata, metadata_of, metadata_of_blocking
from gatebook_client.decision import Decision
from gatebook_client.errors import ConnectionClosedError, DeadlineError
from gatebook_client.outstanding import Outstanding
from gatebook_client.question import Check

IN_FLIGHT = 256
ITEMS_MAX = 64
"""The most checks that one message of a stream carries."""
UNSENT = "Internal error from Core"
"""What grpc.aio says where a message could not be sent."""
REFUSAL_SECONDS = 1.0

Answered = tuple[Check, Decision]
CheckCall = grpc.aio.StreamStreamCall[access_pb2.StreamCheckAccessRequest, access_pb2.StreamCheckAccessResponse]


def _overdue() -> DeadlineError:
    return DeadlineError("a check of the stream had no answer in time", reason="DEADLINE_EXCEEDED")


async def stream(
    line: Line,
    stub: access_grpc.AccessServiceAsyncStub,
    asking: Asking,
    checks: Iterable[Check] | AsyncIterable[Check],
    *,
    in_flight: int,
    timeout_seconds: float,
) -> AsyncGenerator[Answered, None]:
    """Yields each check with its decision, in the order of the answers."""
    outstanding = Outstanding(asking, timeout_seconds)
    slots = asyncio.Semaphore(in_flight)
    metadata = await metadata_of(line.terms.token, time.monotonic() + timeout_seconds)
    try:
        call = stub.StreamCheckAccess(metadata=metadata)
    except grpc.aio.UsageError as failure:
        raise ConnectionClosedError from failure
    writing = asyncio.create_task(_write(call, checks, slots, outstanding))
    try:
        while (response := await _read(call, writing, outstanding, timeout_seconds)) is not None:
            for answered in outstanding.settle(response):
                slots.release()
                yield answered
        outstanding.require_settled()
    except grpc.aio.AioRpcError as failure:
        raise line.read_error(await _ended(stub, metadata, failure)) from failure
    except asyncio.CancelledError:
        line.raise_if_closed()
        raise
    finally:
        writing.cancel()
        call.cancel()
        await asyncio.gather(writing, return_exceptions=True)


async def _ended(
    stub: access_grpc.AccessServiceAsyncStub, metadata: Metadata | None, failure: grpc.aio.AioRpcError
) -> grpc.aio.AioRpcError:
    """Returns why a call ended, also where grpc only says that a message could not be sent.

    A message that meets the end of its call makes grpc.aio forget the status of the service. So the service is
    called once more, without a check, and says at its door why it takes none.
    """
    if failure.code() is not grpc.StatusCode.INTERNAL or failure.details() != UNSENT:
        return failure
    again = stub.StreamCheckAccess(metadata=metadata)
    try:
        await asyncio.wait_for(again.read(), REFUSAL_SECONDS)
    except grpc.aio.AioRpcError as refusal:
        return refusal
    except TimeoutError:
        pass
    finally:
        again.cancel()
    return failure


async def _write(
    call: CheckCall,
    checks: Iterable[Check] | AsyncIterable[Check],
    slots: asyncio.Semaphore,
    outstanding: Outstanding,
) -> None:
    """Sends the checks, several in a message where several may be open."""
    groups = _one_by_one(checks, slots) if isinstance(checks, AsyncIterable) else _grouped(iter(checks), slots)
    # A call that has ended takes no more messages; the reading end says why it ended.
    with contextlib.suppress(asyncio.InvalidStateError):
        async for group in groups:
            await call.write(outstanding.add(group))
        outstanding.finish()
        await call.done_writing()


async def _one_by_one(checks: AsyncIterable[Check], slots: asyncio.Semaphore) -> AsyncIterator[list[Check]]:
    async for check in checks:
        await slots.acquire()
        yield [check]


async def _grouped(checks: Iterator[Check], slots: asyncio.Semaphore) -> AsyncIterator[list[Check]]:
    while await slots.acquire():
        group = list(itertools.islice(checks, 1))
        while group and len(group) < ITEMS_MAX and not slots.locked():
            following = next(checks, None)
            if following is None:
                break
            await slots.acquire()
            group.append(following)
        if not group:
            return
        yield group


async def _read(
    call: CheckCall, writing: asyncio.Task[None], outstanding: Outstanding, timeout_seconds: float
) -> access_pb2.StreamCheckAccessResponse | None:
    """Returns the next message, or None at the end; an overdue check or a failed write raises.

    When every check is answered the service ends the stream; one that does not is left after a while.
    """
    reading = asyncio.ensure_future(call.read())
    try:
        while not reading.done():
            watched = {reading} if writing.done() else {reading, writing}
            left = min(timeout_seconds, outstanding.left_seconds())
            done, _ = await asyncio.wait(watched, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                break
            if not done and outstanding.is_settled:
                return None
            if writing.done():
                writing.result()
            if outstanding.is_overdue():
                raise _overdue()
        response = reading.result()
        return response if isinstance(response, access_pb2.StreamCheckAccessResponse) else None
    finally:
        reading.cancel()


def stream_blocking(
    line: Line,
    stub: access_grpc.AccessServiceStub,
    asking: Asking,
    checks: Iterable[Check],
    *,
    in_flight: int,
    timeout_seconds: float,
) -> Generator[Answered, None, None]:
    """Yields each check with its decision, in the order of the answers."""
    sending = _Sending(checks, Outstanding(asking, timeout_seconds), in_flight)
    metadata = metadata_of_blocking(line.terms.token)
    try:
        call = stub.StreamCheckAccess(sending.requests(), metadata=metadata)
    except ValueError as failure:
        if line.is_open:
            raise
        raise ConnectionClosedError from failure
    watch = threading.Thread(target=sending.watch, args=(call,), name="gatebook-stream-watch", daemon=True)
    watch.start()
    try:
        for response in call:
            for answered in sending.outstanding.settle(response):
                sending.slots.release()
                yield answered
        if sending.failure is not None:
            raise sending.failure
        sending.outstanding.require_settled()
    except grpc.RpcError as failure:
        if sending.outstanding.is_settled:
            return
        if sending.failure is not None:
            raise sending.failure from failure
        raise line.read_error(failure) from failure
    finally:
        sending.stop()
        call.cancel()
        watch.join()


class _Sending:
    """The sending end of a blocking stream: gRPC's own thread takes requests, a watch keeps the time."""

    def __init__(self, checks: Iterable[Check], outstanding: Outstanding, in_flight: int) -> None:
        self.outstanding = outstanding
        self.slots = threading.Semaphore(in_flight)
        self.failure: Exception | None = None
        self._checks = iter(checks)
        self._stopped = threading.Event()

    def requests(self) -> Iterator[access_pb2.StreamCheckAccessRequest]:
        """Yields the messages. An error of the caller's iterable ends the stream and is kept."""
        try:
            while self.slots.acquire() and not self._stopped.is_set():
                group = list(itertools.islice(self._checks, 1))
                while group and len(group) < ITEMS_MAX and self.slots.acquire(blocking=False):
                    following = next(self._checks, None)
                    if following is None:
                        break
                    group.append(following)
                if not group:
                    self.outstanding.finish()
                    return
                yield self.outstanding.add(group)
        except Exception as err:  # noqa: BLE001  # it belongs to the caller's thread, which raises it
            self.failure = err

    def watch(self, call: grpc.Call) -> None:
        """Cancels the call when a check is overdue."""
        while not self._stopped.wait(max(0.001, self.outstanding.left_seconds())):
            if self.outstanding.is_overdue():
                self.failure = _overdue()
            if self.failure is not None or self.outstanding.is_settled:
                call.cancel()
                return

    def stop(self) -> None:
        """Ends the sending and the watch."""
        self._stopped.set()
        self.slots.release()
