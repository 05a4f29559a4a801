"""The gate's verdict on random sets, and on random changes of them, against brute force over all people and columns."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from tests.property.test_audience import allowed_by_force, ask
from tests.property.whole_sets import directories, policies, snapshot_of

from gatebook.governance.audience import Audiences
from gatebook.governance.ceilings import AUDIENCE_CEILING, AUDIENCE_HEAD_COUNT, ceiling_findings
from gatebook.values import AccessRequest, Finding

LIMITS = {"t.rows": ("role:a", 2), "t.sums": ("role:b", None)}
"""What the catalogue of these sets declares: the role, and the head-count."""


def by_force(policy: str, people: bytes) -> set[tuple[str, str, str]]:
    """Returns which ceilings are exceeded by what some tried request was allowed: invariant, dataset and action."""
    snapshot = snapshot_of(policy, people)
    assert snapshot.directory is not None
    allowed = {
        (dataset, action, subject)
        for (subject, dataset, _, action, _), others in allowed_by_force(snapshot, policy).items()
        if others
    }
    wrong: set[tuple[str, str, str]] = set()
    for dataset, (role, most) in LIMITS.items():
        for action in ("read", "export"):
            who = [snapshot.directory.subjects[it[2]] for it in allowed if it[:2] == (dataset, action)]
            if any(role not in subject.groups for subject in who):
                wrong.add((AUDIENCE_CEILING, dataset, action))
            if most is not None and sum(subject.type != "service" for subject in who) > most:
                wrong.add((AUDIENCE_HEAD_COUNT, dataset, action))
    return wrong


def found(policy: str, people: bytes) -> list[Finding]:
    """Returns what the gate finds, each counterexample asked of the draft."""
    snapshot = snapshot_of(policy, people)
    assert snapshot.directory is not None

    def confirm(request: AccessRequest, caller: str) -> str:
        decision = ask(snapshot, request, caller or "nobody")
        return "" if decision.allowed else decision.reason.name

    return ceiling_findings(Audiences(snapshot.policy_set, snapshot.directory), confirm)


@settings(max_examples=30, deadline=None)
@given(policies(), directories())
def test_the_verdict_is_that_of_brute_force(policy: str, people: bytes) -> None:
    """Whatever brute force finds is refused, and whatever is refused has somebody who is really allowed."""
    findings = found(policy, people)
    verdict = {(finding.invariant, finding.dataset, finding.action) for finding in findings}

    assert by_force(policy, people) <= verdict
    for finding in findings:
        assert finding.counterexample is not None
        assert finding.excess > 0
        assert finding.counterexample.confirmed or "p2" in policy, finding


@settings(max_examples=30, deadline=None)
@given(policies(), directories())
def test_a_change_that_only_takes_away_exceeds_nothing_new(policy: str, people: bytes) -> None:
    """With a deny for everybody added, no ceiling is exceeded any more that is not of another action."""
    before = {(it.invariant, it.dataset, it.action) for it in found(policy, people)}
    denied = policy + "".join(f"p, {role}, t.*, read, *, True, deny\n" for role in ("role:a", "role:b", "role:c"))
    after = {(it.invariant, it.dataset, it.action) for it in found(denied, people)}

    assert after == {it for it in before if it[2] != "read"}


@pytest.mark.parametrize(
    "condition",
    ["g(r.sub.id, 'role:b')", "!g(r.sub.id, 'role:a')", "g('cy', 'role:b')", "g(r.row.who, 'role:b')"],
)
def test_who_is_let_in_by_a_role_that_a_condition_asks_for_is_counted(condition: str) -> None:
    """Roles and links that conditions ask about are no unknowns that never allow: who gets in by them is found."""
    people = (
        b'{"type": "user", "id": "ana", "groups": ["role:a"]}\n{"type": "user", "id": "cy", "groups": ["role:b"]}\n'
    )
    policy = f"p, role:b, t.rows.who, read, *, {condition}, allow\n"

    assert [(it.invariant, it.excess) for it in found(policy, people)] == [(AUDIENCE_CEILING, 1)]
    assert found(policy.replace(condition, "g(r.sub.id, 'role:a')"), people) == []
