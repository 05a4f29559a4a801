"""Numbers in SQL that are what they are in our conditions: whole and exact, or doubles.

Owns arithmetic and comparison. A whole number never overflows, since each is of a type that holds its bound. A number
is null where a condition knows none: after a division by zero, or where a double is infinite. It is null, too, where it
is a decimal number, or one that meets a double, beyond 2^53; that is narrower than a condition.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from gatebook.sql import terms
from gatebook.sql.dialects import POSTGRES, Dialect
from gatebook.sql.terms import Node

EXACT_DOUBLE_MAX: Final = 2**53 - 1
"""A double up to here stands for no other whole number."""
BIGINT_MAX: Final = 2**63 - 1
WIDE_MAX: Final = 10**38 - 1
DOUBLE_MAX: Final = "1.7976931348623157E308"
DECIMAL_LENGTH_MAX: Final = 42
"""A decimal number of so many characters has no more than the 40 digits behind the point that a check takes."""
_FLIPPED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "="}


class Number(msgspec.Struct, frozen=True):
    """A number: `bound` is the largest absolute value that it can have, `constant` what it is where that is known."""

    node: Node
    whole: bool
    bound: float | int
    constant: int | float | None = None


class Numbers:
    """Builds the numbers of one plan."""

    def __init__(self, dialect: Dialect) -> None:
        """Takes the dialect."""
        self._dialect = dialect
        self.rounded = 0
        """How often a number beyond 2^53 was taken for unknown where a condition would know it."""

    def literal(self, content: float) -> Number | None:
        """Returns a constant, or nothing where no type holds it."""
        if isinstance(content, int):
            if abs(content) > BIGINT_MAX:
                return None
            return Number(terms.value(content, "bigint"), whole=True, bound=abs(content), constant=content)
        if not math.isfinite(content):
            return None
        return Number(terms.value(content, "double"), whole=False, bound=abs(content), constant=content)

    def whole_column(self, node: Node, bits: int) -> Number:
        """Returns a column of whole numbers."""
        return Number(terms.cast(node, "bigint"), whole=True, bound=2 ** (bits - 1))

    def decimal(self, node: Node) -> Number:
        """Returns a decimal number as a double."""
        self.rounded += 1
        # Only from a text do all engines find the nearest double.
        text = terms.cast(node, "text")
        if self._dialect.name == POSTGRES:
            # It stores more digits than a check takes, and numbers at which the cast fails.
            short = terms.binary("<=", terms.call("LENGTH", text), terms.number(DECIMAL_LENGTH_MAX))
            text = terms.known(short, text)
        double = terms.cast(text, "double")
        return Number(self._within(double, EXACT_DOUBLE_MAX), whole=False, bound=EXACT_DOUBLE_MAX)

    def negative(self, number: Number) -> Number | None:
        """Changes the sign."""
        return self.compute("-", Number(terms.number(0), whole=True, bound=0, constant=0), number)

    def compute(self, op: str, left: Number, right: Number) -> Number | None:
        """Returns what `+ - * / %` make of two numbers; nothing where that cannot be said."""
        if op == "/":
            return self._quotient(self.double(left), self.double(right))
        if left.whole and right.whole:
            return self._whole(op, left, right)
        if op == "%":
            return None
        one, other = self.double(left), self.double(right)
        bound = one.bound * other.bound if op == "*" else one.bound + other.bound
        return self._finite(terms.binary(op, one.node, other.node), bound)

    def compare(self, op: str, left: Number, right: Number) -> Node | None:
        """Returns what `= < <= > >=` say of two numbers; nothing where that cannot be said."""
        if left.whole and right.whole:
            return terms.binary(op, left.node, right.node)
        if left.whole and right.constant is not None:
            return self._against(op, left, right.constant)
        if right.whole and left.constant is not None:
            return self._against(_FLIPPED[op], right, left.constant)
        for number in (left, right):
            if number.whole and number.constant is not None and number.bound > EXACT_DOUBLE_MAX:
                return None
        return terms.binary(op, self.double(left).node, self.double(right).node)

    def double(self, number: Number) -> Number:
        """Returns a number as a double."""
        if not number.whole:
            return number
        if number.constant is not None and number.bound <= EXACT_DOUBLE_MAX:
            content = float(number.constant)
            return Number(terms.value(content, "double"), whole=False, bound=abs(content), constant=content)
        double = terms.cast(number.node, "double")
        if number.bound <= EXACT_DOUBLE_MAX:
            return Number(double, whole=False, bound=number.bound)
        self.rounded += 1
        limits = (terms.number(-EXACT_DOUBLE_MAX), terms.number(EXACT_DOUBLE_MAX))
        exact = terms.known(terms.between(number.node, *limits), double)
        return Number(exact, whole=False, bound=EXACT_DOUBLE_MAX)

    def _against(self, op: str, whole: Number, double: float) -> Node | None:
        """Compares a whole number with a double, exactly."""
        if op == "=":
            if not double.is_integer():
                return terms.known(terms.is_not_null(whole.node), terms.truth(False))  # noqa: FBT003
            threshold = int(double)
        else:
            threshold = math.floor(double) if op in ("<=", ">") else math.ceil(double)
        literal = self.literal(threshold)
        return None if literal is None else terms.binary(op, whole.node, literal.node)

    def _whole(self, op: str, left: Number, right: Number) -> Number | None:
        match op:
            case "*":
                bound = left.bound * right.bound
            case "%":
                bound = left.bound + 2 * right.bound  # on the way
            case _:
                bound = left.bound + right.bound
        if bound > WIDE_MAX:
            return None
        one, other = (left.node, right.node)
        if bound > BIGINT_MAX:
            one, other = (terms.cast(node, self._dialect.wide) for node in (one, other))
        if op != "%":
            return Number(terms.binary(op, one, other), whole=True, bound=bound)
        # The rest has the sign of the divisor here, and of the dividend in SQL.
        divisor = terms.call("NULLIF", other, 0)
        rest = terms.binary("+", terms.binary("%", one, divisor), divisor)
        return Number(terms.binary("%", rest, divisor), whole=True, bound=right.bound)

    def _quotient(self, left: Number, right: Number) -> Number:
        divisor = terms.call("NULLIF", right.node, 0)
        bound = math.inf if not right.constant else left.bound / abs(right.constant)
        return self._finite(terms.binary("/", left.node, divisor), bound)

    def _finite(self, node: Node, bound: float) -> Number:
        """Returns a double that is null where it is infinite or no number."""
        if bound < float(DOUBLE_MAX):
            return Number(node, whole=False, bound=bound)
        limits = (terms.cast(terms.number(sign + DOUBLE_MAX), "double") for sign in ("-", ""))
        return Number(terms.known(terms.between(node, *limits), node), whole=False, bound=float(DOUBLE_MAX))

    def _within(self, double: Node, limit: int) -> Node:
        return terms.known(terms.between(double, terms.number(-limit), terms.number(limit)), double)
