"""Answers requests with a compiled program. `reference` says what the answers are.

Owns no meaning of its own: what `Reference` finds by asking every rule, this finds by asking those
that the program's indexes name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gatebook.compiler.candidates import Candidates, Memo
from gatebook.compiler.index import Entry, Outcome, Walk
from gatebook.compiler.program import ALLOW, DENY, Program
from gatebook.engine.verdict import Applicable, ColumnVerdict, Verdict
from gatebook.expression.environment import Named
from gatebook.policy.model import EffectKind
from gatebook.values import Effect, Reason, Rule

__all__ = ["Applicable", "ColumnVerdict", "Verdict", "evaluate", "evaluate_columns"]

Tokens = dict[str, Any]


def evaluate(program: Program, tokens: Mapping[str, Any]) -> Verdict:
    """Answers a request to a plain set, whose tokens `bind` made."""
    kind = program.effect
    unknown: list[Rule] = []
    for candidates in _turns(program):
        for entry, outcome in candidates.outcomes(candidates.walk(tokens), tokens):
            effect = program.effect_of(entry.rule)
            if outcome is None and effect in (ALLOW, DENY):
                unknown.append(entry.rule)
            if effect == DENY:
                return Verdict(Effect.DENY, (entry.rule,), tuple(unknown))
            if effect == ALLOW and outcome is True:
                return Verdict(Effect.ALLOW, (entry.rule,), tuple(unknown))
    return Verdict(Effect.ALLOW if kind.allows_by_default else Effect.DENY, (), tuple(unknown))


def evaluate_columns(
    program: Program,
    *,
    subject: str,
    attributes: Mapping[str, Any],
    columns: Sequence[str],
    action: str,
    purpose: str,
    context: Mapping[str, Any],
    row: Mapping[str, Any] | None,
) -> tuple[ColumnVerdict, ...]:
    """Answers a request to a governed set for each of `columns`, which are nodes of the catalogue.

    `row` has every column of the dataset, cast to its type; None means that it is not known.
    """
    tokens = governed_tokens(
        subject=subject, attributes=attributes, action=action, purpose=purpose, context=context, row=row
    )
    request = _Request(program, tokens)
    return tuple([request.column(column) for column in columns])


def governed_tokens(
    *,
    subject: str,
    attributes: Mapping[str, Any],
    action: str,
    purpose: str,
    context: Mapping[str, Any],
    row: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Returns the tokens of a request to a governed set; `obj` is for its columns, one by one."""
    named = Named(subject, {**attributes, "id": subject})
    return {"sub": named, "act": action, "purpose": purpose, "ctx": context, "row": row}


class _Request:
    """One request to a governed set; what its columns share is done once. Lives for one call."""

    def __init__(self, program: Program, tokens: Tokens) -> None:
        self._program = program
        self._tokens = tokens
        self._memo: Memo = {}
        self._walks: dict[int, list[Walk]] = {}

    def column(self, column: str) -> ColumnVerdict:
        self._tokens["obj"] = column
        denies = list(self._outcomes(self._program.denies))
        if denies:
            in_error = all(outcome is None for _, outcome in denies)
            reason = Reason.EVALUATION_ERROR if in_error else Reason.DENIED_BY_RULE
            return ColumnVerdict(column, Effect.DENY, reason, tuple([entry.rule for entry, _ in denies]))
        allows = tuple([entry.rule for entry, outcome in self._outcomes(self._program.allows) if outcome is True])
        if not allows:
            return ColumnVerdict(column, Effect.DENY, self._no_rule())
        masks, groups = self._applicable(self._program.masks), self._applicable(self._program.groups)
        return ColumnVerdict(column, Effect.ALLOW, Reason.ALLOWED, allows, masks, groups)

    def _no_rule(self) -> Reason:
        if any(outcome is True for _, outcome in self._outcomes(self._program.granted)):
            return Reason.NO_MATCHING_RULE
        if any(outcome is True for _, outcome in self._outcomes(self._program.asked)):
            return Reason.PURPOSE_NOT_GRANTED
        return Reason.NO_MATCHING_RULE

    def _applicable(self, candidates: Candidates) -> tuple[Applicable, ...]:
        return tuple([Applicable.of(entry.rule, outcome) for entry, outcome in self._outcomes(candidates)])

    def _outcomes(self, candidates: Candidates) -> Iterator[tuple[Entry, Outcome]]:
        walks = self._walks.get(id(candidates))
        if walks is None:
            walks = self._walks[id(candidates)] = candidates.walk(self._tokens)
        return candidates.outcomes(walks, self._tokens, self._memo)


def _turns(program: Program) -> tuple[Candidates, ...]:
    """Returns the rules to ask, in turn: the first that applies decides."""
    match program.effect:
        case EffectKind.ALLOW_OVERRIDE:
            return (program.allows,)
        case EffectKind.DENY_OVERRIDE:
            return (program.denies,)
        case EffectKind.ALLOW_AND_DENY:
            return program.denies, program.allows
        case EffectKind.PRIORITY:
            return (program.rules,)
