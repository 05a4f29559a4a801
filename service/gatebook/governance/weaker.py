"""Whether one condition is never more true than another, whatever is open in them.

Owns `implies`. False is less true than unknown, and unknown than True. `implies(a, b)` holds only if, for every value
of every open path, known or not, `b` comes to no less than `a`. Then an allow of `a` allows nothing that one of `b`
does not, and a deny, a mask or a minimum group of `b` applies wherever one of `a` does, also where it is unknown.

The rules are few and sound: a dropped conjunct or an added alternative makes a condition weaker, and so does a wider
list or range of constants. Where none of them applies the answer is no, which says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from gatebook.expression.tree import Call, Expression, Literal, Path

NODES_MAX = 2_000
"""Pairs of parts that are compared in one question; beyond it the answer is no."""

_FLIPPED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "eq": "eq"}


def implies(one: Expression, other: Expression) -> bool:
    """Tells whether `other` is shown to be no less true than `one`."""
    return _Comparison().implies(one, other)


class _Comparison:
    """One question. Lives for one call."""

    def __init__(self) -> None:
        self._left = NODES_MAX

    def implies(self, one: Expression, other: Expression) -> bool:
        self._left -= 1
        if self._left < 0:
            return False
        if _is(one, value=False) or _is(other, value=True) or repr(one) == repr(other):
            return True
        match one, other:
            case Call("or", parts), _:
                return all(self.implies(part, other) for part in parts)
            case _, Call("and", parts):
                return all(self.implies(one, part) for part in parts)
            case Call("not", (inner,)), Call("not", (outer,)) if self.implies(outer, inner):
                return True
        if isinstance(one, Call) and one.op == "and" and any(self.implies(part, other) for part in one.operands):
            return True
        if isinstance(other, Call) and other.op == "or" and any(self.implies(one, part) for part in other.operands):
            return True
        return _is_wider(one, other)


def _is(expression: Expression, *, value: bool) -> bool:
    return isinstance(expression, Literal) and expression.value is value


def _is_wider(one: Expression, other: Expression) -> bool:
    """Tells whether two comparisons of one path with constants of one kind are so that what meets `one` meets `other`.

    Both are then unknown for the same values of the path.
    """
    first, second = _compared(one), _compared(other)
    if first is None or second is None or first[0] != second[0]:
        return False
    (_, op, values), (_, wider, bounds) = first, second
    if {type(it) is str for it in values} != {type(it) is str for it in bounds}:
        return False
    if wider in ("eq", "in"):
        return op in ("eq", "in") and all(value in bounds for value in values)
    return all(_meets(op, value, wider, bounds[0]) for value in values)


def _compared(expression: Expression) -> tuple[tuple[str, ...], str, tuple[str | int | float, ...]] | None:
    """Returns a path, how it is compared, and with which constants: all texts, or all numbers."""
    match expression:
        case Call("in", (Path(names), Literal(tuple() as items))):
            op, values = "in", items
        case Call("in", (Path(names), Call("list", listed))) if all(isinstance(it, Literal) for it in listed):
            op, values = "in", tuple(it.value for it in listed if isinstance(it, Literal))
        case Call(op, (Path(names), Literal(value))) if op in _FLIPPED:
            values = (value,)
        case Call(op, (Literal(value), Path(names))) if op in _FLIPPED:
            op, values = _FLIPPED[op], (value,)
        case _:
            return None
    known = tuple(it for it in values if isinstance(it, str) or _is_number(it))
    if not known or len(known) < len(values) or len({isinstance(it, str) for it in known}) > 1:
        return None
    return names, op, _constants(known)


def _constants(values: Sequence[object]) -> tuple[str | int | float, ...]:
    return tuple(it for it in values if isinstance(it, str | int | float))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _meets(op: str, value: str | float, wider: str, bound: str | float) -> bool:
    """Tells whether whatever is `op` a value is `wider` than a bound: greater than 3 is at least 2."""
    order = _order(value, bound)
    if op in ("eq", "in"):
        return {"gt": order > 0, "ge": order >= 0, "lt": order < 0, "le": order <= 0}[wider]
    if op in ("gt", "ge") and wider in ("gt", "ge"):
        return order > 0 or (order == 0 and (op == "gt" or wider == "ge"))
    if op in ("lt", "le") and wider in ("lt", "le"):
        return order < 0 or (order == 0 and (op == "lt" or wider == "le"))
    return False


def _order(value: str | float, bound: str | float) -> int:
    """Tells whether a constant comes after (1), before (-1) or at (0) another of its kind."""
    if isinstance(value, str) and isinstance(bound, str):
        return (value > bound) - (value < bound)
    if isinstance(value, str) or isinstance(bound, str):
        raise TypeError("a text and a number have no order")
    return (value > bound) - (value < bound)
