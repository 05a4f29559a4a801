"""What a policy set could allow anybody, as formulas: a cell, a form of access within it.

Owns the encoding of step 4 and 5 of a request, for one column: some allow is True and every deny False, a demanded
mask applies, masks do not contradict each other or the column's type, and figures promise the minimum group. Consent,
whether a notice has begun, ceilings and what an enforcer can apply are left out: they only narrow, and change without
a publish.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

import msgspec

from gatebook.engine.obligations import parameter_of
from gatebook.governance.anybody import Circumstances, Somebody, Terms
from gatebook.governance.encode import Encoder
from gatebook.governance.rules import CONDITION, SUBJECT, Cell, Rules
from gatebook.governance.smt import Formula, Solver
from gatebook.governance.symbolic import Guess, Symbolic, Truth
from gatebook.policy.dataset import Column, Dataset
from gatebook.policy.guardrails import Form, Who
from gatebook.policy.masks import MaskSpec, at_least_as_strict, castable, parse_group, parse_mask
from gatebook.policy.policy_set import PolicySet
from gatebook.values import MaskKind, Rule


class Spot(msgspec.Struct, frozen=True):
    """Columns of one type of a cell, for those of its purposes that count."""

    cell: Cell
    columns: tuple[Column, ...]
    purposes: tuple[str, ...]

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Returns every rule that speaks of it."""
        spoken = self.cell.rules
        return (*spoken.allows, *spoken.denies, *spoken.masks, *spoken.groups)


class Asking:
    """One request about a dataset by somebody, and what the rules say of it."""

    def __init__(self, policy_set: PolicySet, symbolic: Symbolic, somebody: Somebody, dataset: Dataset) -> None:
        """Takes who asks, and the dataset that is asked for."""
        self.symbolic, self.somebody, self.dataset = symbolic, somebody, dataset
        self._solver: Solver = symbolic.solver
        self.around = Circumstances(policy_set, somebody, dataset)
        self._encoder = Encoder(symbolic, self.around, policy_set.model)

    def under(self, policy_set: PolicySet, *, linked_alike: bool) -> Asking:
        """Returns the same request, asked of another set, which believes callers alike and has the same model.

        Where both sets link alike whatever conditions ask for, a guess of a condition is the same guess in both.
        """
        same = copy.copy(self)
        same.around = self.around.under(policy_set)
        same.somebody = same.around.somebody
        if not linked_alike:
            same._encoder = Encoder(self.symbolic, same.around, policy_set.model)  # noqa: SLF001  # of this class
        return same

    def access(self, form: Form, spot: Spot) -> Formula:
        """Is true where an access of a form is allowed."""
        return self._solver.all_of((self.allowed(spot), self.of_whom(form.who), *self._counts(form, spot)))

    def allowed(self, spot: Spot) -> Formula:
        """Is true where the rules allow a column of a spot, and its obligations can be met."""
        s, spoken = self._solver, spot.cell.rules
        allows = s.any_of(self._truth(rule).true for rule in spoken.allows)
        denies = s.all_of(self._truth(rule).false for rule in spoken.denies)
        groups = s.all_of(self._truth(rule).false for rule in self._beyond(spoken.groups))
        return s.all_of((allows, denies, groups, self._masked(spot)))

    def of_whom(self, who: Who) -> Formula:
        """Is true of whom a form speaks."""
        s = self._solver
        parts = [s.negation(self.somebody.given(role)) for role in who.without]
        if who.holding:
            parts.append(s.any_of(self.somebody.holds(role) for role in who.holding))
        if who.where is not None:
            parts.append(s.negation(self._encoder.truth(who.where.tree).false))
        return s.all_of(parts)

    def applies(self, rule: Rule) -> Truth:
        """Returns when the matcher of a rule holds, of what it speaks of."""
        return self._truth(rule)

    def guesses(self, conditions: Iterable[str], form: Form) -> tuple[Guess, ...]:
        """Returns what was guessed of conditions, and of whom a form speaks."""
        found = [guess for text in dict.fromkeys(conditions) for guess in self._encoder.guesses_of(text)]
        where = form.who.where
        return (*found, *(() if where is None else self._encoder.guesses(where.tree)))

    def _counts(self, form: Form, spot: Spot) -> Iterator[Formula]:
        """Yields what must be true so that nothing of `unless` holds."""
        s, spoken = self._solver, spot.cell.rules
        for rule in spoken.masks:
            spec = parse_mask(parameter_of(rule))
            enough = form.masked or any(at_least_as_strict(spec, wanted) for wanted in form.masks)
            if enough and spec.kind is not MaskKind.NONE:
                yield self._truth(rule).false
        if form.group:
            yield from (
                self._truth(rule).false for rule in spoken.groups if parse_group(parameter_of(rule)) >= form.group
            )
            if not self.dataset.subject_keys and self.dataset.group_minimum >= form.group:
                yield False
        if form.own_rows:
            yield self.around.about_others()
        del s

    def _truth(self, rule: Rule) -> Truth:
        s = self._solver
        held = self.somebody.holds(rule.fields[SUBJECT])
        condition = self._encoder.condition(rule.fields[CONDITION])
        return Truth(s.all_of((held, condition.true)), s.any_of((s.negation(held), condition.false)))

    def _beyond(self, groups: Sequence[Rule]) -> Iterator[Rule]:
        """Yields the minimum groups that rows which are figures already do not promise."""
        if not self.dataset.subject_keys:
            yield from (rule for rule in groups if parse_group(parameter_of(rule)) > self.dataset.group_minimum)

    def masks(self, spot: Spot) -> dict[MaskSpec, Formula]:
        """Returns when each mask of a spot applies, and none that is stricter."""
        s, applied = self._solver, self._applied(spot)

        def reached(spec: MaskSpec) -> Formula:
            covers = (when for other, when in applied.items() if other != spec and at_least_as_strict(other, spec))
            return s.all_of((applied[spec], s.negation(s.any_of(covers))))

        return {spec: reached(spec) for spec in applied}

    def groups(self, spot: Spot) -> dict[int, Formula]:
        """Returns when a minimum group of so many people, or of more, is left to the enforcer."""
        s = self._solver
        demanded = [(parse_group(parameter_of(rule)), self._truth(rule)) for rule in spot.cell.rules.groups]
        return {
            k: s.any_of(s.negation(truth.false) for more, truth in demanded if more >= k)
            for k, _ in (demanded if self.dataset.subject_keys else ())
        }

    def _applied(self, spot: Spot) -> dict[MaskSpec, Formula]:
        s = self._solver
        applied: dict[MaskSpec, Formula] = {}
        for rule in spot.cell.rules.masks:
            spec, truth = parse_mask(parameter_of(rule)), self._truth(rule)
            when = truth.true if spec.kind is MaskKind.NONE else s.negation(truth.false)
            applied[spec] = s.any_of((applied.get(spec, False), when))
        return applied

    def _masked(self, spot: Spot) -> Formula:
        """Is true where masks can be ordered and applied, and one applies where a tag demands it."""
        s, reached, type_ = self._solver, self.masks(spot), spot.columns[0].type
        # Where any applies, one of them is reached: the order of strictness has no circles.
        parts: list[Formula] = [s.any_of(reached.values())] if spot.cell.masked else []
        parts += [s.negation(when) for spec, when in reached.items() if not castable(spec, type_)]
        for one, other in combinations(reached, 2):
            if not at_least_as_strict(one, other) and not at_least_as_strict(other, one):
                parts.append(s.negation(s.all_of((reached[one], reached[other]))))
        return s.all_of(parts)


