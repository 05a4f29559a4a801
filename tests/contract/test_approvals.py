"""Propose, approve, activate: who may do what to a set that asks for approvals, with tokens of people over TLS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import grpc
import pytest
from tests.approving import Files, Guarded, edited, guarded, refused
from tests.serving import gatebook

from gatebook.errors import ProposalNotFoundError
from gatebook.revisions.proposals import Given, Proposal, ProposalKind, Proposals
from gatebook.v1 import entry_pb2, types_pb2
from gatebook.v1 import policy_service_pb2 as pb
from gatebook.v1.policy_service_pb2_grpc import PolicyServiceStub
from gatebook.values import Revision

CATALOGUE, PURPOSES, SETTINGS = "catalogue.yaml", "purposes.yaml", "gatebook.yaml"
MCI, USAGE = "policy/mci.csv", "policy/ai_usage.csv"
REFUSED = (grpc.StatusCode.FAILED_PRECONDITION, "APPROVAL_REFUSED")
PROPOSED = entry_pb2.POLICY_STEP_PROPOSED


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A server whose set asks for approvals."""
    with guarded(tmp_path_factory.mktemp("guarded")) as running:
        yield running


def change_of(what: str, path: str, before: str, after: str) -> tuple[str, Callable[[Files], Files]]:
    """Returns an edit of one place, and what it is told as."""
    return what, lambda files: edited(files, path, (before, after))


TO_EVERYBODY = "p, role:employee, ai_usage.team_daily, read, adoption_visualisation.team_dashboard, True, allow\n"
LOOSENING = {
    "raise a ceiling": change_of("CEILING_RAISED", CATALOGUE, "people_max: 8", "people_max: 9"),
    "lower k": change_of("GROUP_LOWERED", USAGE, "read, cost_management, True, 5", "read, cost_management, True, 4"),
    "drop a tag": change_of(
        "TAG_DROPPED", CATALOGUE, "[behavior.keystroke, incidental.special]", "[behavior.keystroke]"
    ),
    "lengthen retention": change_of("RETENTION_LENGTHENED", CATALOGUE, "retention_days: 30", "retention_days: 31"),
    "add a purpose": change_of(
        "PURPOSE_PERMITTED", CATALOGUE, "[security_investigation]\n", "[security_investigation, model_training]\n"
    ),
    "shorten the notice lead": change_of("NOTICE_LEAD_SHORTENED", CATALOGUE, "2026-05-11T", "2026-05-10T"),
    "add role:employee": change_of(
        "ALLOW_ADDED", USAGE, TO_EVERYBODY, TO_EVERYBODY + TO_EVERYBODY.replace("read", "export")
    ),
}


@pytest.mark.parametrize("kind", LOOSENING)
def test_at_32_loosening_needs_two_people_and_never_the_requester(server: Guarded, kind: str) -> None:
    """Each kind of loosening waits for two people; one is not enough, nor is whoever asked, nor one person twice."""
    what, edit = LOOSENING[kind]
    before = server.active()

    published = server.publish("hana", edit(server.files))
    proposal = published.proposal
    directions = {change.what: change for change in proposal.changes}
    by_requester = refused(lambda: server.approve("hana", proposal))
    by_nobody = refused(lambda: server.approve("omar", proposal))
    first = server.approve("gus", proposal)
    again = refused(lambda: server.approve("gus", proposal))
    second = server.approve("eli", proposal)
    after = server.active()
    server.withdraw("hana", proposal)

    assert directions[what].direction == types_pb2.CHANGE_DIRECTION_LOOSENS
    assert directions[what].line
    assert (proposal.loosens, proposal.people_missing, published.HasField("revision")) == (True, 2, False)
    assert [by_requester, by_nobody, again] == [REFUSED] * 3
    assert (first.proposal.people_missing, list(first.proposal.one_of_missing)) == (1, ["role:privacy_officer"])
    # Two people without the named role are not enough either.
    assert (second.proposal.people_missing, second.HasField("revision")) == (1, False)
    assert before == after


def test_at_32_an_approval_is_bound_to_the_diff(server: Guarded) -> None:
    """Who approves names the diff that they read; of another one nothing is approved."""
    proposal = server.publish("kai", LOOSENING["raise a ceiling"][1](server.files)).proposal
    other = refused(lambda: server.approve("hana", proposal, "0" * 64))
    waiting = server.waiting()[0]
    server.withdraw("kai", proposal)

    assert (other, list(waiting.approvals)) == (REFUSED, [])


def test_at_32_tightening_needs_one(tmp_path: Path) -> None:
    """A change that lets nobody do more takes effect with one approval, which is not the requester's."""
    with guarded(tmp_path) as server:
        draft = edited(
            server.files, CATALOGUE, ("people_max: 8", "people_max: 7"), ("retention_days: 30", "retention_days: 29")
        )
        proposal = server.publish("kai", draft).proposal
        own = refused(lambda: server.approve("kai", proposal))
        approved = server.approve("gus", proposal)
        active = server.active()

    assert (proposal.loosens, proposal.people_missing) == (False, 1)
    assert own == REFUSED
    assert (approved.revision.number, active) == (2, (proposal.digest, 2))


