"""What the operators mean, value by value.

Owns the three-valued logic: every operation takes any values and gives True, False, a value, or None,
which is UNKNOWN. It never raises. The rules (design section 4):

1. null is UNKNOWN, and an operator on an UNKNOWN value is UNKNOWN;
2. values of different kinds (text, number, truth value, date, list) do not compare: UNKNOWN, also for
   `==` and `!=`; int and float are one kind;
3. there is no truthiness: `&&`, `||` and `!` know True and False, and take all else for UNKNOWN;
4. `&&` is False if any operand is, `||` True if any is (Kleene);
5. division by zero, overflow and what is not a number are UNKNOWN.
"""

from __future__ import annotations

import datetime as dt
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

TEXT_LENGTH_MAX = 65_536
IN_TEXT = "in text"
"""The operator `in` of a set that is read as Casbin reads it; no text of ours can write it."""

_INTEGER_MAX = 2**127


def equal(left: object, right: object) -> bool | None:
    """Compares two values of one kind; lists item by item."""
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        if len(left) != len(right):
            return False
        return conjunction(_equal_items(a, b) for a, b in zip(left, right, strict=True))
    return _equal_items(left, right)


def unequal(left: object, right: object) -> bool | None:
    """Is the negation of `equal`."""
    return negation(equal(left, right))


def contains(item: object, items: object) -> bool | None:
    """Tells whether `item` equals any of `items`; a text is no list, and what equals nothing is in no known list."""
    if equal(item, item) is None or not isinstance(items, (list, tuple)):
        return None
    return disjunction(equal(item, other) for other in items)


def contains_or_is_part(item: object, items: object) -> bool | None:
    """Tells the same as `contains`, and of a text whether `item` is a part of it, as in Python."""
    if isinstance(items, str):
        return item in items if isinstance(item, str) else None
    return contains(item, items)


def conjunction(values: Iterable[object]) -> bool | None:
    """Is False if any value is False, else UNKNOWN if any is not True."""
    result: bool | None = True
    for value in values:
        if value is False:
            return False
        if value is not True:
            result = None
    return result


def disjunction(values: Iterable[object]) -> bool | None:
    """Is True if any value is True, else UNKNOWN if any is not False."""
    result: bool | None = False
    for value in values:
        if value is True:
            return True
        if value is not False:
            result = None
    return result


def negation(value: object) -> bool | None:
    """Swaps True and False."""
    return not value if isinstance(value, bool) else None


def negative(value: object) -> int | float | None:
    """Changes the sign of a number."""
    return _calculate(operator.sub, 0, value)


def add(left: object, right: object) -> str | int | float | None:
    """Adds numbers, or puts texts together."""
    if isinstance(left, str) and isinstance(right, str):
        return str(left) + str(right) if len(left) + len(right) <= TEXT_LENGTH_MAX else None
    return _calculate(operator.add, left, right)


def _equal_items(left: object, right: object) -> bool | None:
    return bool(left == right) if _comparable(left, right) else None


def _comparable(left: object, right: object) -> bool:
    """Tells whether two values are of one kind; of lists, dates of both sorts and not-a-numbers, none is."""
    if isinstance(left, str):
        return isinstance(right, str)
    if isinstance(left, bool) or isinstance(right, bool):
        return isinstance(left, bool) and isinstance(right, bool)
    if _is_number(left):
        return _is_number(right)
    if isinstance(left, dt.datetime) and isinstance(right, dt.datetime):
        return (left.tzinfo is None) == (right.tzinfo is None)
    return type(left) is dt.date and type(right) is dt.date


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value  # noqa: PLR0124 - NaN


def _ordering(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool | None]:
    def ordered(left: object, right: object) -> bool | None:
        if isinstance(left, bool) or not _comparable(left, right):
            return None
        return compare(left, right)

    return ordered


def _calculate(compute: Callable[[Any, Any], Any], left: object, right: object) -> int | float | None:
    if not (_is_number(left) and _is_number(right)):
        return None
    try:
        result: int | float = compute(left, right)
    except (ZeroDivisionError, OverflowError):
        return None
    if isinstance(result, int):
        return result if -_INTEGER_MAX < result < _INTEGER_MAX else None
    return result if math.isfinite(result) else None


def _arithmetic(compute: Callable[[Any, Any], Any]) -> Callable[[Any, Any], int | float | None]:
    def calculated(left: object, right: object) -> int | float | None:
        return _calculate(compute, left, right)

    return calculated


STRICT: Mapping[str, Callable[..., Any]] = {
    "eq": equal,
    "ne": unequal,
    "lt": _ordering(operator.lt),
    "le": _ordering(operator.le),
    "gt": _ordering(operator.gt),
    "ge": _ordering(operator.ge),
    "add": add,
    "sub": _arithmetic(operator.sub),
    "mul": _arithmetic(operator.mul),
    "div": _arithmetic(operator.truediv),
    "mod": _arithmetic(operator.mod),
    "neg": negative,
    "not": negation,
    "in": contains,
    IN_TEXT: contains_or_is_part,
}
"""The operators of which an UNKNOWN operand makes an UNKNOWN result."""
