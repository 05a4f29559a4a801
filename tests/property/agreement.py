"""The engine, its definition and Casbin, asked the same.

Owns the comparison: the compiled program must answer what the reference answers, to the last part of the verdict, and
both what Casbin answers, by the same rule, but for the documented differences.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import casbin
import casbin.core_enforcer as casbin_core
import msgspec
from casbin.persist.adapters import StringAdapter
from msgspec.structs import replace
from tests.property import differences
from tests.property.casbin_names import FIRST, Patterns
from tests.property.differences import Answered
from tests.property.strategies import plain_set

from gatebook.compiler.decide import ALLOW
from gatebook.compiler.program import compile_program
from gatebook.enforcer import Enforcer
from gatebook.engine.evaluate import evaluate
from gatebook.engine.reference import Reference
from gatebook.engine.verdict import Verdict
from gatebook.errors import PolicySetRefusedError
from gatebook.expression.environment import Named
from gatebook.expression.functions import BUILTINS
from gatebook.policy.brought import Brought, LinkConditions, RolePatterns
from gatebook.policy.library import load_plain
from gatebook.policy.model import EffectKind, Sections
from gatebook.policy.policy_set import PolicySet
from gatebook.policy.settings import Settings
from gatebook.values import Edge, Effect

logging.getLogger("casbin").setLevel(logging.CRITICAL)

Engine = Callable[[Mapping[str, Any]], Verdict]
"""Answers the tokens of a request."""

Build = Callable[[PolicySet, Brought], Engine]
"""Makes an engine of a policy set and what is brought along."""

NOTHING: Mapping[str, Patterns] = {}
USUAL_LEVELS = 10
"""How deep Casbin walks a role hierarchy, unless it is told otherwise."""


class CasbinToken(str):
    """A text with attributes, as Casbin reads them."""

    __slots__ = ("__dict__",)


def casbin_token(value: str, attributes: Mapping[str, Any]) -> CasbinToken:
    """Makes a token for Casbin."""
    token = CasbinToken(value)
    token.__dict__.update(attributes)
    return token


def casbin_enforcer(model: str, policy: str) -> casbin.Enforcer:
    """Builds Casbin's own answer to a policy."""
    read = casbin.Model()
    read.load_model_from_text(model)
    return casbin.Enforcer(read, StringAdapter(policy or "# none"))


def gatebook_enforcer(model: str, policy: str, brought: Brought, *, strict: bool) -> Enforcer | None:
    """Builds the drop-in for Casbin's enforcer, where it does not refuse a policy that others read."""
    try:
        enforcer = Enforcer(model, policy or "# none\n", functions=brought.functions, strict=strict)
    except PolicySetRefusedError:
        return None
    for key, patterns in brought.patterns.items():
        if patterns.match is not None:
            enforcer.add_named_matching_func(key, patterns.match)
        if patterns.domain_match is not None:
            enforcer.add_named_domain_matching_func(key, patterns.domain_match)
    return enforcer


def holds(parameter: str) -> bool:
    """Is the condition of every link that has a parameter."""
    return parameter == "yes"


BROUGHT = Brought(
    functions={"alike": lambda one, other: one[:1] == other[:1]},
    conditions={"g": LinkConditions(otherwise=holds)},
)


def brought_with(patterns: Mapping[str, Patterns]) -> Brought:
    """Returns what every engine is given besides files."""

    def function(name: str) -> Any:  # noqa: ANN401  # a function of two texts, or none
        return BUILTINS[name].call if name else None

    given = {key: RolePatterns(function(it.names), function(it.domains)) for key, it in patterns.items()}
    return replace(BROUGHT, patterns=given)


def compiled(policy_set: PolicySet, brought: Brought) -> Engine:
    """Returns the engine under test: what is decided without a reason counts, wherever it parts from the reason."""
    program = compile_program(policy_set, None, brought=brought)

    def answer(tokens: Mapping[str, Any]) -> Verdict:
        verdict = evaluate(program, tokens)
        allowed = None if program.decide is None else program.decide(tuple(tokens[token] for token in program.tokens))
        return verdict if allowed is None else replace(verdict, effect=Effect.ALLOW if allowed else Effect.DENY)

    return answer


