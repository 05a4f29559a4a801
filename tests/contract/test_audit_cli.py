"""`gatebook audit` against a real server: what it prints, what it writes, and how it exits."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from google.protobuf import json_format
from tests.serving import POLICIES, RunningServer, serving

from gatebook.audit.opening import sign
from gatebook.cli import main
from gatebook.tlog.keys import SigningKey, VerifierKey
from gatebook.tlog.merkle import leaf_hash
from gatebook.tlog.proof import verify_proof
from gatebook.v1 import access_service_pb2 as access
from gatebook.v1 import audit_service_pb2 as audit
from gatebook.v1 import entry_pb2, types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub

ASKED = 12
YES, NO, USAGE, COULD_NOT_ASK = 0, 1, 2, 3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Provides a server that was asked twelve questions by three subjects."""
    with serving(tmp_path_factory.mktemp("data"), [POLICIES / "basic"]) as one:
        receipts = []
        with one.channel() as channel:
            stub = AccessServiceStub(channel)
            for i in range(ASKED):
                question = types_pb2.AccessRequest(
                    subject=types_pb2.Subject(type="user", id=f"person-{i % 3}"),
                    action=types_pb2.Action(name="read"),
                    resource=types_pb2.Resource(id=f"thing-{i}"),
                )
                request = access.CheckAccessRequest(
                    access=question, receipt_level=types_pb2.RECEIPT_LEVEL_FULL, request_id=f"request-{i}"
                )
                receipts.append(stub.CheckAccess(request).decision.receipt)
        one.receipts = receipts  # type: ignore[attr-defined]  # what this server's client holds
        yield one


def run(*arguments: str) -> Result:
    """Runs a command in this process, which is quick, against the server, which is real."""
    return CliRunner().invoke(main, arguments)


def asked(server: RunningServer, *arguments: str) -> str:
    """Returns what an audit command printed, which must end well and without complaint."""
    done = run("audit", *arguments, "--target", server.target)
    assert (done.exit_code, done.stderr) == (YES, "")
    return done.stdout


def listed(server: RunningServer, *arguments: str) -> list[dict[str, Any]]:
    """Returns the decisions that a list found."""
    found: list[dict[str, Any]] = json.loads(asked(server, "list", "--json", *arguments)).get("entries", [])
    return found


def test_list_filters(server: RunningServer) -> None:
    """A list by subject has that subject's decisions, the newest first, and names the subject."""
    lines = asked(server, "list", "--subject", "person-1").splitlines()

    assert [line.split()[0] for line in lines[1:-1]] == sorted(
        (line.split()[0] for line in lines[1:-1]), key=int, reverse=True
    )
    assert len(lines) - 2 == ASKED // 3
    assert all("person-1" in line and "NO_MATCHING_RULE" in line for line in lines[1:-1])


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (("--effect", "deny"), ASKED),
        (("--effect", "allow"), 0),
        (("--reason", "no_matching_rule", "--limit", "5"), 5),
        (("--kind", "decision", "--subject", "person-0", "--action", "read"), ASKED // 3),
        (("--since", "2020-01-01", "--until", "2020-01-02T00:00:00Z"), 0),
        (("--kind", "decision", "--since", "2020-01-01"), ASKED),
        (("--kind", "policy"), 2),
        (("--caller", "nobody"), 0),
        (("--from", "2", "--to", "5"), 3),
        (("--subject", "nobody"), 0),
    ],
)
def test_list_as_json(server: RunningServer, arguments: tuple[str, ...], count: int) -> None:
    """Each option narrows the list."""
    assert len(listed(server, *arguments)) == count


def test_show_by_index_and_by_decision(server: RunningServer) -> None:
    """An entry shows the same by its index and by the id of its decision."""
    [newest] = listed(server, "--kind", "decision", "--limit", "1")
    by_index = asked(server, "show", newest["index"])

    assert by_index == asked(server, "show", newest["entry"]["decision"]["decision_id"])
    assert "person-2" in by_index
    assert f"thing-{ASKED - 1}" in by_index
    assert f"request-{ASKED - 1}" in by_index


def test_what_is_not_there_is_a_no(server: RunningServer) -> None:
    """An entry that does not exist ends with 1 and says what was looked for."""
    done = run("audit", "show", "no-such-decision", "--target", server.target)

    assert done.exit_code == NO
    assert "no-such-decision" in done.stderr


def test_no_server_is_no_answer(tmp_path: Path) -> None:
    """Where nobody answers, the command ends with 3 and says how to go on; a half-made export is not left behind."""
    done = run("audit", "export", "--out", str(tmp_path / "out"), "--target", "127.0.0.1:9")

    assert done.exit_code == COULD_NOT_ASK
    assert "gatebook serve" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [("list", "--since", "yesterday"), ("list", "--effect", "maybe"), ("proof", "x")])
def test_a_wrong_option_is_usage(arguments: tuple[str, ...]) -> None:
    """What the command line does not understand ends with 2, before anything is asked."""
    assert run("audit", *arguments, "--target", "127.0.0.1:9").exit_code == USAGE


