"""Splits a matcher into what can be looked up and what is left to evaluate.

Owns the reading of a matcher as alternatives (its top-level `||`), each a conjunction of

1. keys: `r.act == p.act`, `g(r.sub, p.sub)`, `g(r.sub, p.sub, r.dom)`: a rule comes into question
   only if its field equals, or is inherited by, a value of the request, so rules are found by hash;
2. guards: parts that speak of the request alone, and not of its row, evaluated once per request;
3. the rest, evaluated rule by rule: `keyMatch(r.obj, p.obj)`, `eval(p.cond)`, ...

Promises: the conjunction of keys, guards and rest has the truth of the alternative.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec

from gatebook.expression.residual import reads_row
from gatebook.expression.tree import Call, Expression, Literal, Path
from gatebook.policy.model import POLICY_KEY, RoleDefinition, walk

EVAL = "eval"
_FIELD_PARTS = 2


class Key(msgspec.Struct, frozen=True):
    """One lookup: the value of `request` must equal the rule's `field`, or inherit it by `role`.

    `part` is the part of the matcher that says so.
    """

    part: Expression
    field: str
    request: Path
    role: str = ""
    domain: Path | Literal | None = None


class Alternative(msgspec.Struct, frozen=True):
    """One conjunction of a matcher."""

    keys: tuple[Key, ...]
    guards: tuple[Expression, ...]
    rest: tuple[Expression, ...]


def split(
    matcher: Expression, roles: Mapping[str, RoleDefinition], keep: Callable[[Expression], bool]
) -> tuple[Alternative, ...]:
    """Splits a matcher into its alternatives, and leaves out the parts that are not to be kept."""
    return tuple(_alternative([part for part in parts if keep(part)], roles) for parts in alternatives(matcher))


def alternatives(matcher: Expression) -> list[list[Expression]]:
    """Returns the conjunctions of which one must hold, each as its parts."""
    return [conjuncts(alternative) for alternative in _parts(matcher, "or")]


def conjuncts(expression: Expression) -> list[Expression]:
    """Returns the parts that must all hold."""
    return list(_parts(expression, "and"))


def reads_rule(expression: Expression) -> bool:
    """Tells whether an expression speaks of the rule."""
    return any(isinstance(node, Path) and POLICY_KEY.fullmatch(node.names[0]) for node in walk(expression))


def calls_eval(expression: Expression) -> bool:
    """Tells whether an expression holds a condition of the rule."""
    return any(isinstance(node, Call) and node.op == EVAL for node in walk(expression))


def reads_token(expression: Expression, token: str) -> bool:
    """Tells whether an expression speaks of one token of the request."""
    return any(isinstance(node, Path) and node.names[:2] == ("r", token) for node in walk(expression))


def _parts(expression: Expression, op: str) -> Iterator[Expression]:
    if isinstance(expression, Call) and expression.op == op:
        for operand in expression.operands:
            yield from _parts(operand, op)
    else:
        yield expression


def _alternative(parts: list[Expression], roles: Mapping[str, RoleDefinition]) -> Alternative:
    keys, guards, rest = [], [], []
    for part in parts:
        key = _key(part, roles)
        if key is not None:
            keys.append(key)
        elif reads_rule(part) or reads_row(part):
            rest.append(part)
        else:
            guards.append(part)
    return Alternative(tuple(keys), tuple(guards), tuple(rest))


def _key(part: Expression, roles: Mapping[str, RoleDefinition]) -> Key | None:
    match part:
        case Call("eq", (Path() as left, Path() as right)):
            left, right = (right, left) if _is_field(left) else (left, right)
            return Key(part, right.names[1], left) if _is_request(left) and _is_field(right) else None
        case Call(op, (Path() as child, Path() as parent, *domains)) if op in roles:
            if not (_is_request(child) and _is_field(parent) and len(domains) + 2 == roles[op].arity):
                return None
            match domains:
                case []:
                    return Key(part, parent.names[1], child, op)
                case [Path() | Literal(str()) as domain] if not reads_rule(domain):
                    return Key(part, parent.names[1], child, op, domain)
    return None


def _is_field(path: Path) -> bool:
    return POLICY_KEY.fullmatch(path.names[0]) is not None and len(path.names) == _FIELD_PARTS


def _is_request(path: Path) -> bool:
    return POLICY_KEY.fullmatch(path.names[0]) is None and len(path.names) > 1
