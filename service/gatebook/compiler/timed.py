"""Gives what depends on the time of the decision that time as its last operand.

Owns the one place where time enters a program. From there on it is a value of the request like any other: what
reads it is no part of a rule that could be decided beforehand, no key of an index, and so in no memo.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from gatebook.expression.moments import NOW
from gatebook.expression.tree import Call, Expression, Path
from gatebook.policy.model import walk


def with_time(expression: Expression, request: str, timed: AbstractSet[str]) -> Expression:
    """Adds the time of the request of this key to the calls of functions that are `timed`."""
    match expression:
        case Call(op, operands, span):
            given = tuple(with_time(operand, request, timed) for operand in operands)
            return Call(op, (*given, Path((request, NOW))) if op in timed else given, span)
    return expression


def without_time(expression: Expression) -> Expression:
    """Returns an expression as it was written."""
    match expression:
        case Call(op, operands, span):
            return Call(op, tuple(without_time(operand) for operand in operands if not is_time(operand)), span)
    return expression


def reads_time(expression: Expression) -> bool:
    """Tells whether an expression depends on the time."""
    return any(is_time(node) for node in walk(expression))


def is_time(expression: Expression) -> bool:
    """Tells whether an expression is the time itself."""
    return isinstance(expression, Path) and expression.names[1:] == (NOW,)
