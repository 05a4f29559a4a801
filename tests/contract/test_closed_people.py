"""People of closed books: a rotation hides neither a key that vanished nor an erasure that was not completed."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import grpc
import pytest
from tests import killed
from tests.contract.test_erasure import about, ask, erase, listed, row_of, verify
from tests.contract.test_rotation import rotate
from tests.serving import POLICIES, RunningServer, serving

from gatebook.v1 import entry_pb2

TELEMETRY = POLICIES / "telemetry"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Gives a data directory with a closed book, in which a decision about somebody is the only trace of them."""
    data = tmp_path / "data"
    with serving(data, [TELEMETRY], "--dev") as server:
        ask(server, about("farah"), about("eli"))
    rotate(data)
    return data


def test_a_key_that_vanished_after_a_rotation_is_told(data: Path) -> None:
    """Whoever deletes the key of somebody whom only a closed book has hides nobody: the closed book tells."""
    assert verify(data).returncode == 0
    with sqlite3.connect(data / "people.db") as store:
        store.execute("DELETE FROM people WHERE pseudonym = ?", (row_of(data, "farah")[0],))
    store.close()
    found = verify(data, "--json")

    assert found.returncode == 1
    assert "missing from the store, and nothing says why" in json.loads(found.stdout)["error"]


def test_an_erasure_after_a_rotation_is_no_finding(data: Path) -> None:
    """The successor says who was erased, and that holds for the books before it, the one before that one too."""
    rotate(data)
    with serving(data, [], "--dev") as server:
        erase(server, "farah")
    found = verify(data)

    assert found.returncode == 0, found.stdout + found.stderr


def test_a_book_whose_erasure_is_not_completed_is_not_closed(tmp_path: Path) -> None:
    """What a kill left unfinished is first completed by a start: a successor would call it done."""
    data = tmp_path / "data"
    step = "gatebook.audit.forgotten:Forgotten.scrub:1"
    server = RunningServer(data, "--policies", str(TELEMETRY), "--dev", program=(*killed.PROGRAM, step))
    ask(server, about("eli"))
    with pytest.raises(grpc.RpcError):
        erase(server, "eli")
    server.process.wait(30)
    server.kill()
    refused = rotate(data, code=1)["error"]
    with serving(data, [], "--dev") as again:
        steps = [one.entry.erasure.step for one in listed(again) if one.entry.HasField("erasure")]
    rotate(data)

    assert "an erasure or pruning is not completed: start the server" in refused
    assert steps == [entry_pb2.ERASURE_STEP_BEGUN, entry_pb2.ERASURE_STEP_COMPLETED]
