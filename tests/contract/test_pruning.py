"""The oldest entries are pruned under a written policy; what is left is a book that verifies, opens and proves."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from tests import killed, long_ago
from tests.serving import POLICIES, RunningServer, gatebook, serving

from gatebook.tlog.checkpoint import parse_checkpoint
from gatebook.tlog.merkle import verify_inclusion
from gatebook.tlog.tiles import ENTRIES, Tile
from gatebook.v1 import access_service_pb2, entry_pb2
from gatebook.v1 import audit_service_pb2 as pb
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub

BASIC = POLICIES / "basic"
DAYS = 400
OLD = 700
POLICY = b"keep_days = 90\n"
TWO = {"requested_by": "dana", "approved_by": "kai", "reason": "T-7"}


def ask(server: RunningServer, subject: str, count: int) -> list[Any]:
    """Asks the same so many times, and returns the decisions."""
    access = {"subject": {"id": subject}, "action": {"name": "read"}, "resource": {"id": "report:weekly"}}
    asked = {"items": [{"access": access}] * count, "receipt_level": "RECEIPT_LEVEL_FULL"}
    with server.channel() as channel:
        request = json_format.ParseDict(asked, access_service_pb2.BatchCheckAccessRequest())
        return list(AccessServiceStub(channel).BatchCheckAccess(request, timeout=60).results)


def prune(server: RunningServer, policy: bytes = POLICY, keep_days: int = 100, **changed: Any) -> pb.Pruned:  # noqa: ANN401  # fields of a request
    """Prunes, and returns what went."""
    with server.channel() as channel:
        request = pb.PruneEntriesRequest(policy=policy, keep_days=keep_days, **{**TWO, **changed})
        [book] = AuditServiceStub(channel).PruneEntries(request, timeout=60).books
        return book


def listed(server: RunningServer, **wanted: Any) -> pb.ListEntriesResponse:  # noqa: ANN401  # fields of a filter
    """Returns the entries that match, the oldest first."""
    with server.channel() as channel:
        request = pb.ListEntriesRequest(
            filter=pb.EntryFilter(**wanted), page_size=1_000, order=pb.ENTRY_ORDER_OLDEST_FIRST
        )
        return AuditServiceStub(channel).ListEntries(request, timeout=60)


def verify(data: Path, *options: str, state: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Verifies a data directory."""
    key = str(data / "book" / "vkey")
    return gatebook("audit", "verify", str(data), "--vkey", key, "--json", *options, state=state)


