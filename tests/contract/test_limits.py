"""Limits of a server that is small enough to reach them: what is over is refused, and told when to come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2
from tests.serving import POLICIES

import gatebook_client
from gatebook.config import Config, Limits, Quota
from gatebook.door.door import Door
from gatebook.rpc.listening import listening
from gatebook.server import open_door, publish_folders
from gatebook.service import Service, open_service
from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub
from gatebook_client.retry import RetryPolicy


class SmallServer:
    """A server within this process, and stubs that ask it."""

    def __init__(self, door: Door, service: Service, port: int, channel: grpc.aio.Channel) -> None:
        """Takes its parts. The asyncio stubs have a type for type checkers alone."""
        self.port = port
        self.access: Any = AccessServiceStub(channel)
        self.audit: Any = AuditServiceStub(channel)
        self.calls: list[str] = []
        door.observers.append(lambda finished: self.calls.append(finished.code))
        self._admission = door.admission
        self._writer = service.writer

    async def is_idle(self) -> None:
        """Waits until nothing is under way and nothing is held for anybody.

        Raises:
            TimeoutError: something is left.
        """
        admission = self._admission
        held: tuple[int, ...] = ()
        for _ in range(1_500):
            held = (
                admission.calls_in_flight,
                admission.streams_in_flight,
                admission.items_in_flight,
                admission.bytes_in_flight,
                self._writer.waiting_entries,
            )
            if not any(held):
                return
            await asyncio.sleep(0.02)
        raise TimeoutError(held)


@asynccontextmanager
async def small_server(data: Path, limits: Limits) -> AsyncIterator[SmallServer]:
    """Serves the set `basic` within this process, with limits of its own."""
    config = Config(policies=(POLICIES / "basic",), data=data, listen="127.0.0.1:0", limits=limits)
    async with open_service(config) as service:
        await publish_folders(service, config)
        door = open_door(service, config)
        async with (
            listening(service, door, config) as port,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            yield SmallServer(door, service, port, channel)


async def told_code(call: Any) -> str:  # noqa: ANN401  # the type exists for type checkers alone
    """Returns the name of the code that ends a call."""
    code: grpc.StatusCode = await call.code()
    return code.name


def batch(count: int) -> pb.BatchCheckAccessRequest:
    """Builds a batch of questions that the set allows."""
    access = types_pb2.AccessRequest(
        subject=types_pb2.Subject(id="alice"),
        action=types_pb2.Action(name="read"),
        resource=types_pb2.Resource(id="report:weekly"),
    )
    return pb.BatchCheckAccessRequest(items=[pb.CheckItem(access=access)] * count)


QUESTION = pb.StreamCheckAccessRequest(items=batch(1).items)


def told(error: grpc.aio.AioRpcError) -> tuple[str, str, str, float]:
    """Returns code, reason, limit and the seconds to wait that an error tells."""
    metadata = {str(key): value for key, value in error.trailing_metadata() or ()}
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    return error.code().name, info.reason, info.metadata["limit"], retry.retry_delay.ToMilliseconds() / 1_000


async def test_checks_in_flight_are_bounded(tmp_path: Path) -> None:
    """More checks at once than the limit are refused with the time to wait, and fewer are still answered."""
    async with small_server(tmp_path, Limits(items_in_flight_max=10)) as server:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.access.BatchCheckAccess(batch(11))
        answered = await server.access.BatchCheckAccess(batch(8))

    assert told(refused.value) == ("RESOURCE_EXHAUSTED", "OVERLOADED", "items_in_flight", 0.1)
    assert len(answered.results) == 8


async def test_a_caller_that_calls_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    """A caller over its rate is refused with the name of the limit and the time until it may call again."""
    quota = Quota(checks_per_second=1.0)
    async with small_server(tmp_path, Limits(local_quota=quota)) as server:
        answered = await server.access.BatchCheckAccess(batch(45))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.access.BatchCheckAccess(batch(1))

    assert len(answered.results) == 45
    assert told(refused.value) == ("RESOURCE_EXHAUSTED", "OVERLOADED", "caller_checks_per_second", 10.0)


async def test_calls_in_flight_are_bounded(tmp_path: Path) -> None:
    """A call over the limit is refused with the time to wait, and taken once another has ended."""
    async with small_server(tmp_path, Limits(calls_in_flight_max=2)) as server:
        streams = [server.access.StreamCheckAccess() for _ in range(2)]
        for stream in streams:
            await stream.write(QUESTION)
            assert (await stream.read()).results
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.access.BatchCheckAccess(batch(1))
        await end(streams[0])
        answered = await server.access.BatchCheckAccess(batch(1))
        await end(streams[1])

    assert told(refused.value) == ("RESOURCE_EXHAUSTED", "OVERLOADED", "calls_in_flight", 0.1)
    assert len(answered.results) == 1


async def test_open_streams_are_bounded(tmp_path: Path) -> None:
    """A stream over the limit is refused while another is open, and taken once that is closed."""
    async with small_server(tmp_path, Limits(streams_max=1)) as server:
        first = server.access.StreamCheckAccess()
        await first.write(QUESTION)
        assert (await first.read()).results
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await anext(aiter(server.access.StreamCheckAccess(iter([QUESTION]))))
        await end(first)
        answered = [response async for response in server.access.StreamCheckAccess(iter([QUESTION]))]

    assert told(refused.value) == ("RESOURCE_EXHAUSTED", "OVERLOADED", "streams", 0.1)
    assert len(answered) == 1


async def end(stream: Any) -> None:  # noqa: ANN401  # the type exists for type checkers alone
    """Ends a stream in order."""
    await stream.done_writing()
    assert await stream.read() == grpc.aio.EOF


async def test_a_call_that_is_out_of_time_gets_no_work(tmp_path: Path) -> None:
    """A call whose deadline has passed is answered DEADLINE_EXCEEDED, and the server stays well."""
    async with small_server(tmp_path, Limits()) as server:
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await server.access.BatchCheckAccess(batch(1), timeout=0.000_001)
        answered = await server.access.BatchCheckAccess(batch(1), timeout=10)

    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert len(answered.results) == 1


async def test_a_message_over_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """GRPC itself refuses a message that is too large."""
    async with small_server(tmp_path, Limits(message_bytes_max=10_000)) as server:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.access.BatchCheckAccess(batch(1_000))

    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_batch_over_its_bytes_is_refused(tmp_path: Path) -> None:
    """A batch whose questions are together too large is refused before anything is decided."""
    async with small_server(tmp_path, Limits(batch_bytes_max=1_000)) as server:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.access.BatchCheckAccess(batch(100))

    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_retries_do_not_multiply(tmp_path: Path) -> None:
    """A hundred calls to a server that refuses most are a hundred attempts and what the retry budget adds, no more."""
    policy = RetryPolicy(first_wait_seconds=0.001, wait_seconds_max=0.002)
    async with small_server(tmp_path, Limits(local_quota=Quota(checks_per_second=0.001))) as server:
        target = f"127.0.0.1:{server.port}"
        async with gatebook_client.connect(target, coalesce=False, on_error="deny", retries=policy) as client:
            checks = [client.check("alice", "read", "report:weekly", timeout_seconds=30) for _ in range(100)]
            answers = await asyncio.gather(*checks)

    allowed = sum(answer.allowed for answer in answers)
    assert allowed == server.calls.count("OK") == 10
    assert len(server.calls) <= 100 + policy.budget_max + policy.budget_per_success * allowed
