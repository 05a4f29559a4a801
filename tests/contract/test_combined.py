"""Erasure, pruning and rotation meet: a book that was pruned and closed, its successor pruned, and one after that."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import grpc
import msgspec
import pytest
from google.protobuf import json_format
from tests import long_ago
from tests.serving import POLICIES, ROOT, RunningServer, gatebook, serving

from gatebook.audit.people import People
from gatebook.v1 import access_service_pb2
from gatebook.v1 import audit_service_pb2 as pb
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub
from gatebook_client import connect_blocking
from gatebook_client.verify import verify_inclusion

ORIGIN = "gate.test/combined"
POLICY = b"keep_days = 90\n"
TWO: Any = {"requested_by": "dana", "approved_by": "kai", "reason": "T-7"}
ASKED = 600


class Books(msgspec.Struct, frozen=True):
    """A data directory, and what is known of its books from when they were made, the oldest first."""

    data: Path
    keys: tuple[str, ...]
    folders: tuple[str, ...]
    """Of the closed ones, beneath the data directory."""

    def at(self, data: Path) -> Books:
        """Returns the same in a copy."""
        return msgspec.structs.replace(self, data=Path(shutil.copytree(self.data, data)))


def ask(server: RunningServer, *subjects: str) -> list[Any]:
    """Asks a question for each, and returns the receipts."""
    access = {
        "action": {"name": "read"},
        "resource": {"id": "hr.performance_metrics"},
        "purpose": "performance_evaluation.review",
        "enforcer": {"id": "hr-tool"},
    }
    receipts = []
    with server.channel() as channel:
        stub = AccessServiceStub(channel)
        for start in range(0, len(subjects), 100):
            items = [
                {"access": {"subject": {"type": "user", "id": one}, **access}} for one in subjects[start : start + 100]
            ]
            request = json_format.ParseDict({"items": items}, access_service_pb2.BatchCheckAccessRequest())
            receipts += [one.decision.receipt for one in stub.BatchCheckAccess(request, timeout=60).results]
    return receipts


def prune(server: RunningServer) -> pb.Pruned:
    """Prunes what is older than 100 days."""
    with server.channel() as channel:
        request = pb.PruneEntriesRequest(policy=POLICY, keep_days=100, **TWO)
        return AuditServiceStub(channel).PruneEntries(request, timeout=60).books[0]


def erase(server: RunningServer, person: str) -> None:
    """Erases a person."""
    with server.channel() as channel:
        AuditServiceStub(channel).EraseSubject(pb.EraseSubjectRequest(subject_id=person, **TWO), timeout=60)


def aged(data: Path, days: int, *arguments: str) -> RunningServer:
    """Serves a data directory so many days ago."""
    return RunningServer(data, "--dev", *arguments, program=(*long_ago.PROGRAM, str(days)))


def rotated(data: Path, days: int) -> dict[str, str]:
    """Closes the book so many days ago, and returns what is said."""
    command = [sys.executable, *long_ago.PROGRAM, str(days), "keys", "rotate", "--data", str(data), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    told: dict[str, str] = json.loads(done.stdout)["rotated"][0]
    return told


def verify(data: Path, key: str, *options: str) -> dict[str, Any]:
    """Verifies, and returns what is said."""
    done = gatebook("audit", "verify", str(data), "--vkey", key, "--json", *options)
    told: dict[str, Any] = json.loads(done.stdout or "{}")
    return {**told, "code": done.returncode, "stderr": done.stderr}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Books:
    """Makes three books: the first is pruned and closed, the second begins at 512 and is closed, the third is open."""
    folder = tmp_path_factory.mktemp("made")
    data = folder / "data"
    # What the set expects was not so at that time.
    policies = shutil.copytree(POLICIES / "telemetry", folder / "telemetry", ignore=shutil.ignore_patterns("tests"))
    server = aged(data, 400, "--policies", str(policies), "--origin", ORIGIN)
    ask(server, *["farah", "eli"] * (ASKED // 2))
    assert server.stop() == 0
    server = aged(data, 250)
    ask(server, "eli", "farah", "chidi", "ben")
    erase(server, "chidi")
    assert prune(server).first_index == 512
    assert server.stop() == 0
    first = rotated(data, 240)
    server = aged(data, 200)
    ask(server, *["farah", "eli"] * (ASKED // 2))
    assert server.stop() == 0
    with serving(data, [], "--dev") as server:
        ask(server, "eli", "farah")
        assert prune(server).first_index == 512
        ask(server, "eli")
    second = rotated(data, 0)
    shutil.copy(data / "people.db", folder / "older.db")
    with serving(data, [], "--dev") as server:
        ask(server, "eli", "farah")
        erase(server, "eli")
    folders = tuple(str(Path(each["folder"]).relative_to(data)) for each in (first, second))
    return Books(data, (first["old"], first["new"], second["new"]), folders)


def test_all_books_verify_as_a_chain(made: Books) -> None:
    """Books that were pruned verify as predecessors, with their births, of which one was carried forward."""
    told = verify(made.data, made.keys[2])

    assert told["code"] == 0, told
    assert [(link["origin"], link["verified"]) for link in told["predecessors"]] == [
        (f"{ORIGIN}/2", True),
        (ORIGIN, True),
    ]


def test_each_closed_book_verifies_by_itself(made: Books) -> None:
    """Each by its own key; it says where it begins and how it goes on."""
    for folder, key in zip(made.folders, made.keys, strict=False):
        told = verify(made.data / folder, key)
        assert (told["code"], told["begins"]) == (0, 512), told


def test_pruned_entries_of_closed_books_are_proved(made: Books, tmp_path: Path) -> None:
    """A receipt of an entry that is gone, of a book that is closed, is still proved by the service."""
    books = made.at(tmp_path / "data")
    with serving(books.data, [], "--dev") as server, connect_blocking(server.target) as client:
        for key in books.keys[:2]:
            proof = client.inclusion_proof(5, origin=key.partition("+")[0])
            verify_inclusion(proof.leaf_hash, 5, proof, key)


def test_who_was_erased_later_is_no_vanished_key(made: Books, tmp_path: Path) -> None:
    """A closed book names somebody whom its successor erased: there is a reason. Where a key vanished there is none."""
    books = made.at(tmp_path / "data")
    whole = verify(books.data, books.keys[2])
    people = People.open(books.data, read_only=True)
    [ben] = people.find("ben")
    people.close()
    with sqlite3.connect(books.data / "people.db") as store:
        store.execute("DELETE FROM people WHERE pseudonym = ?", (ben.pseudonym,))
    store.close()
    told = verify(books.data, books.keys[2])

    assert whole["code"] == 0, whole
    assert (told["code"], told["verified"]) == (1, False)
    assert "missing from the store, and nothing says why" in told["error"]
    assert books.folders[0] in told["error"]


def test_who_was_erased_stays_erased_in_every_successor(made: Books, tmp_path: Path) -> None:
    """A store of people of before an erasure that a predecessor has an entry of gives nobody back."""
    books = made.at(tmp_path / "data")
    rotated(books.data, 0)
    shutil.copy(made.data.parent / "older.db", books.data / "people.db")
    for each in books.data.glob("people.db-*"):
        each.unlink()
    before = verify(books.data, (books.data / "book" / "vkey").read_text().strip())
    with serving(books.data, [], "--dev"):
        pass
    after = verify(books.data, (books.data / "book" / "vkey").read_text().strip())
    people = People.open(books.data, read_only=True)
    found = {name: len(people.find(name)) for name in ("eli", "chidi", "farah")}
    people.close()

    assert (before["code"], "start the server, which erases it" in before["error"]) == (1, True), before
    assert after["code"] == 0, after
    assert found == {"eli": 0, "chidi": 0, "farah": 1}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of the audit."""
    return gatebook("audit", *arguments)


