"""Anybody who could be in a directory, and anything that a request could say, as values that are not known.

Owns the universe of a proof. Promises: whatever a directory, a caller and a row may hold, some values of the terms
stand for it. Where the terms stand for more (a number that is no double, an id with a line feed), what is proved is
proved all the same, and a counterexample is asked of the reference before it counts.

1. Roles are those that the set declares; a directory may give any of them to anybody, and links give what they give.
2. What a caller states of a subject counts where the directory does not know it, and where one caller may state it
   along with all else that is stated.
3. A row has the columns of its dataset, each of its type or unknown. A question without a row allows no more than
   all questions with one, and shows of each row no more than the one with it: logic of three values is monotonic.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gatebook.compiler.roles import reach
from gatebook.governance.smt import Formula, Model, Solver, Term
from gatebook.governance.symbolic import UNKNOWN, Items, Value
from gatebook.policy import names
from gatebook.policy.dataset import Dataset
from gatebook.policy.policy_set import PolicySet

DAYS_MAX: Final = 3_652_058
"""Days of the years 1 to 9999, which Python's dates have."""
MICROSECONDS_MAX: Final = 86_400_000_000 * DAYS_MAX
_BITS: Final = {"int": 31, "bigint": 63}


class Terms:
    """Makes values of which nothing is known but their kind. `facts` is what is true of their terms."""

    def __init__(self, solver: Solver) -> None:
        """Takes the solver."""
        self.solver = solver
        self.facts: list[Formula] = []

    def text(self, name: str, is_text: Formula) -> Value:
        """Returns some text."""
        text = self.solver.number(f"{name}.text")
        self.facts.append(self.solver.below(self.solver.of_number(0), text, or_same=True))
        return Value(is_text=is_text, text=text)

    def json(self, name: str, present: Formula, *, attribute: bool = False) -> Value:
        """Returns anything that JSON can say, where it is `present`; of an `attribute`, what a directory may hold."""
        s = self.solver
        kinds = [s.truth(f"{name}.{kind}") for kind in ("truth", "number", "text", "list", "other")]
        if attribute:
            kinds[-1] = False
        chosen: list[Formula] = []
        before: list[Formula] = []
        for kind in kinds:
            chosen.append(s.all_of((present, kind, *(s.negation(other) for other in before))))
            before.append(kind)
        whole, number = s.truth(f"{name}.whole"), s.number(name)
        self.facts.append(s.any_of((s.negation(whole), s.is_whole(number))))
        return Value(
            is_truth=chosen[0],
            truth=s.truth(name),
            is_number=chosen[1],
            number=number,
            whole=whole,
            is_text=chosen[2],
            text=self.text(name, is_text=True).text,
            is_list=chosen[3],
            items=self.items(name, texts_alone=attribute),
            is_other=chosen[4],
        )

    def items(self, name: str, *, texts_alone: bool, alone: tuple[Formula, Term] | None = None) -> Items:
        """Returns any list; it holds nothing but one text where the first of `alone` is true."""
        s = self.solver
        asked: dict[str, list[Term]] = {"text": [], "number": [], "truth": []}
        has = {of: s.truth(f"{name}.{of}s") for of in ("text", "number", "truth", "other")}
        if texts_alone:
            has = {**has, "number": False, "truth": False, "other": False}

        def members(of: str) -> Any:  # noqa: ANN401  # a function of terms
            told_of: dict[int, tuple[Term, Formula]] = {}

            def member(term: Term) -> Formula:
                if id(term) not in told_of:
                    told = s.truth(f"{name}.{of}")
                    self.facts.append(s.any_of((s.negation(told), has[of])))
                    # What is the same is a member as well, or not as well.
                    for other, also in told_of.values():
                        self.facts.append(s.any_of((s.negation(s.same(term, other)), s.same(told, also))))
                    told_of[id(term)] = (term, told)
                    asked[of].append(term)
                told = told_of[id(term)][1]
                return told if alone is None else s.choice(alone[0], s.same(term, alone[1]), told)

            return member

        if alone is not None:
            self.facts.append(s.any_of((s.negation(alone[0]), has["text"])))
        return Items(
            texts=members("text"),
            numbers=(lambda _: False) if texts_alone else members("number"),
            truths=(lambda _: False) if texts_alone else members("truth"),
            has_texts=has["text"],
            has_numbers=has["number"],
            has_truths=has["truth"],
            has_others=has["other"],
            asked=(asked["text"], asked["number"], asked["truth"]),
        )

    def column(self, name: str, type_: str, own: tuple[Formula, Term]) -> Value:
        """Returns a value of a column; `own` tells whether a list holds the subject alone, and the subject's id."""
        s = self.solver
        known = s.truth(f"{name}.known")
        match type_:
            case "text" | "uuid":
                return self.text(name, known)
            case "int" | "bigint":
                number, bound = s.number(name, whole=True), 2 ** _BITS[type_]
                self.facts += [s.below(s.of_number(-bound), number, or_same=True), s.below(number, s.of_number(bound))]
                return Value(is_number=known, number=number, whole=True)
            case "numeric":
                number, whole = s.number(name), s.truth(f"{name}.whole")
                self.facts.append(s.any_of((s.negation(whole), s.is_whole(number))))
                return Value(is_number=known, number=number, whole=whole)
            case "bool":
                return Value(is_truth=known, truth=s.truth(name))
            case "timestamptz" | "date":
                number = s.number(name, whole=True)
                most = DAYS_MAX if type_ == "date" else MICROSECONDS_MAX
                self.facts += [s.below(s.of_number(0), number, or_same=True), s.below(number, s.of_number(most))]
                return Value(is_date=known, date=number) if type_ == "date" else Value(is_time=known, time=number)
            case "text[]":
                return Value(is_list=known, items=self.items(name, texts_alone=True, alone=own))
        return self.json(name, known)


