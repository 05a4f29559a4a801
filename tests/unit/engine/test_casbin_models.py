"""Casbin's models, one by one: the compiled program, the definition and pycasbin give the answer that is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import casbin
import pytest
from casbin.core_enforcer import EnforceContext
from casbin.persist.adapters import StringAdapter
from ruamel.yaml import YAML

from gatebook.compiler.program import compile_program
from gatebook.engine.evaluate import evaluate
from gatebook.engine.reference import Reference
from gatebook.errors import PolicySetRefusedError
from gatebook.expression.functions import BUILTINS
from gatebook.policy.brought import Brought, LinkConditions, RolePatterns
from gatebook.policy.bundle import read_folder
from gatebook.policy.library import load_plain
from gatebook.policy.policy_set import PolicySet, load
from gatebook.values import Effect

CASES_FOLDER = Path(__file__).parents[2] / "cases/casbin"
CASES: list[dict[str, Any]] = YAML(typ="safe").load(
    (Path(__file__).parents[2] / "cases/casbin_models.yaml").read_text(encoding="utf-8")
)["cases"]
NOW = "2026-06-01 12:00:00"


def raising(*_values: object) -> bool:
    """Fails."""
    raise ValueError(_values)


def window(start: str, end: str) -> bool:
    """Tells whether the moment of these tests lies between two times, of which `_` is any."""
    return (start == "_" or start < NOW) and (end == "_" or end > NOW)


def same_start(text: str, start: str) -> bool:
    """Tells whether a text begins so; raises of what is none."""
    return text.startswith(start)


FUNCTIONS: dict[str, Callable[..., object]] = {"same_start": same_start, "raising": raising}
CONDITIONS: dict[str, Callable[..., object] | None] = {"window": window, "raising": raising, "nobody": None}


def brought_by(case: dict[str, Any]) -> Brought:
    """Returns what a case names."""
    return Brought(
        functions={name: FUNCTIONS[name] for name in case.get("functions", ())},
        patterns={
            key: RolePatterns(*(BUILTINS[named[part]].call if part in named else None for part in ("names", "domains")))
            for key, named in case.get("patterns", {}).items()
        },
        conditions={
            key: LinkConditions(otherwise=CONDITIONS[name]) for key, name in case.get("conditions", {}).items()
        },
    )


def enforcer_of(case: dict[str, Any], policy_set: PolicySet) -> Any:  # noqa: ANN401 - casbin has no types
    """Returns pycasbin's enforcer, with what the case names."""
    model = casbin.Model()
    model.load_model_from_text(case["model"])
    enforcer = casbin.Enforcer(model, StringAdapter(case["policy"] or "# none"))
    for name in case.get("functions", ()):
        enforcer.add_function(name, FUNCTIONS[name])
    for key, named in case.get("patterns", {}).items():
        if "names" in named:
            assert enforcer.add_named_matching_func(key, BUILTINS[named["names"]].call)
        if "domains" in named:
            assert enforcer.add_named_domain_matching_func(key, BUILTINS[named["domains"]].call)
    for key, name in case.get("conditions", {}).items():
        for edge in policy_set.edges if CONDITIONS[name] else ():
            add = "add_named_domain_link_condition_func" if edge.domains else "add_named_link_condition_func"
            assert getattr(enforcer, add)(key, edge.child, edge.parent, *edge.domains, CONDITIONS[name])
    return enforcer


def as_casbin(value: object) -> object:
    """Makes objects of mappings, whose attributes pycasbin reads."""
    return SimpleNamespace(**{k: as_casbin(v) for k, v in value.items()}) if isinstance(value, dict) else value


def asked(enforcer: Any, context: tuple[EnforceContext, ...], values: list[object]) -> str:  # noqa: ANN401 - as above
    """Returns what pycasbin answers."""
    try:
        return "allow" if enforcer.enforce(*context, *map(as_casbin, values)) else "deny"
    except Exception:  # noqa: BLE001 - pycasbin raises whatever its parts raise
        return "error"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_answers_of_a_model(case: dict[str, Any]) -> None:
    """All of them give the answer that is written; where pycasbin gives another, that is written too."""
    brought = brought_by(case)
    policy_set = load_plain(case["model"].encode(), case["policy"].encode(), brought=brought)
    sections = policy_set.model.sections(case.get("matcher", "m"))
    program = compile_program(policy_set, None, sections=sections, brought=brought)
    reference = Reference(policy_set, sections=sections, brought=brought)
    enforcer = None if "casbin" in case else enforcer_of(case, policy_set)
    context = (
        () if "matcher" not in case else (EnforceContext(sections.request, sections.rules, "e", sections.matcher),)
    )

    for request in case["requests"]:
        otherwise = request[-1]["casbin"] if isinstance(request[-1], dict) else ""
        *values, expected = request[:-1] if otherwise else request
        tokens = dict(zip(program.tokens, values, strict=True))
        verdict = evaluate(program, tokens)
        assert (expected, reference.evaluate(tokens)) == (verdict.effect.name.lower(), verdict), values
        if program.decide is not None:
            assert program.decide(tuple(values)) in (None, verdict.effect is Effect.ALLOW), values
        if enforcer is not None:
            assert (otherwise or expected) == asked(enforcer, context, values), values


@pytest.mark.parametrize(
    ("folder", "values", "expected"),
    [
        ("role_patterns", ("ana", "hr", "/book/1", "read"), Effect.ALLOW),
        ("role_patterns", ("ana", "legal", "/book/1", "read"), Effect.DENY),
        ("role_patterns", ("ana", "hr", "/book/1/2", "read"), Effect.DENY),
        ("role_patterns", ("ben", "legal", "/book/2", "write"), Effect.ALLOW),
        ("role_patterns", ("ben", "legal", "books", "write"), Effect.ALLOW),
        ("second_matcher", ("ana", "data/1", "read"), Effect.ALLOW),
        ("second_matcher", ("ana", "other/1", "read"), Effect.DENY),
    ],
)
def test_settings_of_a_set_decide(folder: str, values: tuple[str, ...], expected: Effect) -> None:
    """Patterns and the matcher that `gatebook.yaml` names are those of every program of the set."""
    policy_set = load(read_folder(CASES_FOLDER / folder), folder)
    program = compile_program(policy_set, None)
    tokens = dict(zip(program.tokens, values, strict=True))

    assert expected is evaluate(program, tokens).effect
    assert Reference(policy_set).evaluate(tokens) == evaluate(program, tokens)


@pytest.mark.parametrize(
    ("settings", "invariant"),
    [
        ("matcher: m3", "UNKNOWN_MATCHER"),
        ("matcher: hello", "WRONG_VALUE"),
        ("role_patterns: {g2: {names: keyMatch}}", "UNKNOWN_RELATION"),
        ("role_patterns: {g: {domains: keyMatch}}", "UNKNOWN_RELATION"),
        ("role_patterns: {g: {names: mine}}", "WRONG_VALUE"),
        ("role_patterns: {g: {names: regexMatch}}", "UNREADABLE_PATTERN"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: str, invariant: str) -> None:
    """A matcher, relation or function that is not there, and a name that is no pattern, refuse the set."""
    files = {**read_folder(CASES_FOLDER / "rbac"), "gatebook.yaml": settings.encode()}
    files["policy.csv"] += b"g, (ana, auditor\n".replace(b"(", b"*")

    with pytest.raises(PolicySetRefusedError) as refused:
        load(files)

    assert invariant in {finding.invariant for finding in refused.value.findings}
