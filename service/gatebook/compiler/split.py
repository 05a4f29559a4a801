"""Splits a matcher into what can be looked up and what is left to evaluate.

Owns the reading of a matcher as alternatives, each a conjunction of

1. keys (`compiler.keys`): a rule comes into question only if they find it, by hash;
2. guards: parts that speak of the request alone, and not of its row, evaluated once per request;
3. statics: parts that speak of the rule alone, such as `p.act == '*'`, evaluated once per rule, when it is compiled;
4. the rest, evaluated rule by rule: `eval(p.cond)`, and the parts of keys that are not exact.

An `||` within a conjunction is multiplied out where each of its operands can then be looked up, until there are
`ALTERNATIVES_MAX` alternatives; `x in (a, b)` counts as `x == a || x == b`.

Promises: some conjunction of keys, guards, statics and rest has the truth of the matcher, in Kleene's logic, in which
`&&` distributes over `||`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from gatebook.compiler.keys import Key, Known, key_of
from gatebook.expression.functions import BUILTINS
from gatebook.expression.parse import OPERATORS
from gatebook.expression.residual import reads_row
from gatebook.expression.tree import Call, Expression, Path
from gatebook.policy.model import POLICY_KEY, RoleDefinition, walk

EVAL = "eval"
ALTERNATIVES_MAX = 32

Conjunction = list[Expression]


class Alternative(msgspec.Struct, frozen=True):
    """One conjunction of a matcher."""

    keys: tuple[Key, ...]
    guards: tuple[Expression, ...]
    statics: tuple[Expression, ...]
    rest: tuple[Expression, ...]


def split(
    matcher: Expression,
    roles: Mapping[str, RoleDefinition],
    keep: Callable[[Expression], bool] = lambda _: True,
    *,
    loose: Iterable[str] = (),
    given: Iterable[str] = (),
) -> tuple[Alternative, ...]:
    """Splits a matcher into its alternatives, and leaves out the parts that are not to be kept.

    Of the functions that are `given` nothing is known: they are asked for every request. Relations that are `loose`
    are asked of what their links lead to.
    """
    known = Known(roles, frozenset(loose), frozenset(given))
    kept = [[part for part in parts if keep(part)] for parts in alternatives(matcher)]
    spread = [_multiplied(parts, known) for parts in kept]
    if sum(map(len, spread)) > ALTERNATIVES_MAX:
        spread = [[parts] for parts in kept]
    return tuple(_alternative(parts, known) for conjunctions in spread for parts in conjunctions)


def alternatives(matcher: Expression) -> list[Conjunction]:
    """Returns the conjunctions of which one must hold, each as its parts, as they are written."""
    return [conjuncts(alternative) for alternative in _parts(matcher, "or")]


def conjuncts(expression: Expression) -> Conjunction:
    """Returns the parts that must all hold."""
    return list(_parts(expression, "and"))


def reads_rule(expression: Expression) -> bool:
    """Tells whether an expression speaks of the rule."""
    return any(isinstance(node, Path) and POLICY_KEY.fullmatch(node.names[0]) for node in walk(expression))


def reads_request(expression: Expression) -> bool:
    """Tells whether an expression speaks of the request."""
    return any(isinstance(node, Path) and not POLICY_KEY.fullmatch(node.names[0]) for node in walk(expression))


def calls_eval(expression: Expression) -> bool:
    """Tells whether an expression holds a condition of the rule."""
    return any(isinstance(node, Call) and node.op == EVAL for node in walk(expression))


def reads_token(expression: Expression, token: str) -> bool:
    """Tells whether an expression speaks of one token of the request."""
    return any(
        isinstance(node, Path) and node.names[1:2] == (token,) and not POLICY_KEY.fullmatch(node.names[0])
        for node in walk(expression)
    )


def _parts(expression: Expression, op: str) -> Iterator[Expression]:
    if isinstance(expression, Call) and expression.op == op:
        for operand in expression.operands:
            yield from _parts(operand, op)
    else:
        yield expression


def _multiplied(parts: Conjunction, known: Known) -> list[Conjunction]:
    """Returns the conjunctions that one with an `||` within it stands for; one of very many parts is left as it is."""
    if len(parts) > ALTERNATIVES_MAX:
        return [parts]
    conjunctions: list[Conjunction] = [[]]
    for part in parts:
        choices = _choices(part, known)
        if len(conjunctions) * len(choices) > ALTERNATIVES_MAX:
            choices = [[part]]
        conjunctions = [[*conjunction, *choice] for conjunction in conjunctions for choice in choices]
    return conjunctions


def _choices(part: Expression, known: Known) -> list[Conjunction]:
    """Returns the operands of an `||`, if looking each of them up is better than asking the part of every rule."""
    spread = _one_of(part)
    if not (isinstance(spread, Call) and spread.op == "or" and reads_rule(spread)):
        return [[part]]
    choices = [choice for operand in _parts(spread, "or") for choice in _multiplied(conjuncts(operand), known)]
    return choices if all(_narrows(choice, known) for choice in choices) else [[part]]


def _narrows(choice: Conjunction, known: Known) -> bool:
    return any(
        key_of(part, known, {}) is not None or is_static(part, known) or not (reads_rule(part) or reads_row(part))
        for part in choice
    )


def _one_of(part: Expression) -> Expression:
    """Writes `x in (a, b)` as `x == a || x == b`, where one of these is a field of the rule, and so a text."""
    match part:
        case Call("in", (Path() as item, Call("list", items) as whole), span) if items and reads_rule(whole):
            return Call("or", tuple(Call("eq", (item, other), span) for other in items), span)
        case Call("in", (Path() as item, Call("list", items)), span) if items and reads_rule(item):
            return Call("or", tuple(Call("eq", (item, other), span) for other in items), span)
    return part


def is_static(part: Expression, known: Known) -> bool:
    """Tells whether a part is a function of the rule alone."""
    steady = (OPERATORS | BUILTINS.keys() | known.roles.keys()) - known.given - known.loose
    calls = (node.op for node in walk(part) if isinstance(node, Call))
    return reads_rule(part) and not reads_request(part) and all(op in steady for op in calls)


def _alternative(parts: Conjunction, known: Known) -> Alternative:
    keys: list[Key] = []
    guards: Conjunction = []
    statics: Conjunction = []
    rest: Conjunction = []
    found = [key_of(part, known, {}) for part in parts]
    equal = {key.field: key.request for key in found if key is not None and not key.role and key.exact}
    for part in parts:
        key = key_of(part, known, equal)
        if key is not None:
            keys.append(key)
        if is_static(part, known):
            statics.append(part)
        elif key is None or not key.exact:
            (rest if reads_rule(part) or reads_row(part) else guards).append(part)
    return Alternative(tuple(keys), tuple(guards), tuple(statics), tuple(rest))
