"""Puts conditions together, each once.

Owns what makes two conditions the same: not Python's equality, to which `1`, `1.0` and `True` are one.
"""

from __future__ import annotations

from collections.abc import Iterable

from gatebook.expression.tree import NOWHERE, Call, Expression, Literal, Path, Value

INTEGER_BITS = 64
"""Whole numbers of a message have so many bits; a larger one is nothing that a row could be compared with."""


def any_of(conditions: Iterable[Expression]) -> Expression:
    """Returns what is True where one of the conditions is; there is at least one."""
    return _joined("or", conditions)


def all_of(conditions: Iterable[Expression]) -> Expression:
    """Returns what is True where all of the conditions are; there is at least one."""
    return _joined("and", conditions)


def distinct(conditions: Iterable[Expression]) -> tuple[Expression, ...]:
    """Returns each condition once, in order."""
    return tuple({repr(condition): condition for condition in conditions}.values())


def bare(expression: Expression) -> Expression:
    """Returns an expression without its places in a text, so that it is the same wherever it stands.

    A whole number that no message holds is UNKNOWN.
    """
    match expression:
        case Literal(value):
            return Literal(_held(value), NOWHERE)
        case Path(names):
            return Path(names, NOWHERE)
        case Call(op, operands):
            return Call(op, tuple([bare(operand) for operand in operands]), NOWHERE)


def size(expression: Expression) -> int:
    """Returns how many nodes an expression has."""
    return 1 + sum([size(operand) for operand in expression.operands]) if isinstance(expression, Call) else 1


def _held(value: Value) -> Value:
    if isinstance(value, tuple):
        return tuple([_held(item) for item in value])
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -(1 << INTEGER_BITS - 1) <= value < 1 << INTEGER_BITS - 1 else None
    return value


def _joined(op: str, conditions: Iterable[Expression]) -> Expression:
    parts = distinct(conditions)
    return parts[0] if len(parts) == 1 else Call(op, parts)
