"""Answers requests with a compiled program. `reference` says what the answers are.

Owns no meaning of its own: what `Reference` finds by asking every rule, this finds by asking those
that the program's indexes name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gatebook.compiler.decide import ALLOW, DENY
from gatebook.compiler.index import Entry, Outcome
from gatebook.compiler.outcomes import Memo, column_outcomes, outcomes
from gatebook.compiler.plan import Found, Plan
from gatebook.compiler.program import Program
from gatebook.compiler.remembered import Remembered, conditions_of
from gatebook.engine.verdict import Applicable, ColumnVerdict, Verdict
from gatebook.expression.environment import Named
from gatebook.expression.moments import NOW, Moment
from gatebook.policy.model import EffectKind
from gatebook.values import Effect, Reason, Rule

__all__ = ["Applicable", "ColumnVerdict", "Verdict", "evaluate", "evaluate_columns"]

_TURNS: Mapping[EffectKind, tuple[str, ...]] = {
    EffectKind.ALLOW_OVERRIDE: ("allows",),
    EffectKind.DENY_OVERRIDE: ("denies",),
    EffectKind.ALLOW_AND_DENY: ("denies", "allows"),
    EffectKind.PRIORITY: ("rules",),
    EffectKind.SUBJECT_PRIORITY: ("rules",),
}
"""The groups of rules to ask, in turn: the first rule that applies decides."""


def evaluate(program: Program, tokens: Mapping[str, Any]) -> Verdict:
    """Answers a request to a plain set, whose tokens `bind` made."""
    kind = program.effect
    unknown: list[Rule] = []
    for group in _TURNS[kind]:
        for entry, outcome in outcomes(_found(program, group, tokens), tokens):
            effect = program.effect_of(entry.rule)
            if outcome is None and effect in (ALLOW, DENY):
                unknown.append(entry.rule)
            if effect == DENY:
                return Verdict(Effect.DENY, (entry.rule,), tuple(unknown))
            if effect == ALLOW and outcome is True:
                return Verdict(Effect.ALLOW, (entry.rule,), tuple(unknown))
    return Verdict(Effect.ALLOW if kind.allows_by_default else Effect.DENY, (), tuple(unknown))


def _found(program: Program, group: str, tokens: Mapping[str, Any]) -> tuple[Found, ...]:
    """Returns the rules of a group that come into question: those that `find` finds, else those of the plan."""
    values = tuple([tokens.get(name) for name in program.tokens])
    entries = program.find[group](values, tokens) if group in program.find else None
    if entries is not None:
        return (Found(None, tuple(entries)),) if entries else ()
    planner = program.planner
    return planner.plan(planner.read(tokens), tokens)[group]


def evaluate_columns(  # noqa: PLR0913  # all that a request says
    program: Program,
    *,
    subject: str,
    attributes: Mapping[str, Any],
    columns: Sequence[str],
    action: str,
    purpose: str,
    context: Mapping[str, Any],
    row: Mapping[str, Any] | None,
    now: Moment | None = None,
) -> tuple[ColumnVerdict, ...]:
    """Answers a request to a governed set for each of `columns`, which are nodes of the catalogue.

    `row` has every column of the dataset, cast to its type; None means that it is not known. Without `now`, what
    depends on the time is UNKNOWN.
    """
    tokens = governed_tokens(
        subject=subject, attributes=attributes, action=action, purpose=purpose, context=context, row=row, now=now
    )
    request = _Request(program, tokens)
    return request.remembered(tuple(columns)) or request.columns(columns)


def governed_tokens(
    *,
    subject: str,
    attributes: Mapping[str, Any],
    action: str,
    purpose: str,
    context: Mapping[str, Any],
    row: Mapping[str, Any] | None,
    now: Moment | None = None,
) -> dict[str, Any]:
    """Returns the tokens of a request to a governed set; `obj` is for its columns, one by one."""
    named = Named(subject, {**attributes, "id": subject})
    return {"sub": named, "act": action, "purpose": purpose, "ctx": context, "row": row, NOW: now}


class _Request:
    """One request to a governed set; what its columns share is done once. Lives for one call."""

    def __init__(self, program: Program, tokens: dict[str, Any]) -> None:
        self._planner = program.planner
        self._remembered: Remembered = program.remembered
        self._tokens = tokens
        self._early = program.planner.read(tokens)
        self._memo: Memo = {}

    def columns(self, columns: Sequence[str]) -> tuple[ColumnVerdict, ...]:
        """Asks the rules about each column."""
        return tuple([self._column(column) for column in columns])

    def remembered(self, columns: tuple[str, ...]) -> tuple[ColumnVerdict, ...]:
        """Returns the same without asking again, or nothing where the rules read more than can be remembered."""
        tokens, memo, row_known = self._tokens, self._remembered, self._tokens["row"] is not None
        if None in self._early or not self._planner.late_alone:
            return ()
        key = (self._early, columns, row_known)
        conditions = memo.conditions(key)
        if conditions is None:
            conditions = conditions_of({column: self._plan(column) for column in columns}, row_known=row_known)
            memo.keep_conditions(key, conditions, columns)
        come_to = conditions.come_to(tokens) if conditions.usable else None
        if come_to is None:
            return ()
        verdicts = memo.verdicts(conditions, come_to)
        if verdicts is None:
            verdicts = self.columns(columns)
            memo.keep_verdicts(conditions, come_to, verdicts)
        return verdicts

    def _plan(self, column: str) -> Plan:
        self._tokens["obj"] = column
        return self._planner.plan(self._early, self._tokens)

    def _column(self, column: str) -> ColumnVerdict:
        plan = self._plan(column)
        denies = self._outcomes(plan["denies"])
        if denies:
            in_error = all(outcome is None for _, outcome in denies)
            reason = Reason.EVALUATION_ERROR if in_error else Reason.DENIED_BY_RULE
            return ColumnVerdict(column, Effect.DENY, reason, tuple([entry.rule for entry, _ in denies]))
        allows = tuple([entry.rule for entry, outcome in self._outcomes(plan["allows"]) if outcome is True])
        if not allows:
            return ColumnVerdict(column, Effect.DENY, self._no_rule(plan))
        masks, groups = self._applicable(plan["masks"]), self._applicable(plan["groups"])
        return ColumnVerdict(column, Effect.ALLOW, Reason.ALLOWED, allows, masks, groups)

    def _no_rule(self, plan: Plan) -> Reason:
        asked, granted = (
            any(outcome is True for _, outcome in self._outcomes(plan[group])) for group in ("asked", "granted")
        )
        return Reason.PURPOSE_NOT_GRANTED if asked and not granted else Reason.NO_MATCHING_RULE

    def _applicable(self, found: tuple[Found, ...]) -> tuple[Applicable, ...]:
        return tuple([Applicable.of(entry.rule, outcome) for entry, outcome in self._outcomes(found)])

    def _outcomes(self, found: tuple[Found, ...]) -> list[tuple[Entry, Outcome]]:
        return column_outcomes(found, self._tokens, self._memo)
