"""Whether anybody could be allowed both of what is to be kept separate.

Owns the question for one guardrail: of somebody with these roles of a directory and no others, be it anybody (a role is
judged so) or a subject with all that the directory knows of it. Both accesses are of the same somebody, each in
circumstances of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING

import msgspec

from gatebook.governance.anybody import Somebody, Terms
from gatebook.governance.asked_roles import ANY_ROLE, asked_roles
from gatebook.governance.possible import Spot
from gatebook.governance.rules import CONDITION, SUBJECT
from gatebook.governance.shown import Shown, confirmed, draft_of
from gatebook.governance.smt import Formula, Model
from gatebook.governance.symbolic import Value
from gatebook.governance.unsaid import Unsaid, unsaid_of
from gatebook.policy.dataset import Dataset
from gatebook.policy.directory import Subject
from gatebook.policy.guardrails import Form, Guardrail

if TYPE_CHECKING:
    from gatebook.governance.prove import Prover


class Both(msgspec.Struct, frozen=True):
    """What came of looking for both: two accesses that are allowed, or that it is not decided."""

    shown: tuple[Shown, ...] = ()
    undecided: bool = False
    unsaid: tuple[Unsaid, ...] = ()


class Separation:
    """Asks for one guardrail. Answers about roles are remembered."""

    def __init__(self, prover: Prover, guardrail: Guardrail) -> None:
        """Takes who asks the solver."""
        self._prover, self._guardrail = prover, guardrail
        self._linked = {edge.child for edge in prover.policy_set.edges if edge.gtype == "g"}
        self._of_roles: dict[frozenset[str], Both] = {}
        self._spots = [
            [(dataset, spot) for dataset in prover.datasets() for spot in prover.possible.spots(form, dataset)]
            for form in guardrail.forms
        ]
        self.roles = frozenset(self._roles())

    def _roles(self) -> Iterator[str]:
        """Yields the roles on which it depends who could be allowed either."""
        somebody = Somebody(self._prover.policy_set, Terms(self._prover.solver))
        for spots in self._spots:
            for _, spot in spots:
                for rule in spot.rules:
                    somebody.holds(rule.fields[SUBJECT])
        rules = [rule for spots in self._spots for _, spot in spots for rule in spot.rules]
        wheres = [form.who.where.tree for form in self._guardrail.forms if form.who.where is not None]
        for role in asked_roles(self._prover.policy_set, rules, wheres) - {ANY_ROLE}:
            somebody.holds(role)
        for form in self._guardrail.forms:
            for role in (*form.who.without, *form.who.holding):
                somebody.given(role)
                somebody.holds(role)
        yield from somebody.roles

    def both(self, roles: frozenset[str]) -> Both:
        """Looks for both by somebody with these roles of a directory, and no others."""
        counting = roles & self.roles
        if counting not in self._of_roles:
            self._of_roles[counting] = self._both(roles, None)
        return self._of_roles[counting]

    def both_of(self, subject: Subject) -> Both:
        """Looks for both by a subject of a directory."""
        roles = frozenset(subject.groups)
        if subject.id not in self._linked:
            found = self.both(roles)
            if not found.shown and not found.undecided:
                return found
        return self._both(roles, subject)

    def _both(self, roles: frozenset[str], subject: Subject | None) -> Both:
        undecided = False
        unsaid: list[Unsaid] = []
        for one, other in combinations(range(len(self._guardrail.forms)), 2):
            for first in self._possible(one, roles, subject):
                for second in self._possible(other, roles, subject):
                    found = self._ask(((one, *first), (other, *second)), roles, subject)
                    if found.shown:
                        return found
                    undecided = undecided or found.undecided
                    unsaid += found.unsaid
        return Both((), undecided, tuple(unsaid))

    def _possible(self, place: int, roles: frozenset[str], subject: Subject | None) -> list[tuple[Dataset, Spot]]:
        """Returns where one access alone could be allowed."""
        return [
            (dataset, spot)
            for dataset, spot in self._spots[place]
            if not _is_no(self._ask(((place, dataset, spot),), roles, subject))
        ]

    def _ask(
        self, wanted: tuple[tuple[int, Dataset, Spot], ...], roles: frozenset[str], subject: Subject | None
    ) -> Both:
        prover = self._prover
        somebody = Somebody(prover.policy_set, Terms(prover.solver))
        forms: list[Form] = [self._guardrail.forms[place] for place, _, _ in wanted]
        askings = [prover.possible.asking(dataset, somebody) for _, dataset, _ in wanted]
        asked = list(zip(forms, askings, (spot for _, _, spot in wanted), strict=True))
        accesses = [asking.access(form, spot) for form, asking, spot in asked]
        conditions = [[rule.fields[CONDITION] for rule in spot.rules] for _, _, spot in asked]
        guesses = [
            it for (form, asking, _), some in zip(asked, conditions, strict=True) for it in asking.guesses(some, form)
        ]

        def show(model: Model) -> tuple[Shown, ...] | None:
            drafts = [draft_of(model, asking, spot, subject) for _, asking, spot in asked]
            shown = [
                confirmed(prover.policy_set, form, draft) for (form, _, _), draft in zip(asked, drafts, strict=True)
            ]
            return tuple(it for it in shown if it is not None) if None not in shown else None

        exactly = self._exactly(somebody, roles, subject)
        found, undecided = prover.settle([*accesses, *exactly], askings, guesses, show)
        if found is not None or not undecided:
            return Both(found or ())
        said = (unsaid_of(prover.policy_set, spot, form, guesses) for form, _, spot in asked)
        return Both((), True, tuple(it for some in said for it in some))  # noqa: FBT003  # not decided

    def _exactly(self, somebody: Somebody, roles: frozenset[str], subject: Subject | None) -> Iterator[Formula]:
        """Yields that somebody has these roles of a directory and no others, and is this subject."""
        s = somebody.solver
        for role, given in somebody.roles.items():
            yield given if role in roles else s.negation(given)
        if subject is None:
            yield from (s.negation(somebody.is_called(name)) for name in sorted(self._linked) if ":" not in name)
            return
        yield somebody.is_called(subject.id)
        for name, value in somebody.attributes.items():
            yield _is(somebody, value, subject.attributes.get(name))


def _is_no(found: Both) -> bool:
    return not found.shown and not found.undecided


def _is(somebody: Somebody, value: Value, known: object) -> Formula:
    """Is true where a value is what the directory knows."""
    s = somebody.solver
    match known:
        case None:
            return s.negation(s.any_of((value.is_truth, value.is_number, value.is_text, value.is_list)))
        case bool():
            return s.all_of((value.is_truth, s.same(value.truth, known)))
        case int() | float():
            whole = s.same(value.whole, isinstance(known, int))
            return s.all_of((value.is_number, s.same(value.number, s.of_number(known)), whole))
        case str():
            return s.all_of((value.is_text, s.same(value.text, s.of_number(s.texts.add(known)))))
        case tuple():
            points = [s.of_number(s.texts.add(text)) for text in known]
            members = [
                s.same(value.items.texts(term), s.any_of(s.same(term, point) for point in points))
                for term in value.items.asked[0]
            ]
            return s.all_of((value.is_list, s.same(value.items.has_texts, bool(points)), *members))
    return True