def bundle(data: Path, number: int) -> Path:
    """Returns where a bundle lies."""
    return data / "book" / Tile(ENTRIES, number).path


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provides a data directory whose entries are 400 days old."""
    folder = tmp_path_factory.mktemp("old")
    data = folder / "data"
    server = RunningServer(data, "--policies", str(BASIC), "--dev", program=(*long_ago.PROGRAM, str(DAYS)))
    receipts = [one.decision.receipt for _ in range(OLD // 100) for one in ask(server, "ann", 100)]
    assert server.stop() == 0
    lines = [json_format.MessageToJson(one, indent=None) + "\n" for one in receipts]
    (folder / "receipts.jsonl").write_text("".join(lines))
    return data


@pytest.fixture
def data(old: Path, tmp_path: Path) -> Path:
    """Provides a copy of it."""
    return Path(shutil.copytree(old, tmp_path / "data"))


def test_a_pruned_book_verifies_opens_and_proves(data: Path, old: Path, tmp_path: Path) -> None:
    """Bundles, rows of the index and segments with what is old go; hash tiles, receipts and proofs stay."""
    state = tmp_path / "state"
    assert verify(data, state=state).returncode == 0
    first = json.loads((old.parent / "receipts.jsonl").read_text().splitlines()[0])
    hidden = bundle(data, 0).read_bytes()[2:200]
    with serving(data, [], "--dev") as server:
        ask(server, "ben", 30)
        went = prune(server)
        page = listed(server)
        shown = gatebook("audit", "show", "5", "--target", server.target)
        with server.channel() as channel:
            asked = pb.GetInclusionProofRequest(index=int(first["index"]))
            proof = AuditServiceStub(channel).GetInclusionProof(asked, timeout=30)
        again = prune(server)
    covering = parse_checkpoint(proof.checkpoint.partition("\n\n")[0] + "\n")
    verify_inclusion(proof.index, covering.size, proof.leaf_hash, proof.hashes, covering.root)
    found = verify(data, "--receipts", str(old.parent / "receipts.jsonl"), state=state)
    told = json.loads(found.stdout)

    assert (went.entries_count, went.first_index, went.held) == (512, 512, False)
    assert page.first_index == 512
    assert page.entries[0].index == 512
    assert page.entries[0].request.subject.id == "ann"
    assert (shown.returncode, "entry 5 is pruned: the book begins with entry 512" in shown.stderr) == (1, True)
    assert (again.entries_count, again.first_index, again.begun_index) == (0, 512, 0)
    assert found.returncode == 0, found.stdout
    assert (told["begins"], told["pruned_by"]) == (512, went.begun_index)
    assert told["remembered_size"] > 0
    assert [bundle(data, number).exists() for number in range(2)] == [False, False]
    assert not [path for path in data.rglob("*") if path.is_file() and hidden in path.read_bytes()]
    with serving(data, [], "--dev") as server:
        assert [one.decision.receipt.index for one in ask(server, "ann", 1)] == [told["size"] + 1]
        assert listed(server).entries[0].index == 512


def test_the_policy_is_an_entry_that_says_what_it_permits(data: Path) -> None:
    """The policy is written once, with its text sealed; each pruning names it and the two people."""
    with serving(data, [], "--dev") as server:
        went = prune(server)
        entries = {one.index: one for one in listed(server, kind=entry_pb2.ENTRY_KIND_CONTROL).entries}
    policy, begun = entries[went.policy_index], entries[went.begun_index]

    assert policy.entry.retention.step == entry_pb2.RETENTION_STEP_POLICY
    assert policy.policy_text == POLICY
    assert begun.entry.retention.policy_index == went.policy_index
    assert begun.entry.retention.keep_days == 90
    assert (begun.requested_by, begun.approved_by, begun.stated_reason) == ("dana", "kai", "T-7")
    assert min(one.entry.carried.index for one in entries.values() if one.entry.HasField("carried")) == 0
    assert [one.entry.retention.step for one in entries.values()][-1] == entry_pb2.RETENTION_STEP_COMPLETED


@pytest.mark.parametrize(
    ("policy", "changed", "code", "told"),
    [
        (POLICY, {"keep_days": 89}, grpc.StatusCode.FAILED_PRECONDITION, "keeps every entry for 90 days"),
        (b"keep_days = 500\n", {}, grpc.StatusCode.FAILED_PRECONDITION, "keeps every entry for 500 days"),
        (b"keep = 90\n", {}, grpc.StatusCode.INVALID_ARGUMENT, "policy"),
        (b"", {}, grpc.StatusCode.INVALID_ARGUMENT, "policy"),
        (b"keep_days = 0\n", {}, grpc.StatusCode.INVALID_ARGUMENT, "policy"),
        (POLICY + b"hold = 1\n", {}, grpc.StatusCode.INVALID_ARGUMENT, "policy"),
        (b"holds = " + b"[" * 16_000, {}, grpc.StatusCode.INVALID_ARGUMENT, "policy"),
        (POLICY, {"keep_days": 2**31 - 1}, grpc.StatusCode.INVALID_ARGUMENT, "selector"),
        (POLICY, {"keep_days": 0}, grpc.StatusCode.INVALID_ARGUMENT, "selector"),
        (POLICY, {"approved_by": "dana"}, grpc.StatusCode.INVALID_ARGUMENT, "approved_by"),
        (POLICY, {"reason": ""}, grpc.StatusCode.INVALID_ARGUMENT, "reason"),
    ],
)
def test_what_the_policy_keeps_stays(
    serving_old: RunningServer, policy: bytes, changed: dict[str, Any], code: grpc.StatusCode, told: str
) -> None:
    """Nothing younger than the policy says goes, nor anything under no policy or on one person's word."""
    with pytest.raises(grpc.RpcError) as refused:
        prune(serving_old, policy, **changed)

    assert refused.value.code() is code
    assert told in (refused.value.details() or "")
    assert listed(serving_old).first_index == 0


