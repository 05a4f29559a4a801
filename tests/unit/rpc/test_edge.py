"""The rim of a call: whatever ends it, it leaves with the right status, is told once, and is let go of."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
import structlog.testing

from gatebook.config import Config
from gatebook.door.authority import Authority
from gatebook.door.door import Door, Finished
from gatebook.errors import InvalidRequestError
from gatebook.rpc.edge import Edge, ServicerContext


class AbortedError(Exception):
    """What gRPC ends a call with."""


@dataclass
class Context:
    """A call as gRPC shows it."""

    headers: tuple[tuple[str, str | bytes], ...] = ()
    remaining: float | None = None
    transport: bytes = b"insecure"
    status: tuple[grpc.StatusCode, str] | None = None
    told: list[Finished] = field(default_factory=list)

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """The headers."""
        return self.headers

    def auth_context(self) -> dict[str, list[bytes]]:
        """What is known of the connection."""
        return {"transport_security_type": [self.transport]}

    def time_remaining(self) -> float | None:
        """Until the deadline."""
        return self.remaining

    async def abort(self, code: grpc.StatusCode, message: str, _metadata: object) -> None:
        """Ends the call."""
        self.status = (code, message)
        raise AbortedError


class Everything:
    """An authority that lets everybody call everything."""

    def may_call(self, _caller: object, _operation: str) -> bool:
        """Says yes."""
        return True


def edge_of(context: Context) -> tuple[Edge, Door]:
    """An edge whose door tells the context what is over."""
    door = Door(Config(policies=(), data=Path()).limits, cast("Authority", Everything()))
    door.observers.append(context.told.append)
    return Edge(door), door


async def run(context: Context, error: BaseException | None = None) -> tuple[Door, Any]:
    """Runs a call whose body raises an error, or nothing."""
    edge, door = edge_of(context)
    seen: Any = None
    try:
        async with edge.call("CheckAccess", cast("ServicerContext", context)) as call:
            seen = call
            assert 1 == door.admission.calls_in_flight
            if error is not None:
                raise error
    except (AbortedError, asyncio.CancelledError):
        pass
    return door, seen


def test_a_call_that_ends_well_is_told_once() -> None:
    """It has the caller, the trace of its header, and the code OK."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    context = Context((("user-agent", "x"), ("traceparent", trace), ("traceparent", "00-zz")))
    door, call = asyncio.run(run(context))

    assert bytes.fromhex("0af7651916cd43dd8448eb211c80319c") == call.trace_id
    assert [("CheckAccess", "local", "OK")] == [(one.operation, one.caller, one.code) for one in context.told]
    assert context.status is None
    assert 0 == door.admission.calls_in_flight


@pytest.mark.parametrize(
    ("context", "error", "code", "caller"),
    [
        (Context(), InvalidRequestError("items", "must not be empty"), grpc.StatusCode.INVALID_ARGUMENT, "local"),
        (Context(remaining=0.0), None, grpc.StatusCode.DEADLINE_EXCEEDED, "local"),
        (Context(transport=b"ssl"), None, grpc.StatusCode.UNAUTHENTICATED, "-"),
        (Context((("authorization", "Bearer x"),)), None, grpc.StatusCode.UNAUTHENTICATED, "-"),
    ],
    ids=["body", "deadline", "certificate", "token"],
)
def test_an_error_leaves_as_a_status(
    context: Context, error: BaseException | None, code: grpc.StatusCode, caller: str
) -> None:
    """Wherever it comes from, the door or the body, it is told once with its reason, and the call is let go of."""
    context.told.clear()
    door, _ = asyncio.run(run(context, error))

    assert context.status is not None
    assert code == context.status[0]
    assert [(caller, code.name)] == [(one.caller, one.code) for one in context.told]
    assert "reason" in context.told[0].told
    assert 0 == door.admission.calls_in_flight


def test_a_bug_is_told_to_the_log_alone() -> None:
    """The caller learns an id, and the log the error with its traceback under that id."""
    context = Context()
    with structlog.testing.capture_logs() as lines:
        door, _ = asyncio.run(run(context, KeyError("a secret")))

    assert context.status is not None
    assert grpc.StatusCode.INTERNAL == context.status[0]
    assert "secret" not in context.status[1]
    [line] = [line for line in lines if line["event"] == "bug"]
    assert line["exc_info"]
    assert ["INTERNAL"] == [one.code for one in context.told]
    assert 0 == door.admission.calls_in_flight


def test_a_call_that_is_cancelled_is_let_go_of() -> None:
    """It ends without a status, is told as cancelled, and is not in flight any more."""
    context = Context()
    door, _ = asyncio.run(run(context, asyncio.CancelledError()))

    assert context.status is None
    assert ["CANCELLED"] == [one.code for one in context.told]
    assert 0 == door.admission.calls_in_flight