class Somebody:
    """A subject: which roles a directory gives it, and what else it knows of it."""

    def __init__(self, policy_set: PolicySet, terms: Terms) -> None:
        """Takes the set, whose roles are those that can be given."""
        self.terms = terms
        self.solver = s = terms.solver
        self._below = _links_below(policy_set)
        self._given: dict[str, Formula] = {}
        self._holds: dict[str, Formula] = {}
        self.id = terms.text("id", is_text=True)
        terms.facts.append(s.negation(s.same(self.id.text, s.of_number(0))))
        self._attributes: dict[str, Value] = {}

    def under(self, policy_set: PolicySet) -> Somebody:
        """Returns the same somebody, with the roles that the links of another set give."""
        same = copy.copy(self)
        same._below, same._holds = _links_below(policy_set), {}  # noqa: SLF001  # of this class
        return same

    @property
    def roles(self) -> Mapping[str, Formula]:
        """Returns the roles of which it counts whether the directory gives them."""
        return self._given

    @property
    def attributes(self) -> Mapping[str, Value]:
        """Returns what was read of it."""
        return self._attributes

    def given(self, role: str) -> Formula:
        """Is true where the directory gives it a role."""
        if role not in self._given:
            self._given[role] = self.solver.truth(role)
        return self._given[role]

    def holds(self, role: str) -> Formula:
        """Is true where it has a role by whatever links."""
        if role not in self._holds:
            s = self.solver
            self._holds[role] = s.any_of(
                self.given(name) if names.ROLE.fullmatch(name) else self.is_called(name)
                for name in sorted(reach(self._below, role))
            )
        return self._holds[role]

    def is_called(self, name: str) -> Formula:
        """Is true where a text is its id."""
        return self.solver.same(self.id.text, self.solver.of_number(self.solver.texts.add(name)))

    def attribute(self, name: str) -> Value:
        """Returns an attribute as the directory knows it."""
        if name not in self._attributes:
            self._attributes[name] = self.terms.json(f"sub.{name}", present=True, attribute=True)
        return self._attributes[name]


def _links_below(policy_set: PolicySet) -> dict[str, list[str]]:
    below: dict[str, list[str]] = {}
    for edge in policy_set.edges:
        if edge.gtype == "g":
            below.setdefault(edge.parent, []).append(edge.child)
    return below


