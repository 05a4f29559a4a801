"""What the health says, and that nobody can keep it from saying so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.serving import POLICIES

from gatebook.config import Config, Limits
from gatebook.door.caller import LOCAL
from gatebook.door.door import Door
from gatebook.rpc import health
from gatebook.rpc.listening import SERVICES, listening
from gatebook.server import open_door, publish_folders
from gatebook.service import Service, open_service

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
EVERY = ("", *SERVICES, health.LIVENESS)


@asynccontextmanager
async def server(
    data: Path, *policies: str, limits: Limits | None = None
) -> AsyncIterator[tuple[Service, Door, Any]]:  # the asyncio stub has a type for type checkers alone
    """Serves within this process; gives what is behind, the door, and who may be asked for the health."""
    limits = limits or Limits()
    folders = tuple(POLICIES / name for name in policies)
    config = Config(policies=folders, data=data, listen="127.0.0.1:0", limits=limits)
    async with open_service(config) as service:
        await publish_folders(service, config)
        door = open_door(service, config)
        async with (
            listening(service, door, config) as port,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            yield service, door, health_pb2_grpc.HealthStub(channel)


async def told(stub: Any) -> dict[str, int]:  # noqa: ANN401  # as above
    """Returns what is told of every service."""
    answers = [await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10) for name in EVERY]
    return {name: answer.status for name, answer in zip(EVERY, answers, strict=True)}


async def until(stub: Any, name: str, status: int) -> None:  # noqa: ANN401  # as above
    """Waits until a service is told to be such."""
    async for answer in stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=30):
        if answer.status == status:
            return
    raise AssertionError


async def test_all_is_well(tmp_path: Path) -> None:
    """With a policy set that is active every service is SERVING."""
    async with server(tmp_path, "basic") as (_, _, stub):
        assert await told(stub) == dict.fromkeys(EVERY, SERVING)


async def test_without_a_policy_set_only_checks_are_not_served(tmp_path: Path) -> None:
    """Where nothing is active no check can be answered, and policies can still be published."""
    async with server(tmp_path) as (_, _, stub):
        assert await told(stub) == {**dict.fromkeys(EVERY, SERVING), health.ACCESS: NOT_SERVING}


async def test_a_service_that_is_not_there(tmp_path: Path) -> None:
    """A name that is not served is NOT_FOUND, and SERVICE_UNKNOWN to who watches it (gRPC health checking)."""
    request = health_pb2.HealthCheckRequest(service="nobody")
    async with server(tmp_path) as (_, _, stub):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.Check(request)
        watched = await anext(aiter(stub.Watch(request)))

    assert error.value.code() is grpc.StatusCode.NOT_FOUND
    assert watched.status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


async def test_a_writer_that_is_stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a sync does not return the service is not served, then not alive, and serves again when it does."""
    monkeypatch.setattr(health, "STUCK_SECONDS_MAX", 0.2)
    async with server(tmp_path, "basic") as (service, _, stub):
        go_on = threading.Event()
        append = service.book.append_group

        def stuck(entries: Any) -> Any:  # noqa: ANN401  # passed on
            go_on.wait(60)
            return append(entries)

        monkeypatch.setattr(service.book, "append_group", stuck)
        waiting = service.writer.submit([b"entry"])
        await until(stub, "", NOT_SERVING)
        while_stuck = await told(stub)
        monkeypatch.setattr(health, "HOPELESS_SECONDS", 0.2)
        await until(stub, health.LIVENESS, NOT_SERVING)
        go_on.set()
        await waiting
        await until(stub, health.LIVENESS, SERVING)
        await until(stub, "", SERVING)

    assert while_stuck == {**dict.fromkeys(EVERY, NOT_SERVING), health.LIVENESS: SERVING}


async def test_a_server_that_stops_says_so_first(tmp_path: Path) -> None:
    """While calls under way are answered everything is NOT_SERVING, for who asks and for who watches."""
    config = Config(
        policies=(POLICIES / "basic",), data=tmp_path, listen="127.0.0.1:0", limits=Limits(drain_seconds=30)
    )
    async with open_service(config) as service:
        await publish_folders(service, config)
        door = open_door(service, config)
        serving = listening(service, door, config)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{await serving.__aenter__()}") as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            watch = stub.Watch(health_pb2.HealthCheckRequest())
            first = await watch.read()
            with door.admission.call(LOCAL, "CheckAccess"):
                ending = asyncio.create_task(serving.__aexit__(None, None, None))
                last = await watch.read()
                then = await told(stub)
            watch.cancel()
            await ending

    assert (first.status, last.status) == (SERVING, NOT_SERVING)
    assert then == dict.fromkeys(EVERY, NOT_SERVING)
