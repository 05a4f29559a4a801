"""What can be looked up is: of many rules, only those that concern a request are asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from tests.property.strategies import plain_set

from gatebook.compiler.outcomes import outcomes
from gatebook.compiler.program import compile_program
from gatebook.expression.prefixes import prefix_of

MODEL = """
[request_definition]
r = sub, obj, act, dom
[policy_definition]
p = sub, obj, act, dom, eft
[role_definition]
g = _, _
g2 = _, _
g3 = _, _, _
g4 = _, _, _, _
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = {}
"""
OTHERS = 200


class Case(msgspec.Struct, frozen=True):
    """A matcher with one rule that concerns the request, among many like `other` that do not."""

    matcher: str
    concerned: str
    other: str
    tokens: Mapping[str, Any]
    links: str = ""


ANA = {"sub": "ana", "obj": "/a/1", "act": "read", "dom": "hr"}
CASES = {
    "a constant of the rule": Case("r.sub == p.sub && p.act == 'any'", "ana, x, any, x", "ana, x, no#, x", ANA),
    "a choice within": Case(
        "(r.sub == p.sub || p.sub == '*') && r.act == p.act", "*, x, read, x", "u#, x, read, x", ANA
    ),
    "a choice of lists": Case("p.sub in (r.sub, '*') && r.act == p.act", "*, x, read, x", "u#, x, read, x", ANA),
    "a value of a list": Case(
        "p.sub in r.sub.teams", "t1, x, x, x", "u#, x, x, x", {**ANA, "sub": {"teams": ["t1", "t2"]}}
    ),
    "a role of the object": Case("g2(r.obj, p.obj)", "x, group, x, x", "x, group#, x, x", ANA, "g2, /a/1, group\n"),
    "a role of the action": Case("g(r.act, p.act)", "x, x, all, x", "x, x, act#, x", ANA, "g, read, all\n"),
    "an heir": Case("g(p.sub, r.sub)", "dora, x, x, x", "u#, x, x, x", ANA, "g, dora, ana\n"),
    "a domain of the rule": Case(
        "r.dom == p.dom && g3(r.sub, p.sub, p.dom)", "boss, x, x, hr", "boss#, x, x, hr", ANA, "g3, ana, boss, hr\n"
    ),
    "several domains": Case(
        "g4(r.sub, p.sub, r.dom, r.act)", "boss, x, x, x", "boss#, x, x, x", ANA, "g4, ana, boss, hr, read\n"
    ),
    "a keyMatch": Case("keyMatch(r.obj, p.obj)", "x, /a/*, x, x", "x, /b#/*, x, x", ANA),
    "a keyMatch2": Case("keyMatch2(r.obj, p.obj)", "x, /a/:id, x, x", "x, /b#/:id, x, x", ANA),
    "a keyMatch3": Case("keyMatch3(r.obj, p.obj)", "x, /a/{id}, x, x", "x, /b#/{id}, x, x", ANA),
    "a keyMatch4": Case("keyMatch4(r.obj, p.obj)", "x, /a/{id}, x, x", "x, /b#/{id}, x, x", ANA),
    "a keyMatch5": Case("keyMatch5(r.obj, p.obj)", "x, /a/{id}, x, x", "x, /b#/{id}, x, x", ANA),
    "a regexMatch": Case("regexMatch(r.obj, p.obj)", "x, ^/a/[0-9]+$, x, x", "x, ^/b#/[0-9]+$, x, x", ANA),
    "a globMatch": Case("globMatch(r.obj, p.obj)", "x, /a/*, x, x", "x, /b#/**, x, x", ANA),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_only_rules_that_concern_the_request_are_found(case: Case) -> None:
    """Of hundreds of rules the index finds one, which applies."""
    others = "".join(f"p, {case.other.replace('#', str(number))}, allow\n" for number in range(OTHERS))
    policy = f"{others}p, {case.concerned}, allow\n{case.links}"

    program = compile_program(plain_set(MODEL.format(case.matcher), policy), None)
    plan = program.planner.plan(program.planner.read(case.tokens), case.tokens)

    found = [entry.rule.fields for alternative in plan["allows"] for entry in alternative.entries]
    assert [(*case.concerned.split(", "), "allow")] == found
    assert [True] == [outcome for _, outcome in outcomes(plan["allows"], case.tokens)]


@pytest.mark.parametrize(
    ("function", "pattern", "expected"),
    [
        ("keyMatch", "/a.b/*/c", "/a.b/"),
        ("keyMatch2", "/a/*", "/a/"),
        ("keyMatch2", "/a*", "/"),
        ("keyMatch2", "/a.b/*", "/a"),
        ("keyMatch2", "/a/:id/c", "/a/"),
        ("keyMatch2", "*", ""),
        ("keyMatch3", "/a/{id}", "/a"),
        ("keyMatch5", "/a/b?", "/a/"),
        ("regexMatch", "^/a/b", "/a/b"),
        ("regexMatch", "^/a/*", "/a"),
        ("regexMatch", "/ab{0,1}", "/a"),
        ("regexMatch", "a|b", ""),
        ("regexMatch", "^/a/(b|c)", "/a/"),
        ("regexMatch", r"a\|(b|c", ""),
        ("regexMatch", "(?i)abc", ""),
        ("regexMatch", "", ""),
        ("globMatch", "/a/**", "/a"),
        ("globMatch", "/a/*", "/a/"),
        ("globMatch", "/a.b/x*", "/a.b/x"),
        ("globMatch", "*/a", ""),
        ("globMatch", "/{a,b}/c", "/"),
    ],
)
def test_prefixes_are_no_longer_than_what_every_match_begins_with(function: str, pattern: str, expected: str) -> None:
    """What a pattern may leave out is no part of its prefix."""
    assert expected == prefix_of(function, pattern)
