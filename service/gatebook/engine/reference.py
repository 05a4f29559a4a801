"""The definition of what a policy set answers. Read it aloud; `evaluate` answers the same, faster.

1. A matcher is True, False or UNKNOWN of a rule and a request. An allow applies where it is True; a
   deny, a mask and a minimum group also where it is UNKNOWN.
2. A name inherits itself, its parents, theirs, and so on.
3. Plain sets: rules are asked in turn, and the first that applies decides: all of them by `priority`,
   else the denies (where the effect heeds any), then the allows (where it heeds any).
4. Governed sets: a deny that applies denies; else an allow that applies allows; else nobody does.
5. `timeMatch`, and a link between two times, ask for the time of the decision; without it, they are UNKNOWN.
6. Without a row, what is left of a matcher over the row does not allow, does deny, and is the
   condition of a mask or minimum group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gatebook.compiler.decide import ALLOW, DENY
from gatebook.compiler.index import Outcome
from gatebook.compiler.program import PURPOSE, brought_to, effect_of, rules_of, sections_of
from gatebook.compiler.roles import reach
from gatebook.compiler.section import with_conditions
from gatebook.compiler.split import alternatives, calls_eval, reads_token
from gatebook.engine.verdict import Applicable, ColumnVerdict, Verdict
from gatebook.expression.environment import Named
from gatebook.expression.given import Given
from gatebook.expression.moments import NOW, TIME_MATCH, AtTime
from gatebook.expression.operations import conjunction
from gatebook.expression.residual import residual
from gatebook.expression.tree import Call, Expression
from gatebook.expression.truth import FALSE, TRUE, UNKNOWN, Functions
from gatebook.expression.truth import evaluate as truth_of
from gatebook.policy.brought import NOTHING_BROUGHT, Brought, LinkConditions, RolePatterns
from gatebook.policy.directory import Directory
from gatebook.policy.model import EffectKind, RoleDefinition, Sections
from gatebook.policy.policy_set import GOVERNED, PolicySet
from gatebook.policy.rule_text import read_condition
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
        brought = brought_to(policy_set, brought)
        links = {role.key: _links(role, edges, brought) for role in self._model.roles.values()}
        self._functions: Functions = {**links, **brought.given()}
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
        now: str | None = None,
    ) -> tuple[ColumnVerdict, ...]:
        """Answers a request to a governed set, column by column."""
        named = Named(subject, {**attributes, "id": subject})
        request = {"sub": named, "act": action, "purpose": purpose, "ctx": context, "row": row, NOW: now}
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
        conditions = {field: read_condition(self._model, fields[field]) for field in matcher.condition_fields}
        expression = with_conditions(instead or matcher.expression, conditions)
        environment = {sections.request: tokens, rule.ptype: fields}
        functions = self._at(tokens.get(NOW))
        if self._set.kind == GOVERNED and tokens["row"] is None:
            return residual(expression, environment, functions)
        truth = truth_of(expression, environment, functions)
        return truth if isinstance(truth, bool) else UNKNOWN

    def _at(self, now: str | None) -> Functions:
        """Returns the functions as they are at the time of the decision."""
        links = {key: it.at(now) for key, it in self._functions.items() if isinstance(it, _LooseLinks)}
        return {TIME_MATCH: lambda *times: AtTime().at(now, times), **self._functions, **links}


def _links(role: RoleDefinition, edges: Iterable[Edge], brought: Brought) -> Callable[..., Outcome]:
    own = [edge for edge in edges if edge.gtype == role.key]
    if not role.parameters and role.key not in brought.patterns:
        return _Links(own)
    conditions = brought.conditions.get(role.key, LinkConditions()) if role.parameters else None
    return _LooseLinks(own, brought.patterns.get(role.key, RolePatterns()), conditions)


class _Links:
    """Tells whether one name inherits another, by walking the graph each time."""

    def __init__(self, edges: Iterable[Edge]) -> None:
        self._links: dict[tuple[str, ...], dict[str, list[str]]] = {}
        for edge in edges:
            self._links.setdefault(edge.domains, {}).setdefault(edge.child, []).append(edge.parent)

    def __call__(self, name: str, parent: str, *domains: str) -> bool:
        return parent in reach(self._links.get(domains, {}), name)


class _LooseLinks:
    """Tells the same where names or domains are patterns, or links hold under conditions.

    A name inherits itself, and what is the parent, or matches it, of a link that counts: of one whose child the
    name is, or matches, or that an inherited name is a pattern of.
    """

    def __init__(
        self,
        edges: Iterable[Edge],
        patterns: RolePatterns,
        conditions: LinkConditions | None,
        now: str | None = None,
    ) -> None:
        self._patterns = patterns
        self._edges, self._conditions, self._now = tuple(edges), conditions, now
        self._match = Given(patterns.match or (lambda _text, _pattern: False))
        self._domain_match = Given(patterns.domain_match or (lambda _text, _pattern: False))

    def at(self, now: str | None) -> _LooseLinks:
        return _LooseLinks(self._edges, self._patterns, self._conditions, now)

    def __call__(self, name: str, parent: str, *domains: str) -> Outcome:
        if name == parent or self._leads(name, parent, domains, (TRUE,)):
            return TRUE
        return UNKNOWN if self._leads(name, parent, domains, (TRUE, UNKNOWN)) else FALSE

    def _leads(self, name: str, parent: str, domains: tuple[str, ...], wanted: tuple[Outcome, ...]) -> bool:
        inherited: set[str] = set()
        while True:
            more = {
                edge.parent
                for edge in self._edges
                if edge.parent not in inherited
                and self._counts(edge, domains) in wanted
                and (
                    self._is(name, edge.child) in wanted
                    or any(self._is(it, edge.child) in wanted or self._is(edge.child, it) in wanted for it in inherited)
                )
            }
            if not more:
                return any(self._is(parent, it) in wanted for it in inherited)
            inherited |= more

    def _is(self, name: str, pattern: str) -> Outcome:
        return TRUE if name == pattern else _truth(self._match(name, pattern))

    def _counts(self, edge: Edge, domains: tuple[str, ...]) -> Outcome:
        same = (it == own or _truth(self._domain_match(it, own)) for it, own in zip(domains, edge.domains, strict=True))
        return conjunction((*same, self._holds(edge)))

    def _holds(self, edge: Edge) -> Outcome:
        if self._conditions is None:
            return TRUE
        key = (edge.child, edge.parent, *edge.domains)
        condition = self._conditions.of_links.get(key, self._conditions.otherwise)
        if isinstance(condition, AtTime):
            return condition.at(self._now, edge.parameters)
        return UNKNOWN if condition is None else _truth(Given(condition)(*edge.parameters))


def _truth(value: object) -> bool | None:
    return value if isinstance(value, bool) else UNKNOWN
