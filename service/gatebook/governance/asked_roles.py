"""The roles of which conditions ask who has them, as `g(r.sub.id, 'role:contractor')` does.

Owns that reading: who has which role counts beyond those for whom a rule is, wherever a condition asks. Whether the
subject has a role that is named is known of each; what else is asked of links (of names in a row or in what a caller
states) is left open, and so not decided.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final

from gatebook.expression.tree import Call, Expression, Literal, Path
from gatebook.governance.rules import CONDITION
from gatebook.policy.model import walk
from gatebook.policy.policy_set import PolicySet
from gatebook.policy.rule_text import read_condition
from gatebook.values import Rule

ANY_ROLE = "*"
"""Stands for the role where a condition does not say which."""


HELD: Final = ("r", "held")
"""Begins paths that stand for whether the subject has a role."""
LINKS: Final = ("r", "asked", "links")
"""Begins paths that stand for what else is asked of links: open ones that nobody decides."""


def with_held(tree: Expression, policy_set: PolicySet) -> Expression:
    """Returns a condition with a path in place of each question about links."""
    match tree:
        case Call("g", (Path(("r", "sub", "id")), Literal(str() as role))):
            return Path((*HELD, role))
        case Call(op) if op in policy_set.model.roles:
            # Under other links the same question may have another answer: it must not look the same.
            links = sorted((edge.child, edge.parent) for edge in policy_set.edges if edge.gtype == op)
            return Path((*LINKS, op, hashlib.sha256(repr((tree, links)).encode()).hexdigest()))
        case Call(op, operands, span):
            return Call(op, tuple(with_held(operand, policy_set) for operand in operands), span)
    return tree


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
