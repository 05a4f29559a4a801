"""The rim of every call: admission, deadline, error mapping, and its one log line.

Rules:

1. a call is admitted or refused before any work is done for it, within the limits of `Limits`;
2. a call whose deadline has passed gets no work;
3. every error leaves as a status with a reason; what is not a `GatebookError` is a bug of ours, is
   logged with its traceback under an id, and tells the caller nothing but that id;
4. one canonical line per call, without personal data and without ids chosen by callers.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc.aio
import structlog
from google.rpc import status_pb2

from gatebook.config import Limits
from gatebook.errors import DeadlineExceededError, DrainingError, GatebookError, OverloadedError
from gatebook.rpc import status

LOCAL_CALLER = "local"
QUIET_SECONDS = 0.2
TRACE_PARENT_PARTS = 4
TRACE_ID_HEX_CHARS = 32
ServicerContext = grpc.aio.ServicerContext[Any, Any]


class Call:
    """One call under way: who calls, and what its log line will say."""

    def __init__(self, method: str, caller: str, trace_id: bytes) -> None:
        """Takes the name of the method, the caller, and the W3C trace id (16 bytes or none)."""
        self.method = method
        self.caller = caller
        self.trace_id = trace_id
        self.told: dict[str, object] = {}

    def tell(self, **facts: object) -> None:
        """Adds facts to the call's log line."""
        self.told.update(facts)


class Edge:
    """Admits calls, maps their errors and logs them. Used on the event loop only."""

    def __init__(self, limits: Limits) -> None:
        """Takes the limits; `items_in_flight` and `calls_in_flight` are counted here."""
        self._limits = limits
        self._items_in_flight = 0
        self._calls_in_flight = 0
        self._streams_in_flight = 0
        self._last_call_time = 0.0
        self._log = structlog.get_logger("gatebook.rpc")
        self.draining = asyncio.Event()

    @contextlib.asynccontextmanager
    async def call(self, method: str, context: ServicerContext, *, stream: bool = False) -> AsyncIterator[Call]:
        """Runs one call; the errors of its body leave as statuses."""
        call = Call(method, LOCAL_CALLER, trace_id_of(context))
        began = time.perf_counter_ns()
        code = grpc.StatusCode.CANCELLED
        try:
            with self._admitted(stream=stream):
                require_time(context)
                yield call
            code = grpc.StatusCode.OK
        except GatebookError as error:
            code = status.code_of(error)
            call.tell(reason=error.reason)
            await abort(context, code, status.to_status(error))
        except Exception:  # noqa: BLE001  # the one place: a bug becomes INTERNAL and never an answer
            code = grpc.StatusCode.INTERNAL
            error_id = secrets.token_hex(4)
            self._log.exception("bug", method=method, error_id=error_id)
            hidden = GatebookError("an internal error; the log names its cause", error_id=error_id)
            await abort(context, code, status.to_status(hidden))
        finally:
            spent_us = (time.perf_counter_ns() - began) // 1_000
            self._log.info("call", method=method, caller=call.caller, code=code.name, duration_us=spent_us, **call.told)

    async def drain(self, seconds: float) -> None:
        """Refuses new calls, and waits until those under way are answered and no more come, or the time is over.

        What gRPC itself drops while it stops is cancelled without an answer, so it stops only when it is quiet.
        """
        self.draining.set()
        quiet_since = began = time.monotonic()
        while (now := time.monotonic()) - began < seconds and now - quiet_since < QUIET_SECONDS:
            if self._calls_in_flight or self._last_call_time > quiet_since:
                quiet_since = now
            await asyncio.sleep(QUIET_SECONDS / 10)

    @contextlib.contextmanager
    def items(self, count: int) -> Iterator[None]:
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

    @contextlib.contextmanager
    def _admitted(self, *, stream: bool) -> Iterator[None]:
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


def require_time(context: ServicerContext) -> None:
    """Refuses a call whose deadline has passed."""
    remaining: float | None = context.time_remaining()  # None without a deadline, whatever the stubs say
    if remaining is not None and remaining <= 0:
        raise DeadlineExceededError("the deadline passed before the work began")


async def abort(context: ServicerContext, code: grpc.StatusCode, detail: status_pb2.Status) -> None:
    """Ends the call with a status and its details (`grpc-status-details-bin`)."""
    metadata = (("grpc-status-details-bin", detail.SerializeToString()),)
    await context.abort(code, detail.message, metadata)


def trace_id_of(context: ServicerContext) -> bytes:
    """Returns the trace id of the `traceparent` header (W3C Trace Context), or nothing."""
    headers = {str(key): value for key, value in context.invocation_metadata() or ()}
    parts = str(headers.get("traceparent", "")).split("-")
    if len(parts) == TRACE_PARENT_PARTS and len(parts[1]) == TRACE_ID_HEX_CHARS:
        with contextlib.suppress(ValueError):
            return bytes.fromhex(parts[1])
    return b""