@pytest.fixture(scope="module")
def serving_old(old: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Serves a copy of the old data directory, of which nothing is pruned."""
    copied = shutil.copytree(old, tmp_path_factory.mktemp("served") / "data")
    with serving(copied, [], "--dev") as server:
        yield server


def test_what_a_hold_names_stays(serving_old: RunningServer) -> None:
    """A hold in which an entry was made keeps it and all that follow; others change nothing."""
    times = [one.entry.entry_time.ToDatetime() for one in listed(serving_old, end_index=700).entries]
    at = times[300].isoformat(timespec="microseconds") + "Z"
    held = POLICY + f'[[holds]]\nfrom = {at}\nreason = "case 17"\n'.encode()
    elsewhere = POLICY + b'[[holds]]\nfrom = 2001-01-01\nuntil = 2002-01-01\nreason = "case 1"\n'

    one, other = (prune(serving_old, text, validate_only=True) for text in (held, elsewhere))

    first_held = next(index for index, time in enumerate(times) if time >= times[300])
    assert (one.first_index, one.held) == (first_held // 256 * 256, True)
    assert (other.first_index, other.held) == (512, False)
    assert listed(serving_old).first_index == 0


def test_a_bundle_that_is_missing_without_an_entry_is_found(data: Path) -> None:
    """The first bundle, one in the middle, and one more than was pruned: each is named by its first entry."""
    with serving(data, [], "--dev") as server:
        prune(server, keep_days=100, validate_only=True)
    unpruned = Path(shutil.copytree(data, data.with_name("unpruned")))
    bundle(unpruned, 0).unlink()
    first = json.loads(verify(unpruned).stdout)
    with serving(data, [], "--dev") as server:
        ask(server, "ben", 100)  # so that what is missing is not the very entry that says what may be
        prune(server)
        for _ in range(4):
            ask(server, "ben", 100)
    middle = Path(shutil.copytree(data, data.with_name("middle")))
    bundle(middle, 3).unlink()
    later = json.loads(verify(middle).stdout)
    bundle(data, 2).unlink()
    more = json.loads(verify(data).stdout)

    assert (first["verified"], first["first_bad_index"]) == (False, 0)
    assert (later["verified"], later["first_bad_index"]) == (False, 768)
    assert (more["verified"], more["first_bad_index"]) == (False, 512)


STEPS = {
    "the policy is written": "gatebook.audit.pruning:encode_carried:1",
    "a part is carried forward": "gatebook.audit.pruning:encode_carried:3",
    "all is carried forward": "gatebook.audit.pruning:encode_retention:2",
    "the entry is written and not published": "gatebook.audit.pruning:Pruning._remove:1",
    "it is published": "gatebook.audit.pruning:remove_bundles:1",
    "the bundles are removed and not synced": "gatebook.audit.pruning:_sync:1",
    "the bundles are removed": "gatebook.audit.reader:BookReader.forget_before:1",
    "the index has forgotten": "gatebook.audit.wal:Wal.begin_anew:1",
    "nothing is said of it": "gatebook.audit.pruning:encode_retention:3",
    "the segment is there": "gatebook.audit.wal:Wal.drop_retired:1",
}


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_any_step_is_made_up_for(data: Path, step: str) -> None:
    """The server is killed in the middle of pruning: the next start has either begun nothing or completes it."""
    server = RunningServer(data, "--dev", program=(*killed.PROGRAM, STEPS[step]))
    with pytest.raises(grpc.RpcError):
        prune(server)
    server.process.wait(30)
    server.kill()
    begun = step not in ("the policy is written", "a part is carried forward", "all is carried forward")

    with serving(data, [], "--dev") as again:
        page = listed(again)
        decided = ask(again, "ann", 1)[0].decision
        went = None if begun else prune(again)

    assert page.first_index == (512 if begun else 0)
    assert decided.receipt.index >= OLD
    assert went is None or went.first_index == 512
    assert [bundle(data, number).exists() for number in range(2)] == [False, False]
    found = verify(data)
    assert found.returncode == 0, found.stdout
    assert json.loads(found.stdout)["begins"] == 512


def test_a_pruned_book_is_backed_up_and_restored(data: Path, tmp_path: Path) -> None:
    """A backup holds what is left, and a restored book opens where the pruned one begins."""
    with serving(data, [], "--dev") as server:
        prune(server)
        made = gatebook("backup", str(tmp_path / "backup"), "--data", str(data))
    restored = tmp_path / "restored"
    put = gatebook("restore", str(tmp_path / "backup"), "--data", str(restored))
    released = gatebook("restore", "--continue", "--no-erasures", "--data", str(restored))

    assert made.returncode == 0, made.stderr
    assert put.returncode == 0, put.stderr
    assert released.returncode == 0, released.stderr
    with serving(restored, [], "--dev") as server:
        page = listed(server)
        assert (page.first_index, page.entries[0].index) == (512, 512)
        assert ask(server, "ann", 1)[0].decision.receipt.index == page.checkpoint_size + 1


def test_pruning_twice_carries_forward_what_is_still_needed(data: Path) -> None:
    """What was carried forward once is carried again when it goes, and the service still knows what is active."""
    server = RunningServer(data, "--dev", program=(*long_ago.PROGRAM, "200"))
    assert prune(server).first_index == 512
    ask(server, "ann", 300)
    server.stop()
    with serving(data, [], "--dev") as later:
        went = prune(later)
        decided = ask(later, "ann", 1)[0].decision
    with serving(data, [], "--dev") as again:
        same = ask(again, "ann", 1)[0].decision
        carried = [one.entry.carried for one in listed(again).entries if one.entry.HasField("carried")]

    assert went.first_index > 512
    assert decided.policy_revision == same.policy_revision
    assert min(one.index for one in carried) == 0
    assert not any(entry_pb2.AuditEntry.FromString(one.entry_bytes).HasField("carried") for one in carried)
    assert verify(data).returncode == 0


def test_every_worker_prunes_or_none_begins(data: Path, tmp_path: Path) -> None:
    """What a policy refuses for the book of one worker is begun in none; then each is pruned, and says so."""
    origin = (data / "book" / "vkey").read_text("utf-8").partition("+")[0]
    younger = data / "workers" / "1"
    long_ago_too = (*long_ago.PROGRAM, str(DAYS - 100))
    worker = RunningServer(younger, "--policies", str(BASIC), "--origin", f"{origin}/worker/1", program=long_ago_too)
    for _ in range(3):
        ask(worker, "ben", 100)
    assert worker.stop() == 0
    named: dict[str, Any] = {"keep_days": 100, **TWO}
    refused = pb.PruneEntriesRequest(policy=b"keep_days = 350\n", **named)
    wanted = pb.PruneEntriesRequest(policy=POLICY, **named)

    with serving(data, [], "--dev", "--workers", "2") as server, server.channel() as channel:
        stub = AuditServiceStub(channel)
        with pytest.raises(grpc.RpcError) as error:
            stub.PruneEntries(refused, timeout=60)
        began = {book.origin: book.first_index for book in stub.ListBooks(pb.ListBooksRequest(), timeout=30).books}
        went = {book.origin: book for book in stub.PruneEntries(wanted, timeout=60).books}
        begins = {book.origin: book.first_index for book in stub.ListBooks(pb.ListBooksRequest(), timeout=30).books}

    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert began == {origin: 0, f"{origin}/worker/1": 0}
    assert {name: book.entries_count for name, book in went.items()} == {origin: 512, f"{origin}/worker/1": 256}
    assert begins == {origin: 512, f"{origin}/worker/1": 256}
    for home in (data, younger):
        told = json.loads(verify(home, state=tmp_path / "state").stdout)
        assert (told["begins"], told["pruned_by"] > 0) == (begins[told["origin"]], True)