def exported(lake: Path, key: str, *source: str) -> dict[str, Any]:
    """Exports, verifies the export, and returns what is said of it."""
    done = run("export", "--format", "parquet", "--out", str(lake), "--raw", "--vkey", key, *source)
    assert done.returncode == 0, done.stderr
    checked = run("verify-export", str(lake), "--vkey", key, "--json")
    assert checked.returncode == 0, checked.stdout
    told: dict[str, Any] = json.loads(checked.stdout)
    return told


def test_a_pruned_and_closed_book_is_exported(made: Books, tmp_path: Path) -> None:
    """An export of a copy begins where the book does, leads to its root, and says what erasures and prunings say."""
    lake, copy = tmp_path / "lake", made.data / made.folders[1]
    told = exported(lake, made.keys[1], "--from-copy", str(copy))
    beside = run("verify-export", str(lake), "--vkey", made.keys[1], "--book", str(copy), "--json")
    with duckdb.connect() as connection:
        lines: Any = connection.read_parquet(f"{lake}/*/*.parquet")
        said = (
            "min(index), max(keep_days), max(pruned_before_index), max(successor), max(holds), count(carried_index) > 0"
        )
        [rows] = lines.aggregate(said).fetchall()
    manifest = json.loads((lake / "_manifest.json").read_text())
    manifest["first_index"] = manifest["parts"][0]["first_index"] = 256
    (lake / "_manifest.json").write_text(json.dumps(manifest))
    forged = run("verify-export", str(lake), "--vkey", made.keys[1])

    assert told["first_index"] == 512
    assert (beside.returncode, json.loads(beside.stdout)["rows_compared"]) == (0, told["size"] - 512)
    assert rows == (512, 90, 512, f"{ORIGIN}/3", 0, True)
    assert forged.returncode == 1, forged.stdout


