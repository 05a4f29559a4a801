"""What becomes of approvals while the world moves on: people lose roles and rights, directories change, time passes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from tests.approving import ROLES, Files, Guarded, edited, guarded, refused
from tests.authorised import gatebook_set
from tests.telemetry_sets import TELEMETRY

from gatebook.cli.output import details_of
from gatebook.v1 import entry_pb2
from gatebook.v1 import policy_service_pb2 as pb
from gatebook.v1.policy_service_pb2_grpc import PolicyServiceStub

CATALOGUE, SETTINGS, USAGE = "catalogue.yaml", "gatebook.yaml", "policy/ai_usage.csv"
REFUSED = (grpc.StatusCode.FAILED_PRECONDITION, "APPROVAL_REFUSED")
NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "PROPOSAL_NOT_FOUND")
VOIDED = entry_pb2.POLICY_STEP_VOIDED
SECONDS = 60
KEPT = ("g, corp:dana, role:registrar", "g, corp:omar, role:keeper")
PEOPLE = (TELEMETRY / "directory" / "personas.jsonl").read_bytes()
TO_EVERYBODY = b"p, role:employee, ai_usage.team_daily, export, adoption_visualisation.team_dashboard, True, allow\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A server of two workers whose set asks for approvals; dana publishes directories, omar the set `gatebook`."""
    with guarded(tmp_path_factory.mktemp("guarded"), "--workers", "2", roles=KEPT) as running:
        yield running


def loose(server: Guarded, people_max: int) -> Files:
    """Returns a draft that raises a ceiling."""
    return edited(server.files, CATALOGUE, ("people_max: 8", f"people_max: {people_max}"))


def test_an_approver_who_lost_the_role_counts_no_more(server: Guarded) -> None:
    """Whose role the directory takes away has approved nothing, though the book says that they had."""
    server.direct("dana", PEOPLE)
    proposal = server.publish("kai", loose(server, 9)).proposal
    first = server.approve("gus", proposal).proposal
    without = PEOPLE.replace(b'"groups": ["role:employee", "role:mci_owner"]', b'"groups": ["role:employee"]')
    server.direct("dana", without)
    [waiting] = server.waiting()
    second = server.approve("hana", proposal).proposal
    again = refused(lambda: server.approve("gus", proposal))
    third = server.approve("eli", proposal)
    active = server.active()
    server.direct("dana", PEOPLE)

    assert without != PEOPLE
    assert (first.people_missing, waiting.people_missing, second.people_missing) == (1, 2, 1)
    assert [(one.approver, one.counts) for one in waiting.approvals] == [("gus", False)]
    assert again == REFUSED
    assert active == (proposal.digest, third.revision.number)
    assert server.steps()[-1].proposal.approvals_count == 2


def test_a_directory_in_which_others_gain_voids_approvals_at_the_last_step(server: Guarded) -> None:
    """Who approved knew who gains; where others would by now, the last approval changes nothing and ends it."""
    server.direct("dana", PEOPLE)
    draft = {**server.files, USAGE: server.files[USAGE] + TO_EVERYBODY}
    proposal = server.publish("kai", draft).proposal
    server.approve("gus", proposal)
    before = server.active()
    newcomer = PEOPLE.splitlines()[4].replace(b'"eli"', b'"zoe"').replace(b', "role:hrbp"', b"")
    server.direct("dana", PEOPLE.rstrip(b"\n") + b"\n" + newcomer + b"\n")
    last = refused(lambda: server.approve("hana", proposal))
    after, waiting, step = server.active(), server.waiting(), server.steps()[-1]
    gone = refused(lambda: server.approve("eli", proposal))
    server.direct("dana", PEOPLE)

    assert "SOMEBODY_GAINS" in {change.what for change in proposal.changes}
    assert (last, after, waiting, gone) == (REFUSED, before, [], NOT_FOUND)
    assert (step.step, step.proposal.proposed_index) == (VOIDED, proposal.index)


def test_every_worker_knows_what_waits(server: Guarded) -> None:
    """Whichever worker a call reaches, it finds the proposal and its approvals, and then the new revision."""
    proposal = server.publish("kai", loose(server, 10)).proposal
    seen = [[one.digest for one in server.waiting()] for _ in range(12)]
    server.approve("gus", proposal)
    missing = [server.waiting()[0].people_missing for _ in range(12)]
    server.approve("hana", proposal)
    active = {server.active()[0] for _ in range(12)}

    assert seen == [[proposal.digest]] * 12
    assert missing == [1] * 12
    assert active == {proposal.digest}


