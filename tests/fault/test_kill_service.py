"""kill -9 in a loop under concurrent load, of the server, its clerk, a worker of several: every receipt stays true.

Receipts are asked for with signatures, and held against a copy of the book by the command and by RFC 6962 as written.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.acknowledged import Acknowledged
from tests.serving import POLICIES, RunningServer, serving

from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub

BASIC = POLICIES / "basic"
CALLERS = 6
SECONDS = 60.0
GONE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
"""What a caller may be told while processes are killed. Nothing else: not INTERNAL, and no answer without a receipt."""


class Load:
    """Callers that ask about ever new resources until they are told to end, each over a connection of its own."""

    def __init__(self, target: str, acknowledged: Acknowledged) -> None:
        """Takes whom to ask, and where receipts go."""
        self.codes: set[grpc.StatusCode] = set()
        self.answers = 0
        self._target = target
        self._acknowledged = acknowledged
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 50)]
        with grpc.insecure_channel(self._target, options=options) as channel:
            stub: Any = AccessServiceStub(channel)
            for asked in itertools.count():
                if self._over.is_set():
                    return
                items = [pb.CheckItem(access=access(f"report:{number}-{asked}"))] * (1 + number % 3)
                batch = pb.BatchCheckAccessRequest(items=items, receipt_level=types_pb2.RECEIPT_LEVEL_FULL)
                try:
                    results = stub.BatchCheckAccess(batch, timeout=SECONDS).results
                except grpc.RpcError as error:
                    self.codes.add(error.code())
                    self._over.wait(0.02)
                    continue
                for result in results:
                    assert result.decision.receipt.signature
                    self._acknowledged.add(result.decision.receipt)
                self.answers += 1

    def require_answers(self, count: int) -> None:
        """Waits until there are so many more answers."""
        wanted = self.answers + count
        eventually(lambda: self.answers >= wanted)

    def stop(self) -> None:
        """Waits until every caller has ended."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        assert self.codes <= GONE


def access(resource: str) -> types_pb2.AccessRequest:
    """Builds a question for the set `basic`."""
    return types_pb2.AccessRequest(
        subject=types_pb2.Subject(id="alice"),
        action=types_pb2.Action(name="read"),
        resource=types_pb2.Resource(id=resource),
    )


def eventually(true: Callable[[], object]) -> None:
    """Waits until something is true, and fails if it does not become so."""
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end, "it did not become true"
        time.sleep(0.005)


@contextmanager
def loaded(server: RunningServer, acknowledged: Acknowledged) -> Iterator[Load]:
    """Has a server asked within the block."""
    load = Load(server.target, acknowledged)
    try:
        yield load
    finally:
        load.stop()


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("kills", [4, pytest.param(200, marks=pytest.mark.long)])
def test_receipts_survive_kills_of_server_and_clerk(tmp_path: Path, kills: int) -> None:
    """Each round kills the clerk, the server, or the clerk and in the same moment the server."""
    dice = random.Random(kills)
    data, acknowledged = tmp_path / "data", Acknowledged()
    for kill in range(kills):
        server = RunningServer(data, "--policies", str(BASIC))
        with loaded(server, acknowledged) as load:
            load.require_answers(CALLERS if kill % 4 else 0)
            [clerk] = server.children()
            threading.Event().wait(dice.uniform(0.0, 0.4))
            if kill % 2:
                os.kill(clerk, signal.SIGKILL)
                if kill % 4 == 1:
                    load.require_answers(CALLERS)  # without a clerk, and with the next one
            server.kill()
    with serving(data):
        pass

    assert kills < acknowledged.require_kept(data, tmp_path) == len(acknowledged)


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.long)])
def test_receipts_survive_kills_of_workers(tmp_path: Path, kills: int) -> None:
    """A worker that is killed under load comes back, the others go on, and each book has what it acknowledged."""
    data, acknowledged = tmp_path / "data", Acknowledged()
    for _ in range(max(1, kills // 4)):  # a service gives up on workers that end too often in a minute
        with (
            serving(data, [BASIC], "--workers", "2") as server,
            loaded(server, acknowledged) as load,
        ):
            for _ in range(min(kills, 4)):
                load.require_answers(CALLERS)
                known = serving_lines(server)
                os.kill(second_worker(server), signal.SIGKILL)
                eventually(lambda before=known: serving_lines(server) > before)  # type: ignore[misc]
            load.require_answers(CALLERS)
    (tmp_path / "second").mkdir()
    homes = {tmp_path: data, tmp_path / "second": data / "workers" / "1"}
    kept = [acknowledged.require_kept(home, folder) for folder, home in homes.items()]

    assert all(count > kills for count in kept)
    assert len(acknowledged) == sum(kept)


def serving_lines(server: RunningServer) -> int:
    """Returns how often a worker has begun to serve."""
    return sum(line.get("event") == "worker serving" for line in list(server.lines))


def second_worker(server: RunningServer) -> int:
    """Returns the process of the worker that is not the first: workers are started in their order."""
    workers = [pid for pid in server.children() if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return sorted(workers)[1]
