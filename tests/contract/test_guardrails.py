# ruff: noqa: E501 - rules stand as they are written
"""Guardrails at the gate: a revision that breaks its own promises is refused, with somebody who could."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import pytest
from tests.serving import ROOT, RunningServer, gatebook, serving

from gatebook.governance.prove import Prover, Result
from gatebook.policy import bundle
from gatebook.policy.policy_set import load
from gatebook.v1 import audit_service_pb2, entry_pb2
from gatebook.v1 import policy_service_pb2 as pb
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub
from gatebook.v1.policy_service_pb2_grpc import PolicyServiceStub

POLICIES = ROOT / "policies"
TELEMETRY = POLICIES / "telemetry"
MCI, ROLES, HR = "policy/mci.csv", "policy/roles.csv", "policy/hr.csv"
IN_CLEAR = """p, role:mci_owner, mci.prompts.prompt_text, read, model_training, True, allow
p2, role:mci_owner, mci.prompts.prompt_text, read, model_training, r.sub.level > 6, none
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of the telemetry set with its directory."""
    with serving(tmp_path_factory.mktemp("guarded") / "data", [TELEMETRY], "--dev") as running:
        yield running


def draft(tmp_path: Path, changes: Mapping[str, str], name: str = "telemetry") -> Path:
    """Copies a shipped set, with more lines in some files."""
    folder = tmp_path / "draft"
    shutil.copytree(POLICIES / name, folder)
    for path, lines in changes.items():
        with (folder / path).open("a", encoding="utf-8") as file:
            file.write(lines)
    return folder


def judged(channel: grpc.Channel, folder: Path) -> list[pb.Finding]:
    """Returns what a server finds of guardrails."""
    files = [pb.PolicyFile(path=path, content=it) for path, it in bundle.read_folder(folder).items()]
    request = pb.ValidatePolicySetRequest(policy_set="telemetry", files=files)
    found = PolicyServiceStub(channel).ValidatePolicySet(request, timeout=90).findings
    return [it for it in found if it.invariant.startswith(("GUARDRAIL", "SEPARATION"))]


def newest(channel: grpc.Channel, step: entry_pb2.PolicyStep.ValueType) -> entry_pb2.PolicyEntry:
    """Returns the newest entry of a step."""
    request = audit_service_pb2.ListEntriesRequest(
        filter=audit_service_pb2.EntryFilter(kind=entry_pb2.ENTRY_KIND_POLICY),
        order=audit_service_pb2.ENTRY_ORDER_NEWEST_FIRST,
    )
    entries = [record.entry.policy for record in AuditServiceStub(channel).ListEntries(request).entries]
    return next(entry for entry in entries if entry.step == step)


@pytest.mark.parametrize("name", ["telemetry", "clinic"])
def test_what_is_shipped_is_proved(name: str) -> None:
    """Each guardrail of the two shipped sets is proved."""
    done = gatebook("policy", "prove", str(POLICIES / name), "--json")
    told = json.loads(done.stdout)

    assert (done.returncode, done.stderr) == (0, "")
    assert {it["result"] for it in told["guardrails"]} == {"PROVED"}


def test_a_refuted_guardrail_refuses_the_publish(server: RunningServer, tmp_path: Path) -> None:
    """The finding names somebody, their way with file and line, and a request; nothing changes, and the book tells."""
    folder = draft(tmp_path, {MCI: IN_CLEAR})
    with server.channel() as channel:
        before = PolicyServiceStub(channel).GetRevision(pb.GetRevisionRequest(policy_set="telemetry")).record.revision
        done = gatebook("policy", "publish", str(folder), "--name", "telemetry", "--target", server.target)
        after = PolicyServiceStub(channel).GetRevision(pb.GetRevisionRequest(policy_set="telemetry")).record.revision
        (found,) = judged(channel, folder)
        refused = newest(channel, entry_pb2.POLICY_STEP_REFUSED)

    assert (done.returncode, before) == (1, after)
    assert "GUARDRAIL_REFUTED" in {it.invariant for it in refused.findings}
    assert (found.invariant, found.file, found.dataset, found.action) == (
        "GUARDRAIL_REFUTED",
        MCI,
        "mci.prompts",
        "read",
    )
    somebody = json.loads(found.counterexample.path[0].text)
    assert (somebody["groups"], somebody["attributes"]["level"] > 6) == (["role:mci_owner"], True)
    assert found.counterexample.path[-1].line == found.line
    assert "CONSENT_REQUIRED" in found.counterexample.why_not


def test_a_condition_that_is_too_hard_is_not_proved(server: RunningServer, tmp_path: Path) -> None:
    """UNKNOWN refuses as well, names the part of the condition with its place, and says what to write."""
    hard = IN_CLEAR.replace("True, allow", "regexMatch(r.row.tool, '^q{3}w+z$') && r.row.tool != 'qqqwz', allow")
    folder = draft(tmp_path, {MCI: hard})
    with server.channel() as channel:
        (found,) = judged(channel, folder)

    assert found.invariant == "GUARDRAIL_UNKNOWN"
    assert "regexMatch(r.row.tool, '^q{3}w+z$')" in found.message
    assert f"({MCI}:65:" in found.message
    assert "keyMatch" in found.message


def test_without_the_solver_nothing_is_proved(tmp_path: Path) -> None:
    """Where z3 is not installed, a set with guardrails is refused, and told what to install."""
    (tmp_path / "z3.py").write_text("raise ImportError\n", encoding="utf-8")
    program = "import sys; sys.path.insert(0, sys.argv.pop(1)); from gatebook.__main__ import main; main()"
    command = [sys.executable, "-c", program, str(tmp_path), "policy", "test", str(TELEMETRY)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)

    assert done.returncode == 1
    assert "pip install gatebook[prove] (GUARDRAIL_UNPROVED)" in done.stdout.replace("\n", " ")


def test_at_07b_one_role_may_not_have_both(server: RunningServer, tmp_path: Path) -> None:
    """A link that gives researchers the reviews too is refused, with the way of roles as witness."""
    folder = draft(tmp_path, {ROLES: "g, role:mci_researcher, role:hrbp\n"})
    with server.channel() as channel:
        found = judged(channel, folder)
    refuted = next(it for it in found if it.invariant == "GUARDRAIL_REFUTED")
    farah = next(it for it in found if it.invariant == "SEPARATION")

    steps = [step.text for step in refuted.counterexample.path]
    assert "role:mci_researcher inherits role:hrbp" in steps
    assert json.loads(steps[0])["groups"] == ["role:mci_researcher"]
    assert "`farah`" in farah.message


def test_at_07b_nobody_in_the_directory_may_have_both(tmp_path: Path) -> None:
    """A directory that gives one person both roles is refused, with both ways; without it others still go at once."""
    people = tmp_path / "people"
    shutil.copytree(TELEMETRY / "directory", people)
    file = people / "personas.jsonl"
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if '"noor"' not in line]
    both = [line.replace('"role:hrbp"', '"role:hrbp", "role:mci_researcher"') for line in lines]
    with serving(tmp_path / "data", [TELEMETRY], "--dev") as running:
        file.write_text("\n".join(both) + "\n", encoding="utf-8")
        refused = gatebook("directory", "publish", str(people), "--target", running.target)
        with running.channel() as channel:
            entry = newest(channel, entry_pb2.POLICY_STEP_REFUSED)
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        taken = gatebook("directory", "publish", str(people), "--target", running.target)

    told = refused.stdout + refused.stderr
    assert refused.returncode != 0
    assert "`eli` must not have both sides of `reviews-apart-from-content`" in told.replace("\n", " ")
    assert "role:hrbp" in told
    assert "role:mci_researcher" in told
    assert {it.invariant for it in entry.findings} == {"SEPARATION"}
    assert taken.returncode == 0, taken.stderr


MUTANTS = [
        # A mask that no longer hides, a role that is wider, a condition dropped, a deny dropped, a purpose that is wider.
        ("telemetry", MCI, "ts, read, model_training, True, truncate:hour", "ts, read, model_training, True, none", None),
        ("telemetry", MCI, "p, role:incident_responder, mci.private_conversations, read, security_investigation, True, allow\n", "p, role:auditor, mci.private_conversations, read, security_investigation, True, allow\np2, role:auditor, tag:content, read, *, True, none\n", "content-in-clear"),
        ("telemetry", ROLES, "g, role:manager, role:employee", "g, role:manager, role:mci_researcher", "content-in-clear"),
        ("telemetry", HR, "p, role:hrbp, hr.performance_metrics, read", "p, role:mci_researcher, hr.performance_metrics, read", None),
        ("clinic", "policy.csv", "p, role:physician, tag:health.psychiatric, read, *, r.sub.specialty != 'psychiatry', deny\n", "", "psychiatric-for-psychiatrists"),
        ("clinic", "policy.csv", "r.sub.specialty != 'psychiatry', deny", "r.sub.specialty == 'surgery', deny", "psychiatric-for-psychiatrists"),
        ("clinic", "policy.csv", "p, role:registry, clinic.visits.ward, export", "p, role:nurse, clinic.visits.ward, export", "nothing-leaves-but-by-registry"),
        ("clinic", "policy.csv", "p, role:registry, clinic.visits.visit_id, export", "p, role:registry, clinic.visits, export", "no-names-leave"),
        ("clinic", "policy.csv", "p, role:staff, clinic.visits, read, own_records, r.row.patient_id == r.sub.id, allow", "p, role:staff, clinic.visits, read, own_records, True, allow", "health-for-care"),
        ("clinic", "policy.csv", "own_records, r.row.patient_id == r.sub.id, allow\np2", "own_records, !(r.row.patient_id != r.sub.id) || r.row.ward == 'w1', allow\np2", "health-for-care"),
        ("clinic", "policy.csv", "p, role:billing, finance.invoices", "p, role:nurse, finance.invoices", "care-apart-from-billing"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "old", "new", "refuted"), MUTANTS)
def test_a_mutant_of_a_shipped_set_is_not_proved(
    name: str, file: str, old: str, new: str, refuted: str | None, tmp_path: Path
) -> None:
    """What a careless change opens is refuted, and what it does not open is still proved."""
    folder = draft(tmp_path, {}, name)
    text = (folder / file).read_text(encoding="utf-8")
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    verdicts = {it.guardrail.name: it for it in Prover(load(bundle.read_folder(folder), accepted=True)).verdicts()}

    if refuted is not None:
        assert verdicts[refuted].result is Result.REFUTED
    assert {it.result for it in verdicts.values()} <= {Result.PROVED, Result.REFUTED}


def test_rules_that_change_nothing_are_told(tmp_path: Path) -> None:
    """A rule that cannot match and one that another covers are warnings, with file and line."""
    more = "p, role:mci_owner, mci.source_activity, read, model_training, r.sub.level > 5 && r.sub.level < 4, allow\n"
    more += "p, role:mci_researcher, mci.prompts, read, model_training.finetune, r.sub.level >= 4, allow\n"
    folder = draft(tmp_path, {MCI: more})
    done = gatebook("policy", "prove", str(folder), "--json")
    told = {(it["file"], it["line"], it["invariant"]) for it in json.loads(done.stdout)["findings"]}

    assert done.returncode == 0
    assert {(MCI, 65, "DEAD_RULE"), (MCI, 66, "SHADOWED_RULE")} <= told


@pytest.mark.parametrize(
    ("line", "code", "result", "allowed_by"),
    [
        ("\n# a remark\n", 0, "EQUIVALENT", None),
        ("p, role:nurse, clinic.visits.ward, export, treatment, True, allow\n", 1, "DIFFERENT", "new"),
        ("p, role:registry, clinic.visits.ward, export, treatment, r.row.ward == 'a', deny\n", 1, "DIFFERENT", "old"),
    ],
)
def test_two_sets_are_told_to_be_equivalent_or_not(
    tmp_path: Path, line: str, code: int, result: str, allowed_by: str | None
) -> None:
    """A set and a copy with another line: the result, who allows what the other denies, and a confirmed request."""
    folder = draft(tmp_path, {"policy.csv": line}, "clinic")
    done = gatebook("policy", "prove", str(POLICIES / "clinic"), "--equivalent", str(folder), "--json")
    told = json.loads(done.stdout)

    assert (done.returncode, done.stderr) == (code, "")
    assert (told["result"], told["allowed_by"]) == (result, allowed_by)
    assert allowed_by is None or told["counterexample"]["subject"] == "somebody"
