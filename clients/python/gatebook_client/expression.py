"""The conditions of a decision, evaluated on a row.

Owns the reading of `Expression` messages. It is three-valued as in the service: what is null, missing or
of another type is `UNKNOWN`, and UNKNOWN spreads by Kleene's rules. An expression is compiled once per
decision; one that this client cannot evaluate is refused then, before any row is read.
"""

from __future__ import annotations

import datetime as dt
import math
import operator
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from gatebook.v1 import types_pb2
from gatebook_client.refusal import EnforcementError

Row = Mapping[str, Any]
Evaluate = Callable[[Row], Any]

UNKNOWN: Final = None
"""The third truth value, and any value that is not known."""

DEPTH_MAX = 64
TEXT_LENGTH_MAX = 65_536
INTEGER_MAX = 2**127
DIGITS_MAX = 39
"""More digits than any integer below `INTEGER_MAX` has."""
ROW = "row"
_UUID_TEXT = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}
_ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "mod": operator.mod,
}


def compile_condition(expression: types_pb2.Expression) -> Callable[[Row], bool | None]:
    """Returns a function that tells of a row: True, False, or None for unknown.

    Raises:
        EnforcementError: The expression has a node, operator or function that this client does not know.
    """
    evaluate = _compile(expression, 1)

    def condition(row: Row) -> bool | None:
        found = evaluate(row)
        return found if isinstance(found, bool) else UNKNOWN

    return condition


def _compile(expression: types_pb2.Expression, depth: int) -> Evaluate:
    """Compiles one node."""
    if depth > DEPTH_MAX:
        raise _unreadable(f"is deeper than {DEPTH_MAX}")
    match expression.WhichOneof("node"):
        case "literal":
            literal = _value(expression.literal, depth)
            return lambda _row: literal
        case "path":
            names = tuple(expression.path.names)
            if len(names) != 2 or names[0] != ROW:  # noqa: PLR2004 - the root and the attribute
                raise _unreadable("reads what is no column of the row")
            return _column(names[1])
        case "call":
            operands = [_compile(operand, depth + 1) for operand in expression.call.operands]
            return _call(expression.call.op, operands)
        case _:
            raise _unreadable("has a node that this client does not know; upgrade gatebook")


def _column(name: str) -> Evaluate:
    return lambda row: _plain(row.get(name))


def _plain(value: Any) -> Any:  # noqa: ANN401 - a row holds anything
    """Returns a value of a row as one of the kinds of an expression; UNKNOWN where there is none."""
    match value:
        case str() | bool() | int() | float() | dt.date():
            return value
        case Decimal():
            return _number(value)
        case uuid.UUID():
            return str(value)
        case list() | tuple():
            return tuple(_plain(item) for item in value)
        case _:
            return UNKNOWN


def _number(value: Decimal) -> int | float:
    """Returns a decimal number as the kinds of an expression hold it."""
    whole = value.is_finite() and value.adjusted() < DIGITS_MAX and value == value.to_integral_value()
    return int(value) if whole else float(value)


def _value(value: types_pb2.Value, depth: int) -> Any:  # noqa: ANN401 - a literal is of any type
    if depth > DEPTH_MAX:
        raise _unreadable(f"is deeper than {DEPTH_MAX}")
    kind = value.WhichOneof("kind")
    if kind is None:
        return UNKNOWN
    if kind == "list_value":
        return tuple(_value(item, depth + 1) for item in value.list_value.values)
    return getattr(value, kind)


def _call(op: str, operands: Sequence[Evaluate]) -> Evaluate:
    """Compiles an operator."""
    if op in ("and", "or") and operands:
        return _junction(operands, decided_by=op == "or")
    if op == "list":
        return lambda row: tuple(operand(row) for operand in operands)
    if op in ("not", "neg") and len(operands) == 1:
        return _unary(op, operands[0])
    if len(operands) == 2:  # noqa: PLR2004 - a binary operator
        left, right = operands
        if op in ("eq", "ne"):
            return _equality(left, right, wanted=op == "eq")
        if op == "in":
            return lambda row: _member(left(row), right(row))
        if op in _COMPARISONS:
            return lambda row: _ordered(_COMPARISONS[op], left(row), right(row))
        if op in _ARITHMETIC:
            return lambda row: _computed(_ARITHMETIC[op], left(row), right(row))
    raise _unreadable(f"calls `{op}`, which this client cannot evaluate")


