"""The rim of every gRPC call: the door, the deadline, and errors as statuses.

Rules:

1. a call passes the door before any work is done for it: who calls, may they, is there room;
2. a call whose deadline has passed gets no work;
3. every error leaves as a status with a reason; what is not a `GatebookError` is a bug of ours, is
   logged with its traceback under an id, and tells the caller nothing but that id;
4. one canonical line per call, without personal data and without ids chosen by callers.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Any

import grpc.aio
import structlog
from google.rpc import status_pb2

from gatebook.audit.sight import Sight
from gatebook.door.caller import Caller, CallerKind, Credentials
from gatebook.door.door import Door, Finished
from gatebook.door.trace import HEADER, Trace
from gatebook.errors import DeadlineExceededError, GatebookError, UnauthenticatedError
from gatebook.revisions.publisher import Publisher
from gatebook.rpc import status
from gatebook.values import AccessRequest, Entity

NOBODY = "-"
"""Stands in the log line of a call whose caller was not recognised."""
ServicerContext = grpc.aio.ServicerContext[Any, Any]


class Call:
    """One call under way: who calls, and what its log line will say."""

    def __init__(self, method: str, caller: Caller, trace_id: bytes) -> None:
        """Takes the name of the method, the caller, and the W3C trace id (16 bytes or none)."""
        self.method = method
        self.caller = caller
        self.trace_id = trace_id
        self.until: float | None = None
        """When its deadline passes, by the monotonic clock; None means that it has none."""
        self.told: dict[str, object] = {}

    def tell(self, **facts: object) -> None:
        """Adds facts to the call's log line."""
        self.told.update(facts)


class Entered(AbstractAsyncContextManager[Call, None]):
    """Stands in for the gRPC context of a call that has passed the door already."""

    def __init__(self, call: Call) -> None:
        """Takes the call."""
        self.call = call

    async def __aenter__(self) -> Call:
        """Gives the call, again."""
        return self.call

    async def __aexit__(self, *_: object) -> None:
        """Leaves errors to the block that the call entered by."""


class Edge:
    """Brings gRPC calls through the door and maps their errors. Used on the event loop only."""

    def __init__(self, door: Door) -> None:
        """Takes the door, which all transports share."""
        self._door = door
        self._log = structlog.get_logger("gatebook.rpc")

    @property
    def draining(self) -> asyncio.Event:
        """Returns what is set once the server is stopping."""
        return self._door.admission.draining

    def call(
        self, method: str, context: ServicerContext | Entered, *, stream: bool = False
    ) -> AbstractAsyncContextManager[Call]:
        """Returns the block of one call; the errors of its body leave as statuses."""
        return context if isinstance(context, Entered) else Passing(self, self._door, method, context, stream)

    def permit_asking(self, call: Call, policy_set: str, request: AccessRequest) -> None:
        """Lets the caller of a call ask a policy set about the subject and actor of a request; see `Door`.

        Raises:
            PermissionDeniedError: it may not, whether or not they exist.
        """
        self._door.permit_asking(call.caller, policy_set, request.subject, request.actor)

    def finish(self, finished: Finished) -> None:
        """Tells the door that a call is over."""
        self._door.finish(finished)

    async def identify(self, context: ServicerContext, authorization: tuple[str, ...]) -> Caller:
        """Returns who calls, by the connection and the headers that authorise the call.

        Raises:
            UnauthenticatedError: nobody that is known.
        """
        return await self._door.identify(credentials_of(context, authorization))

    def tell_bug(self, method: str) -> GatebookError:
        """Logs the bug of ours that is being handled, and returns what the caller is told of it."""
        error_id = secrets.token_hex(4)
        self._log.exception("bug", method=method, error_id=error_id)
        return GatebookError("an internal error; the log names its cause", error_id=error_id)

    def may_ask(self, call: Call, policy_set: str, subject: Entity, actor: Entity | None) -> bool:
        """Tells whether the caller of a search may ask about a subject that it would find; see `Door`."""
        return self._door.may_ask(call.caller, policy_set, subject, actor)

    def permit_searching(self, call: Call, policy_set: str, subject_type: str) -> None:
        """Lets the caller of a call search subjects of a type; see `Door`.

        Raises:
            PermissionDeniedError: it may ask about none of them.
        """
        self._door.permit_searching(call.caller, policy_set, subject_type)

    def permit(self, call: Call) -> None:
        """Lets a call go on that has been under way for long.

        Raises:
            PermissionDeniedError: its caller may not call it any more.
        """
        self._door.permit(call.caller, call.method)

    def sight(self, call: Call) -> Sight:
        """Returns what the caller of a call sees of the book now."""
        return self._door.sight(call.caller)

    def permit_reading(self, call: Call, policy_set: str) -> None:
        """Lets the caller of a call read the revisions of a policy set.

        Raises:
            PermissionDeniedError: it may not, whether or not there is such a set.
        """
        self._door.permit_reading(call.caller, policy_set)

    def may_read(self, call: Call, policy_set: str) -> bool:
        """Tells whether the caller of a call may read the revisions of a policy set, or the directory's."""
        return self._door.may_read(call.caller, policy_set)

    def publisher(self, call: Call) -> Publisher:
        """Returns the caller of a call as one who publishes."""
        return self._door.publisher(call.caller)

    def items(self, call: Call, count: int, size_bytes: int = 0) -> AbstractContextManager[None]:
        """Returns the block of `count` checks of a call, which are in flight until it ends.

        The block raises:
            OverloadedError: too many checks, or bytes of them, are in flight, or the caller checks too often.

        Raises:
            UnauthenticatedError: the caller's credentials have run out.
        """
        require_valid(call.caller)
        return self._door.admission.items(call.caller, count, size_bytes)

    def request(self, call: Call, size_bytes: int) -> AbstractContextManager[None]:
        """Returns the block of a large request, which is counted as long as it is in hand.

        The block raises:
            OverloadedError: too many bytes are in flight.
        """
        return self._door.admission.request(call.caller, size_bytes)

    def answer(self, call: Call, size_bytes: int) -> AbstractContextManager[None]:
        """Returns the block of an answer, which is counted until its caller has taken it."""
        return self._door.admission.answer(call.caller, size_bytes)


