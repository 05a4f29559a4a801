"""What a draft would change of past decisions, and of live ones, is told; nothing is decided by it."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from tests.authorised import Authorised, authorised, caller, claiming
from tests.contract.test_explain import WARD, decide, edit, question
from tests.serving import POLICIES, RunningServer, gatebook, serving

from gatebook.cli.output import error_info
from gatebook.policy.bundle import read_folder
from gatebook.v1 import access_service_pb2, audit_service_pb2, entry_pb2, replay_pb2, types_pb2
from gatebook.v1 import policy_service_pb2 as pb
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub
from gatebook.v1.policy_service_pb2_grpc import PolicyServiceStub

CLINIC = POLICIES / "clinic"
NURSE = question("dina", "clinic.visits", "treatment", "complaint", context=WARD, row=WARD)
BILLING = question("flora", "finance.invoices", "billing")
OUTSIDER = question("goran", "finance.invoices", "billing", "amount")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    """A server of the clinic."""
    with serving(tmp_path / "data", [CLINIC], "--dev") as running:
        yield running


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    """A draft: nurses read complaints in clear, billing is closed, and the staff reads the amounts of invoices."""
    folder = tmp_path / "draft"
    shutil.copytree(CLINIC, folder, ignore=shutil.ignore_patterns("tests"))
    edit(folder / "policy.csv", "complaint, read, treatment, True, redact", "complaint, read, treatment, True, none")
    edit(
        folder / "policy.csv",
        "p, role:billing, finance.invoices, read, billing, True, allow",
        "p, role:staff, finance.invoices.amount, read, billing, True, allow",
    )
    return folder


def files_of(folder: Path) -> list[pb.PolicyFile]:
    """Returns the files of a draft."""
    return [pb.PolicyFile(path=path, content=content) for path, content in read_folder(folder).items()]


def replay(server: RunningServer, draft: Path, **fields: Any) -> pb.ReplayDecisionsResponse:  # noqa: ANN401  # of the request
    """Replays, and returns the last message."""
    with server.channel() as channel:
        request = pb.ReplayDecisionsRequest(files=files_of(draft), **fields)
        try:
            *_, last = PolicyServiceStub(channel).ReplayDecisions(request, timeout=120)
        except grpc.RpcError:
            print([line for line in server.lines if line.get("event") == "bug"])  # noqa: T201  # shown on failure
            raise
    assert isinstance(last, pb.ReplayDecisionsResponse)
    return last


def counts(tallies: Any) -> dict[str, int]:  # noqa: ANN401  # of either message
    """Returns how many differ in each way."""
    return {replay_pb2.DifferenceKind.Name(it.kind).removeprefix("DIFFERENCE_KIND_"): it.count for it in tallies}


def test_what_a_draft_would_change_of_past_decisions(server: RunningServer, draft: Path) -> None:
    """Each way is counted by person, dataset and caller, with the ids; what is asked again is decided once."""
    decided = [decide(server, access) for access in (NURSE, NURSE, BILLING, OUTSIDER)]
    found = replay(server, draft)
    tallies = {it.kind: it for it in found.tallies}
    weaker = tallies[replay_pb2.DIFFERENCE_KIND_MASKS_WEAKER]
    reads = gatebook("audit", "list", "--kind", "read", "--target", server.target).stdout

    assert found.done
    assert counts(found.tallies) == {"DENY_TO_ALLOW": 1, "ALLOW_TO_DENY": 1, "MASKS_WEAKER": 2}
    assert (found.progress.decided, found.progress.distinct, found.progress.differing) == (4, 3, 4)
    assert [(one.name, one.count) for one in weaker.subjects] == [("dina", 2)]
    assert [(one.name, one.count) for one in weaker.resources] == [("clinic.visits", 2)]
    assert [(one.name, one.count) for one in weaker.callers] == [("local", 2)]
    assert {one.decision_id for one in weaker.examples} == {one.decision_id for one in decided[:2]}
    assert (weaker.examples[0].before, weaker.examples[0].after) == (
        "ALLOW; complaint: redact",
        "ALLOW; complaint: none",
    )
    assert tallies[replay_pb2.DIFFERENCE_KIND_DENY_TO_ALLOW].examples[0].subject.id == "goran"
    assert "ReplayDecisions" in reads
    assert decide(server, NURSE).columns[0].masks[0].kind == types_pb2.MASK_KIND_REDACT


def test_the_verdicts_are_those_of_a_server_of_the_draft(tmp_path: Path, server: RunningServer, draft: Path) -> None:
    """For each person, dataset and purpose, what is said to change is what a server of the draft decides otherwise."""
    asked = [
        question(subject, resource, purpose, context=WARD, row={"ward": "w1", "patient_id": "dina"})
        for subject in ("amara", "dina", "emil", "flora", "goran")
        for resource in ("clinic.visits", "finance.invoices")
        for purpose in ("treatment", "billing", "own_records")
    ]
    before = {decide(server, access).decision_id: access for access in asked}
    last = replay(server, draft)
    shutil.copytree(CLINIC / "directory", draft / "directory", dirs_exist_ok=True)
    # Its ceilings and guardrails would refuse the draft, so that they are lifted: no decision here depends on them.
    (draft / "guardrails.yaml").unlink()
    edit(draft / "catalogue.yaml", "{roles: [role:billing], people_max: 3}", "{roles: [role:staff], people_max: all}")
    edit(draft / "catalogue.yaml", "people_max: 6", "people_max: all")
    with serving(tmp_path / "other", [draft], "--dev") as other:
        after = {decision_id: decide(other, access).effect for decision_id, access in before.items()}
    effects = {one: effect_of(server, one) for one in before}
    turned = {
        one.decision_id
        for tally in last.tallies
        if tally.kind in (replay_pb2.DIFFERENCE_KIND_ALLOW_TO_DENY, replay_pb2.DIFFERENCE_KIND_DENY_TO_ALLOW)
        for one in tally.examples
    }

    assert turned == {one for one, effect in effects.items() if effect != after[one]}
    assert turned


def effect_of(server: RunningServer, decision_id: str) -> int:
    """Returns the effect in the book."""
    with server.channel() as channel:
        asked = audit_service_pb2.GetEntryRequest(decision_id=decision_id)
        return AuditServiceStub(channel).GetEntry(asked, timeout=60).record.entry.decision.effect


def test_a_replay_by_the_command(server: RunningServer, draft: Path) -> None:
    """The command prints what would change and ends with 1; with the set as it is nothing would, and it ends with 0."""
    for access in (NURSE, BILLING):
        decide(server, access)
    changed = gatebook("policy", "replay", str(draft), "--target", server.target)
    same = gatebook("policy", "replay", str(CLINIC), "--target", server.target)
    narrowed = gatebook(
        "policy", "replay", str(draft), "--resource", "clinic.visits", "--target", server.target, "--json"
    )

    assert (changed.returncode, same.returncode, narrowed.returncode) == (1, 0, 1)
    assert "masks weaker: dina read clinic.visits for treatment: ALLOW; complaint: redact -> ALLOW" in changed.stdout
    assert "2 decisions decided again (2 different), 0 would change" in same.stdout
    assert counts(json_format.ParseDict(json.loads(narrowed.stdout), pb.ReplayDecisionsResponse()).tallies) == {
        "MASKS_WEAKER": 1
    }


def test_the_directory_of_then_or_of_now(tmp_path: Path, server: RunningServer) -> None:
    """By default only the rules change; with the active directory people who lost a role count too."""
    decide(server, BILLING)
    people = tmp_path / "people"
    shutil.copytree(CLINIC / "directory", people)
    edit(people / "staff.jsonl", '"role:staff", "role:billing"', '"role:staff"')
    gatebook("directory", "publish", str(people), "--target", server.target, check=True)
    then, now = (
        counts(replay(server, CLINIC, directory=which).tallies)
        for which in (replay_pb2.REPLAY_DIRECTORY_OF_THEN, replay_pb2.REPLAY_DIRECTORY_ACTIVE)
    )

    assert (then, now) == ({}, {"ALLOW_TO_DENY": 1})


def test_a_draft_that_does_not_compile_is_refused(server: RunningServer, draft: Path) -> None:
    """A draft with an error is refused with the finding, and other sets' decisions are left out and counted."""
    edit(draft / "policy.csv", "complaint, read, treatment, True, none", "complaint, read, treatment, True, nonsense")
    with pytest.raises(grpc.RpcError) as refused:
        replay(server, draft)
    info = error_info(refused.value)

    assert info is not None
    assert (info.reason, "policy.csv:5" in (refused.value.details() or "")) == ("POLICY_SET_REFUSED", True)


