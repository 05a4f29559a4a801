"""A person is erased: what was personal stays closed for good, and everything else is as before."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from tests import killed
from tests.serving import POLICIES, RunningServer, gatebook, serving

from gatebook.audit.people import People, PersonId
from gatebook.v1 import access_service_pb2, entry_pb2, types_pb2
from gatebook.v1 import audit_service_pb2 as pb
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub

TELEMETRY = POLICIES / "telemetry"
TWO = {"requested_by": "dana", "approved_by": "kai", "reason": "T-2041"}
NAMES = ("--requested-by", "dana", "--approved-by", "kai", "--reason", "T-2041")
OTHERS = 300
"""So many people that rows of the store are moved between pages."""


def about(subject: str, **more: object) -> dict[str, Any]:
    """Returns a question about a person, in JSON."""
    return {
        "subject": {"type": "user", "id": subject},
        "action": {"name": "read"},
        "resource": {"id": "hr.performance_metrics"},
        "purpose": "performance_evaluation.review",
        "enforcer": {"id": "hr-tool"},
        **more,
    }


def ask(server: RunningServer, *questions: dict[str, Any], receipt: str = "RECEIPT_LEVEL_FULL") -> list[Any]:
    """Asks, and returns the decisions."""
    asked = {"items": [{"access": one} for one in questions], "receipt_level": receipt}
    with server.channel() as channel:
        request = json_format.ParseDict(asked, access_service_pb2.BatchCheckAccessRequest())
        return list(AccessServiceStub(channel).BatchCheckAccess(request, timeout=60).results)


def listed(server: RunningServer, **wanted: Any) -> list[pb.EntryRecord]:  # noqa: ANN401  # fields of a filter
    """Returns the entries that match, the oldest first."""
    with server.channel() as channel:
        request = pb.ListEntriesRequest(
            filter=pb.EntryFilter(**wanted), page_size=1_000, order=pb.ENTRY_ORDER_OLDEST_FIRST
        )
        return list(AuditServiceStub(channel).ListEntries(request, timeout=60).entries)


def erase(server: RunningServer, person: str, **changed: Any) -> pb.EraseSubjectResponse:  # noqa: ANN401  # fields of a request
    """Erases a person."""
    with server.channel() as channel:
        request = pb.EraseSubjectRequest(**{"subject_id": person, **TWO, **changed})
        return AuditServiceStub(channel).EraseSubject(request, timeout=60)


def verify(data: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Verifies a data directory."""
    return gatebook("audit", "verify", str(data), "--vkey", str(data / "book" / "vkey"), *options)


def row_of(data: Path, person: str) -> tuple[bytes, ...]:
    """Returns what the store of people has of a person: pseudonym, wrapped key and sealed id."""
    people = People.open(data, read_only=True)
    try:
        [found] = people.find(person)
    finally:
        people.close()
    with sqlite3.connect(f"{(data / 'people.db').as_uri()}?mode=ro", uri=True) as store:
        query = "SELECT pseudonym, wrapped_key, sealed_id FROM people WHERE pseudonym = ?"
        return tuple(store.execute(query, (found.pseudonym,)).fetchone())


