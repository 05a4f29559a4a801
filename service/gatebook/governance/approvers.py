"""Whether anybody can give the approvals that a policy set asks for.

Owns the finding about a block `approvals` that the directory can never satisfy: no later revision could become active.
It counts those who may approve at all; whoever proposes a change is one fewer. Where there is no directory yet, it
warns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from gatebook.governance.people import SERVICE
from gatebook.policy.approval_rules import ApprovalRules, Demand
from gatebook.policy.bundle import SETTINGS_FILE
from gatebook.policy.directory import Directory
from gatebook.policy.policy_set import PolicySet
from gatebook.values import Finding, Severity

UNSATISFIABLE: Final = "APPROVALS_UNSATISFIABLE"
KEY: Final = re.compile(rb"^approvals\s*:", re.MULTILINE)


def approver_findings(policy_set: PolicySet, directory: Directory | None) -> list[Finding]:
    """Returns what the directory lacks of the people whom a set asks to approve its next revision."""
    rules = policy_set.settings.approvals
    if rules is None:
        return []
    text = policy_set.files[SETTINGS_FILE]
    found = KEY.search(text)
    line = 1 + (0 if found is None else text.count(b"\n", 0, found.start()))
    severity = Severity.WARNING if directory is None else Severity.ERROR
    messages = dict.fromkeys(_lacking(rules, directory))
    return [Finding(SETTINGS_FILE, line, 1, UNSATISFIABLE, message, severity) for message in messages]


def _lacking(rules: ApprovalRules, directory: Directory | None) -> Iterator[str]:
    subjects = () if directory is None else directory.subjects.values()
    roles = [one.groups for one in subjects if one.type != SERVICE and rules.may_approve(one.groups)]
    for name, demand in (("loosening", rules.loosening), ("tightening", rules.tightening)):
        lacks = _lacks(demand, rules, roles)
        if lacks:
            yield f"nobody could ever publish again what `approvals.{name}` is asked for: {lacks}"


def _lacks(demand: Demand, rules: ApprovalRules, roles: list[tuple[str, ...]]) -> str:
    if len(roles) < demand.people:
        people = "1 person" if len(roles) == 1 else f"{len(roles)} people"
        return f"it needs {demand.people} with one of {_told(rules.approvers)}, and the directory has {people}"
    if demand.one_of and all(frozenset(demand.one_of).isdisjoint(one) for one in roles):
        named = _told(demand.one_of)
        return f"one who approves must have {named}, and nobody in the directory has that who may approve"
    return ""


def _told(roles: tuple[str, ...]) -> str:
    return ", ".join(f"`{role}`" for role in roles)