def test_export_has_every_entry_with_its_bytes(server: RunningServer, tmp_path: Path) -> None:
    """A raw export holds each entry from 0 on, with bytes that hash to the leaf."""
    out = tmp_path / "book.jsonl"
    asked(server, "export", "--raw", "--out", str(out))
    records = [json.loads(line) for line in out.read_text().splitlines()]

    assert [int(record["index"]) for record in records] == list(range(len(records)))
    assert len(records) > ASKED
    for record in records:
        raw = base64.b64decode(record["entry_bytes"])
        assert base64.b64decode(record["leaf_hash"]) == leaf_hash(raw)


def test_export_leaves_the_bytes_out_unless_asked(server: RunningServer) -> None:
    """An export without --raw is for reading."""
    lines = asked(server, "export", "--kind", "decision").splitlines()

    assert len(lines) == ASKED
    assert all("entry_bytes" not in json.loads(line) for line in lines)


def test_a_proof_stands_alone(server: RunningServer, tmp_path: Path) -> None:
    """A proof is checked with nothing but the verifier key and the entry; and only for that entry."""
    out = tmp_path / "entry.tlog-proof"
    told = asked(server, "proof", "3", "--out", str(out))
    key = VerifierKey.parse((server.data / "book" / "vkey").read_text())
    [entry] = listed(server, "--from", "3", "--to", "4")

    assert verify_proof(out.read_bytes(), base64.b64decode(entry["leaf_hash"]), key).origin == key.name
    assert "entry 3 is in the book" in told
    assert asked(server, "proof", "3").startswith("c2sp.org/tlog-proof@v1\nindex 3\n")


def test_tail(server: RunningServer) -> None:
    """A tail prints the last entries, oldest first, one per line."""
    lines = asked(server, "tail", "-n", "4", "--kind", "decision", "--json").splitlines()
    expected = [record["index"] for record in reversed(listed(server, "--kind", "decision", "--limit", "4"))]

    assert [json.loads(line)["index"] for line in lines] == expected


def test_tail_follows(server: RunningServer) -> None:
    """With --follow it prints what is published later, and Ctrl-C ends it well."""
    command = [sys.executable, "-m", "gatebook", "audit", "tail", "-n", "1", "-f", "--kind", "decision", "--json"]
    with subprocess.Popen([*command, "--target", server.target], stdout=subprocess.PIPE, text=True) as tail:
        assert tail.stdout is not None
        first = json.loads(tail.stdout.readline())
        done = run("check", "late", "read", "thing", "--target", server.target)
        second = json.loads(tail.stdout.readline())
        tail.send_signal(signal.SIGINT)

        assert done.exit_code == NO
        assert int(second["index"]) > int(first["index"])
        assert second["request"]["subject"]["id"] == "late"
        assert tail.wait(20) == 0


def test_every_read_is_an_entry(server: RunningServer) -> None:
    """A list that names a person is itself in the book, with its filter sealed."""
    asked(server, "list", "--subject", "person-0")
    [newest] = listed(server, "--kind", "read", "--limit", "1")

    assert newest["entry"]["read"]["method"] == "ListEntries"
    assert json.loads(base64.b64decode(newest["filter_json"])) == {"subject_id": "person-0"}


@pytest.fixture
def copied(server: RunningServer, tmp_path: Path) -> Path:
    """Provides a copy of the published book."""
    asked(server, "list")
    return Path(shutil.copytree(server.data / "book", tmp_path / "book"))


def vkey_of(server: RunningServer) -> str:
    """Returns the verifier key, from the server's own directory."""
    return (server.data / "book" / "vkey").read_text().strip()


def test_verify_an_honest_copy(server: RunningServer, copied: Path) -> None:
    """A copied book is verified without a server, and with receipts and a remembered checkpoint."""
    remembered = copied.parent / "seen.checkpoint"
    receipts = copied.parent / "receipts.jsonl"
    receipts.write_text("".join(receipt_line(receipt) for receipt in server.receipts))  # type: ignore[attr-defined]  # see the fixture
    arguments = ["--vkey", vkey_of(server), "--checkpoint", str(remembered), "--receipts", str(receipts)]
    first = run("audit", "verify", str(copied), *arguments)
    second = run("audit", "verify", str(copied), *arguments, "--json")
    told = json.loads(second.stdout)

    assert (first.exit_code, first.stderr) == (YES, "")
    assert "VERIFIED" in first.stdout
    assert f"all {ASKED} are kept" in first.stdout
    assert remembered.read_bytes() == (copied / "checkpoint").read_bytes()
    assert (told["verified"], told["remembered_size"], told["receipts"]) == (True, told["size"], ASKED)
    assert told["kinds"]["decision"] >= ASKED


def receipt_line(receipt: types_pb2.Receipt) -> str:
    """Returns a receipt as a line of JSON."""
    return json_format.MessageToJson(receipt, preserving_proto_field_name=True, indent=None) + "\n"