class Possible:
    """What a policy set could allow, for one solver."""

    def __init__(self, policy_set: PolicySet, solver: Solver) -> None:
        """Takes a governed set."""
        self.policy_set, self.solver = policy_set, solver
        self.rules = Rules(policy_set)

    def asking(self, dataset: Dataset, somebody: Somebody | None = None) -> Asking:
        """Returns a request about a dataset, by anybody or by somebody who asks another too."""
        who = somebody or Somebody(self.policy_set, Terms(self.solver))
        return Asking(self.policy_set, Symbolic(self.solver), who, dataset)

    def spots(self, form: Form, dataset: Dataset) -> Iterator[Spot]:
        """Yields where in a dataset an access of a form could be."""
        actions = [action for action in self.rules.actions if not form.actions or action in form.actions]
        on = frozenset(form.on)
        for cell in self.rules.cells(dataset, actions):
            purposes = tuple(purpose for purpose in cell.purposes if self._is_for(form, purpose))
            alike: dict[str, list[Column]] = {}
            for name in cell.columns:
                column = dataset.columns[name]
                if not on or not on.isdisjoint(self.rules.nodes_of(column)):
                    alike.setdefault(column.type if cell.rules.masks else "", []).append(column)
            if purposes:
                yield from (Spot(cell, tuple(columns), purposes) for columns in alike.values())

    def _is_for(self, form: Form, purpose: str) -> bool:
        purposes = self.policy_set.purposes
        lineage = () if purposes is None else purposes.lineage(purpose)
        wanted = not form.purposes or not frozenset(form.purposes).isdisjoint(lineage)
        return wanted and frozenset(form.beyond).isdisjoint(lineage)
