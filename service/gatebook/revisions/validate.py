"""What is known of a draft of a policy set: its findings, and the expectations that do not hold.

Owns the judgement that both `gatebook policy test` and a publish rest on. It reads no state and changes none.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from gatebook.authorize import decide, question_of
from gatebook.compiler.program import Program
from gatebook.engine.snapshot import Snapshot, build_snapshot
from gatebook.errors import PolicySetRefusedError
from gatebook.expression.moments import Moment
from gatebook.governance.approvers import approver_findings
from gatebook.governance.audience import Audiences
from gatebook.governance.ceilings import ceiling_findings
from gatebook.governance.change import Change
from gatebook.governance.inheritance import effective
from gatebook.governance.lineage import NO_LINEAGE, Lineage
from gatebook.governance.loosening import changes
from gatebook.policy import bundle
from gatebook.policy.directory import Directory, load_directory
from gatebook.policy.gatebook_set import GATEBOOK, shape_findings
from gatebook.policy.policy_set import PolicySet, load
from gatebook.policy.policy_tests import run_tests
from gatebook.policy.settings import parse_settings
from gatebook.revisions.guarded import guardrail_findings, proof_digest
from gatebook.revisions.keepers import keeper_findings
from gatebook.revisions.separation import held_findings
from gatebook.values import AccessRequest, Decision, Finding, Revision, Severity, TestFailure

TESTER = "local"
"""Who asks where a test names no caller: whoever calls over loopback."""
TEST_MASTER = bytes(32)
"""Stands for the master secret of mask keys, whose ids no expectation can name."""


class Validation(msgspec.Struct, frozen=True):
    """What is known of a draft; it can be published if it `passed`.

    `readable` tells whether it could be read. One that was judged elsewhere has neither set nor program here.
    `changes` are what it changes, where that was asked for and nothing refuses it.
    """

    name: str
    digest: str
    findings: tuple[Finding, ...]
    test_failures: tuple[TestFailure, ...] = ()
    tests_run: int = 0
    policy_set: PolicySet | None = None
    program: Program | None = None
    readable: bool = False
    changes: tuple[Change, ...] | None = None

    @property
    def passed(self) -> bool:
        """Tells whether there is neither an error nor a failed expectation."""
        return not self.test_failures and all(f.severity is not Severity.ERROR for f in self.findings)

    def refusal(self) -> PolicySetRefusedError:
        """Returns the error that says why it cannot be published."""
        errors = sum(f.severity is Severity.ERROR for f in self.findings)
        failed = len(self.test_failures)
        message = f"policy set `{self.name}` is refused: {errors} errors, {failed} failed expectations"
        return PolicySetRefusedError(message, self.findings, self.test_failures, policy_set=self.name)


def validate(
    files: Mapping[str, bytes],
    name: str,
    *,
    directory: Directory | None = None,
    directory_files: Mapping[str, bytes] | None = None,
    now: datetime | None = None,
    test: bool = True,
    lineage: Lineage = NO_LINEAGE,
) -> Validation:
    """Loads, compiles and tests a draft.

    Args:
        files: The files of the set.
        name: Its name, where its `gatebook.yaml` gives none.
        directory: The subjects that its tests speak of; or else:
        directory_files: the files of such a directory.
        now: The time that its tests take place at; the present one if None.
        test: Whether to run its tests.
        lineage: What is known of where its tables come from.

    Raises:
        DirectoryRefusedError: the directory has findings.
        LimitExceededError: the set is too large.
    """
    digest = bundle.digest(files)
    if directory is None and directory_files:
        directory = load_directory(directory_files)
    try:
        policy_set = load(files, name)
        if not test:
            return Validation(policy_set.name, digest, policy_set.warnings, policy_set=policy_set, readable=True)
        snapshot = build_draft(policy_set, digest, directory, lineage)
    except PolicySetRefusedError as refused:
        return Validation(name, digest, tuple(sorted(refused.findings)))
    own = gatebook_findings(snapshot)
    if any(finding.severity is Severity.ERROR for finding in own):
        findings = tuple(sorted({*policy_set.warnings, *own}))
        return Validation(policy_set.name, digest, findings, policy_set=policy_set, readable=True)
    at = now or datetime.now(UTC)
    own += audience_findings(snapshot, at)
    own += approver_findings(policy_set, directory)
    proved = proof_digest(digest, lineage)
    own += guardrail_findings(snapshot.policy_set, proved, at)
    own += () if snapshot.directory is None else held_findings(snapshot.policy_set, proved, snapshot.directory)

    def decide_one(request: AccessRequest, caller: str, time: datetime | None) -> Decision:
        return decide(snapshot, question_of(snapshot, request, caller=caller or TESTER), time or at)

    outcome = run_tests(files, decide_one)
    findings = tuple(sorted({*policy_set.warnings, *own, *outcome.findings}))
    return Validation(
        policy_set.name,
        digest,
        findings,
        outcome.failures,
        outcome.run,
        policy_set,
        snapshot.program,
        readable=True,
    )


def gatebook_findings(snapshot: Snapshot) -> list[Finding]:
    """Returns what is wrong with a set as the one that governs the door, if it is that."""
    policy_set = snapshot.policy_set
    if policy_set.name != GATEBOOK:
        return []
    findings = shape_findings(policy_set)
    if all(finding.severity is not Severity.ERROR for finding in findings):
        findings += keeper_findings(policy_set, snapshot.program)
    return findings


def audience_findings(snapshot: Snapshot, now: datetime, severity: Severity = Severity.ERROR) -> list[Finding]:
    """Returns where the audience of a governed set exceeds a ceiling, each with somebody who could get in."""
    if snapshot.directory is None:
        return []

    def confirm(request: AccessRequest, caller: str) -> str:
        decision = decide(snapshot, question_of(snapshot, request, caller=caller or TESTER), now)
        return "" if decision.allowed else f"{decision.reason.name}, {decision.message}"

    audiences = Audiences(snapshot.policy_set, snapshot.directory, Moment(now))
    return ceiling_findings(audiences, confirm, severity)


def compared(
    found: Validation, base: PolicySet | None, directory: Directory | None, now: datetime, lineage: Lineage = NO_LINEAGE
) -> Validation:
    """Adds to what is known of a draft what it changes of the set that is active (None: nothing is), as both decide."""
    draft = found.policy_set
    if draft is None or not found.passed:
        return found
    before = None if base is None else effective(base, lineage)
    return msgspec.structs.replace(found, changes=changes(before, effective(draft, lineage), directory, now))


def declared_name(files: Mapping[str, bytes], name: str) -> str:
    """Returns the name that a set gives itself in its `gatebook.yaml`, else `name`."""
    content = files.get(bundle.SETTINGS_FILE, b"")
    settings, _ = parse_settings(content.decode(errors="replace"), bundle.SETTINGS_FILE)
    return name if settings is None or not settings.name else settings.name


def build_draft(
    policy_set: PolicySet, digest: str, directory: Directory | None, lineage: Lineage = NO_LINEAGE
) -> Snapshot:
    """Compiles a draft with what its tables inherit, under a directory; where a governed set has none, an empty one."""
    subjects = directory
    if policy_set.catalogue is not None and subjects is None:
        subjects = Directory.empty()
    directory_revision = None if subjects is None else Revision(subjects.digest, 0)
    judged = effective(policy_set, lineage)
    return build_snapshot(judged, Revision(digest, 0), subjects, directory_revision, mask_master=TEST_MASTER)
