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

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gatebook.compiler.index import Outcome
from gatebook.compiler.program import ALLOW, DENY, PURPOSE, effect_of, rules_of, sections_of
from gatebook.compiler.roles import reach
from gatebook.compiler.section import with_conditions
from gatebook.compiler.split import alternatives, calls_eval, reads_token
from gatebook.engine.verdict import Applicable, ColumnVerdict, Verdict
from gatebook.expression.environment import Named
from gatebook.expression.parse import parse
from gatebook.expression.residual import residual
from gatebook.expression.tree import Call, Expression
from gatebook.expression.truth import FALSE, TRUE, UNKNOWN, Functions
from gatebook.expression.truth import evaluate as truth_of
from gatebook.policy.brought import NOTHING_BROUGHT, Brought
from gatebook.policy.directory import Directory
from gatebook.policy.model import EffectKind, Sections
from gatebook.policy.policy_set import GOVERNED, PolicySet
from gatebook.values import Edge, Effect, Reason, Rule

TURNS: Mapping[EffectKind, tuple[tuple[str, ...], ...]] = {
    EffectKind.ALLOW_OVERRIDE: ((ALLOW,),),
    EffectKind.DENY_OVERRIDE: ((DENY,),),
    EffectKind.ALLOW_AND_DENY: ((DENY,), (ALLOW,)),
    EffectKind.PRIORITY: ((ALLOW, DENY),),
    EffectKind.SUBJECT_PRIORITY: ((ALLOW, DENY),),
}


class Reference:
    """Answers requests by asking every rule."""

    def __init__(
        self,
        policy_set: PolicySet,
        directory: Directory | None = None,
        *,
        sections: Sections | None = None,
        brought: Brought = NOTHING_BROUGHT,
    ) -> None:
        """Takes what `compile_program` takes."""
        edges = (*policy_set.edges, *(directory.edges() if directory is not None else ()))
        self._set, self._model = policy_set, policy_set.model
        self._links = {gtype: _Links(edge for edge in edges if edge.gtype == gtype) for gtype in self._model.roles}
        self._functions: Functions = {**self._links, **brought.given()}
        self._sections = sections_of(policy_set, sections)
        self._effect = effect_of(policy_set.model, self._sections[0].rules)

    def evaluate(self, tokens: Mapping[str, Any]) -> Verdict:
        """Answers a request to a plain set."""
        main, unknown = self._sections[0], list[Rule]()
        kind, judged = self._model.effects["e"].kind, self._judge(main, tokens)
        for turn in TURNS[kind]:
            for rule, outcome in judged:
                effect = self._effect(rule)
                if effect in turn and outcome is UNKNOWN:
                    unknown.append(rule)
                if effect in turn and effect == DENY and outcome is not FALSE:
                    return Verdict(Effect.DENY, (rule,), tuple(unknown))
                if effect in turn and effect == ALLOW and outcome is TRUE:
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
        main, *others = self._sections
        judged = self._judge(main, tokens)
        denies = [(rule, it) for rule, it in judged if self._effect(rule) == DENY and it is not FALSE]
        allows = [rule for rule, it in judged if self._effect(rule) == ALLOW and it is TRUE]
        if denies:
            in_error = all(outcome is UNKNOWN for _, outcome in denies)
            reason = Reason.EVALUATION_ERROR if in_error else Reason.DENIED_BY_RULE
            return ColumnVerdict(column, Effect.DENY, reason, tuple(rule for rule, _ in denies))
        if not allows:
            asked = self._allows_but_for(main, tokens, lambda part: calls_eval(part) or reads_token(part, PURPOSE))
            granted = self._allows_but_for(main, tokens, calls_eval)
            reason = Reason.PURPOSE_NOT_GRANTED if asked and not granted else Reason.NO_MATCHING_RULE
            return ColumnVerdict(column, Effect.DENY, reason)
        applicable = {"p2": (), "p3": ()} | {
            it.rules: tuple(
                Applicable.of(rule, outcome) for rule, outcome in self._judge(it, tokens) if outcome is not FALSE
            )
            for it in others
        }
        return ColumnVerdict(column, Effect.ALLOW, Reason.ALLOWED, tuple(allows), applicable["p2"], applicable["p3"])

    def _allows_but_for(
        self, main: Sections, tokens: Mapping[str, Any], left_out: Callable[[Expression], bool]
    ) -> bool:
        """Tells whether an allow would match, were these parts of the matcher left out."""
        whole = self._model.matchers[main.matcher].expression
        kept = [[part for part in parts if not left_out(part)] for parts in alternatives(whole)]
        matcher = Call("or", tuple(Call("and", tuple(parts)) for parts in kept))
        return any(self._effect(rule) == ALLOW and it is TRUE for rule, it in self._judge(main, tokens, matcher))

    def _judge(
        self, sections: Sections, tokens: Mapping[str, Any], matcher: Expression | None = None
    ) -> list[tuple[Rule, Outcome]]:
        """Evaluates the matcher for every rule of one type."""
        return [(rule, self._outcome(sections, rule, tokens, matcher)) for rule in rules_of(self._set, sections)]

    def _outcome(
        self, sections: Sections, rule: Rule, tokens: Mapping[str, Any], instead: Expression | None
    ) -> Outcome:
        matcher = self._model.matchers[sections.matcher]
        fields = dict(zip(self._model.policies[rule.ptype].tokens, rule.fields, strict=True))
        conditions = {field: parse(fields[field]) for field in matcher.condition_fields}
        expression = with_conditions(instead or matcher.expression, conditions)
        environment = {sections.request: tokens, rule.ptype: fields}
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