def test_an_export_goes_on_after_pruning_only_where_nothing_is_missing(made: Books, tmp_path: Path) -> None:
    """Who exported up to the pruning goes on; who did not is told to begin elsewhere; a served book is as a copy."""
    books = made.at(tmp_path / "data")
    pruned, key = books.data / books.folders[0], books.keys[0]
    lake = tmp_path / "lake"
    shutil.rmtree(books.data / "closed")  # this one is not the third's any more
    shutil.copytree(made.data / books.folders[0], pruned)
    exported(lake, key, "--from-copy", str(pruned))
    manifest = json.loads((lake / "_manifest.json").read_text())
    manifest.update(size=300, first_index=0, pruned=[])
    manifest["frontier"] = ["00" * 32] * 4
    manifest["parts"][0].update(first_index=0, end_index=300)
    (lake / "_manifest.json").write_text(json.dumps(manifest))
    refused = run(
        "export", "--format", "parquet", "--out", str(lake), "--raw", "--vkey", key, "--from-copy", str(pruned)
    )

    assert refused.returncode != 0
    assert "entries 300 to 511 were pruned before they were exported" in refused.stderr


def test_queries_of_pruned_books_are_verified(made: Books, tmp_path: Path) -> None:
    """By a copy and by the server alone: what is left is compared, and leads with what is pruned to the root."""
    pruned = made.data / made.folders[1]
    answer = tmp_path / "answer.jsonl"
    answer.write_text('{"index": "5"}\n')
    by_copy = run("verify-query", "--answer", str(answer), "--copy", str(pruned), "--vkey", made.keys[1], "--json")
    told = json.loads(by_copy.stdout)

    assert by_copy.returncode == 1
    assert (told["first_index"], told["gone"], told["missing"]["count"]) == (512, 1, told["size"] - 512)


def test_a_served_pruned_book_is_exported_queried_and_indexed_anew(tmp_path: Path) -> None:
    """The same of a server: it says where the book begins, and its proofs have what is pruned."""
    data, lake = tmp_path / "data", tmp_path / "lake"
    server = aged(data, 400, "--policies", str(POLICIES / "basic"), "--origin", ORIGIN)
    ask(server, *["farah"] * 700)
    assert server.stop() == 0
    key = (data / "book" / "vkey").read_text().strip()
    early = tmp_path / "early"
    before = exported(early, key, "--from-copy", str(data))
    with serving(data, [], "--dev") as running:
        ask(running, "farah")
        assert prune(running).first_index == 512
        told = exported(lake, key, "--target", running.target)
        later = exported(early, key, "--target", running.target)
        query = run("verify-query", "--effect", "deny", "--vkey", key, "--target", running.target, "--json")
        assert query.returncode == 0, query.stdout + query.stderr
    shutil.rmtree(lake)
    anew = run("rebuild-index", str(data), "--anew")
    again = exported(lake, key, "--from-copy", str(data))
    asked = json.loads(query.stdout)

    assert (before["first_index"], told["first_index"], later["first_index"], again["first_index"]) == (0, 512, 0, 512)
    assert (asked["verified"], asked["first_index"], asked["rows"] > 100) == (True, 512, True)
    assert anew.returncode == 0, anew.stderr
    with serving(data, [], "--dev") as running, connect_blocking(running.target) as client:
        assert next(iter(client.entries(oldest_first=True))).index == 512


def test_of_several_books_it_is_told_which_are_done(tmp_path: Path) -> None:
    """A reader holds up the erasure in the second worker's book: the error names both books; again does the rest."""
    data = tmp_path / "data"
    options = ("--dev", "--workers", "2", "--origin", ORIGIN)
    with serving(data, [POLICIES / "telemetry"], *options) as server:
        ask(server, "eli", "farah")
        with sqlite3.connect(data / "workers" / "1" / "people.db", isolation_level=None) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM people").fetchone()
            with pytest.raises(grpc.RpcError) as held_up:
                erase(server, "eli")
        reader.close()
        erase(server, "eli")
    told = held_up.value.details() or ""

    assert f"`{ORIGIN}` is done, `{ORIGIN}/worker/1` is not: " in told
    assert "the same again does the rest" in told
    for home in (data, data / "workers" / "1"):
        assert verify(home, (home / "book" / "vkey").read_text().strip())["code"] == 0
