"""The comparison can fail: engines that are broken on purpose are found out."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from msgspec.structs import replace
from tests.property.agreement import Build, DisagreementError, Engine, compiled
from tests.property.casbin_models import USUAL_CHOICES, Case, Choices, cases
from tests.property.casbin_names import BY_SUBJECT, FIRST, SECTIONS
from tests.property.strategies import plain_set
from tests.property.test_casbin_models import compare

from gatebook.engine.verdict import Verdict
from gatebook.policy.brought import Brought, LinkConditions
from gatebook.policy.policy_set import PolicySet
from gatebook.values import Edge, Effect, Rule

REQUESTS_MAX = 10_000
"""Within how many requests each broken engine is found out, of those to sets that its fault concerns."""
EXAMPLES_MAX = 1_500


class UnaffectedError(Exception):
    """The fault makes no difference to a set."""


def misread(model: Callable[[str], str] = str, policy: Callable[[str], str] = str) -> Build:
    """Returns an engine that reads the files otherwise than they are written, and names the right rules."""

    def build(policy_set: PolicySet, brought: Brought) -> Engine:
        files = {path: content.decode() for path, content in policy_set.files.items()}
        texts = files["model.conf"], files["policy.csv"]
        misread_texts = model(texts[0]), policy(texts[1])
        if texts == misread_texts:
            raise UnaffectedError
        engine = compiled(plain_set(*misread_texts, policy_set.sections.matcher, brought), brought)
        by_line = {(rule.file, rule.line): rule for rule in policy_set.rules}

        def named(found: tuple[Rule, ...]) -> tuple[Rule, ...]:
            return tuple(by_line.get((rule.file, rule.line), rule) for rule in found)

        def answer(tokens: Mapping[str, Any]) -> Verdict:
            verdict = engine(tokens)
            return replace(verdict, rules=named(verdict.rules), unknown=named(verdict.unknown))

        return answer

    return build


def with_rules(change: Callable[[tuple[Rule, ...]], tuple[Rule, ...]]) -> Build:
    """Returns an engine that has other rules, or has them in another order."""
    return lambda policy_set, brought: compiled(_other(policy_set, rules=change(policy_set.rules)), brought)


def with_edges(change: Callable[[tuple[Edge, ...]], tuple[Edge, ...]]) -> Build:
    """Returns an engine that has other links."""
    return lambda policy_set, brought: compiled(_other(policy_set, edges=change(policy_set.edges)), brought)


def in_every_domain(edges: tuple[Edge, ...]) -> tuple[Edge, ...]:
    """Forgets in which domain a link stands."""
    every = {edge.domains for edge in edges}
    return tuple(
        replace(edge, domains=domains) for edge in edges for domains in every if len(domains) == len(edge.domains)
    )


def two_links_up(edges: tuple[Edge, ...]) -> tuple[Edge, ...]:
    """Follows two links of a role hierarchy, from the names that nobody inherits."""
    parents = {(edge.gtype, *edge.domains, edge.parent) for edge in edges}
    level = {key for edge in edges if (key := (edge.gtype, *edge.domains, edge.child)) not in parents}
    climbed: list[Edge] = []
    for _ in range(2):
        links = [edge for edge in edges if (edge.gtype, *edge.domains, edge.child) in level]
        climbed += links
        level = {(edge.gtype, *edge.domains, edge.parent) for edge in links}
    return tuple(edge for edge in edges if edge in climbed)


def decides_by_the_first_sections(policy_set: PolicySet, brought: Brought) -> Engine:
    """Does not heed which sections it is told."""
    return compiled(_other(policy_set, settings=replace(policy_set.settings, matcher="m")), brought)


def takes_patterns_for_names(policy_set: PolicySet, brought: Brought) -> Engine:
    """Does not know that names and domains of links match others."""
    if not brought.patterns:
        raise UnaffectedError
    return compiled(policy_set, replace(brought, patterns={}))


def forgets_conditions(policy_set: PolicySet, brought: Brought) -> Engine:
    """Takes every link with a parameter for one that holds."""
    if not any(edge.parameters for edge in policy_set.edges):
        raise UnaffectedError
    return compiled(policy_set, replace(brought, conditions={"g": LinkConditions(otherwise=lambda _: True)}))


def unknown_allows(policy_set: PolicySet, brought: Brought) -> Engine:
    """Takes UNKNOWN for true."""
    engine = compiled(policy_set, brought)

    def answer(tokens: Mapping[str, Any]) -> Verdict:
        verdict = engine(tokens)
        return replace(verdict, effect=Effect.ALLOW) if verdict.unknown else verdict

    return answer


def remembers_too_much(policy_set: PolicySet, brought: Brought) -> Engine:
    """Remembers answers by the subject and object alone."""
    engine, answers = compiled(policy_set, brought), dict[tuple[str, str], Verdict]()

    def answer(tokens: Mapping[str, Any]) -> Verdict:
        key = (tokens["sub"], tokens["obj"])
        if key not in answers:
            answers[key] = engine(tokens)
        return answers[key]

    return answer


def names_another_rule(policy_set: PolicySet, brought: Brought) -> Engine:
    """Answers rightly, and names the first rule whatever it was that decided."""
    engine = compiled(policy_set, brought)

    def answer(tokens: Mapping[str, Any]) -> Verdict:
        verdict = engine(tokens)
        return replace(verdict, rules=policy_set.rules[:1]) if verdict.rules and policy_set.rules else verdict

    return answer


MUTANTS: Mapping[str, Build] = {
    "skips denies": misread(policy=lambda text: text.replace(", deny", ", allow")),
    "leaves out the last rule": with_rules(lambda rules: rules[:-1] if len(rules) > 1 else rules),
    "asks the rules backwards": with_rules(lambda rules: rules[::-1]),
    "orders priorities as texts": with_rules(lambda rules: tuple(sorted(rules, key=lambda rule: rule.fields))),
    "takes `<` for `<=`": misread(lambda text: text.replace(" < ", " <= "), lambda text: text.replace(" < ", " <= ")),
    "forgets what `!` means": misread(lambda text: text.replace("!(", "(")),
    "takes `not in` for `in`": misread(lambda text: text.replace(" not in ", " in ")),
    "knows one alternative": misread(
        lambda text: text.partition(" || ")[0] + "\n" if text.count(" || ") == 1 else text
    ),
    "takes keyMatch2 for keyMatch": misread(lambda text: text.replace("keyMatch2", "keyMatch")),
    "takes `*` for anything": misread(lambda text: text.replace("r.act == p.act", "(r.act == p.act || p.act == '*')")),
    "forgets the domains of links": with_edges(in_every_domain),
    "forgets resource roles": with_edges(lambda edges: tuple(edge for edge in edges if edge.gtype != "g2")),
    "inherits downwards": with_edges(
        lambda edges: tuple(replace(edge, child=edge.parent, parent=edge.child) for edge in edges)
    ),
    "climbs two links": with_edges(two_links_up),
    "forgets the order of subjects": misread(lambda text: text.replace("subjectPriority(", "priority(")),
    "decides by the first sections": decides_by_the_first_sections,
    "takes patterns for names": takes_patterns_for_names,
    "forgets the conditions of links": forgets_conditions,
    "takes UNKNOWN for true": unknown_allows,
    "remembers too much": remembers_too_much,
    "names another rule": names_another_rule,
}


CONCERNED: Mapping[str, Choices] = {
    "forgets the order of subjects": Choices(effects=(BY_SUBJECT,)),
    "decides by the first sections": Choices(sections=tuple(it for it in SECTIONS if it != FIRST)),
    "takes patterns for names": Choices(patterned=2),
    "forgets the conditions of links": Choices(conditioned=1),
    "takes keyMatch2 for keyMatch": Choices(objects=("path",)),
    "forgets resource roles": Choices(objects=("obj",)),
    "takes `<` for `<=`": Choices(effects=("allow", "both")),
}
"""Of the faults that concern few models: of which."""


@pytest.mark.parametrize("name", MUTANTS)
def test_broken_engine_is_found_out(name: str) -> None:
    """An engine with one fault parts from the reference or from Casbin within so many requests."""
    assert_found(MUTANTS[name], CONCERNED.get(name, USUAL_CHOICES))


def test_the_engine_itself_is_not() -> None:
    """The same requests find nothing in the engine as it is."""
    with pytest.raises(AssertionError, match="not found"):
        assert_found(compiled, examples=40)


def assert_found(mutant: Build, choices: Choices = USUAL_CHOICES, examples: int = EXAMPLES_MAX) -> None:
    """Asserts that an engine is found out, by a fixed seed."""
    counts: Counter[str] = Counter()

    @seed(1)
    @settings(
        max_examples=examples,
        database=None,
        derandomize=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases(choices))
    def check(case: Case) -> None:
        if counts["requests"] < REQUESTS_MAX:
            with contextlib.suppress(UnaffectedError):
                counts.update(compare(case, 50, mutant))

    try:
        check()
    except DisagreementError:
        return
    raise AssertionError(f"not found within {counts['requests']:,} requests")


def _other(policy_set: PolicySet, **changes: object) -> PolicySet:
    other = replace(policy_set, **changes)
    if other == policy_set:
        raise UnaffectedError
    return other