def test_at_32_two_people_make_it_active_and_every_step_is_an_entry(tmp_path: Path) -> None:
    """From the draft to the activation each step stands in the book, and a restart between two approvals loses none."""
    with guarded(tmp_path) as server:
        proposal = server.publish("kai", LOOSENING["drop a tag"][1](server.files)).proposal
        server.approve("gus", proposal)
    with guarded(tmp_path) as server:
        [waiting] = server.waiting()
        approved = server.approve("hana", waiting)
        active, left, steps = server.active(), server.waiting(), server.steps()
        gone = refused(lambda: server.approve("eli", waiting))

    assert (waiting.diff_digest, list(waiting.changes)) == (proposal.diff_digest, list(proposal.changes))
    assert [given.approver for given in waiting.approvals] == ["gus"]
    assert (approved.revision.number, active, left) == (2, (proposal.digest, 2), [])
    assert gone == (grpc.StatusCode.NOT_FOUND, "PROPOSAL_NOT_FOUND")
    names = [entry_pb2.PolicyStep.Name(step.step).removeprefix("POLICY_STEP_") for step in steps]
    assert names == ["ACTIVATED", "VALIDATED", "TESTED", "COMPARED", "PROPOSED", "APPROVED", "APPROVED", "ACTIVATED"]
    assert [step.proposal.diff_digest for step in steps[3:]] == [proposal.diff_digest] * 5
    assert (steps[0].proposal.bootstrap, steps[-1].proposal.bootstrap) == (True, False)
    assert (steps[-1].proposal.approvals_count, steps[-1].proposal.proposed_index) == (2, proposal.index)


def test_what_was_approved_is_void_once_another_revision_is_active(tmp_path: Path) -> None:
    """Approvals of a draft made from an older revision count for nothing, and whoever approves is told why."""
    with guarded(tmp_path) as server:
        loose = server.publish("kai", LOOSENING["raise a ceiling"][1](server.files)).proposal
        server.approve("gus", loose)
        tight = server.publish(
            "kai", edited(server.files, CATALOGUE, ("retention_days: 30", "retention_days: 29"))
        ).proposal
        server.approve("gus", tight)
        void = refused(lambda: server.approve("hana", loose))
        waiting, active = server.waiting(), server.active()

    assert void == (grpc.StatusCode.NOT_FOUND, "PROPOSAL_NOT_FOUND")
    assert (waiting, active) == ([], (tight.digest, 2))


def test_taking_the_approvals_away_needs_them(server: Guarded) -> None:
    """A draft without the block, or with a weaker one, is judged by the block that is active."""
    text = server.files[SETTINGS].decode()
    without = text.partition("\napprovals:")[0].encode()
    weaker = text.replace("tightening: {people: 1}", "expire_hours: 1").replace("  expire_hours: 24\n", "").encode()
    found = []
    for content in (without, weaker):
        proposal = server.publish("kai", {**server.files, SETTINGS: content}).proposal
        found.append((proposal.loosens, proposal.people_missing, [change.what for change in proposal.changes]))
        server.withdraw("kai", proposal)

    assert found == [(True, 2, ["APPROVALS_CHANGED"])] * 2


def test_a_later_start_with_dev_does_not_publish_past_approvals(tmp_path: Path) -> None:
    """What asks for approvals is not replaced by a folder, whoever starts the server and however."""
    with guarded(tmp_path) as server:
        before = server.active()
    draft = LOOSENING["raise a ceiling"][1](server.files)
    (server.folder / CATALOGUE).write_bytes(draft[CATALOGUE])
    with guarded(tmp_path) as server:
        after = server.active()
        warned = [line for line in server.server.lines if line.get("event") == "folder differs and is not published"]

    assert (before, len(warned)) == (after, 1)