class Circumstances:
    """What one request says beside who asks, for what and why: caller, context, properties, row and time."""

    def __init__(self, policy_set: PolicySet, somebody: Somebody, dataset: Dataset) -> None:
        """Takes the set, which says who may state what, and the dataset whose row it is."""
        self.somebody, self.dataset = somebody, dataset
        self.terms = terms = somebody.terms
        self.solver = s = terms.solver
        self._sources = policy_set.settings.attribute_sources
        self._callers = {name: s.truth(f"caller.{name}") for name in sorted(self._sources)}
        callers = list(self._callers.values())
        for place, one in enumerate(callers):
            terms.facts += [s.negation(s.all_of((one, other))) for other in callers[:place]]
        self._values: dict[tuple[str, str], Value] = {}
        self.own: dict[str, Formula] = {}
        self.now = s.number("now", whole=True)
        terms.facts += [
            s.below(s.of_number(0), self.now, or_same=True),
            s.below(self.now, s.of_number(MICROSECONDS_MAX)),
        ]

    def under(self, policy_set: PolicySet) -> Circumstances:
        """Returns the same circumstances, with the roles that the links of another set give."""
        same = copy.copy(self)
        same.somebody = self.somebody.under(policy_set)
        return same

    @property
    def values(self) -> Mapping[tuple[str, str], Value]:
        """Returns what was read: by `ctx`, `sub` (properties that a caller states) or `row`, and name."""
        return self._values

    def callers(self, model: Model) -> str:
        """Returns the caller of a model; empty: anybody."""
        return next((name for name, formula in self._callers.items() if model.holds(formula)), "")

    def context(self, key: str) -> Value:
        """Returns a key of the context."""
        may = [formula for name, formula in self._callers.items() if key in self._sources[name].context]
        return self._once("ctx", key, lambda: self.terms.json(f"ctx.{key}", self._stated(may)) if may else UNKNOWN)

    def subject(self, name: str) -> Value:
        """Returns an attribute of the subject: as the directory knows it, else as the caller states it."""
        if name in names.RESERVED_ATTRIBUTES:
            return self.somebody.id if name == "id" else UNKNOWN
        known = self.somebody.attribute(name)
        may = [formula for caller, formula in self._callers.items() if name in self._sources[caller].subject]
        if not may:
            return known
        stated = self._once("sub", name, lambda: self.terms.json(f"stated.{name}", self._stated(may)))
        return self._either(known, stated)

    def row(self, column: str) -> Value:
        """Returns the value of a column."""
        if column not in self.dataset.columns:
            return UNKNOWN
        type_ = self.dataset.columns[column].type

        def make() -> Value:
            alone = self.solver.truth(f"row.{column}.own")
            value = self.terms.column(f"row.{column}", type_, (alone, self.somebody.id.text))
            if type_ == "text[]":
                self.own[column] = self.solver.all_of((value.is_list, alone))
            return value

        return self._once("row", column, make)

    def about_others(self) -> Formula:
        """Is true where the row is not known to be about the subject alone."""
        s = self.solver
        own = []
        for key in self.dataset.subject_keys:
            value = self.row(key)
            same = value.is_text is not False and s.same(value.text, self.somebody.id.text)
            own.append(self.own[key] if key in self.own else s.all_of((value.is_text, same)))
        return s.negation(s.all_of(own)) if own else True

    def _stated(self, may: list[Formula]) -> Formula:
        return self.solver.all_of((self.solver.any_of(may), self.solver.truth("stated")))

    def _once(self, kind: str, name: str, make: Any) -> Value:  # noqa: ANN401  # a function that makes the value
        if (kind, name) not in self._values:
            self._values[kind, name] = make()
        return self._values[kind, name]

    def _either(self, one: Value, other: Value) -> Value:
        """Returns one value where it is known, else another."""
        s = self.solver
        missing = s.negation(s.any_of((one.is_truth, one.is_number, one.is_text, one.is_list)))

        def kind(first: Formula, second: Formula) -> Formula:
            return s.any_of((first, s.all_of((missing, second))))

        ours, theirs = one.items, other.items

        def members(first: Any, second: Any) -> Any:  # noqa: ANN401  # functions of terms
            return lambda term: s.choice(missing, second(term), first(term))

        items = Items(
            texts=members(ours.texts, theirs.texts),
            numbers=members(ours.numbers, theirs.numbers),
            truths=members(ours.truths, theirs.truths),
            has_texts=s.choice(missing, theirs.has_texts, ours.has_texts),
            has_numbers=s.choice(missing, theirs.has_numbers, ours.has_numbers),
            has_truths=s.choice(missing, theirs.has_truths, ours.has_truths),
            has_others=s.choice(missing, theirs.has_others, ours.has_others),
        )
        return msgspec.structs.replace(
            one,
            is_truth=kind(one.is_truth, other.is_truth),
            truth=s.choice(missing, other.truth, one.truth),
            is_number=kind(one.is_number, other.is_number),
            number=s.choice(missing, other.number, one.number),
            whole=s.choice(missing, other.whole, one.whole),
            is_text=kind(one.is_text, other.is_text),
            text=s.choice(missing, other.text, one.text),
            is_list=kind(one.is_list, other.is_list),
            items=items,
            is_other=kind(False, other.is_other),  # noqa: FBT003  # a formula
        )