def test_verify_a_whole_data_directory(server: RunningServer, tmp_path: Path) -> None:
    """With the whole data directory, people are checked too, also while the server runs on."""
    run("audit", "list", "--target", server.target)
    run("audit", "checkpoint", "--target", server.target)
    # Files of a transaction come and go, and are of no use to whoever verifies.
    passing = shutil.ignore_patterns("*-journal", "*.new")
    copy = Path(shutil.copytree(server.data, tmp_path / "data", ignore=passing))
    done = run("audit", "verify", str(copy), "--vkey", str(copy / "book" / "vkey"))

    assert (done.exit_code, done.stderr) == (YES, "")


def test_verify_only_what_is_new(server: RunningServer, copied: Path) -> None:
    """`--since` reads all at first, then what is new, and keeps where that ended; a failure changes nothing."""
    since = copied.parent / "verified"
    arguments = ["--vkey", vkey_of(server), "--no-remember", "--since", str(since), "--jobs", "2", "--json"]
    first = run("audit", "verify", str(copied), *arguments)
    kept = since.read_bytes()
    again = run("audit", "verify", str(copied), *arguments)
    other = SigningKey.generate("other.test/book")
    since.write_bytes(sign(other, 1, bytes(32), 0).note)
    refused = run("audit", "verify", str(copied), *arguments)

    assert (YES, YES, NO) == (first.exit_code, again.exit_code, refused.exit_code), again.output
    assert kept == (copied / "checkpoint").read_bytes()
    assert (0, json.loads(first.stdout)["size"]) == (
        json.loads(again.stdout)["first_index"],
        json.loads(again.stdout)["size"],
    )
    assert since.read_bytes() == sign(other, 1, bytes(32), 0).note
    since.write_bytes(b"damaged")
    assert run("audit", "verify", str(copied), *arguments).exit_code not in {YES, NO}


def test_verify_names_a_flipped_bit(server: RunningServer, copied: Path) -> None:
    """One bit of one entry, and the first bad index is named with exit code 1."""
    [bundle] = (copied / "tile" / "entries").rglob(
        max(p.name for p in (copied / "tile" / "entries" / "000.p").iterdir())
    )
    content = bytearray(bundle.read_bytes())
    position = content.index(b"SYSTEM") if b"SYSTEM" in content else 20
    content[position] ^= 1
    bundle.write_bytes(content)
    done = run("audit", "verify", str(copied), "--vkey", vkey_of(server), "--json")

    assert done.exit_code == NO
    assert json.loads(done.stdout)["first_bad_index"] == 0


def test_verify_notices_an_older_book(server: RunningServer, copied: Path) -> None:
    """A book that does not reach a remembered checkpoint is refused, and the memory stays as it was."""
    asked(server, "list")
    asked(server, "list")  # publishes the entry of the one before
    remembered = copied.parent / "seen.checkpoint"
    shutil.copy(server.data / "book" / "checkpoint", remembered)
    before = remembered.read_bytes()
    done = run("audit", "verify", str(copied), "--vkey", vkey_of(server), "--checkpoint", str(remembered))

    assert done.exit_code == NO
    assert "NOT VERIFIED" in done.stderr
    assert remembered.read_bytes() == before


def test_verify_with_another_key(copied: Path) -> None:
    """A book is not verified with a key that did not sign it."""
    done = run("audit", "verify", str(copied), "--vkey", str(SigningKey.generate("other.test/book").verifier))

    assert done.exit_code == NO


def test_what_was_just_acknowledged_is_in_every_answer_that_it_matches(server: RunningServer) -> None:
    """A list that ends at a time or an index, and a look by id, have what was acknowledged the moment before."""
    with server.channel() as channel:
        checks, audits = AccessServiceStub(channel), AuditServiceStub(channel)
        for number in range(5):
            question = types_pb2.AccessRequest(
                subject=types_pb2.Subject(type="user", id="hasty"),
                action=types_pb2.Action(name="read"),
                resource=types_pb2.Resource(id=f"thing-{number}"),
            )
            decided = checks.CheckAccess(
                access.CheckAccessRequest(access=question, receipt_level=types_pb2.RECEIPT_LEVEL_FULL)
            ).decision
            after = decided.receipt.entry_time.ToNanoseconds() + 1
            decision = entry_pb2.ENTRY_KIND_DECISION  # the lists here name this person, too
            soon, later = (audit.EntryFilter(subject_id="hasty", kind=decision) for _ in range(2))
            soon.end_time.FromNanoseconds(after)
            later.end_index = decided.receipt.index + 1
            found = [
                [record.index for record in audits.ListEntries(audit.ListEntriesRequest(filter=wanted)).entries]
                for wanted in (soon, later, soon, later)
            ]

            by_id = audits.GetEntry(audit.GetEntryRequest(decision_id=decided.decision_id))

            assert by_id.record.index == decided.receipt.index
            assert [found[0]] * 4 == found
            assert len(found[0]) == number + 1
            assert found[0][0] == decided.receipt.index
