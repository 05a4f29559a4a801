"""The solver: formulas over truth values, numbers and texts, and whether any values make them true.

Owns z3, which nothing else imports. A formula is a Python truth value where it is decided, else a term of z3; a text
is a number (see `texts`).
Promises: `Answer.NONE` is only said where no values satisfy the constraints; whatever the solver could not decide
within its limit of steps, which do not depend on how busy the machine is, is `Answer.UNDECIDED`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any, Final

from gatebook.errors import GatebookError
from gatebook.governance.texts import Texts, successor

try:
    import z3
except ImportError:  # the extra `prove` is not installed; `installed` says so
    z3 = None

Term = Any
"""A term of z3: a number or a text."""
Formula = Any
"""True, False, or a term of z3."""

STEPS_MAX: Final = 20_000_000
"""Steps of the solver for one question (z3's resource units), some seconds."""
MILLISECONDS_MAX: Final = 60_000
"""Stops a question on a clock too, should steps be slower than they ever were."""


class Answer(enum.Enum):
    """What the solver says."""

    SOME = enum.auto()
    NONE = enum.auto()
    UNDECIDED = enum.auto()


class NotInstalledError(GatebookError):
    """The solver is not installed."""

    reason = "POLICY_SET_REFUSED"


def installed() -> bool:
    """Tells whether there is a solver."""
    return z3 is not None


class Solver:
    """One place for terms and questions. Not to be used from two threads at once."""

    def __init__(self, texts: Texts, steps_max: int = STEPS_MAX) -> None:
        """Takes the texts that are named.

        Raises:
            NotInstalledError: the solver is not there.
        """
        if z3 is None:
            raise NotInstalledError(
                "guardrails are proved by z3, which is not installed: pip install 'gatebook[prove]'"
            )
        self._context = z3.Context()
        self._steps_max = steps_max
        self._names = 0
        self.texts = texts
        self.transcript: list[str] | None = None
        self.answers: list[Answer] = []
        """Where `transcript` is a list, each question is added to it as SMT-LIB 2, and its answer to `answers`."""

    def _name(self, hint: str) -> str:
        self._names += 1
        return f"{hint}!{self._names}"

    def truth(self, hint: str) -> Formula:
        """Returns a truth value that may be any."""
        return z3.Bool(self._name(hint), self._context)

    def number(self, hint: str, *, whole: bool = False) -> Term:
        """Returns a number that may be any, as a real number also where it is `whole`."""
        name = self._name(hint)
        return z3.ToReal(z3.Int(name, self._context)) if whole else z3.Real(name, self._context)

    def of_number(self, value: float | Fraction) -> Term:
        """Returns a number, exactly."""
        exact = Fraction(value)
        return z3.RealVal(f"{exact.numerator}/{exact.denominator}", self._context)

    def constant(self, term: Term) -> Fraction | None:
        """Returns the number that a term is, where it is one."""
        return Fraction(term.as_fraction()) if z3.is_rational_value(term) else None

    def of_text(self, value: str) -> Term | None:
        """Returns a text; None of one that was never named."""
        point = self.texts.point(value)
        return None if point is None else self.of_number(point)

    def of_truth(self, value: Formula) -> Formula:
        """Returns a truth value as a term."""
        return z3.BoolVal(value, self._context) if isinstance(value, bool) else value

    def all_of(self, formulas: Iterable[Formula]) -> Formula:
        """Is true where all are."""
        kept = []
        for formula in formulas:
            if formula is False:
                return False
            if formula is not True:
                kept.append(formula)
        return True if not kept else kept[0] if len(kept) == 1 else z3.And(*kept)

    def any_of(self, formulas: Iterable[Formula]) -> Formula:
        """Is true where any is."""
        kept = []
        for formula in formulas:
            if formula is True:
                return True
            if formula is not False:
                kept.append(formula)
        return False if not kept else kept[0] if len(kept) == 1 else z3.Or(*kept)

    def negation(self, formula: Formula) -> Formula:
        """Is true where another is false."""
        return not formula if isinstance(formula, bool) else z3.Not(formula)

    def choice(self, condition: Formula, one: Term, other: Term) -> Term:
        """Is one term where a condition is true, else another of the same sort."""
        if isinstance(condition, bool):
            return one if condition else other
        return z3.If(condition, self.of_truth(one), self.of_truth(other))

    def same(self, one: Term, other: Term) -> Formula:
        """Is true where two terms of one sort are equal."""
        if isinstance(one, bool) and isinstance(other, bool):
            return one == other
        return self.of_truth(one) == self.of_truth(other)

    def below(self, one: Term, other: Term, *, or_same: bool = False) -> Formula:
        """Is true where one number, or text by its characters, stands before another."""
        return one <= other if or_same else one < other

    def starts(self, text: Term, prefix: str) -> Formula | None:
        """Is true where a text begins so; None where that was never named."""
        after = successor(prefix)
        first, end = self.of_text(prefix), None if after is None else self.of_text(after)
        if first is None or (after is not None and end is None):
            return None
        return self.all_of((first <= text, True if end is None else text < end))

    def is_whole(self, number: Term) -> Formula:
        """Is true where a number is whole."""
        return z3.IsInt(number)

    def remainder(self, number: Term, divisor: int) -> Term:
        """Returns what Python's `%` leaves of a whole number."""
        whole = z3.ToInt(number)
        if divisor > 0:
            return z3.ToReal(whole % divisor)
        return -z3.ToReal((-whole) % -divisor)

    def solve(self, formulas: Sequence[Formula]) -> tuple[Answer, Model | None]:
        """Looks for values of all terms that make all formulas true."""
        whole = self.all_of(formulas)
        if isinstance(whole, bool):
            if not whole:
                return Answer.NONE, None
            whole = z3.BoolVal(val=True, ctx=self._context)
        solver = z3.SimpleSolver(ctx=self._context)
        solver.set("rlimit", self._steps_max)
        solver.set("timeout", MILLISECONDS_MAX)
        solver.add(whole)
        if self.transcript is not None:
            self.transcript.append(solver.to_smt2())
        try:
            found = solver.check()
        except z3.Z3Exception:
            found = z3.unknown
        answer = Answer.SOME if found == z3.sat else Answer.NONE if found == z3.unsat else Answer.UNDECIDED
        if self.transcript is not None:
            self.answers.append(answer)
        return answer, Model(solver.model()) if answer is Answer.SOME else None


class Model:
    """Values that make formulas true."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401  # z3 has no types
        """Takes the model of z3."""
        self._model = model

    def holds(self, formula: Formula) -> bool:
        """Tells whether a formula is true."""
        return formula if isinstance(formula, bool) else z3.is_true(self._model.eval(formula, model_completion=True))

    def number(self, term: Term) -> Fraction:
        """Returns a number; one that no fraction is, cut."""
        value = self._model.eval(term, model_completion=True)
        if z3.is_algebraic_value(value):
            value = value.approx(30)
        return Fraction(value.as_fraction())
