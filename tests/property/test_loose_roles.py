"""Relations of patterns and conditions: the compiled program answers what the definition does, for any of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import casbin
import pytest
from casbin.persist.adapters import StringAdapter
from hypothesis import given, settings
from hypothesis import strategies as st

from gatebook.compiler.program import compile_program
from gatebook.engine.evaluate import evaluate
from gatebook.engine.reference import Reference
from gatebook.expression.functions import BUILTINS
from gatebook.policy.brought import Brought, LinkConditions, RolePatterns
from gatebook.policy.policy_set import PolicySet, load
from gatebook.values import Effect

MODEL = """
[request_definition]
r = sub, dom, obj
[policy_definition]
p = sub, dom, obj, eft
[role_definition]
g = {}
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = {} && r.obj == p.obj
"""
NAMES = ("ana", "ben", "/a/*", "/a/1", "/b/:id", "/b/2", "boss", "*", "b**", "b?", "10.0.0.0/8")
DOMAINS = ("hr", "h*", "*", "legal")
REQUESTS: tuple[tuple[Any, ...], ...] = tuple(
    itertools.product(
        ("ana", "/a/1", "/b/2", "/b/2/3", "boss", "boss?x", "bö", "/a//1\n", "10.0.0.1", 7),
        ("hr", "legal", "h\n"),
        ("d1", "d2"),
    )
)
Given = Callable[..., object] | None


def raising(_text: str, _pattern: str) -> bool:
    """Fails, as what others give may."""
    message = "no answer"
    raise RuntimeError(message)


def odd(text: str, pattern: str) -> object:
    """Answers for some, and nothing sensible for others."""
    return text[:1] == pattern[:1] if len(text) > 3 else "perhaps"


MATCHES: tuple[Given, ...] = (None, odd, raising, *(function.call for function in BUILTINS.values()))
CONDITIONS: tuple[Given, ...] = (
    None,
    lambda number: number == "1",
    lambda number: int(number) > 1,
    lambda _number: "yes",
)
RULES = st.tuples(
    st.just("p"),
    st.sampled_from(NAMES),
    st.sampled_from(DOMAINS),
    st.sampled_from(("d1", "d2")),
    st.sampled_from(("allow", "deny")),
)
LINKS = st.tuples(st.just("g"), st.sampled_from(NAMES), st.sampled_from(NAMES)).filter(lambda it: it[1] < it[2])
Lines = list[tuple[str, ...]]


def text_of(lines: Lines) -> str:
    """Writes lines of a policy."""
    return "".join(f"{', '.join(line)}\n" for line in lines)


def built(definition: str, call: str, lines: Lines, brought: Brought) -> PolicySet:
    """Loads a set that speaks of what is brought along."""
    files = {"model.conf": MODEL.format(definition, call).encode(), "policy.csv": text_of(lines).encode()}
    return load(files, brought=brought)


def agree(policy_set: PolicySet, brought: Brought) -> None:
    """Asks the program, what decides alone, and the definition of every request."""
    program, reference = compile_program(policy_set, None, brought=brought), Reference(policy_set, brought=brought)
    for values in REQUESTS:
        tokens = dict(zip(("sub", "dom", "obj"), values, strict=True))
        verdict = evaluate(program, tokens)
        assert reference.evaluate(tokens) == verdict
        if program.decide is not None:
            assert program.decide(values) in (None, verdict.effect is Effect.ALLOW)


@settings(max_examples=100)
@given(st.lists(RULES, max_size=6), st.lists(LINKS, max_size=6, unique=True), st.sampled_from(MATCHES))
def test_patterns_of_names(rules: Lines, links: Lines, match: Given) -> None:
    """Whatever matches names, both give the same verdict by the same rules."""
    brought = Brought(patterns={"g": RolePatterns(match)})

    agree(built("_, _", "g(r.sub, p.sub) && r.dom == p.dom", [*rules, *links], brought), brought)


@settings(max_examples=100)
@given(
    st.lists(RULES, max_size=6),
    st.lists(st.tuples(LINKS, st.sampled_from(DOMAINS)).map(lambda it: (*it[0], it[1])), max_size=6, unique=True),
    st.sampled_from(MATCHES),
    st.sampled_from(MATCHES),
    st.sampled_from(("g(r.sub, p.sub, r.dom)", "g(r.sub, p.sub, p.dom) && r.dom == p.dom")),
)
def test_patterns_of_domains(rules: Lines, links: Lines, match: Given, domain_match: Given, call: str) -> None:
    """So it is of domains, and of both together."""
    brought = Brought(patterns={"g": RolePatterns(match, domain_match)})

    agree(built("_, _, _", call, [*rules, *links], brought), brought)


@settings(max_examples=80)
@given(
    st.lists(RULES, max_size=6),
    st.lists(st.tuples(LINKS, st.sampled_from("123")).map(lambda it: (*it[0], it[1])), max_size=6, unique=True),
    st.sampled_from(CONDITIONS),
    st.sampled_from(CONDITIONS),
    st.sampled_from(MATCHES),
)
def test_conditions(rules: Lines, links: Lines, condition: Given, first: Given, match: Given) -> None:
    """So it is of conditions: of one link, of all others, and of none."""
    of_links = {links[0][1:3]: first} if links and first is not None else {}
    brought = Brought(
        patterns={"g": RolePatterns(match)} if match else {}, conditions={"g": LinkConditions(of_links, condition)}
    )

    agree(built("_, _, (_)", "g(r.sub, p.sub)", [*rules, *links], brought), brought)


@pytest.mark.parametrize("function", ["keyMatch", "keyMatch2"])
@settings(max_examples=60)
@given(st.lists(RULES, min_size=1, max_size=6), st.lists(LINKS, max_size=5, unique=True), st.randoms())
def test_what_is_granted_here_casbin_grants(function: str, rules: Lines, links: Lines, random: Any) -> None:  # noqa: ANN401 - a source of orders
    """Whoever inherits a role by patterns here inherits it in pycasbin, whose grants depend on the order of links."""
    brought = Brought(patterns={"g": RolePatterns(BUILTINS[function].call)})
    call = "g(r.sub, p.sub) && r.dom == p.dom"
    lines = [*[(*rule[:-1], "allow") for rule in rules], *links]
    random.shuffle(lines)
    program = compile_program(built("_, _", call, lines, brought), None, brought=brought)
    model = casbin.Model()
    model.load_model_from_text(MODEL.format("_, _", call))
    enforcer = casbin.Enforcer(model, StringAdapter(text_of(lines)))
    enforcer.add_named_matching_func("g", BUILTINS[function].call)

    for values in REQUESTS:
        if isinstance(values[0], str):
            tokens = dict(zip(("sub", "dom", "obj"), values, strict=True))
            assert evaluate(program, tokens).effect is Effect.DENY or enforcer.enforce(*values)
