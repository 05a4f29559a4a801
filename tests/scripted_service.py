"""A service that misbehaves by script, for faults that the real one cannot be made to commit.

The servicer is asynchronous and listens on a real port; each RPC takes its next step from the script,
and the last step stays. Every request is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import grpc
import grpc.aio
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from gatebook.v1 import access_service_pb2 as access_pb2
from gatebook.v1 import access_service_pb2_grpc as access_grpc
from gatebook.v1 import audit_service_pb2 as audit_pb2
from gatebook.v1 import audit_service_pb2_grpc as audit_grpc
from gatebook.v1 import types_pb2

Step = Callable[[Any, Any], Awaitable[Any]]


def item_error(code: int, reason: str) -> status_pb2.Status:
    """Returns the error of one item."""
    return rich_status({"reason": reason, "code_number": code})


def rich_status(stated: Mapping[str, Any]) -> status_pb2.Status:
    """Returns the status that a case describes."""
    details: list[Message] = []
    if "reason" in stated:
        domain = stated.get("domain", "gatebook")
        metadata = {"limit": stated["limit"]} if "limit" in stated else {}
        details.append(error_details_pb2.ErrorInfo(reason=stated["reason"], domain=domain, metadata=metadata))
    if "violation" in stated:
        violation = error_details_pb2.BadRequest.FieldViolation(field=stated["violation"], description="is wrong")
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if "retry_seconds" in stated:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(stated["retry_seconds"] * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    number = grpc.StatusCode[stated["code"]].value[0] if "code" in stated else stated["code_number"]
    status = status_pb2.Status(code=number, message="said the script")
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def fail(stated: Mapping[str, Any]) -> Step:
    """Returns a step that fails with the status a case describes."""

    async def step(_request: Message, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        raw = stated["details"].encode() if "details" in stated else rich_status(stated).SerializeToString()
        metadata = (("grpc-status-details-bin", raw),)
        await context.abort(grpc.StatusCode[stated["code"]], "said the script", metadata)

    return step


def reply(response: Message | None) -> Step:
    """Returns a step that answers; None answers with bytes that are no message."""

    async def step(_request: Message, _context: object) -> Message | None:
        return response

    return step


def decide(decision: types_pb2.Decision) -> Step:
    """Returns a step that answers a check with a decision."""
    return reply(access_pb2.CheckAccessResponse(decision=decision))


async def hang(_request: Message, _context: object) -> None:
    """Never answers."""
    await asyncio.Event().wait()


class ScriptedAccess(access_grpc.AccessServiceServicer):
    """Answers checks by script."""

    def __init__(self) -> None:
        """Starts with an empty script."""
        self.steps: list[Step] = []
        self.requests: list[Any] = []
        self.asked = asyncio.Event()
        self.at_end: Step | None = None

    async def _next(self, request: Message, context: object) -> Any:  # noqa: ANN401  # whatever the script says
        self.requests.append(request)
        self.asked.set()
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        return await step(request, context)

    async def CheckAccess(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802  # the name is gRPC's
        """Takes the next step."""
        return await self._next(request, context)

    async def BatchCheckAccess(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802  # the name is gRPC's
        """Takes the next step."""
        return await self._next(request, context)

    async def PlanAccess(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802  # the name is gRPC's
        """Takes the next step."""
        return await self._next(request, context)

    async def ExplainDecision(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802  # the name is gRPC's
        """Takes the next step."""
        return await self._next(request, context)

    async def SearchSubjects(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802  # the name is gRPC's
        """Takes the next step."""
        return await self._next(request, context)

    async def SearchResources(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802  # the name is gRPC's
        """Takes the next step."""
        return await self._next(request, context)

    async def SearchActions(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802  # the name is gRPC's
        """Takes the next step."""
        return await self._next(request, context)

    async def StreamCheckAccess(  # noqa: N802  # the name is gRPC's
        self,
        request_iterator: AsyncIterator[Any],
        context: Any,  # noqa: ANN401  # stubs know only one kind
    ) -> AsyncIterator[Any]:
        """Takes one step per message; a step that returns None ends the stream."""
        async for request in request_iterator:
            response = await self._next(request, context)
            if response is None:
                return
            yield response
        if self.at_end is not None:
            await self.at_end(None, context)


class ScriptedAudit(audit_grpc.AuditServiceServicer):
    """Lists entries by script; nothing else of the book is there."""

    def __init__(self) -> None:
        """Starts with an empty script."""
        self.pages: list[audit_pb2.ListEntriesResponse] = []
        self.requests: list[audit_pb2.ListEntriesRequest] = []

    async def ListEntries(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802  # the name is gRPC's
        """Returns the next page."""
        del context
        self.requests.append(request)
        return self.pages.pop(0)

    async def _missing(self, request: object, context: Any) -> Any:  # noqa: ANN401  # stubs know only one kind
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"no script for {type(request).__name__}")

    GetEntry = GetCheckpoint = GetInclusionProof = GetConsistencyProof = ListBooks = _missing
    EraseSubject = PruneEntries = _missing
    TailEntries: Any = _missing


@contextlib.asynccontextmanager
async def serving(access: ScriptedAccess, audit: ScriptedAudit | None = None) -> AsyncIterator[str]:
    """Serves the script on a port of its own; yields the target."""
    server = grpc.aio.server()
    access_grpc.add_AccessServiceServicer_to_server(access, server)
    audit_grpc.add_AuditServiceServicer_to_server(audit or ScriptedAudit(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