def _junction(operands: Sequence[Evaluate], *, decided_by: bool) -> Evaluate:
    """Compiles `or` (decided by a True) and `and` (decided by a False)."""

    def junction(row: Row) -> bool | None:
        found = [operand(row) for operand in operands]
        if any(value is decided_by for value in found):
            return decided_by
        return (not decided_by) if all(value is (not decided_by) for value in found) else UNKNOWN

    return junction


def _unary(op: str, operand: Evaluate) -> Evaluate:
    def negation(row: Row) -> bool | None:
        found = operand(row)
        return (not found) if isinstance(found, bool) else UNKNOWN

    def minus(row: Row) -> Any:  # noqa: ANN401 - a number or UNKNOWN
        found = operand(row)
        return -found if _is_number(found) else UNKNOWN

    return negation if op == "not" else minus


def _equality(left: Evaluate, right: Evaluate, *, wanted: bool) -> Evaluate:
    def equality(row: Row) -> bool | None:
        found = _equal(left(row), right(row))
        return UNKNOWN if found is UNKNOWN else found is wanted

    return equality


def _equal(left: Any, right: Any) -> bool | None:  # noqa: ANN401 - any two values
    if not (isinstance(left, tuple) and isinstance(right, tuple)):
        return _equal_items(left, right)
    if len(left) != len(right):
        return False
    found = [_equal_items(one, other) for one, other in zip(left, right, strict=True)]
    return False if False in found else UNKNOWN if UNKNOWN in found else True


def _equal_items(left: Any, right: Any) -> bool | None:  # noqa: ANN401 - any two values
    if not _comparable(left, right) or _differ_as_texts_alone(left, right):
        return UNKNOWN
    return bool(left == right)


def _differ_as_texts_alone(left: Any, right: Any) -> bool:  # noqa: ANN401 - any two values
    """Tells whether two texts are one UUID in different letters, which are equal in a column of UUIDs alone."""
    if not (isinstance(left, str) and isinstance(right, str)) or left == right:
        return False
    return left.lower() == right.lower() and _UUID_TEXT.fullmatch(left) is not None


def _member(value: Any, values: Any) -> bool | None:  # noqa: ANN401 - any two values
    if value is UNKNOWN or not isinstance(values, tuple):
        return UNKNOWN
    found = [_equal(value, item) for item in values]
    return True if True in found else UNKNOWN if UNKNOWN in found else False


def _ordered(compare: Callable[[Any, Any], bool], left: Any, right: Any) -> bool | None:  # noqa: ANN401
    return compare(left, right) if _comparable(left, right) and not isinstance(left, bool) else UNKNOWN


def _computed(compute: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:  # noqa: ANN401
    if compute is operator.add and isinstance(left, str) and isinstance(right, str):
        return left + right if len(left) + len(right) <= TEXT_LENGTH_MAX else UNKNOWN
    if not (_is_number(left) and _is_number(right)):
        return UNKNOWN
    try:
        result = compute(left, right)
    except (ZeroDivisionError, OverflowError):
        return UNKNOWN
    known = math.isfinite(result) if isinstance(result, float) else abs(result) < INTEGER_MAX
    return result if known else UNKNOWN


def _comparable(left: Any, right: Any) -> bool:  # noqa: ANN401 - any two values
    """Tells whether two values are of one kind. A truth value is no number, and NaN is nothing."""
    if isinstance(left, bool) or isinstance(right, bool):
        return isinstance(left, bool) and isinstance(right, bool)
    if isinstance(left, dt.datetime) and isinstance(right, dt.datetime):
        return (left.tzinfo is None) == (right.tzinfo is None)
    if type(left) is dt.date and type(right) is dt.date:
        return True
    return (isinstance(left, str) and isinstance(right, str)) or (_is_number(left) and _is_number(right))


def _is_number(value: Any) -> bool:  # noqa: ANN401 - any value
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def _unreadable(message: str) -> EnforcementError:
    return EnforcementError("CLIENT_UNKNOWN_EXPRESSION", f"a condition of the decision {message}")
