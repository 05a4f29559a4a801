"""Who has both sides of what is kept separate, where conditions ask for roles, and where many had them before."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from tests.property.whole_sets import files_of

from gatebook.policy.directory import Directory, load_directory
from gatebook.policy.policy_set import PolicySet, load
from gatebook.revisions import separation
from gatebook.revisions.separation import separation_findings
from gatebook.values import Severity

GUARDRAILS = b"guardrails:\n  apart:\n    separate: [{on: ['tag:secret']}, {on: ['tag:plain']}]\n"
MASKED = "p2, role:a, tag:secret, read, *, True, nullify\n"
PLAIN = "p, role:a, tag:plain, read, *, True, allow\n"
ASKS = "p, role:a, tag:secret, read, *, g(r.sub.id, 'role:b'), allow\n"
OF_B = "p, role:b, tag:secret, read, *, True, allow\n"


def policy_set(rules: str) -> PolicySet:
    """Returns a set that keeps two tags separate."""
    return load({**files_of(rules), "guardrails.yaml": GUARDRAILS}, accepted=True)


def people(**groups: Sequence[str]) -> Directory:
    """Returns a directory of people with these roles."""
    lines = [json.dumps({"type": "user", "id": name, "groups": list(roles)}) for name, roles in groups.items()]
    return load_directory({"people.jsonl": "".join(f"{line}\n" for line in lines).encode()})


def test_a_role_counts_that_only_a_condition_asks_for() -> None:
    """Somebody with a role that a condition asks for is not taken for whoever lacks it, whoever is asked first."""
    directory = people(ana=["role:a"], bob=["role:a", "role:b"], cleo=["role:a", "role:c"])
    linked = policy_set(f"g, role:c, role:b\n{PLAIN}{ASKS}{MASKED}")
    found = {it.line: it.severity for it in separation_findings(linked, directory)}

    assert found == {2: Severity.ERROR, 3: Severity.ERROR}
    assert [it.line for it in separation_findings(policy_set(PLAIN + ASKS + MASKED), directory)] == [2]


def test_warnings_hide_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many had both sides before, somebody who newly has them is an error."""
    monkeypatch.setattr(separation, "FINDINGS_MAX", 3)
    both = ["role:a", "role:b"]
    before = people(**{f"old{place}": both for place in range(6)}, zoe=["role:a"])
    after = people(**{f"old{place}": both for place in range(6)}, zoe=both)
    found = separation_findings(policy_set(PLAIN + OF_B + MASKED.replace("role:a", "role:b")), after, before)

    assert [it.line for it in found if it.severity is Severity.ERROR] == [7]
    assert sum(it.severity is Severity.WARNING for it in found) == separation.FINDINGS_MAX
