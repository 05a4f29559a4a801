"""A server whose clerk is killed goes on, and a server that is killed takes its clerk with it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.contract.conftest import require_verified
from tests.serving import POLICIES, RunningServer, serving

import gatebook_client
from gatebook.v1.audit_service_pb2 import GetEntryRequest, ListEntriesRequest
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub
from gatebook_client import BlockingConnection, Check, Resource, Subject

SECONDS = 30.0
KILLS = 5
WHO = Check(Subject("alice"), "read", Resource("report:weekly"))


def wait_until(true: Callable[[], object]) -> None:
    """Waits until something is true, and fails if it does not become so."""
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end, "it did not become true"
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Tells whether a process has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] == "Z"


def ask(client: BlockingConnection, count: int) -> list[int]:
    """Asks so many questions, each of which must be allowed, and returns where they stand."""
    decisions = client.check_many([WHO] * count)
    assert all(decision.allowed for decision in decisions)
    return [decision.receipt.index for decision in decisions if decision.receipt is not None]


def test_a_clerk_that_is_killed_stops_no_answer(tmp_path: Path) -> None:
    """Killed again and again under load: every check is answered, every entry is found and proved in the end."""
    data = tmp_path / "data"
    with serving(data, [POLICIES / "basic"]) as server, server.channel() as channel:
        audit = AuditServiceStub(channel)
        found: list[int] = []
        with gatebook_client.connect_blocking(server.target) as client:
            for _ in range(KILLS):
                wait_until(server.children)
                os.kill(server.children()[0], signal.SIGKILL)
                found += ask(client, 100)
                assert found[-1] == audit.GetEntry(GetEntryRequest(index=found[-1]), timeout=SECONDS).record.index
        listed = audit.ListEntries(ListEntriesRequest(page_size=1_000), timeout=SECONDS).entries
        assert set(found) < {record.index for record in listed}
        assert KILLS <= sum(line["event"] == "clerk ended" for line in server.lines)
        [clerk] = server.children()
        assert 0 == server.stop()
    wait_until(lambda: is_gone(clerk))
    require_verified(data)


@pytest.mark.parametrize("stopped", [False, True], ids=["working", "stopped"])
def test_a_server_that_is_killed_leaves_no_clerk(tmp_path: Path, stopped: bool) -> None:
    """After kill -9 the clerk ends by itself, and the next server waits for it where it does so late."""
    data = tmp_path / "data"
    server = RunningServer(data, "--policies", str(POLICIES / "basic"))
    with gatebook_client.connect_blocking(server.target) as client:
        found = ask(client, 100)
        [clerk] = server.children()
        if stopped:
            os.kill(clerk, signal.SIGSTOP)
        server.process.kill()
        server.process.wait(SECONDS)
    if stopped:
        os.kill(clerk, signal.SIGCONT)
    with serving(data, [POLICIES / "basic"]) as again, again.channel() as channel:
        assert [clerk] != again.children()
        audit = AuditServiceStub(channel)
        assert found[-1] == audit.GetEntry(GetEntryRequest(index=found[-1]), timeout=SECONDS).record.index
    wait_until(lambda: is_gone(clerk))
    require_verified(data)


def test_a_server_with_a_stopped_clerk_still_ends(tmp_path: Path) -> None:
    """SIGSTOP holds up no decision; told to end, the server kills that clerk, and another publishes what is left."""
    data = tmp_path / "data"
    with serving(data, [POLICIES / "basic"]) as server:
        with gatebook_client.connect_blocking(server.target) as client:
            ask(client, 100)
            [clerk] = server.children()
            os.kill(clerk, signal.SIGSTOP)
            found = ask(client, 100)
        assert 0 == server.stop()
        [ended] = [line for line in server.lines if line["event"] == "clerk ended"]
        assert "nothing was heard" in ended["code"]
    assert is_gone(clerk)
    require_verified(data)
    size = int((data / "book" / "checkpoint").read_text("utf-8").splitlines()[1])
    assert size > max(found)