def files_with(data: Path, *wanted: bytes) -> list[str]:
    """Returns which files hold one of these bytes."""
    files = (path for path in sorted(data.rglob("*")) if path.is_file())
    return [path.relative_to(data).as_posix() for path in files if any(one in path.read_bytes() for one in wanted)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    """Serves the set `telemetry`, with many people in the store."""
    with serving(tmp_path / "data", [TELEMETRY], "--dev") as running:
        yield running


def test_erasure_takes_the_person_and_nothing_else(server: RunningServer, tmp_path: Path) -> None:
    """Counts, order, leaves, receipts and checkpoints stay; nothing opens; who is seen again is somebody else.

    Before it the person is found as subject, actor and data subject.
    """
    receipts = [
        ask(server, about("eli", context={"ticket": "eli-ctx"}))[0].decision.receipt,
        ask(server, about("farah", actor={"type": "user", "id": "eli"}))[0].decision.receipt,
        ask(server, about("farah", row={"subject_id": "eli", "rating": 4}))[0].decision.receipt,
    ]
    filled = tmp_path / "receipts.jsonl"
    filled.write_text("".join(json_format.MessageToJson(one, indent=None) + "\n" for one in receipts))
    before = listed(server)
    found = listed(server, subject_id="eli")
    state = tmp_path / "state"
    data = server.data
    verified = gatebook(
        "audit", "checkpoint", "--target", server.target, "--vkey", str(data / "book/vkey"), state=state
    )
    row = row_of(data, "eli")

    told = erase(server, "eli")

    assert verified.returncode == 0, verified.stderr
    assert [one.index for one in found] == [receipt.index for receipt in receipts]
    [book] = told.books
    assert (book.people_count, book.entries_count) == (1, len(found) + 1)  # and the list that asked for them
    after = listed(server, end_index=before[-1].index + 1)
    assert [one.leaf_hash for one in after] == [one.leaf_hash for one in before]
    assert [one.index for one in after if one.erased] == [one.index for one in found]
    assert not any(one.key_missing for one in after)
    assert [one.HasField("request") for one in after if one.index in {receipt.index for receipt in receipts}] == [
        False,
        False,
        True,  # whose request is farah's; the row is closed
    ]
    assert [one.row_json for one in after if one.index == receipts[2].index] == [b""]
    assert listed(server, subject_id="eli") == []
    again = ask(server, about("eli"))[0].decision.receipt.index
    [fresh] = listed(server, start_index=again, end_index=again + 1)
    assert fresh.request.subject.id == "eli"
    assert fresh.entry.decision.subject_pseudonym != row[0]
    entry = listed(server, start_index=book.begun_index, end_index=book.begun_index + 1)[0]
    assert entry.entry.kind == entry_pb2.ENTRY_KIND_CONTROL
    assert (entry.requested_by, entry.approved_by, entry.stated_reason) == ("dana", "kai", "T-2041")
    assert b"eli" not in entry.entry_bytes
    shown = gatebook("audit", "show", str(receipts[0].index), "--target", server.target).stdout
    assert "NOT_REPLAYABLE" in shown
    assert "(erased)" in shown
    server.stop()
    assert files_with(data, row[1], row[2]) == []
    end = gatebook(
        "audit", "verify", str(data), "--vkey", str(data / "book/vkey"), "--receipts", str(filled), state=state
    )
    assert end.returncode == 0, end.stderr
    assert "continues" in end.stdout
    assert "erased       1 pseudonym" in end.stdout


def test_keys_are_in_no_file_whatever_the_pages_did(server: RunningServer) -> None:
    """Of many people some are erased: no file has their keys, and the others' are where they were."""
    people = [f"person-{number:04}" for number in range(OTHERS)]
    rows = [{"subject_id": person, "rating": 1} for person in people]
    ask(server, *(about("eli", row=row) for row in rows), receipt="RECEIPT_LEVEL_BASIC")
    gone = people[::60]
    before = {person: row_of(server.data, person) for person in people[::20]}

    for person in gone:
        erase(server, person)

    for person, row in before.items():
        found = files_with(server.data, row[1], row[2])
        assert bool(found) == (person not in gone), (person, found)


@pytest.mark.parametrize(
    ("changed", "code", "told"),
    [
        ({"approved_by": "dana"}, grpc.StatusCode.INVALID_ARGUMENT, "approved_by"),
        ({"approved_by": " DANA "}, grpc.StatusCode.INVALID_ARGUMENT, "approved_by"),
        ({"requested_by": "eli"}, grpc.StatusCode.INVALID_ARGUMENT, "requested_by"),
        ({"approved_by": "Eli"}, grpc.StatusCode.INVALID_ARGUMENT, "approved_by"),
        ({"requested_by": ""}, grpc.StatusCode.INVALID_ARGUMENT, "requested_by"),
        ({"reason": " "}, grpc.StatusCode.INVALID_ARGUMENT, "reason"),
        ({"reason": "letter of Eli, T-1"}, grpc.StatusCode.INVALID_ARGUMENT, "reason"),
        ({"reason": "x" * 513}, grpc.StatusCode.INVALID_ARGUMENT, "reason"),
        ({"subject_id": ""}, grpc.StatusCode.INVALID_ARGUMENT, "subject_id"),
        ({"subject_id": "nobody"}, grpc.StatusCode.NOT_FOUND, "nobody with this id"),
    ],
)
def test_an_erasure_needs_two_others_and_a_reason(
    asked_once: RunningServer, changed: dict[str, str], code: grpc.StatusCode, told: str
) -> None:
    """What is missing, the same, or names who is erased is refused, and nothing is erased."""
    with pytest.raises(grpc.RpcError) as refused:
        erase(asked_once, changed.pop("subject_id", "eli"), **changed)

    assert refused.value.code() is code
    assert told in (refused.value.details() or "")
    assert [one.erased for one in listed(asked_once, subject_id="eli", kind=entry_pb2.ENTRY_KIND_DECISION)] == [False]


@pytest.fixture(scope="module")
def asked_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Serves the set `telemetry`; one decision is about a person."""
    with serving(tmp_path_factory.mktemp("once") / "data", [TELEMETRY], "--dev") as running:
        ask(running, about("eli"))
        yield running


def test_the_command_asks_first(asked_once: RunningServer) -> None:
    """--dry-run tells what would go; without a terminal --yes is needed; neither changes anything."""
    target = ("--target", asked_once.target)
    dry = gatebook("audit", "erase", "eli", *NAMES, "--dry-run", *target)
    unasked = gatebook("audit", "erase", "eli", *NAMES, *target)
    unknown = gatebook("audit", "erase", "nobody", *NAMES, "--yes", *target)

    assert (dry.returncode, dry.stdout[:24]) == (0, "would delete 1 key that ")
    assert (unasked.returncode, "--yes" in unasked.stderr) == (2, True)
    assert (unknown.returncode, "nobody with this id" in unknown.stderr) == (1, True)
    assert not any(one.erased for one in listed(asked_once, kind=entry_pb2.ENTRY_KIND_DECISION))


def test_who_is_no_custodian_erases_nobody(tmp_path: Path) -> None:
    """Without --dev nobody on the machine may erase or prune, as the shipped set says."""
    with serving(tmp_path / "data", [TELEMETRY]) as running:
        ask(running, about("eli"))
        with pytest.raises(grpc.RpcError) as refused:
            erase(running, "eli")

    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


STEPS = {
    "the entry is written and nothing else": "gatebook.audit.people:People.make_void:1",
    "nobody is deleted": "gatebook.audit.forgotten:Forgotten.erase:1",
    "the row is deleted": "gatebook.audit.forgotten:Forgotten.scrub:1",
    "the store is written anew": "gatebook.audit.erasing:encode_erasure:2",
}


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_any_step_is_made_up_for(tmp_path: Path, step: str) -> None:
    """The server is killed in the middle of an erasure; the next start completes it."""
    data = tmp_path / "data"
    server = RunningServer(data, "--policies", str(TELEMETRY), "--dev", program=(*killed.PROGRAM, STEPS[step]))
    ask(server, about("eli"))
    row = row_of(data, "eli")
    with pytest.raises(grpc.RpcError):
        erase(server, "eli")
    server.process.wait(30)
    server.kill()

    with serving(data, [], "--dev") as again:
        entries = listed(again)
        told = [line for line in again.lines if line["event"] == "erasures applied again"]

    steps = [one.entry.erasure.step for one in entries if one.entry.HasField("erasure")]
    assert steps == [entry_pb2.ERASURE_STEP_BEGUN, entry_pb2.ERASURE_STEP_COMPLETED]
    assert [one.erased for one in entries if one.entry.HasField("decision")] == [True]
    assert len(told) == 1
    assert files_with(data, row[1], row[2]) == []
    end = verify(data)
    assert end.returncode == 0, end.stderr


def test_what_a_reader_of_the_store_holds_up_is_done_when_asked_again(server: RunningServer, tmp_path: Path) -> None:
    """While somebody reads the store its log cannot be cut: the erasure says so, and the same order completes it."""
    data = tmp_path / "data"
    ask(server, about("eli"))
    row = row_of(data, "eli")
    with contextlib.closing(sqlite3.connect(f"{(data / 'people.db').as_uri()}?mode=ro", uri=True)) as reading:
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM people").fetchone()
        with pytest.raises(grpc.RpcError) as held_up:
            erase(server, "eli")
    [again] = erase(server, "eli").books
    with pytest.raises(grpc.RpcError) as gone:
        erase(server, "eli")
    entries = listed(server)

    steps = [one.entry.erasure.step for one in entries if one.entry.HasField("erasure")]
    assert held_up.value.code() is grpc.StatusCode.UNAVAILABLE
    assert (again.people_count, again.entries_count) == (1, 1)
    assert gone.value.code() is grpc.StatusCode.NOT_FOUND
    assert steps == [entry_pb2.ERASURE_STEP_BEGUN, entry_pb2.ERASURE_STEP_COMPLETED]
    assert files_with(data, row[1], row[2]) == []


def test_a_store_that_is_put_back_gives_nobody_back(tmp_path: Path) -> None:
    """The store of people from before the erasure is restored: verification tells, and the next start erases again."""
    data, kept = tmp_path / "data", tmp_path / "kept.db"
    with serving(data, [TELEMETRY], "--dev") as running:
        ask(running, about("eli"), about("farah"))
        erase(running, "farah")  # so that the two who are named are in the store, too
    shutil.copy(data / "people.db", kept)
    with serving(data, [], "--dev") as running:
        erase(running, "eli")
    shutil.copy(kept, data / "people.db")
    row = row_of(data, "eli")
    found = verify(data)
    with serving(data, [], "--dev") as running:
        entries = listed(running, kind=entry_pb2.ENTRY_KIND_DECISION)
    people = People.open(data, read_only=True)
    suppressed = people.forgotten.is_suppressed("eli"), people.forgotten.is_suppressed("kai")
    people.close()

    assert (found.returncode, "the store has a key that entry" in found.stderr) == (1, True)
    assert [one.erased for one in entries] == [True, True]
    assert suppressed == (True, False)
    assert files_with(data, row[1], row[2]) == []
    assert verify(data).returncode == 0


@pytest.mark.parametrize("covered_up", [False, True])
def test_a_key_that_vanished_is_told(tmp_path: Path, covered_up: bool) -> None:
    """Somebody deletes a key to hide who read: `verify` and the next start name the first entry that shows it.

    So they do where the store was made to say that the person was erased, which no entry does.
    """
    data = tmp_path / "data"
    with serving(data, [TELEMETRY], "--dev") as running:
        first = ask(running, about("farah"))[0].decision.receipt.index
        ask(running, about("eli"), about("farah"))
    with sqlite3.connect(data / "people.db") as store:
        pseudonym = row_of(data, "farah")[0]
        store.execute("DELETE FROM people WHERE pseudonym = ?", (pseudonym,))
        if covered_up:
            store.execute("INSERT INTO erased VALUES (?, ?)", (pseudonym, first))
    store.close()
    found = verify(data, "--json")
    with serving(data, [], "--dev", "--metrics", "127.0.0.1:0") as running:
        [*_] = listed(running)
        entries = listed(running, kind=entry_pb2.ENTRY_KIND_DECISION)
        running.stop()
        told = [line for line in running.lines if line["event"] == "keys missing"]

    assert found.returncode == 1
    assert json.loads(found.stdout)["first_bad_index"] == first
    assert [(one.key_missing, one.erased) for one in entries] == [(True, False), (False, False), (True, False)]
    assert [(line["people"], line["index"]) for line in told] == [(1, first)]


def test_an_export_may_leave_everything_personal_out(asked_once: RunningServer, tmp_path: Path) -> None:
    """Every entry is there with its leaf hash; no id, pseudonym or sealed byte is."""
    out = tmp_path / "bare.jsonl"
    made = gatebook("audit", "export", "--without-personal-data", "--out", str(out), "--target", asked_once.target)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    whole = listed(asked_once, end_index=len(lines))

    assert made.returncode == 0, made.stderr
    assert [line["index"] for line in lines] == [str(number) for number in range(len(lines))]
    assert [line["leaf_hash"] for line in lines] == [
        json_format.MessageToDict(one, preserving_proto_field_name=True)["leaf_hash"] for one in whole
    ]
    text = out.read_text()
    for word in ("eli", "pseudonym", "sealed", "ciphertext", "request", "salt", "entry_bytes"):
        assert f'"{word}' not in text, word


def test_a_person_id_is_one_person_for_the_suppression_list(tmp_path: Path) -> None:
    """The list answers for an id, of whatever type; it is keyed, durable, and holds no id."""
    people = People.open(tmp_path)
    rows = people.ensure([PersonId("user", "eli"), PersonId("agent", "eli")])
    tag = people.forgotten.tag("eli")
    people.make_void(one.pseudonym for one in rows.values())
    people.erase([one.pseudonym for one in rows.values()], tag, 7)
    people.forgotten.scrub()
    people.close()
    again = People.open(tmp_path)

    assert again.forgotten.is_suppressed("eli")
    assert not again.forgotten.is_suppressed("Eli")
    assert again.forgotten.count() == 1
    assert again.find("eli") == ()
    assert {again.forgotten.entry_of(one.pseudonym) for one in rows.values()} == {7}
    assert files_with(tmp_path, b"eli") == []
    again.close()


@pytest.mark.parametrize("mode", ["opt_out", "opt_in"])
def test_objections_stay_in_force(tmp_path: Path, mode: str) -> None:
    """Data about somebody who was erased appears again: what one can object to is denied, and the list knows the id.

    After a restart, in a successor of the book, and with a store of people that was put back.
    """
    folder, data = tmp_path / "telemetry", tmp_path / "data"
    shutil.copytree(TELEMETRY, folder, ignore=shutil.ignore_patterns("tests"))
    purposes = folder / "purposes.yaml"
    performance = {"id": "hr.performance_metrics", "columns": ["rating"]}
    question = about("eli", resource=performance, row={"subject_id": "farah", "rating": 4})
    with serving(data, [TELEMETRY], "--dev") as running:
        [allowed] = ask(running, question)
        shutil.copy(data / "people.db", tmp_path / "kept.db")
        before = erase(running, "farah", validate_only=True).books[0].objects
        after = erase(running, "farah").books[0].objects
    text = purposes.read_text("utf-8")
    purposes.write_text(
        text.replace("performance_evaluation: {consent: none", f"performance_evaluation: {{consent: {mode}")
    )
    shutil.copy(tmp_path / "kept.db", data / "people.db")
    rotated = False
    for _ in range(2):
        with serving(data, [folder], "--dev") as running:
            [denied] = ask(running, question)
            told = [erase(running, who, validate_only=True).books[0].objects for who in ("farah", "eli")]
            shown = gatebook("audit", "erase", "farah", *NAMES, "--dry-run", "--target", running.target).stdout
        assert types_pb2.REASON_CODE_CONSENT_REQUIRED == denied.decision.reason
        assert told == [True, False]
        assert "objects to every purpose" in shown
        if not rotated:
            rotated = gatebook("keys", "rotate", "--data", str(data), "--reason", "T-8").returncode == 0
            assert rotated

    assert types_pb2.EFFECT_ALLOW == allowed.decision.effect
    assert (before, after) == (False, True)


def test_every_worker_erases_and_says_so(tmp_path: Path) -> None:
    """With several workers each has a book and keys of its own: one call erases in all, and is an entry in each."""
    data = tmp_path / "data"
    with serving(data, [TELEMETRY], "--dev", "--workers", "2") as running:
        origins: set[str] = set()
        for _ in range(60):  # until both were asked, each by a connection of its own
            with grpc.insecure_channel(running.target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
                request = json_format.ParseDict({"access": about("eli")}, access_service_pb2.CheckAccessRequest())
                origins.add(AccessServiceStub(channel).CheckAccess(request, timeout=30).decision.receipt.origin)
            if len(origins) == 2:
                break
        preview = erase(running, "eli", validate_only=True)
        told = erase(running, "eli")
        with pytest.raises(grpc.RpcError) as refused:
            erase(running, "eli")
        with running.channel() as channel:
            wanted = pb.ListEntriesRequest(filter=pb.EntryFilter(kind=entry_pb2.ENTRY_KIND_DECISION))
            decisions = AuditServiceStub(channel).ListEntries(wanted, timeout=30).entries

    assert len(origins) == 2
    assert {book.origin for book in told.books} == origins
    assert [book.people_count for book in told.books] == [book.people_count for book in preview.books] == [1, 1]
    assert all(book.completed_index > book.begun_index > 0 for book in told.books)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert all(one.erased for one in decisions)
    for home in (data, data / "workers" / "1"):
        assert verify(home).returncode == 0
