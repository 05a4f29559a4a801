"""The definition of what a policy set answers. Read it aloud; `evaluate` answers the same, faster.

1. A matcher is True, False or UNKNOWN of a rule and a request. An allow applies where it is True; a
   deny, a mask and a minimum group also where it is UNKNOWN.
2. A name inherits itself, its parents, theirs, and so on.
3. Plain sets: rules are asked in turn, and the first that applies decides: all of them by `priority`,
   else the denies (where the effect heeds any), then the allows (where it heeds any).
4. Governed sets: a deny that applies denies; else an allow that applies allows; else nobody does.
5. Without a row, what is left of a matcher over the row does not allow, does deny, and is the
   condition of a mask or minimum group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gatebook.compiler.index import Outcome
from gatebook.compiler.program import ALLOW, DENY, PURPOSE, effect_of, rules_of
from gatebook.compiler.roles import reach
from gatebook.compiler.section import with_conditions
from gatebook.compiler.split import alternatives, calls_eval, reads_token
from gatebook.engine.verdict import Applicable, ColumnVerdict, Verdict
from gatebook.expression.environment import Named
from gatebook.expression.parse import parse
from gatebook.expression.residual import residual
from gatebook.expression.tree import Call, Expression
from gatebook.expression.truth import FALSE, TRUE, UNKNOWN
from gatebook.expression.truth import evaluate as truth_of
from gatebook.policy.directory import Directory
from gatebook.policy.model import EffectKind
from gatebook.policy.policy_set import GOVERNED, PolicySet
from gatebook.values import Edge, Effect, Reason, Rule

TURNS: Mapping[EffectKind, tuple[tuple[str, ...], ...]] = {
    EffectKind.ALLOW_OVERRIDE: ((ALLOW,),),
    EffectKind.DENY_OVERRIDE: ((DENY,),),
    EffectKind.ALLOW_AND_DENY: ((DENY,), (ALLOW,)),
    EffectKind.PRIORITY: ((ALLOW, DENY),),
}


class Reference:
    """Answers requests by asking every rule."""

    def __init__(self, policy_set: PolicySet, directory: Directory | None = None) -> None:
        """Takes what `compile_program` takes."""
        edges = (*policy_set.edges, *(directory.edges() if directory is not None else ()))
        self._set, self._model = policy_set, policy_set.model
        self._functions = {gtype: _Links(edge for edge in edges if edge.gtype == gtype) for gtype in self._model.roles}
        self._effect = effect_of(policy_set.model)

    def evaluate(self, tokens: Mapping[str, Any]) -> Verdict:
        """Answers a request to a plain set."""
        kind, unknown = self._model.effects["e"].kind, []
        for turn in TURNS[kind]:
            for rule in rules_of(self._set, "p"):
                if self._effect(rule) in turn:
                    outcome = self._outcome(rule, tokens, self._matcher("p"))
                    if outcome is UNKNOWN:
                        unknown.append(rule)
                    if self._effect(rule) == DENY and outcome is not FALSE:
                        return Verdict(Effect.DENY, (rule,), tuple(unknown))
                    if self._effect(rule) == ALLOW and outcome is TRUE:
                        return Verdict(Effect.ALLOW, (rule,), tuple(unknown))
        return Verdict(Effect.ALLOW if kind.allows_by_default else Effect.DENY, (), tuple(unknown))

    def evaluate_columns(
        self,
        *,
        subject: str,
        attributes: Mapping[str, Any],
        columns: Sequence[str],
        action: str,
        purpose: str,
        context: Mapping[str, Any],
        row: Mapping[str, Any] | None,
    ) -> tuple[ColumnVerdict, ...]:
        """Answers a request to a governed set, column by column."""
        named = Named(subject, {**attributes, "id": subject})
        request = {"sub": named, "act": action, "purpose": purpose, "ctx": context, "row": row}
        return tuple(self._column(column, {**request, "obj": column}) for column in columns)

    def _column(self, column: str, tokens: Mapping[str, Any]) -> ColumnVerdict:
        outcomes = [(rule, self._outcome(rule, tokens, self._matcher("p"))) for rule in rules_of(self._set, "p")]
        denies = [(rule, it) for rule, it in outcomes if self._effect(rule) == DENY and it is not FALSE]
        allows = tuple(rule for rule, it in outcomes if self._effect(rule) == ALLOW and it is TRUE)
        if denies:
            in_error = all(outcome is UNKNOWN for _, outcome in denies)
            reason = Reason.EVALUATION_ERROR if in_error else Reason.DENIED_BY_RULE
            return ColumnVerdict(column, Effect.DENY, reason, tuple(rule for rule, _ in denies))
        if not allows:
            granted = self._any_allow(tokens, but=()) or not self._any_allow(tokens, but=(PURPOSE,))
            return ColumnVerdict(
                column, Effect.DENY, Reason.NO_MATCHING_RULE if granted else Reason.PURPOSE_NOT_GRANTED
            )
        masks, groups = self._applicable("p2", tokens), self._applicable("p3", tokens)
        return ColumnVerdict(column, Effect.ALLOW, Reason.ALLOWED, allows, masks, groups)

    def _applicable(self, key: str, tokens: Mapping[str, Any]) -> tuple[Applicable, ...]:
        if key not in self._model.policies:
            return ()
        outcomes = [(rule, self._outcome(rule, tokens, self._matcher(key))) for rule in rules_of(self._set, key)]
        return tuple(Applicable.of(rule, outcome) for rule, outcome in outcomes if outcome is not FALSE)

    def _any_allow(self, tokens: Mapping[str, Any], but: tuple[str, ...]) -> bool:
        """Tells whether an allow matches, its condition and these tokens of the request left out."""
        matcher = Call(
            "or",
            tuple(
                Call(
                    "and", tuple(it for it in parts if not calls_eval(it) and not any(reads_token(it, t) for t in but))
                )
                for parts in alternatives(self._matcher("p"))
            ),
        )
        rules = (rule for rule in rules_of(self._set, "p") if self._effect(rule) == ALLOW)
        return any(self._outcome(rule, tokens, matcher) is TRUE for rule in rules)

    def _matcher(self, key: str) -> Expression:
        return self._model.matchers[f"m{key[1:]}"].expression

    def _outcome(self, rule: Rule, tokens: Mapping[str, Any], matcher: Expression) -> Outcome:
        fields = dict(zip(self._model.policies[rule.ptype].tokens, rule.fields, strict=True))
        conditions = {field: parse(fields[field]) for field in self._model.condition_fields(rule.ptype)}
        expression = with_conditions(matcher, conditions)
        environment = {"r": tokens, rule.ptype: fields}
        if self._set.kind == GOVERNED and tokens["row"] is None:
            return residual(expression, environment, self._functions)
        truth = truth_of(expression, environment, self._functions)
        return truth if isinstance(truth, bool) else UNKNOWN


class _Links:
    """Tells whether one name inherits another, by walking the graph each time."""

    def __init__(self, edges: Iterable[Edge]) -> None:
        self._links: dict[tuple[str, ...], dict[str, list[str]]] = {}
        for edge in edges:
            self._links.setdefault(edge.domains, {}).setdefault(edge.child, []).append(edge.parent)

    def __call__(self, name: str, parent: str, *domains: str) -> bool:
        return parent in reach(self._links.get(domains, {}), name)