class Finding(msgspec.Struct, frozen=True):
    """A request that is answered in two ways, neither of which is a documented difference."""

    between: str
    model: str
    policy: str
    matcher: str
    patterns: Mapping[str, Patterns]
    request: tuple[str, ...]
    attributes: Mapping[str, Mapping[str, Any]]
    answers: Mapping[str, str]

    def __str__(self) -> str:
        """Tells all that is needed to ask again."""
        answers = "\n".join(f"  {who}: {answer}" for who, answer in self.answers.items())
        return f"{self.between} part at {self.request} with {self.attributes}\n{answers}\n\n{self.model}\n{self.policy}"


class DisagreementError(AssertionError):
    """Two of the three part."""

    def __init__(self, finding: Finding) -> None:
        """Takes what was found."""
        super().__init__(f"\n{finding}")
        self.finding = finding


class Comparison:
    """Asks the three about one policy set. Lives for one policy set."""

    def __init__(
        self,
        model: str,
        policy: str,
        *,
        matcher: str = "m",
        patterns: Mapping[str, Patterns] = NOTHING,
        strict: bool = True,
        build: Build = compiled,
    ) -> None:
        """Takes the texts of the files, which matcher decides, how relations match, and what makes the engine.

        Files that are not read strictly may be untidy.

        Raises:
            PolicySetRefusedError: the compiler does not understand the set.
        """
        self.counts: Counter[str] = Counter()
        self._model, self._policy, self._patterns = model, policy, patterns
        self._brought = brought_with(patterns)
        self._set = (
            plain_set(model, policy, matcher, self._brought)
            if strict
            else replace(
                load_plain(model.encode(), policy.encode(), strict=False, brought=self._brought),
                settings=Settings(matcher=matcher),
            )
        )
        self._sections = sections = self._set.sections
        self._context = () if sections == FIRST else (_casbin_context(sections),)
        self._rules = tuple(rule for rule in self._set.rules if rule.ptype == sections.rules)
        self._effect = self._set.model.effects["e"].kind
        self._engine, self._reference = build(self._set, self._brought), Reference(self._set, brought=self._brought)
        self._tokens = self._set.model.requests[sections.request].tokens
        self._casbin = self._build_casbin()
        managers = {} if self._casbin is None else {**self._casbin.rm_map, **self._casbin.cond_rm_map}
        self._managers = list(managers.values())
        # What is broken on purpose is not what the drop-in decides by.
        self._enforcer = self._build_enforcer(strict=strict) if build is compiled else None
        self.counts["Enforcer refuses"] = self._enforcer is None

    def ask(self, values: Sequence[str], attributes: Mapping[str, Mapping[str, Any]]) -> Verdict:
        """Asks one request, and returns what is answered.

        Raises:
            DisagreementError: the three part, in no documented way.
        """
        own = [attributes.get(token, {}) for token in self._tokens]
        tokens = {token: Named(value, its) for token, value, its in zip(self._tokens, values, own, strict=True)}
        self.counts["requests"] += 1
        verdict, expected = self._engine(tokens), self._reference.evaluate(tokens)
        if verdict != expected:
            self._part("engine and reference", values, attributes, engine=verdict, reference=expected)
        theirs = [casbin_token(value, its) for value, its in zip(values, own, strict=True)]
        said = self._ask_enforcer(theirs)
        if said not in (None, meant := self._meant(expected)):
            self._part("Enforcer and reference", values, attributes, enforcer=said, reference=meant)
        if self._casbin is None:
            self.counts[f"Casbin is not asked: {self._unasked}"] += 1
            return verdict
        try:
            allowed, rule = self._ask_casbin(theirs)
        except Exception:  # noqa: BLE001  # Casbin raises anything
            self.counts["Casbin raises"] += 1
            return verdict
        answered = Answered(
            verdict=verdict if self._rules else replace(verdict, rules=()),
            allowed=allowed,
            rule=rule,
            effect=self._effect,
            by_levels=lambda levels: self._ask_casbin(theirs, levels),
            applies_alone=lambda fields: self._applies(fields, tokens),
            position=self._position,
        )
        self.counts["allowed" if allowed else "denied"] += 1
        way = differences.disagreement(answered)
        if way:
            named = differences.difference(answered)
            if not named:
                self._part(f"engine and Casbin ({way})", values, attributes, engine=verdict, casbin=(allowed, rule))
            self.counts[named] += 1
        return verdict

    def _build_casbin(self) -> Any:  # noqa: ANN401  # casbin has no types
        """Builds Casbin's enforcer, or none where it is not asked."""
        self._unasked = differences.unasked(
            self._set.model, frozenset(key for key, it in self._patterns.items() if it.names)
        )
        if self._unasked:
            return None
        enforcer = casbin_enforcer(self._model, self._policy)
        for name, function in self._brought.functions.items():
            enforcer.add_function(name, function)
        for key, patterns in self._patterns.items():
            enforcer.add_named_domain_matching_func(key, BUILTINS[patterns.domains].call)
        for edge in self._conditional():
            enforcer.add_named_link_condition_func(edge.gtype, edge.child, edge.parent, holds)
        return enforcer

    def _conditional(self) -> list[Edge]:
        return [edge for edge in self._set.edges if edge.parameters]

    def _build_enforcer(self, *, strict: bool) -> Enforcer | None:
        enforcer = gatebook_enforcer(self._model, self._policy, self._brought, strict=strict)
        if enforcer is None:
            return None
        for edge in self._conditional():
            enforcer.add_named_link_condition_func(edge.gtype, edge.child, edge.parent, holds)
        return enforcer

    def _ask_enforcer(self, values: Sequence[CasbinToken]) -> tuple[bool, bool, list[str]] | None:
        if self._enforcer is None:
            return None
        rvals = (*self._context, *values)
        return self._enforcer.enforce(*rvals), *self._enforcer.enforce_ex(*rvals)

    def _meant(self, verdict: Verdict) -> tuple[bool, bool, list[str]]:
        """Returns what the drop-in is to say where the reference gives a verdict."""
        allowed = verdict.effect is Effect.ALLOW
        named = verdict.rules[:1] if self._rules else ()
        return allowed, allowed, [field for rule in named for field in rule.fields]

    def _ask_casbin(self, values: Sequence[Any], levels: int = USUAL_LEVELS) -> tuple[bool, tuple[str, ...]]:
        for manager in self._managers:
            _set_levels(manager, levels)
        allowed, rule = self._casbin.enforce_ex(*self._context, *values)
        return bool(allowed), tuple(rule)

    def _applies(self, fields: tuple[str, ...], tokens: Mapping[str, Any]) -> bool:
        rule, model = self._rules[self._position(fields)], self._set.model
        names = model.policies[self._sections.rules].tokens
        granting = tuple(ALLOW if name == "eft" else field for name, field in zip(names, fields, strict=True))
        # By this effect any rule decides that matches, also one of a type that has no effects.
        effects = {**model.effects, "e": replace(model.effects["e"], kind=EffectKind.ALLOW_OVERRIDE)}
        alone = replace(self._set, rules=(replace(rule, fields=granting),), model=replace(model, effects=effects))
        verdict = Reference(alone, brought=self._brought).evaluate(tokens)
        return bool(verdict.rules or verdict.unknown)

    def _position(self, fields: tuple[str, ...]) -> int:
        return next(position for position, rule in enumerate(self._rules) if rule.fields == fields)

    def _part(
        self, between: str, values: Sequence[str], attributes: Mapping[str, Mapping[str, Any]], **answers: object
    ) -> None:
        shown = {who: str(answer) for who, answer in answers.items()}
        raise DisagreementError(
            Finding(
                between,
                self._model,
                self._policy,
                self._sections.matcher,
                self._patterns,
                tuple(values),
                attributes,
                shown,
            )
        )


def _casbin_context(sections: Sections) -> casbin_core.EnforceContext:
    return casbin_core.EnforceContext(sections.request, sections.rules, "e", sections.matcher)


def _set_levels(manager: Any, levels: int) -> None:  # noqa: ANN401  # casbin has no types
    """Sets how deep a role manager walks, with those of its domains."""
    manager.max_hierarchy_level = levels
    for one in getattr(manager, "rm_map", {}).values():
        one.max_hierarchy_level = levels
