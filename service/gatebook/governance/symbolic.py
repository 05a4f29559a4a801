"""Values that are not known: what an operator makes of them, as formulas.

Owns the encoding of `expression.operations`, case by case: for any values of the terms, what a `Value` says is what
the operation says of those values. A value has one kind at most, each with the formula that it is of this kind;
where it has none it is UNKNOWN. Where something is not encoded exactly, the result is any value that it may have,
and is noted as `Guess`: nothing is then proved that may not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Final

import msgspec

from gatebook.expression.tree import Expression
from gatebook.governance.smt import Formula, Solver, Term

WHOLE_MAX: Final = 2**127
"""Beyond it, whole numbers that are calculated are UNKNOWN."""


class Truth(msgspec.Struct, frozen=True):
    """A truth value in three-valued logic: UNKNOWN where neither formula is true."""

    true: Formula
    false: Formula


class Items(msgspec.Struct, frozen=True):
    """A list: its items, or, of one that may be any, its members by kind, and whether it has some of each.

    `asked` are the members that were asked for, of each kind.
    """

    known: tuple[Value, ...] | None = None
    texts: Callable[[Term], Formula] = lambda _: False
    numbers: Callable[[Term], Formula] = lambda _: False
    truths: Callable[[Term], Formula] = lambda _: False
    has_texts: Formula = False
    has_numbers: Formula = False
    has_truths: Formula = False
    has_others: Formula = False
    asked: tuple[list[Term], list[Term], list[Term]] = ([], [], [])


class Value(msgspec.Struct, frozen=True):
    """A value: formulas that say of which kind it is, of which one is true at most, and what it then is.

    `is_other` is a value that compares with nothing: a mapping, or what is not a number. `time` is in microseconds,
    `date` in days; `whole` tells of a number whether it is whole to Python.
    """

    is_truth: Formula = False
    truth: Formula = False
    is_number: Formula = False
    number: Term = None
    whole: Formula = False
    is_text: Formula = False
    text: Term = None
    is_time: Formula = False
    time: Term = None
    is_date: Formula = False
    date: Term = None
    is_list: Formula = False
    items: Items = Items()
    is_other: Formula = False


UNKNOWN: Final = Value()


class Guess(msgspec.Struct, frozen=True):
    """What stands for the result of an operation that is not encoded exactly; `expression` is where it stands."""

    op: str
    operands: tuple[Value, ...]
    result: Value
    expression: Expression


class Symbolic:
    """Operations on values, for one solver. `guesses` grows with what could not be said exactly."""

    def __init__(self, solver: Solver) -> None:
        """Takes the solver of all terms."""
        self.solver = solver
        self.guesses: list[Guess] = []

    # Truth

    def truth_of(self, value: Value) -> Truth:
        """Returns a value as a truth value: what is neither True nor False is UNKNOWN."""
        s = self.solver
        return Truth(s.all_of((value.is_truth, value.truth)), s.all_of((value.is_truth, s.negation(value.truth))))

    def of_truth(self, truth: Truth) -> Value:
        """Returns a truth value as a value."""
        return Value(is_truth=self.solver.any_of((truth.true, truth.false)), truth=truth.true)

    def conjunction(self, truths: Sequence[Truth]) -> Truth:
        """Is `operations.conjunction`."""
        return Truth(self.solver.all_of(it.true for it in truths), self.solver.any_of(it.false for it in truths))

    def disjunction(self, truths: Sequence[Truth]) -> Truth:
        """Is `operations.disjunction`."""
        return Truth(self.solver.any_of(it.true for it in truths), self.solver.all_of(it.false for it in truths))

    # Comparison

    def equal(self, left: Value, right: Value, where: Expression) -> Truth:
        """Is `operations.equal`."""
        single = self._equal_single(left, right)
        both = self.solver.all_of((left.is_list, right.is_list))
        if both is False:
            return single
        lists = self._equal_lists(left, right, where)
        s = self.solver
        return Truth(
            s.any_of((single.true, s.all_of((both, lists.true)))),
            s.any_of((single.false, s.all_of((both, lists.false)))),
        )

    def _equal_lists(self, left: Value, right: Value, where: Expression) -> Truth:
        ours, theirs = left.items.known, right.items.known
        if ours is None or theirs is None:
            return self.truth_of(self._guess("eq", (left, right), where, truth=True))
        if len(ours) != len(theirs):
            return Truth(false=True, true=False)
        return self.conjunction([self._equal_single(a, b) for a, b in zip(ours, theirs, strict=True)])

    def _equal_single(self, left: Value, right: Value) -> Truth:
        s = self.solver
        true, false = [], []
        for both, one, other in (
            ((left.is_truth, right.is_truth), left.truth, right.truth),
            ((left.is_number, right.is_number), left.number, right.number),
            ((left.is_text, right.is_text), left.text, right.text),
            ((left.is_time, right.is_time), left.time, right.time),
            ((left.is_date, right.is_date), left.date, right.date),
        ):
            alike = s.all_of(both)
            if alike is not False:
                equal = s.same(one, other)
                true.append(s.all_of((alike, equal)))
                false.append(s.all_of((alike, s.negation(equal))))
        return Truth(s.any_of(true), s.any_of(false))

    def ordered(self, op: str, left: Value, right: Value) -> Truth:
        """Is `<`, `<=`, `>` or `>=` of `operations`; truth values and lists have no order."""
        if op in ("gt", "ge"):
            op, left, right = {"gt": "lt", "ge": "le"}[op], right, left
        s = self.solver
        true, false = [], []
        for both, one, other in (
            ((left.is_number, right.is_number), left.number, right.number),
            ((left.is_text, right.is_text), left.text, right.text),
            ((left.is_time, right.is_time), left.time, right.time),
            ((left.is_date, right.is_date), left.date, right.date),
        ):
            alike = s.all_of(both)
            if alike is not False:
                before = s.below(one, other, or_same=op == "le")
                true.append(s.all_of((alike, before)))
                false.append(s.all_of((alike, s.negation(before))))
        return Truth(s.any_of(true), s.any_of(false))

    def contains(self, item: Value, items: Value, where: Expression) -> Truth:
        """Is `operations.contains`."""
        s = self.solver
        is_list, listed = items.is_list, items.items
        if is_list is False:
            return Truth(true=False, false=False)
        itself = self.equal(item, item, where)
        reflexive = s.any_of((itself.true, itself.false))
        if listed.known is not None:
            found = self.disjunction([self.equal(item, other, where) for other in listed.known])
        else:
            found = self._among(item, items, where)
        return Truth(*(s.all_of((is_list, reflexive, part)) for part in (found.true, found.false)))

    def _among(self, item: Value, items: Value, where: Expression) -> Truth:
        """Looks for an item in a list that may be any: it is not there where no member could not be compared."""
        s, listed = self.solver, items.items
        kinds = (listed.has_texts, listed.has_numbers, listed.has_truths, listed.has_others)
        true, false = [], []
        for place, (is_kind, term, members) in enumerate(
            (
                (item.is_text, item.text, listed.texts),
                (item.is_number, item.number, listed.numbers),
                (item.is_truth, item.truth, listed.truths),
                (s.any_of((item.is_time, item.is_date)), None, lambda _: False),
            )
        ):
            if is_kind is False:
                continue
            member = members(term) if term is not None else False
            strange = s.any_of(kind for other, kind in enumerate(kinds) if other != place or term is None)
            true.append(s.all_of((is_kind, member)))
            false.append(s.all_of((is_kind, s.negation(member), s.negation(strange))))
        if item.is_list is not False:
            guess = self.truth_of(self._guess("in", (item, items), where, truth=True))
            true.append(s.all_of((item.is_list, guess.true)))
            false.append(s.all_of((item.is_list, guess.false)))
        return Truth(s.any_of(true), s.any_of(false))

    # Calculation

    def add(self, left: Value, right: Value, where: Expression) -> Value:
        """Is `operations.add`."""
        s = self.solver
        sums = self.calculate("add", left, right, where)
        both = s.all_of((left.is_text, right.is_text))
        if both is False:
            return sums
        joined = self._guess("add", (left, right), where, text=True)
        return msgspec.structs.replace(sums, is_text=s.all_of((both, joined.is_text)), text=joined.text)

    def calculate(self, op: str, left: Value, right: Value, where: Expression) -> Value:
        """Is a calculation of `operations`: of whole numbers exactly, of others, which are rounded, any result."""
        s = self.solver
        numbers = s.all_of((left.is_number, right.is_number))
        if numbers is False:
            return UNKNOWN
        exact = self._exact(op, left, right)
        if exact is None:
            guess = self._guess(op, (left, right), where, number=True)
            return msgspec.structs.replace(guess, is_number=s.all_of((numbers, guess.is_number)))
        wholes = s.all_of((left.whole, right.whole))
        bound = s.of_number(WHOLE_MAX)
        fits = s.all_of((s.below(s.of_number(-WHOLE_MAX), exact), s.below(exact, bound)))
        if wholes is True:
            return Value(is_number=s.all_of((numbers, fits)), number=exact, whole=True)
        guess = self._guess(op, (left, right), where, number=True)
        others = s.negation(wholes)
        return Value(
            is_number=s.all_of((numbers, s.any_of((s.all_of((wholes, fits)), s.all_of((others, guess.is_number)))))),
            number=s.choice(wholes, exact, guess.number),
            whole=wholes,
        )

    def _exact(self, op: str, left: Value, right: Value) -> Term | None:
        """Returns the exact result for whole numbers, where the solver can well say it."""
        constant = _constant(self, right)
        match op:
            case "add":
                return left.number + right.number
            case "sub":
                return left.number - right.number
            case "mul" if constant is not None or _constant(self, left) is not None:
                return left.number * right.number
            case "mod" if constant is not None and constant.denominator == 1 and constant != 0:
                return self.solver.remainder(left.number, int(constant))
        return None

    def negative(self, value: Value) -> Value:
        """Is `operations.negative`: exact, but for whole numbers that are too large."""
        s = self.solver
        if value.is_number is False:
            return UNKNOWN
        negated = -value.number
        bound = s.of_number(WHOLE_MAX)
        fits = s.all_of((s.below(s.of_number(-WHOLE_MAX), negated), s.below(negated, bound)))
        return Value(
            is_number=s.all_of((value.is_number, s.any_of((s.negation(value.whole), fits)))),
            number=negated,
            whole=value.whole,
        )

    # What is not encoded

    def guess(self, op: str, operands: Sequence[Value], where: Expression) -> Value:
        """Returns any truth value or text that a function of texts may have, or none."""
        texts = self.solver.all_of(operand.is_text for operand in operands)
        if texts is False:
            return UNKNOWN
        is_text = op.startswith("keyGet")
        guess = self._guess(op, tuple(operands), where, text=is_text, truth=not is_text)
        s = self.solver
        return msgspec.structs.replace(
            guess, is_text=s.all_of((texts, guess.is_text)), is_truth=s.all_of((texts, guess.is_truth))
        )

    def anything(self, where: Expression) -> Value:
        """Returns any truth value, number or text, or none."""
        return self._guess("", (), where, truth=True, number=True, text=True)

    def _guess(
        self,
        op: str,
        operands: tuple[Value, ...],
        where: Expression,
        *,
        truth: bool = False,
        number: bool = False,
        text: bool = False,
    ) -> Value:
        s = self.solver
        one = s.truth("is_truth") if truth else False
        two = s.truth("is_number") if number else False
        three = s.truth("is_text") if text else False
        result = Value(
            is_truth=one,
            truth=s.truth("guess") if truth else False,
            is_number=s.all_of((two, s.negation(one))),
            number=s.number("guess") if number else None,
            is_text=s.all_of((three, s.negation(one), s.negation(two))),
            text=s.number("guess.text") if text else None,
        )
        self.guesses.append(Guess(op, operands, result, where))
        return result


def _constant(symbolic: Symbolic, value: Value) -> Fraction | None:
    """Returns the number that a value certainly is, if it is a whole constant."""
    return symbolic.solver.constant(value.number) if value.is_number is True and value.whole is True else None