def test_a_shadow_tells_what_live_decisions_differ_and_changes_none(server: RunningServer, draft: Path) -> None:
    """While it watches, answers are those of the active set; what differs is told; begin and end are entries."""
    with server.channel() as channel, server.channel() as second:
        request = pb.ShadowPolicySetRequest(files=files_of(draft), seconds=120)
        answers = PolicyServiceStub(channel).ShadowPolicySet(request, timeout=180)
        next(answers)
        with pytest.raises(grpc.RpcError) as busy:
            next(PolicyServiceStub(second).ShadowPolicySet(request, timeout=180))
        decided = [decide(server, access) for access in (NURSE, BILLING, OUTSIDER)]
        told: list[replay_pb2.DecisionDifference] = []
        for answer in answers:
            told += answer.differences
            if answer.progress.decided == len(decided):
                break
        answers.cancel()
        info = error_info(busy.value)
        again = []
        for _ in range(100):  # the end of the first is a matter of the server's
            try:
                again = [next(PolicyServiceStub(second).ShadowPolicySet(request, timeout=180))]
                break
            except grpc.RpcError:
                threading.Event().wait(0.05)
        wanted = audit_service_pb2.EntryFilter(kind=entry_pb2.ENTRY_KIND_READ)
        listed = AuditServiceStub(channel).ListEntries(
            audit_service_pb2.ListEntriesRequest(filter=wanted, order=audit_service_pb2.ENTRY_ORDER_OLDEST_FIRST),
            timeout=60,
        )
    events = [
        json.loads(one.filter_json)["event"] for one in listed.entries if one.entry.read.method == "ShadowPolicySet"
    ]

    assert info is not None
    assert (info.reason, len(again)) == ("OVERLOADED", 1)
    assert [one.effect for one in decided] == [types_pb2.EFFECT_ALLOW, types_pb2.EFFECT_ALLOW, types_pb2.EFFECT_DENY]
    assert decided[0].columns[0].masks[0].kind == types_pb2.MASK_KIND_REDACT
    assert {one.decision_id: list(one.kinds) for one in told} == {
        decided[0].decision_id: [replay_pb2.DIFFERENCE_KIND_MASKS_WEAKER],
        decided[1].decision_id: [replay_pb2.DIFFERENCE_KIND_ALLOW_TO_DENY],
        decided[2].decision_id: [replay_pb2.DIFFERENCE_KIND_DENY_TO_ALLOW],
    }
    assert events[:3] == ["begun", "ended", "begun"]
    assert next(one.entry.caller for one in listed.entries if one.filter_json) == "local"


