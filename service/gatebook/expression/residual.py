"""Leaves of an expression what depends on a row that is not known yet.

Owns partial evaluation. For every row, and also where its values are null, evaluating what is left
gives the same as evaluating the whole (True, False or UNKNOWN). What else is not known yet may be named as
`open_path`s.
"""

from __future__ import annotations

from collections.abc import Callable

from gatebook.expression.environment import Environment, lookup
from gatebook.expression.moments import Moment
from gatebook.expression.tree import Call, Expression, Literal, Path, Value
from gatebook.expression.truth import NO_FUNCTIONS, Functions, apply

ROW = ("r", "row")
"""Where policy text reads the row; what is left reads it from the root `row`."""

OpenPath = Callable[[tuple[str, ...]], tuple[str, ...] | None]
"""Says how a path whose value is not known yet is read in what is left; None of a path that is known."""

_FALSE = Literal(value=False)
_TRUE = Literal(value=True)


def of_row(names: tuple[str, ...]) -> tuple[str, ...] | None:
    """Is the `OpenPath` of a row that is not known."""
    return ("row", *names[2:]) if names[:2] == ROW else None


def residual(
    expression: Expression,
    environment: Environment,
    functions: Functions = NO_FUNCTIONS,
    open_path: OpenPath = of_row,
) -> bool | Expression | None:
    """Evaluates what needs no row: True, False, None (UNKNOWN for every row), or what is left over `row`."""
    left = _reduce(expression, environment, functions, open_path)
    if isinstance(left, Literal):
        return left.value if isinstance(left.value, bool) else None
    return left


def reads_row(expression: Expression) -> bool:
    """Tells whether an expression depends on the row."""
    match expression:
        case Path(names):
            return names[:2] == ROW
        case Call(_, operands):
            return any(reads_row(operand) for operand in operands)
        case Literal():
            return False


def _reduce(expression: Expression, environment: Environment, functions: Functions, open_path: OpenPath) -> Expression:
    match expression:
        case Literal():
            return expression
        case Path(names, span):
            left = open_path(names)
            if left is not None:
                return Path(left, span)
            return Literal(_constant(lookup(environment, names)), span)
        case Call(("and" | "or") as op, operands, span):
            reduced = [_reduce(operand, environment, functions, open_path) for operand in operands]
            return _chain(Call(op, tuple(reduced), span), *((_FALSE, _TRUE) if op == "and" else (_TRUE, _FALSE)))
        case Call(op, operands, span):
            reduced = [_reduce(operand, environment, functions, open_path) for operand in operands]
            if op != "list" and any(isinstance(it, Literal) and it.value is None for it in reduced):
                return Literal(None, span)
            if all(isinstance(it, Literal) for it in reduced):
                values = [it.value for it in reduced if isinstance(it, Literal)]
                return Literal(_constant(apply(op, values, functions)), span)
            return Call(op, tuple(reduced), span)


def _chain(call: Call, absorbing: Literal, neutral: Literal) -> Expression:
    """Simplifies `&&` (or `||`): one False (True) decides, True (False) says nothing."""
    left = []
    for operand in call.operands:
        value = operand.value if isinstance(operand, Literal) else ...
        if value is absorbing.value:
            return Literal(absorbing.value, call.span)
        if value is not neutral.value:
            # What is neither True nor False is UNKNOWN here, and that needs saying once.
            left.append(operand if value is ... else Literal(None, operand.span))
    unknown = [operand for operand in left if isinstance(operand, Literal)]
    kept = [operand for operand in left if not isinstance(operand, Literal)]
    if not kept:
        return Literal(None if unknown else neutral.value, call.span)
    if not unknown and len(kept) == 1 and _is_truth(kept[0]):
        return kept[0]
    return Call(call.op, (*unknown[:1], *kept), call.span)


def _is_truth(expression: Expression) -> bool:
    """Tells whether an expression can only be True, False or UNKNOWN, so that it may stand alone."""
    return isinstance(expression, Call) and expression.op not in ("add", "sub", "mul", "div", "mod", "neg", "list")


def _constant(value: object) -> Value:
    """Makes a constant of a value; what no constant can hold is UNKNOWN, as it is to every operator."""
    if isinstance(value, Moment):
        return value  # it notes what it is asked
    if isinstance(value, str):
        return str.__str__(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(_constant(item) for item in value)
    return None