def test_the_command_line_proposes_approves_and_withdraws(tmp_path: Path) -> None:
    """What the RPCs do, the command line does, and says with exit codes; a diff must be named to be approved."""
    with guarded(tmp_path) as server:
        draft = LOOSENING["raise a ceiling"][1](server.files)
        (server.folder / CATALOGUE).write_bytes(draft[CATALOGUE])
        kai, gus, hana = (server.options(name) for name in ("kai", "gus", "hana"))
        rehearsed = gatebook("policy", "publish", str(server.folder), "--dry-run", *kai)
        published = gatebook("policy", "publish", str(server.folder), *kai)
        pending = gatebook("policy", "list", "--pending", *gus)
        [proposal] = server.waiting()
        blind = gatebook("policy", "approve", "telemetry", proposal.digest[:12], *gus)
        first = gatebook("policy", "approve", "telemetry", proposal.digest[:12], "--diff", proposal.diff_digest, *gus)
        own = gatebook("policy", "approve", "telemetry", proposal.digest[:12], "--diff", proposal.diff_digest, *kai)
        second = gatebook("policy", "approve", "telemetry", proposal.digest[:12], "--diff", proposal.diff_digest, *hana)
        rolled = gatebook("policy", "rollback", "telemetry", "--to", "1", *kai)
        back = gatebook("policy", "withdraw", "telemetry", server.waiting()[0].digest, *kai)
        jo = server.options("jo")
        shown = [gatebook("audit", "show", str(proposal.index + later), *jo).stdout for later in (0, 1)]
        lake = tmp_path / "lake"
        exported = gatebook("audit", "export", "--format", "parquet", "--out", str(lake), "--with-personal-data", *jo)

    facts = [dict(line.strip().split(None, 1) for line in text.splitlines() if len(line.split()) > 1) for text in shown]
    assert [(one["diff"], one["draft"]) for one in facts] == [(proposal.diff_digest, "loosens")] * 2
    assert "CEILING_RAISED catalogue.yaml:" in shown[0]
    assert ("requested by" in shown[0], "approved by" in shown[1]) == (True, True)
    assert exported.returncode == 0, exported.stderr
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found = connection.execute(
            "SELECT policy_step, requested_by, approved_by, loosens, base_revision_number, changes[1].what,"
            " changes_count, approvals_count FROM read_parquet(?) WHERE diff_digest = ? ORDER BY index",
            [f"{lake}/*/*.parquet", proposal.diff_digest],
        ).fetchall()
    assert found == [
        ("compared", None, None, True, 1, "CEILING_RAISED", 1, 0),
        ("proposed", "kai", None, True, 1, "CEILING_RAISED", 1, 0),
        ("approved", None, "gus", True, 1, None, None, 0),
        ("approved", None, "hana", True, 1, None, None, 0),
        ("activated", None, None, True, 1, None, None, 2),
    ]
    assert (rehearsed.returncode, published.returncode, pending.returncode) == (0, 1, 0)
    assert "CEILING_RAISED" in published.stdout
    assert "waits for 2 people" in published.stdout
    assert proposal.digest[:12] in pending.stdout
    assert (blind.returncode, first.returncode, own.returncode, second.returncode) == (2, 0, 1, 0)
    assert "revision 2" in second.stdout
    assert (rolled.returncode, "CEILING_LOWERED" in rolled.stdout, back.returncode) == (1, True, 0)


def test_revisions_are_watched_and_resumed(server: Guarded) -> None:
    """A watch tells what is active; another one, given its token, only what came after."""
    with server.acting("kai") as channel:
        stub = PolicyServiceStub(channel)
        first = next(iter(stub.WatchRevisions(pb.WatchRevisionsRequest(policy_set="telemetry"), timeout=30)))
        resumed = stub.WatchRevisions(
            pb.WatchRevisionsRequest(policy_set="telemetry", resume_token=first.resume_token), timeout=2
        )
        with pytest.raises(grpc.RpcError) as nothing:
            next(iter(resumed))

    assert (first.record.revision.number, first.record.active) == (1, True)
    assert nothing.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_revision_is_signed_by_its_activation(server: Guarded, tmp_path: Path) -> None:
    """Who has the key of the book checks offline which files were activated; other files, and other proofs, fail."""
    kai, jo = server.options("kai"), server.options("jo")
    out, shown = tmp_path / "revision.tlog-proof", tmp_path / "shown"
    proved = gatebook("policy", "proof", "telemetry", "--number", "1", "--out", str(out), *jo)
    gatebook("policy", "show", "--name", "telemetry", "--out", str(shown), *kai, check=True)
    key = str(server.server.data / "book" / "vkey")
    right = gatebook("policy", "verify", str(shown), "--proof", str(out), "--vkey", key)
    (shown / CATALOGUE).write_bytes((shown / CATALOGUE).read_bytes() + b"# another\n")
    other = gatebook("policy", "verify", str(shown), "--proof", str(out), "--vkey", key)
    out.write_text(out.read_text().replace("\nindex ", "\nindex 1", 1))
    forged = gatebook("policy", "verify", str(server.folder), "--proof", str(out), "--vkey", key)

    assert (proved.returncode, right.returncode, other.returncode, forged.returncode) == (0, 0, 1, 1), proved.stderr
    assert "telemetry revision 1" in right.stdout


def test_what_waits_expires() -> None:
    """After its hours a proposal is gone, with its approvals, by the clock of the server and by that of its entries."""
    since = datetime(2026, 1, 1, tzinfo=UTC)
    until = since + timedelta(hours=24)
    base = Revision("b", 1)
    kind, loosens = ProposalKind.REVISION, True
    made = Proposal(kind, "s", "d", "f", base, loosens, "cn:ci", "", since, until, 7)
    waiting = Proposals().proposed(made).approved(7, Given("hana", "corp:hana", since, 8))
    before, after = waiting.at(until - timedelta(microseconds=1)), waiting.at(until)

    assert [len(one.waiting) for one in (before, after)] == [1, 0]
    assert before.find("s", "d").approvals
    with pytest.raises(ProposalNotFoundError, match="expired"):
        after.find("s", "d")