def test_a_shadow_ends_with_its_time(server: RunningServer) -> None:
    """The command ends by itself, with 0 where nothing differed."""
    done = gatebook("policy", "shadow", str(CLINIC), "--for", "1s", "--target", server.target)

    assert (done.returncode, "0 decisions decided again" in done.stdout) == (0, True)


async def test_only_what_is_seen_is_told(tmp_path: Path) -> None:
    """An author who sees no entries learns of none; who also audits learns of all; others may not call."""
    callers = {
        "author": caller("author"),
        "both": caller("both"),
        "auditor": caller("auditor"),
        "trino": caller("trino"),
    }
    roles = (
        "g, cn:author, role:author",
        "g, cn:both, role:author",
        "g, cn:both, role:auditor",
        "g, cn:auditor, role:auditor",
        "g, cn:trino, role:service",
    )

    async def replayed(server: Authorised, name: str) -> tuple[str, int, int]:
        files = files_of(POLICIES / "basic")
        request = pb.ReplayDecisionsRequest(policy_set="basic", files=files)
        async with server.channel() as channel:
            last = pb.ReplayDecisionsResponse()
            try:
                async for answer in PolicyServiceStub(channel).ReplayDecisions(request, metadata=claiming(name)):
                    last = answer
            except grpc.aio.AioRpcError as error:
                return error.code().name, 0, 0
            return "OK", last.progress.seen, last.progress.decided

    async with authorised(tmp_path, callers, *roles) as server:
        access: Mapping[str, Any] = {
            "subject": {"type": "employee", "id": "alice"},
            "action": {"name": "read"},
            "resource": {"id": "report:weekly"},
        }
        async with server.channel() as channel:
            asked = json_format.ParseDict(
                {"policy_set": "basic", "access": access}, access_service_pb2.CheckAccessRequest()
            )
            await AccessServiceStub(channel).CheckAccess(asked, metadata=claiming("trino"))
        found = {name: await replayed(server, name) for name in callers}

    assert found == {
        "author": ("OK", 0, 0),
        "both": ("OK", 1, 1),
        "auditor": ("PERMISSION_DENIED", 0, 0),
        "trino": ("PERMISSION_DENIED", 0, 0),
    }