class Passing(AbstractAsyncContextManager[Call, None]):
    """The block of one call, from the door on. A class, and no generator, since every call passes here."""

    __slots__ = (
        "_began",
        "_caller_id",
        "_context",
        "_door",
        "_edge",
        "_held",
        "_kind",
        "_method",
        "_stream",
        "_told",
        "_trace",
    )
    _began: float
    _trace: Trace
    _held: AbstractContextManager[None]

    def __init__(self, edge: Edge, door: Door, method: str, context: ServicerContext, stream: bool) -> None:  # noqa: FBT001  # built in one place
        """Takes the rim and the door, the name of the method and the call of gRPC."""
        self._edge = edge
        self._door = door
        self._method = method
        self._context = context
        self._stream = stream
        self._caller_id = NOBODY
        self._kind: CallerKind | None = None
        self._told: dict[str, object] = {}

    async def __aenter__(self) -> Call:
        """Lets the call in, or ends it."""
        self._began = time.perf_counter()
        context, door, method = self._context, self._door, self._method
        header, authorization = headers_of(context)
        self._trace = door.trace(header)
        try:
            caller = await self._edge.identify(context, authorization)
            self._caller_id, self._kind = caller.id, caller.kind
            door.permit(caller, method)
            call = Call(method, caller, self._trace.trace_id)
            self._told = call.told
            held = self._held = door.admission.call(caller, method, stream=self._stream)
            held.__enter__()
        except BaseException as error:
            await self._end(error)
            raise
        try:
            remaining = require_time(context)
            if remaining is not None:
                call.until = time.monotonic() + remaining
        except BaseException as error:
            held.__exit__(None, None, None)
            await self._end(error)
            raise
        return call

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lets go of the call, and ends it with a status where it failed."""
        self._held.__exit__(kind, error, trace)
        if error is None:
            self._finish(grpc.StatusCode.OK)
        else:
            await self._end(error)

    async def _end(self, error: BaseException) -> None:
        """Ends the call with the status of an error; where that is no error of ours it only is over."""
        code = grpc.StatusCode.CANCELLED
        try:
            if isinstance(error, GatebookError):
                code = status.code_of(error)
                self._told["reason"] = error.reason
                if error.cause:
                    self._told["cause"] = error.cause
                await abort(self._context, code, status.to_status(error))
            elif isinstance(error, Exception):  # the one place: a bug becomes INTERNAL and never an answer
                code = grpc.StatusCode.INTERNAL
                hidden = self._edge.tell_bug(self._method)
                await abort(self._context, code, status.to_status(hidden))
        finally:
            self._finish(code)

    def _finish(self, code: grpc.StatusCode) -> None:
        spent = time.perf_counter() - self._began
        told = Finished(self._method, self._caller_id, code.name, spent, self._told, self._kind, self._trace)
        self._edge.finish(told)


def require_valid(caller: Caller) -> None:
    """Requires credentials that still count, where a call may live longer than they do.

    Raises:
        UnauthenticatedError: they have run out.
    """
    if time.time() >= caller.valid_until:
        raise UnauthenticatedError("the credentials ran out while the call was under way")


def headers_of(context: ServicerContext) -> tuple[str, tuple[str, ...]]:
    """Returns the headers that are read of every call: that of its trace, and those that authorise it."""
    trace = ""
    authorization: tuple[str, ...] = ()
    for key, value in context.invocation_metadata() or ():
        if key == HEADER and not trace:
            trace = str(value)
        elif key == "authorization":
            authorization = (*authorization, value if isinstance(value, str) else "")
    return trace, authorization


def credentials_of(context: ServicerContext, authorization: tuple[str, ...]) -> Credentials:
    """Returns what gRPC saw of the caller."""
    seen = context.auth_context()
    encrypted = next(iter(seen.get("transport_security_type", ())), b"") == b"ssl"
    return Credentials(encrypted, next(iter(seen.get("x509_pem_cert", ())), b""), authorization)


def require_time(context: ServicerContext) -> float | None:
    """Refuses a call whose deadline has passed; returns how many seconds are left, if it has one."""
    remaining: float | None = context.time_remaining()  # None without a deadline, whatever the stubs say
    if remaining is not None and remaining <= 0:
        raise DeadlineExceededError("the deadline passed before the work began")
    return remaining


async def abort(context: ServicerContext, code: grpc.StatusCode, detail: status_pb2.Status) -> None:
    """Ends the call with a status and its details (`grpc-status-details-bin`)."""
    metadata = (("grpc-status-details-bin", detail.SerializeToString()),)
    await context.abort(code, detail.message, metadata)
