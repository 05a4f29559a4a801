"""Who in a directory has both of what guardrails keep separate.

Owns the findings about people. A publish of a policy set is refused for anybody who has both; a publish of a directory
for whoever did not have both before. So no assignment that brings them together takes effect.
"""

from __future__ import annotations

from collections.abc import Iterator

from gatebook.governance import smt
from gatebook.governance.prove import Prover
from gatebook.governance.separate import Both, Separation
from gatebook.pace import Pause, no_pause, paced
from gatebook.policy.bundle import GUARDRAILS_FILE
from gatebook.policy.directory import Directory, Subject
from gatebook.policy.guardrails import Guardrail, Kind
from gatebook.policy.policy_set import PolicySet
from gatebook.revisions.guarded import GUARDRAIL_UNPROVED, INSTALL, SEPARATION, keep, recalled, told_access
from gatebook.values import Finding, Severity

FINDINGS_MAX = 100


def separates(policy_set: PolicySet) -> bool:
    """Tells whether a set keeps anything separate."""
    return any(guardrail.kind is Kind.SEPARATE for guardrail in policy_set.guardrails)


def held_findings(policy_set: PolicySet, digest: str, directory: Directory) -> tuple[Finding, ...]:
    """Returns a finding for each subject that could be allowed both, remembered by the digests of set and directory."""
    known = recalled(digest, directory.digest)
    if known is None:
        known = separation_findings(policy_set, directory)
        if not any(finding.invariant == GUARDRAIL_UNPROVED for finding in known):
            keep(known, digest, directory.digest)
    return known


def separation_findings(
    policy_set: PolicySet, directory: Directory, before: Directory | None = None, pause: Pause = no_pause
) -> tuple[Finding, ...]:
    """Returns a finding for each subject that could be allowed both; a warning where it could with `before` too.

    Of either severity there are so many at most; however many warnings there are, no error goes without saying.
    """
    if not separates(policy_set):
        return ()
    if not smt.installed():
        return (Finding(GUARDRAILS_FILE, 1, 1, GUARDRAIL_UNPROVED, INSTALL),)
    findings: list[Finding] = []
    for guardrail in policy_set.guardrails:
        if guardrail.kind is Kind.SEPARATE:
            for finding in _findings(Separation(Prover(policy_set), guardrail), guardrail, directory, before, pause):
                of_severity = sum(it.severity is finding.severity for it in findings)
                if of_severity < FINDINGS_MAX:
                    findings.append(finding)
                elif finding.severity is Severity.ERROR:
                    return tuple(findings)
    return tuple(findings)


def _findings(
    separation: Separation, guardrail: Guardrail, directory: Directory, before: Directory | None, pause: Pause
) -> Iterator[Finding]:
    for subject in paced(directory.subjects.values(), pause):
        both = separation.both_of(subject)
        if both.shown or both.undecided:
            old = None if before is None else before.find(subject.type, subject.id)
            stood = old is not None and _has_both(separation.both_of(old))
            severity = Severity.WARNING if stood else Severity.ERROR
            yield Finding(subject.file, subject.line, 1, SEPARATION, _told(guardrail, subject, both), severity)


def _has_both(both: Both) -> bool:
    return bool(both.shown) or both.undecided


def _told(guardrail: Guardrail, subject: Subject, both: Both) -> str:
    meant = f": {guardrail.description}" if guardrail.description else ""
    told = f"`{subject.id}` must not have both sides of `{guardrail.name}`{meant}"
    if not both.shown:
        return f"{told}; it is not proved that they do not, with {', '.join(f'`{it}`' for it in subject.groups)}"
    return f"{told}. {'; and '.join(told_access(shown) for shown in both.shown)}"
