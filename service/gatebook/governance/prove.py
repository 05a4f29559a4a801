"""Whether what must never be possible is not: the verdict on each guardrail.

Owns the verdicts. Promises:

1. PROVED: no directory, caller, context, row or time makes an access of the form possible;
2. REFUTED: there is one, and the reference engine allows it;
3. UNKNOWN: neither is known, which counts as not proved, and `why` says which conditions were too hard.

What the solver may assume of a function is corrected, a few times, by what the function really answers.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, TypeVar

import msgspec

from gatebook.expression.truth import apply
from gatebook.governance.encode import named_texts
from gatebook.governance.possible import Asking, Possible, Spot
from gatebook.governance.rules import CONDITION
from gatebook.governance.separate import Separation
from gatebook.governance.shown import SOMEBODY, Shown, confirmed, draft_of
from gatebook.governance.smt import Answer, Formula, Model, Solver
from gatebook.governance.symbolic import Guess, Value
from gatebook.governance.texts import Texts
from gatebook.governance.unsaid import Unsaid, unsaid_of
from gatebook.pace import Pause, no_pause, paced
from gatebook.policy.dataset import Dataset
from gatebook.policy.guardrails import Form, Guardrail, Kind, Within
from gatebook.policy.policy_set import PolicySet

ROUNDS_MAX = 24
"""How often what the solver assumed of functions is corrected, in one question."""
QUESTIONS_MAX = 200_000


T = TypeVar("T")


class Result(enum.StrEnum):
    """What is known of a guardrail."""

    PROVED = "PROVED"
    REFUTED = "REFUTED"
    UNKNOWN = "UNKNOWN"


class Verdict(msgspec.Struct, frozen=True):
    """What is known of a guardrail: a counterexample for each access that it takes, or what was too hard."""

    guardrail: Guardrail
    result: Result
    shown: tuple[Shown, ...] = ()
    unsaid: tuple[Unsaid, ...] = ()
    why: str = ""
    questions: int = 0


class _Found(msgspec.Struct, frozen=True):
    """What came of looking for one access."""

    shown: Shown | None = None
    unsaid: tuple[Unsaid, ...] = ()
    undecided: bool = False


_NOTHING = _Found()


class Prover:
    """Asks about one policy set. `questions` counts what the solver was asked."""

    def __init__(self, policy_set: PolicySet, solver: Solver | None = None, pause: Pause = no_pause) -> None:
        """Takes a governed set.

        Raises:
            NotInstalledError: there is no solver.
        """
        self.policy_set = policy_set
        self.solver = solver or Solver(Texts({*named_texts(policy_set), SOMEBODY}))
        self.questions = 0
        self.possible = Possible(policy_set, self.solver)
        self._pause = pause
        self._found: dict[object, _Found] = {}

    def verdicts(self) -> Iterator[Verdict]:
        """Yields the verdict on each guardrail, in order."""
        for guardrail in self.policy_set.guardrails:
            yield self.verdict(guardrail)

    def verdict(self, guardrail: Guardrail) -> Verdict:
        """Returns the verdict on one guardrail."""
        before = self.questions
        judge = {Kind.NEVER: self._never, Kind.APART: self._apart, Kind.SEPARATE: self._separate}
        found = judge[guardrail.kind](guardrail)
        return msgspec.structs.replace(found, questions=self.questions - before)

    def _never(self, guardrail: Guardrail) -> Verdict:
        unsaid: dict[Unsaid, None] = {}
        undecided = False
        for dataset in self.datasets():
            found = self.look(guardrail.forms[0], dataset)
            if found.shown is not None:
                return Verdict(guardrail, Result.REFUTED, (found.shown,))
            unsaid |= dict.fromkeys(found.unsaid)
            undecided = undecided or found.undecided
        return verdict_of(guardrail, tuple(unsaid), undecided=undecided)

    def _apart(self, guardrail: Guardrail) -> Verdict:
        unsaid: dict[Unsaid, None] = {}
        undecided = False
        form = guardrail.forms[0]
        for dataset in self.datasets():
            columns = [""] if guardrail.within is Within.DATASET else list(dataset.columns)
            for column in columns:
                met: list[_Found] = []
                for purpose in guardrail.apart:
                    asked = msgspec.structs.replace(form, purposes=(purpose,))
                    found = self.look(asked, dataset, column)
                    if found.shown is not None or found.undecided:
                        met.append(found)
                shown = tuple(found.shown for found in met if found.shown is not None)
                if len(shown) > 1:
                    return Verdict(guardrail, Result.REFUTED, shown[:2])
                if len(met) > 1:
                    undecided = True
                    unsaid |= dict.fromkeys(it for found in met for it in found.unsaid)
        return verdict_of(guardrail, tuple(unsaid), undecided=undecided)

    def _separate(self, guardrail: Guardrail) -> Verdict:
        separation = Separation(self, guardrail)
        undecided = False
        unsaid: dict[Unsaid, None] = {}
        for role in self.policy_set.settings.roles:
            both = separation.both(frozenset({role}))
            if both.shown:
                return Verdict(guardrail, Result.REFUTED, both.shown)
            undecided = undecided or both.undecided
            unsaid |= dict.fromkeys(both.unsaid)
        return verdict_of(guardrail, tuple(unsaid), undecided=undecided)

    def look(self, form: Form, dataset: Dataset, column: str = "") -> _Found:
        """Looks for an access of a form in a dataset, or in one column of it."""
        asking: Asking | None = None
        unsaid: list[Unsaid] = []
        undecided = False
        for spot in paced(self.possible.spots(form, dataset), self._pause):
            if column and column not in {it.name for it in spot.columns}:
                continue
            chosen = spot if not column else msgspec.structs.replace(spot, columns=(dataset.columns[column],))
            key = (form, _shape(chosen))
            found = self._found.get(key)
            if found is None or found.shown is not None:
                asking = asking or self.possible.asking(dataset)
                found = self._found[key] = self._ask(form, chosen, asking)
            if found.shown is not None:
                return found
            unsaid += found.unsaid
            undecided = undecided or found.undecided
        return _Found(None, tuple(unsaid), undecided)

    def datasets(self) -> Sequence[Dataset]:
        """Returns the datasets of the catalogue."""
        catalogue = self.policy_set.catalogue
        return () if catalogue is None else tuple(catalogue.datasets.values())

    def _ask(self, form: Form, spot: Spot, asking: Asking) -> _Found:
        access = asking.access(form, spot)
        guesses = asking.guesses([rule.fields[CONDITION] for rule in spot.rules], form)

        def show(model: Model) -> Shown | None:
            return confirmed(self.policy_set, form, draft_of(model, asking, spot))

        shown, undecided = self.settle([access], [asking], guesses, show)
        if shown is not None or not undecided:
            return _Found(shown)
        return _Found(None, unsaid_of(self.policy_set, spot, form, guesses), undecided=True)

    def settle(
        self,
        formulas: Sequence[Formula],
        askings: Sequence[Asking],
        guesses: Sequence[Guess],
        show: Callable[[Model], T | None],
    ) -> tuple[T | None, bool]:
        """Looks for a model of formulas that can be shown; returns what is shown, or whether it is not decided."""
        if False in formulas:
            return None, False
        corrected: list[Formula] = []
        for _ in range(ROUNDS_MAX):
            asked = [*formulas, *corrected]
            answer, model = self._solve(asked, askings)
            if answer is Answer.NONE:
                return None, False
            if model is None:
                break
            model = self._plainest(asked, askings, model)
            shown = show(model)
            if shown is not None:
                return shown, False
            more = [fact for guess in guesses for fact in _corrections(self.solver, guess, model)]
            if not more:
                break
            corrected += more
        return None, True

    def is_never(self, formula: Formula, asking: Asking) -> bool:
        """Tells whether a formula is certainly never true."""
        return formula is False or self._solve([formula], [asking])[0] is Answer.NONE

    def _solve(self, formulas: Sequence[Formula], askings: Sequence[Asking]) -> tuple[Answer, Model | None]:
        self.questions += 1
        if self.questions > QUESTIONS_MAX:
            return Answer.UNDECIDED, None
        return self.solver.solve([*formulas, *askings[0].around.terms.facts])

    def _plainest(self, formulas: Sequence[Formula], askings: Sequence[Asking], model: Model) -> Model:
        """Returns a model with few roles and attributes, whole numbers, and a plain id, as far as there is one."""
        s, kept = self.solver, list(formulas)
        somebody = askings[0].somebody
        wishes: list[Formula] = [s.same(somebody.id.text, s.of_text(SOMEBODY))]
        values = [*somebody.attributes.values(), *(it for asking in askings for it in asking.around.values.values())]
        wishes.append(
            s.all_of(
                s.any_of((s.negation(it.is_number), s.is_whole(it.number)))
                for it in values
                if it.is_number is not False
            )
        )
        wishes += [s.negation(given) for _, given in sorted(somebody.roles.items())]
        wishes += [
            s.negation(s.any_of((it.is_truth, it.is_number, it.is_text, it.is_list, it.is_other)))
            for it in somebody.attributes.values()
        ]
        for wish in wishes:
            if model.holds(wish):
                kept.append(wish)
                continue
            answer, better = self._solve([*kept, wish], askings)
            if answer is Answer.SOME and better is not None:
                kept.append(wish)
                model = better
        return model


def verdict_of(guardrail: Guardrail, unsaid: tuple[Unsaid, ...], *, undecided: bool) -> Verdict:
    """Returns that a guardrail is proved, or not."""
    if not undecided:
        return Verdict(guardrail, Result.PROVED)
    why = "" if unsaid else "the solver did not decide it within its limit of steps: ask for less in one guardrail"
    return Verdict(guardrail, Result.UNKNOWN, unsaid=unsaid, why=why)


def _shape(spot: Spot) -> object:
    """Tells apart what is asked: datasets with the same rules, types and keys have the same answer."""
    dataset = spot.cell.dataset
    types = tuple((name, column.type) for name, column in dataset.columns.items())
    rules = tuple(map(id, spot.rules))
    kinds = tuple(len(some) for some in (spot.cell.rules.allows, spot.cell.rules.denies, spot.cell.rules.masks))
    type_ = spot.columns[0].type if spot.cell.rules.masks else ""
    return (rules, kinds, types, dataset.subject_keys, dataset.group_minimum, spot.cell.masked, type_)


def _corrections(s: Solver, guess: Guess, model: Model) -> Iterator[Formula]:
    """Yields what a function really answers for the values of a model, where the solver assumed something else."""
    given = [_concrete(s, value, model) for value in guess.operands]
    if not given or any(value is None for value in given):
        return
    actual = apply(guess.op, given)
    if not isinstance(actual, bool | int | float | None):
        return  # a text that was made of others has no place yet
    alike = s.all_of(_is(s, value, it) for value, it in zip(guess.operands, given, strict=True))
    result = guess.result
    if actual is None:
        answered: Formula = s.negation(s.any_of((result.is_truth, result.is_number, result.is_text)))
    else:
        answered = _is(s, result, actual, typed=False)
    if not model.holds(answered):
        yield s.any_of((s.negation(alike), answered))


def _concrete(s: Solver, value: Value, model: Model) -> Any:  # noqa: ANN401  # a value of a condition
    """Returns the value that a model gives; None where it gives none that Python has."""
    if model.holds(value.is_truth):
        return model.holds(value.truth)
    if model.holds(value.is_text):
        return s.texts.at(model.number(value.text))
    if not model.holds(value.is_number):
        return None
    number = model.number(value.number)
    if model.holds(value.whole):
        return int(number) if number.denominator == 1 else None
    try:
        rounded = float(number)
    except OverflowError:
        return None
    return rounded if Fraction(rounded) == number else None


def _is(s: Solver, value: Value, wanted: Any, *, typed: bool = True) -> Formula:  # noqa: ANN401  # as above
    if isinstance(wanted, bool):
        return s.all_of((value.is_truth, s.same(value.truth, wanted)))
    if isinstance(wanted, str):
        point = s.of_text(wanted)
        return False if value.text is None or point is None else s.all_of((value.is_text, s.same(value.text, point)))
    if value.number is None:
        return False
    whole = s.same(value.whole, isinstance(wanted, int)) if typed else True
    return s.all_of((value.is_number, s.same(value.number, s.of_number(wanted)), whole))