def test_a_rollback_needs_the_approvals_of_what_it_changes(server: Guarded) -> None:
    """To go back to where more was possible loosens, and waits; one watch tells every revision, in order, resumably."""
    tight = edited(server.files, CATALOGUE, ("people_max: 8", "people_max: 6"))
    loosest, number = server.active()
    with server.acting("kai") as channel:
        stub = PolicyServiceStub(channel)
        watch = iter(stub.WatchRevisions(pb.WatchRevisionsRequest(policy_set="telemetry"), timeout=SECONDS))
        told = [next(watch)]
        lower = server.publish("kai", tight).proposal
        server.approve("gus", lower)
        told.append(next(watch))
        back = server.roll_back("kai", number)
        waits = server.active()
        server.approve("gus", back.proposal)
        done = server.approve("hana", back.proposal)
        told.append(next(watch))
        resumed = []
        for one in told[:2]:
            request = pb.WatchRevisionsRequest(policy_set="telemetry", resume_token=one.resume_token)
            resumed.append(next(iter(stub.WatchRevisions(request, timeout=SECONDS))))

    assert (lower.loosens, back.proposal.loosens, back.proposal.people_missing) == (False, True, 2)
    assert (back.HasField("revision"), waits) == (False, (lower.digest, number + 1))
    assert (done.revision.digest, done.revision.number) == (loosest, number + 2)
    assert [one.record.revision.number for one in told] == [number, number + 1, number + 2]
    assert [one.resume_token for one in resumed] == [one.resume_token for one in told[1:]]


UNSATISFIABLE = {
    "too few people": ("loosening: {people: 2,", "loosening: {people: 4,", "the directory has 3 people"),
    "too few people even to tighten": ("tightening: {people: 1", "tightening: {people: 4", "`approvals.tightening`"),
    "nobody of the role": ("one_of: [role:privacy_officer]", "one_of: [role:auditor]", "nobody in the directory"),
    "one person of the only role": (
        "approvers: [role:privacy_officer, role:mci_owner, role:hrbp]",
        "approvers: [role:jury]",
        "the directory has 1 person",
    ),
}


@pytest.mark.parametrize("why", UNSATISFIABLE)
def test_approvals_that_nobody_could_give_are_refused(server: Guarded, why: str) -> None:
    """A block is refused, with its line and what is missing, that would let nothing ever be published again."""
    before, after, told = UNSATISFIABLE[why]
    draft = edited(server.files, SETTINGS, (before, after))
    with pytest.raises(grpc.RpcError) as caught:
        server.publish("kai", draft)
    found = error_details_pb2.PreconditionFailure()
    assert any(detail.Unpack(found) for detail in details_of(caught.value))
    [violation] = found.violations
    line = 1 + draft[SETTINGS].decode().splitlines().index("approvals:")

    assert (violation.type, violation.subject) == ("APPROVALS_UNSATISFIABLE", f"{SETTINGS}:{line}:1")
    assert told in violation.description


def test_as_many_approvals_as_there_are_people_can_be_asked_for(server: Guarded) -> None:
    """Three people may approve, so that three can be asked for, by whoever is none of them."""
    draft = edited(server.files, SETTINGS, ("loosening: {people: 2,", "loosening: {people: 3,"))
    proposal = server.publish("kai", draft).proposal
    server.withdraw("kai", proposal)

    assert "APPROVALS_CHANGED" in {change.what for change in proposal.changes}


@pytest.mark.parametrize("restarts", [False, True])
def test_who_may_not_publish_any_more_has_proposed_nothing(tmp_path: Path, *, restarts: bool) -> None:
    """Where the right to publish is revoked before the last approval, the proposal is void, also after a restart."""
    with guarded(tmp_path, roles=KEPT) as server:
        proposal = server.publish("kai", loose(server, 9)).proposal
        server.approve("gus", proposal)
        before = server.active()
        rest = [line for line in (*ROLES, *KEPT) if "corp:kai" not in line]
        server.govern("omar", gatebook_set(tmp_path, *rest, "g, corp:kai, role:author"))
        if not restarts:
            check_void(server, proposal, before)
            return
    with guarded(tmp_path, roles=KEPT) as server:
        check_void(server, proposal, before)


def check_void(server: Guarded, proposal: pb.Proposal, before: tuple[str, int]) -> None:
    """Gives the last approval, which must change nothing, say who lost the right, and end the proposal."""
    with pytest.raises(grpc.RpcError, match="`corp:kai`, who proposed it, may not publish `telemetry` any more"):
        server.approve("hana", proposal)
    assert (server.active(), server.waiting()) == (before, [])
    assert [step.step for step in server.steps()][-2:] == [entry_pb2.POLICY_STEP_APPROVED, VOIDED]
    assert refused(lambda: server.approve("eli", proposal)) == NOT_FOUND


def test_after_its_hours_nothing_waits_any_more(tmp_path: Path) -> None:
    """A proposal of two days ago is gone with its approval, and whoever approves is told that it expired."""
    with guarded(tmp_path, days=2) as server:
        proposal = server.publish("kai", loose(server, 9)).proposal
        first = server.approve("gus", proposal).proposal
        before = server.active()
    with guarded(tmp_path) as server:
        waiting = server.waiting()
        with pytest.raises(grpc.RpcError, match="expired") as caught:
            server.approve("hana", proposal)
        after = server.active()

    assert (first.people_missing, waiting, after) == (1, [], before)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
