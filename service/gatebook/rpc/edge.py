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
import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any

import grpc.aio
import structlog
from google.rpc import status_pb2

from gatebook.audit.sight import Sight
from gatebook.door.caller import Caller, Credentials
from gatebook.door.door import Door, Finished
from gatebook.door.trace import HEADER
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
        return context if isinstance(context, Entered) else self._call(method, context, stream=stream)

    @contextlib.asynccontextmanager
    async def _call(self, method: str, context: ServicerContext, *, stream: bool) -> AsyncIterator[Call]:
        began = time.perf_counter()
        code = grpc.StatusCode.CANCELLED
        caller_id, kind = NOBODY, None
        told: dict[str, object] = {}
        trace = self._door.trace(header_of(context, HEADER))
        try:
            caller = await self.identify(context)
            caller_id, kind = caller.id, caller.kind
            self._door.permit(caller, method)
            call = Call(method, caller, trace.trace_id)
            told = call.told
            with self._door.admission.call(caller, method, stream=stream):
                require_time(context)
                yield call
            code = grpc.StatusCode.OK
        except GatebookError as error:
            code = status.code_of(error)
            told["reason"] = error.reason
            if error.cause:
                told["cause"] = error.cause
            await abort(context, code, status.to_status(error))
        except Exception:  # noqa: BLE001  # the one place: a bug becomes INTERNAL and never an answer
            code = grpc.StatusCode.INTERNAL
            error_id = secrets.token_hex(4)
            self._log.exception("bug", method=method, error_id=error_id)
            hidden = GatebookError("an internal error; the log names its cause", error_id=error_id)
            await abort(context, code, status.to_status(hidden))
        finally:
            self.finish(Finished(method, caller_id, code.name, time.perf_counter() - began, told, kind, trace))

    def permit_asking(self, call: Call, policy_set: str, request: AccessRequest) -> None:
        """Lets the caller of a call ask a policy set about the subject and actor of a request; see `Door`.

        Raises:
            PermissionDeniedError: it may not, whether or not they exist.
        """
        self._door.permit_asking(call.caller, policy_set, request.subject, request.actor)

    def finish(self, finished: Finished) -> None:
        """Tells the door that a call is over."""
        self._door.finish(finished)

    async def identify(self, context: ServicerContext) -> Caller:
        """Returns who calls.

        Raises:
            UnauthenticatedError: nobody that is known.
        """
        return await self._door.identify(credentials_of(context))

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


def require_valid(caller: Caller) -> None:
    """Requires credentials that still count, where a call may live longer than they do.

    Raises:
        UnauthenticatedError: they have run out.
    """
    if time.time() >= caller.valid_until:
        raise UnauthenticatedError("the credentials ran out while the call was under way")


def credentials_of(context: ServicerContext) -> Credentials:
    """Returns what gRPC saw of the caller."""
    seen = {key: next(iter(values), b"") for key, values in context.auth_context().items()}
    encrypted = seen.get("transport_security_type") == b"ssl"
    authorization = tuple(
        value if isinstance(value, str) else ""
        for key, value in context.invocation_metadata() or ()
        if key == "authorization"
    )
    return Credentials(encrypted, seen.get("x509_pem_cert", b""), authorization)


def require_time(context: ServicerContext) -> None:
    """Refuses a call whose deadline has passed."""
    remaining: float | None = context.time_remaining()  # None without a deadline, whatever the stubs say
    if remaining is not None and remaining <= 0:
        raise DeadlineExceededError("the deadline passed before the work began")


async def abort(context: ServicerContext, code: grpc.StatusCode, detail: status_pb2.Status) -> None:
    """Ends the call with a status and its details (`grpc-status-details-bin`)."""
    metadata = (("grpc-status-details-bin", detail.SerializeToString()),)
    await context.abort(code, detail.message, metadata)


def header_of(context: ServicerContext, name: str) -> str:
    """Returns a header of the call; nothing where there is none."""
    return next((str(value) for key, value in context.invocation_metadata() or () if key == name), "")
