"""The findings of guardrails: what a draft does not keep of what it promises never to allow.

Owns when a guardrail is proved anew. What is proved depends on nothing but the files of a set, so that the findings
of the last sets are remembered by their digest. Without the solver, nothing is proved, and the set is refused.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

import msgspec

from gatebook.authorize import decide, question_of
from gatebook.engine.snapshot import build_snapshot
from gatebook.governance import smt
from gatebook.governance.lineage import NO_LINEAGE, Lineage
from gatebook.governance.prove import Prover, Result, Verdict
from gatebook.governance.shown import Shown
from gatebook.governance.unsaid import Unsaid
from gatebook.pace import Pause, no_pause
from gatebook.policy.bundle import GUARDRAILS_FILE
from gatebook.policy.directory import Directory
from gatebook.policy.guardrails import Guardrail
from gatebook.policy.policy_set import PolicySet
from gatebook.values import Counterexample, Finding, Revision

GUARDRAIL_REFUTED = "GUARDRAIL_REFUTED"
GUARDRAIL_UNKNOWN = "GUARDRAIL_UNKNOWN"
GUARDRAIL_UNPROVED = "GUARDRAIL_UNPROVED"
SEPARATION = "SEPARATION"
NOBODY = "nobody"
"""Stands for the directory where there is none."""
INVARIANTS = frozenset((GUARDRAIL_REFUTED, GUARDRAIL_UNKNOWN))
REMEMBERED_MAX = 32
INSTALL = "guardrails are proved by z3, which is not installed here: pip install gatebook[prove]"
TESTER = "local"
_MASTER = bytes(32)


class _Remembered:
    """The findings of the last sets that were proved. Used from threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._findings: OrderedDict[str, tuple[Finding, ...]] = OrderedDict()

    def get(self, digest: str) -> tuple[Finding, ...] | None:
        with self._lock:
            return self._findings.get(digest)

    def put(self, digest: str, findings: tuple[Finding, ...]) -> None:
        with self._lock:
            self._findings[digest] = findings
            while len(self._findings) > REMEMBERED_MAX:
                self._findings.popitem(last=False)


_remembered = _Remembered()


def proof_digest(digest: str, lineage: Lineage) -> str:
    """Returns what a proof about a set rests on: the digest of its files, and where its tables come from."""
    if lineage == NO_LINEAGE:
        return digest
    return hashlib.sha256(digest.encode() + msgspec.msgpack.encode(lineage)).hexdigest()


def must_be_proved(files: Mapping[str, bytes], digest: str, directory: str) -> bool:
    """Tells whether a set has guardrails of which it is not remembered whether they hold, also of a directory.

    Here and below, `digest` is of all that a proof rests on, the files of a set, and `directory` that of a directory.
    """
    return GUARDRAILS_FILE in files and None in (recalled(digest), recalled(digest, directory or NOBODY))


def recalled(digest: str, directory: str = "") -> tuple[Finding, ...] | None:
    """Returns what was found of a set, or of the people of a directory, where that is remembered."""
    return _remembered.get(f"{digest} {directory}".rstrip())


def keep(findings: tuple[Finding, ...], digest: str, directory: str = "") -> None:
    """Keeps what was found."""
    _remembered.put(f"{digest} {directory}".rstrip(), findings)


def remember(digest: str, directory: str, findings: Iterable[Finding]) -> None:
    """Remembers what was found of a set that was judged elsewhere, unless it could not be proved at all."""
    found = tuple(findings)
    if not any(finding.invariant == GUARDRAIL_UNPROVED for finding in found):
        keep(tuple(finding for finding in found if finding.invariant in INVARIANTS), digest)
        keep(tuple(finding for finding in found if finding.invariant == SEPARATION), digest, directory or NOBODY)


def guardrail_findings(
    policy_set: PolicySet, digest: str, now: datetime, pause: Pause = no_pause
) -> tuple[Finding, ...]:
    """Returns a finding for each guardrail that is not proved."""
    if not policy_set.guardrails:
        return ()
    known = recalled(digest)
    if known is not None:
        return known
    if not smt.installed():
        return (Finding(GUARDRAILS_FILE, 1, 1, GUARDRAIL_UNPROVED, INSTALL),)
    verdicts = Prover(policy_set, pause=pause).verdicts()
    findings = tuple(
        finding_of(policy_set, verdict, now) for verdict in verdicts if verdict.result is not Result.PROVED
    )
    keep(findings, digest)
    return findings


def finding_of(policy_set: PolicySet, verdict: Verdict, now: datetime) -> Finding:
    """Returns the finding about a guardrail that is refuted or unknown."""
    guardrail = verdict.guardrail
    if verdict.result is Result.UNKNOWN:
        told = f"`{guardrail.name}` is not proved: {why_unknown(verdict)}"
        return Finding(guardrail.file, guardrail.line, guardrail.column, GUARDRAIL_UNKNOWN, told)
    first = verdict.shown[0]
    example = counterexample(policy_set, first, now)
    told = f"`{guardrail.name}` does not hold: {_meant(guardrail)}{'; and '.join(map(told_access, verdict.shown))}"
    if example.why_not:
        told += f"; the rules allow it, though now it would be denied: {example.why_not}"
    return Finding(
        first.rule.file,
        first.rule.line,
        1,
        GUARDRAIL_REFUTED,
        told,
        dataset=first.request.resource,
        action=first.request.action,
        counterexample=example,
    )


def why_unknown(verdict: Verdict) -> str:
    """Returns what was too hard, and what to write instead."""
    return "; ".join(map(told_unsaid, verdict.unsaid)) or verdict.why


def told_unsaid(unsaid: Unsaid) -> str:
    """Returns what was too hard in words."""
    return f"`{unsaid.text}` ({unsaid.file}:{unsaid.line}:{unsaid.column}) is too hard: {unsaid.instead}"


def counterexample(policy_set: PolicySet, shown: Shown, now: datetime) -> Counterexample:
    """Returns what is shown with whether a draft would allow it now: beyond the rules stand consent and notices."""
    subjects = Directory("0" * 64, {shown.subject.id: shown.subject})
    revision = Revision(policy_set.digest, 0)
    snapshot = build_snapshot(policy_set, revision, subjects, Revision(subjects.digest, 0), mask_master=_MASTER)
    at = max(now, shown.now) if shown.now - now < timedelta(days=3_650) else now
    decision = decide(snapshot, question_of(snapshot, shown.request, caller=shown.caller or TESTER), at)
    return shown.counterexample("" if decision.allowed else f"{decision.reason.name}, {decision.message}")


def _meant(guardrail: Guardrail) -> str:
    return f"{guardrail.description}. But " if guardrail.description else ""


def told_access(shown: Shown) -> str:
    """Returns an access that could be allowed, with the way to it."""
    request = shown.request
    columns = ", ".join(request.columns)
    way = "; ".join(f"{step.text} ({step.file}:{step.line})" if step.file else step.text for step in shown.path)
    return (
        f"`{request.action}` of `{columns}` of `{request.resource}` for `{request.purpose}` could be allowed, by {way}"
    )
