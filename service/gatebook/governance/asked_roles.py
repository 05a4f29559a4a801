"""The roles of which conditions ask who has them, as `g(r.sub.id, 'role:contractor')` does.

Owns that reading: who has which role counts beyond those for whom a rule is, wherever a condition asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gatebook.expression.tree import Call, Expression, Literal
from gatebook.governance.rules import CONDITION
from gatebook.policy.model import walk
from gatebook.policy.policy_set import PolicySet
from gatebook.policy.rule_text import read_condition
from gatebook.values import Rule

ANY_ROLE = "*"
"""Stands for the role where a condition does not say which."""


def asked_roles(policy_set: PolicySet, rules: Iterable[Rule], more: Iterable[Expression] = ()) -> frozenset[str]:
    """Returns the roles of which the conditions of rules, and further ones, ask; `ANY_ROLE` for one not said."""
    model = policy_set.model
    texts = {rule.fields[CONDITION] for rule in rules}
    trees = (*(read_condition(model, text) for text in sorted(texts)), *more)
    return frozenset(role for tree in trees for role in _in(tree, model.roles))


def _in(tree: Expression, functions: Iterable[str]) -> Iterator[str]:
    for node in walk(tree):
        match node:
            case Call(op, (_, Literal(str() as role))) if op in functions:
                yield role
            case Call(op) if op in functions:
                yield ANY_ROLE
