"""A server that may open few files: connections take none from the book, and a shortage passes."""

from __future__ import annotations

import resource
import socket
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.contract.conftest import require_verified
from tests.serving import POLICIES, RunningServer, serving

from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import audit_service_pb2, types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub

BASIC = POLICIES / "basic"
FILES_MAX = 192
PUBLICATIONS = 3
PUBLISH_SECONDS = 1.1
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
QUESTION = pb.CheckAccessRequest(
    access=types_pb2.AccessRequest(
        subject=types_pb2.Subject(id="alice"),
        action=types_pb2.Action(name="read"),
        resource=types_pb2.Resource(id="report:weekly"),
    )
)


class Caller:
    """Asks one server over one connection, which is open from the start."""

    def __init__(self, channel: grpc.Channel) -> None:
        """Connects."""
        self.receipts: list[types_pb2.Receipt] = []
        self._access: Any = AccessServiceStub(channel)
        self._audit: Any = AuditServiceStub(channel)
        self._health: Any = health_pb2_grpc.HealthStub(channel)
        self.ask()

    def ask(self) -> None:
        """Asks, and keeps the receipt."""
        self.receipts.append(self._access.CheckAccess(QUESTION, timeout=10).decision.receipt)

    def wait_for(self, status: int) -> None:
        """Waits until the health of the server is such."""
        for told in self._health.Watch(health_pb2.HealthCheckRequest(), timeout=30):
            if told.status == status:
                return

    def require_receipts(self) -> None:
        """Asserts that the book holds each entry of which there is a receipt."""
        for receipt in self.receipts:
            request = audit_service_pb2.GetEntryRequest(index=receipt.index)
            assert receipt.leaf_hash == self._audit.GetEntry(request, timeout=10).record.leaf_hash


def test_idle_connections_beyond_the_limit(tmp_path: Path) -> None:
    """More idle connections than the process may have files stop nothing: those over a limit are closed."""
    server = RunningServer(tmp_path / "data", "--policies", str(BASIC), files_max=FILES_MAX)
    host, _, port = server.target.rpartition(":")
    with server.channel() as channel:
        caller = Caller(channel)
        idle = [socket.create_connection((host, int(port)), timeout=10) for _ in range(FILES_MAX + 50)]
        asked_at = len(server.lines)
        for _ in range(PUBLICATIONS):
            caller.ask()
            caller.require_receipts()
            threading.Event().wait(PUBLISH_SECONDS)
        open_files = sum(1 for _ in Path(f"/proc/{server.process.pid}/fd").iterdir())
        for connection in idle:
            connection.close()
        caller.ask()
        caller.require_receipts()

    assert open_files < FILES_MAX
    assert "not serving" not in {line["event"] for line in list(server.lines)[asked_at:]}
    assert server.stop() == 0
    require_verified(server.data)


@pytest.mark.parametrize(
    ("process", "told"), [("service", "unable to open database file"), ("clerk", "Too many open files")]
)
def test_no_file_can_be_opened_for_a_while(tmp_path: Path, process: str, told: str) -> None:
    """While the process, or its clerk, can open no file the service says so and writes nothing; then it goes on."""
    with serving(tmp_path / "data", [BASIC]) as server, server.channel() as channel:
        caller = Caller(channel)
        pid = server.process.pid if process == "service" else server.children()[0]
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        assert soft == hard
        caller.wait_for(SERVING)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
        caller.ask()
        caller.wait_for(NOT_SERVING)
        with pytest.raises(grpc.RpcError) as caught:
            caller.ask()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        caller.wait_for(SERVING)
        caller.ask()
        caller.require_receipts()

        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert told in str(caught.value.details())
    events = [line["event"] for line in server.lines if line["event"] in {"not serving", "serving again"}]
    assert ["not serving", "serving again"] == events
    require_verified(server.data)
