"""AT-36: any decision of the book is explained, proved, and decided again to the same answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from tests.authorised import GRANTED, PEOPLE, Authorised, Ended, authorised, caller
from tests.serving import POLICIES, RunningServer, gatebook, serving
from tests.telemetry_sets import telemetry_without_consent

from gatebook.cli.output import error_info
from gatebook.tlog.keys import VerifierKey
from gatebook.tlog.proof import verify_proof
from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import audit_service_pb2, entry_pb2, types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub

CLINIC = POLICIES / "clinic"
WARD = {"ward": "w1"}
COMPLAINTS_IN_CLEAR = "complaint, read, treatment, True, none"
BASIC_WAY = ["alice holds role:editor", "role:editor holds role:viewer"]
ABLE = {
    "id": "notebook",
    "supported_masks": [name for name, number in types_pb2.MaskKind.items() if number],
    "supported_obligations": [name for name, number in types_pb2.ObligationKind.items() if number],
}


@pytest.fixture(scope="module")
def telemetry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of the telemetry set, whose purposes need no consent."""
    folder = telemetry_without_consent(tmp_path_factory.mktemp("sets"))
    with serving(tmp_path_factory.mktemp("telemetry") / "data", [folder], "--dev") as running:
        yield running


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of the clinic."""
    with serving(tmp_path_factory.mktemp("clinic") / "data", [CLINIC], "--dev") as running:
        yield running


def question(subject: str, resource: str, purpose: str, *columns: str, **more: object) -> dict[str, Any]:
    """Returns a question in JSON."""
    return {
        "subject": {"type": "user", "id": subject},
        "action": {"name": "read"},
        "resource": {"id": resource, "columns": columns},
        "purpose": purpose,
        "enforcer": ABLE,
        **more,
    }


def decide(server: RunningServer, access: Mapping[str, Any]) -> types_pb2.Decision:
    """Asks, and returns the decision."""
    with server.channel() as channel:
        asked = json_format.ParseDict({"access": access}, pb.CheckAccessRequest())
        return AccessServiceStub(channel).CheckAccess(asked, timeout=60).decision


def explain(server: RunningServer, decision_id: str) -> pb.ExplainDecisionResponse:
    """Asks why."""
    with server.channel() as channel:
        asked = pb.ExplainDecisionRequest(decision_id=decision_id)
        return AccessServiceStub(channel).ExplainDecision(asked, timeout=60)


def told_reason(error: grpc.RpcError) -> tuple[str, str]:
    """Returns the reason of an error, and whether it says that somebody was erased."""
    info = error_info(error)
    assert info is not None
    return info.reason, info.metadata.get("erased", "")


def steps(path: Sequence[Any]) -> list[tuple[str, str, int]]:
    """Returns links as text, file and line."""
    return [(step.text, step.file, step.line) for step in path]


def without_times(decision: types_pb2.Decision) -> types_pb2.Decision:
    """Returns a decision without what belongs to the moment: times, and the receipt."""
    bare = types_pb2.Decision()
    bare.CopyFrom(decision)
    for name in ("decide_time", "expires_time", "receipt"):
        bare.ClearField(name)
    return bare


def test_at_36_explain_an_allow(telemetry: RunningServer) -> None:
    """Revisions, rules, links, tags, purpose, masks with their rules, and a proof that anybody can check."""
    columns = ("subject_id", "prompt_text")
    access = question("farah", "mci.prompts", "model_training.evaluation", *columns)
    decision = decide(telemetry, access)
    told = explain(telemetry, decision.decision_id)
    allow = told.explanation.rules[0]
    receipt = told.decision.receipt
    proved = verify_proof(
        told.explanation.proof.encode(), receipt.leaf_hash, VerifierKey.parse(told.explanation.verifier_key)
    )

    assert told.replayed.equal
    assert without_times(told.decision) == without_times(decision)
    assert (receipt.index, receipt.leaf_hash) == (decision.receipt.index, decision.receipt.leaf_hash)
    assert proved.size > receipt.index
    assert json_format.MessageToDict(told.explanation.access)["subject"] == access["subject"]
    assert (allow.rule.file, allow.rule.effect, tuple(allow.columns)) == ("policy/mci.csv", "allow", columns)
    assert steps(allow.subject_path) == [("farah has role:mci_researcher", "personas.jsonl", 6)]
    assert [text for text, file, _ in steps(allow.resource_path)] == ["mci.prompts.subject_id lies in mci.prompts"]
    assert [text for text, file, _ in steps(allow.purpose_path)] == [
        "model_training.evaluation is part of model_training"
    ]
    assert [[tag for tag in column.tags if "source" not in tag] for column in told.explanation.columns] == [
        ["tag:id.pseudo", "tag:id"],
        ["tag:content.prompt", "tag:content"],
    ]
    assert [tuple(column.mask_tags) for column in told.explanation.columns] == [
        (),
        ("tag:content.prompt", "tag:content"),
    ]
    assert [
        [(mask.mask.kind, mask.rule.rule.split(", ")[2]) for mask in column.masks]
        for column in told.explanation.columns
    ] == [
        [(types_pb2.MASK_KIND_HASH, "tag:id.pseudo")],
        [(types_pb2.MASK_KIND_REGEX, "mci.prompts.prompt_text")],
    ]
    assert list(told.explanation.purpose_lineage) == ["model_training.evaluation", "model_training", "*"]
    assert (told.decision.notice_id, "model_training" in told.explanation.notice_purposes) == ("mci-2026-05", True)


def test_at_36_explain_on_the_clinic_by_the_command(clinic: RunningServer, tmp_path: Path) -> None:
    """The command prints the rule that denied, the links to it, and writes the proof of the entry."""
    access = question("amara", "clinic.visits", "treatment", "therapist_note", context=WARD, row=WARD)
    decision = decide(clinic, access)
    done = gatebook("explain", decision.decision_id, "--target", clinic.target, "--proof", str(tmp_path / "proof"))
    told = json.loads(gatebook("explain", decision.decision_id, "--target", clinic.target, "--json").stdout)

    assert (decision.effect, done.returncode) == (types_pb2.EFFECT_DENY, 0)
    assert "by amara has role:physician  staff.jsonl:1" in done.stdout
    assert "by clinic.visits.therapist_note lies in tag:health.psychiatric  catalogue.yaml:" in done.stdout
    assert "replayed  the same" in done.stdout
    assert (tmp_path / "proof").read_text(encoding="utf-8").startswith("c2sp.org/tlog-proof@v1\n")
    assert told["replayed"]["equal"]


def edit(path: Path, before: str, after: str) -> None:
    """Replaces a text in a file."""
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")


def test_a_decision_of_old_revisions_is_decided_again_under_them(tmp_path: Path) -> None:
    """After other rules and another directory are active, and after a restart, an old decision is still the same.

    Where its revision is not what was stored any more, it is refused and not decided by something else.
    """
    folder = tmp_path / "clinic"
    shutil.copytree(CLINIC, folder, ignore=shutil.ignore_patterns("tests"))
    access = question("dina", "clinic.visits", "treatment", "complaint", context=WARD, row=WARD)
    with serving(tmp_path / "data", [folder], "--dev") as server:
        decided = [decide(server, access)]
        edit(folder / "policy.csv", "complaint, read, treatment, True, redact", COMPLAINTS_IN_CLEAR)
        gatebook("policy", "publish", str(folder), "--target", server.target, check=True)
        decided.append(decide(server, access))
        edit(folder / "directory" / "staff.jsonl", ', "role:nurse"', "")
        gatebook("directory", "publish", str(folder / "directory"), "--target", server.target, check=True)
        decided.append(decide(server, access))
    with serving(tmp_path / "data", [], "--dev") as server:
        again = [explain(server, one.decision_id) for one in decided]
    damaged = tmp_path / "data" / "revisions" / decided[0].policy_revision.digest / "policy.csv"
    damaged.chmod(0o600)
    edit(damaged, "redact", "none")
    with serving(tmp_path / "data", [], "--dev") as server, pytest.raises(grpc.RpcError) as refused:
        explain(server, decided[0].decision_id)

    assert [one.replayed.equal for one in again] == [True, True, True]
    assert [without_times(one.decision) for one in again] == [without_times(one) for one in decided]
    assert [one.effect for one in decided] == [types_pb2.EFFECT_ALLOW, types_pb2.EFFECT_ALLOW, types_pb2.EFFECT_DENY]
    assert len({(one.decision.policy_revision.number, one.decision.directory_revision.number) for one in again}) == 3
    assert told_reason(refused.value) == ("BOOK_UNAVAILABLE", "")


def test_plans_and_plain_sets_are_explained_too(tmp_path: Path, telemetry: RunningServer) -> None:
    """A plan says which rows it left; a plain set the links of its own relations."""
    with telemetry.channel() as channel:
        asked = {"access": question("noor", "ai_usage.token_usage", "subject_access"), "dialect": "duckdb"}
        request = json_format.ParseDict(asked, pb.PlanAccessRequest())
        planned = AccessServiceStub(channel).PlanAccess(request, timeout=60).decision
    told = explain(telemetry, planned.decision_id)
    with serving(tmp_path / "data", [POLICIES / "basic"], "--dev") as server:
        access = {"subject": {"id": "alice"}, "action": {"name": "read"}, "resource": {"id": "report:weekly"}}
        plain = explain(server, decide(server, access).decision_id)

    assert (told.replayed.equal, plain.replayed.equal) == (True, True)
    assert told.decision.row_filter.kind == types_pb2.ROW_FILTER_KIND_CONDITIONAL
    assert told.decision.row_filter.expression == planned.row_filter.expression
    assert [step.text for step in plain.explanation.rules[0].subject_path] == BASIC_WAY


def test_any_worker_explains_a_decision_of_any_book(tmp_path: Path) -> None:
    """With several workers the book that holds the decision is found, and the read is an entry of that book."""
    access = {"subject": {"id": "alice"}, "action": {"name": "read"}, "resource": {"id": "report:weekly"}}
    with serving(tmp_path / "data", [POLICIES / "basic"], "--dev", "--workers", "2") as server:
        told: dict[str, types_pb2.Decision] = {}
        for _ in range(200):
            with grpc.insecure_channel(server.target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
                stub = AccessServiceStub(channel)
                asked = json_format.ParseDict({"access": access}, pb.CheckAccessRequest())
                decision = stub.CheckAccess(asked, timeout=60).decision
                told.setdefault(decision.receipt.origin, decision)
            if len(told) == 2:
                break
        for origin, decision in told.items():
            found = explain(server, decision.decision_id)
            assert (found.replayed.equal, found.decision.receipt.origin) == (True, origin)
        with server.channel() as channel:
            reads = [
                AuditServiceStub(channel).ListEntries(
                    audit_service_pb2.ListEntriesRequest(
                        filter=audit_service_pb2.EntryFilter(kind=entry_pb2.ENTRY_KIND_READ), origin=origin
                    ),
                    timeout=60,
                )
                for origin in told
            ]

    assert [[one.entry.read.method for one in read.entries].count("ExplainDecision") for read in reads] == [1, 1]


def test_what_was_erased_cannot_be_explained(tmp_path: Path) -> None:
    """Once a person is erased, their decisions are not decided again, and the error says why; those of others are."""
    with serving(tmp_path / "data", [CLINIC], "--dev") as server:
        own = decide(server, question("flora", "finance.invoices", "billing"))
        about = decide(server, question("amara", "clinic.visits", "treatment", row={"patient_id": "igor"}))
        other = decide(server, question("goran", "finance.invoices", "billing"))
        for person in ("flora", "igor"):
            gone = ("--requested-by", "dana", "--approved-by", "kai", "--reason", "T-1", "--yes")
            gatebook("audit", "erase", person, *gone, "--target", server.target, check=True)
        errors = []
        for decision in (own, about):
            with pytest.raises(grpc.RpcError) as refused:
                explain(server, decision.decision_id)
            errors.append(told_reason(refused.value))
        kept = explain(server, other.decision_id)

    assert errors == [("NOT_REPLAYABLE", "true")] * 2
    assert kept.replayed.equal


async def test_who_is_told_what(tmp_path: Path) -> None:
    """Services and people explain what they see, and nothing else; who may read the set is told of its other rules."""
    callers = {**PEOPLE, "spark": caller("spark"), "auditor": caller("auditor"), "author": caller("author")}
    roles = (*GRANTED, "g, cn:spark, role:service", "g, cn:auditor, role:auditor", "g, cn:author, role:author")
    access = types_pb2.AccessRequest(
        subject=types_pb2.Subject(type="employee", id="farah"),
        action=types_pb2.Action(name="write"),
        resource=types_pb2.Resource(id="report:weekly"),
    )

    async def ask(server: Authorised, name: str, decision_id: str) -> tuple[Ended, pb.ExplainDecisionResponse]:
        request = pb.ExplainDecisionRequest(decision_id=decision_id).SerializeToString()
        how, answer = await server.call(name, "/gatebook.v1.AccessService/ExplainDecision", request)
        return how, pb.ExplainDecisionResponse.FromString(answer)

    async with authorised(tmp_path, callers, *roles) as server:
        asked = pb.CheckAccessRequest(policy_set="basic", access=access).SerializeToString()
        _, answer = await server.call("trino", "/gatebook.v1.AccessService/CheckAccess", asked)
        decision_id = pb.CheckAccessResponse.FromString(answer).decision.decision_id
        told = {name: await ask(server, name, decision_id) for name in callers}
        missing, _ = await ask(server, "kai", "0" * 32)

    assert {name: how.code for name, (how, _) in told.items()} == {
        "trino": "OK",
        "farah": "OK",
        "auditor": "OK",
        "kai": "NOT_FOUND",
        "helper": "NOT_FOUND",
        "spark": "NOT_FOUND",
        "author": "PERMISSION_DENIED",
    }
    assert told["kai"][0].message == missing.message.replace("0" * 32, decision_id)
    seen = {name: answer.explanation for name, (how, answer) in told.items() if how.code == "OK"}
    assert {name: bool(one.near_rules) for name, one in seen.items()} == {
        "trino": False,
        "farah": False,
        "auditor": True,
    }
    assert {name: bool(one.withheld) for name, one in seen.items()} == {"trino": True, "farah": True, "auditor": False}


def test_a_change_that_is_told_really_allows(tmp_path: Path) -> None:
    """What is told is made in the files and published: the question that was denied is then allowed."""
    folder = tmp_path / "clinic"
    shutil.copytree(CLINIC, folder, ignore=shutil.ignore_patterns("tests"))
    access = question("igor", "finance.invoices", "billing", "amount")
    with serving(tmp_path / "data", [folder], "--dev") as server:
        denied = decide(server, access)
        told = explain(server, denied.decision_id).explanation
        change = told.changes[0]
        [edit] = change.edits
        lines = (folder / "directory" / edit.file).read_text(encoding="utf-8").splitlines()
        assert lines[edit.line - 1] == edit.before
        lines[edit.line - 1] = edit.after
        (folder / "directory" / edit.file).write_text("\n".join(lines) + "\n", encoding="utf-8")
        gatebook("directory", "publish", str(folder / "directory"), "--target", server.target, check=True)
        allowed = decide(server, json_format.MessageToDict(change.access, preserving_proto_field_name=True))
        shown = gatebook("explain", denied.decision_id, "--target", server.target).stdout

    assert (denied.effect, allowed.effect) == (types_pb2.EFFECT_DENY, types_pb2.EFFECT_ALLOW)
    assert (edit.kind, edit.in_directory, change.refused) == (pb.EDIT_KIND_GIVE_ROLE, True, False)
    assert "change    give `igor` `role:billing`" in shown
