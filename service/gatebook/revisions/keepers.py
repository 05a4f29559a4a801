"""Who may publish the policy set `gatebook`: a revision that leaves nobody would lock everyone out.

Owns the judgement of a draft before it is active. It looks for one caller whom the rules may let publish the
set, whatever the attributes of that caller are, on a server with `--dev` or without.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from gatebook.compiler.outcomes import column_outcomes
from gatebook.compiler.program import Program
from gatebook.compiler.roles import reach
from gatebook.expression.environment import Named
from gatebook.policy.bundle import POLICY_FILE
from gatebook.policy.gatebook_set import GATEBOOK, KEEPING, KINDS, POLICY_SET, PUBLISH, RULE
from gatebook.policy.names import looks_like_a_node
from gatebook.policy.policy_set import PolicySet
from gatebook.values import Finding

TRIED_MAX = 10_000
"""How many callers are tried; the rules of a set that so many may not publish are refused."""
LOCKED_OUT = "LOCKED_OUT"


def keeper_findings(policy_set: PolicySet, program: Program) -> Iterator[Finding]:
    """Finds that nobody could publish the next revision of `gatebook`."""
    tried = itertools.product(itertools.islice(_callers(policy_set), TRIED_MAX), KINDS, (False, True))
    if not any(_may_publish(program, caller, kind, dev=dev) for caller, kind, dev in tried):
        rule = f"p, role:keeper, {POLICY_SET}, {PUBLISH}, {GATEBOOK}, True, allow"
        message = f"nobody could publish `{GATEBOOK}` any more: write `{rule}`, and give somebody that role"
        yield Finding(POLICY_FILE, 0, 0, LOCKED_OUT, message)


def lockout(publisher: str) -> Finding:
    """Returns the finding that a draft of `gatebook` takes it from its own publisher."""
    message = f"`{publisher}` could not publish `{GATEBOOK}` any more; somebody who keeps that right must publish this"
    return Finding(POLICY_FILE, 0, 0, LOCKED_OUT, message)


def _callers(policy_set: PolicySet) -> Iterator[str]:
    """Yields who may be meant by the rules about publishing: ids, and those who hold the roles."""
    children: dict[str, list[str]] = {}
    for edge in policy_set.edges:
        if edge.gtype == "g":
            children.setdefault(edge.parent, []).append(edge.child)
    subject, action = RULE.index("sub"), RULE.index("act")
    named = {
        rule.fields[subject]: None for rule in policy_set.rules if rule.ptype == "p" and rule.fields[action] == PUBLISH
    }
    for who in named:
        yield from (caller for caller in sorted(reach(children, who)) if not looks_like_a_node(caller))


def _may_publish(program: Program, caller: str, kind: str, *, dev: bool) -> bool:
    """Tells whether a caller may publish the set, for some values of the attributes that are not known."""
    named = Named(caller, {"id": caller, "kind": kind})
    asked = ({"sub": named, "obj": obj, "act": act, "set": name, "ctx": {"dev": dev}} for act, obj, name in KEEPING)
    return all(_may_be_allowed(program, {**tokens, "row": None}) for tokens in asked)


def _may_be_allowed(program: Program, tokens: dict[str, Any]) -> bool:
    plan = program.planner.plan(program.planner.read(tokens), tokens)
    if any(outcome is True for _, outcome in column_outcomes(plan["denies"], tokens, {})):
        return False
    return any(outcome is True or outcome is None for _, outcome in column_outcomes(plan["allows"], tokens, {}))
