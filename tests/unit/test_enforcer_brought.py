"""What callers of `gatebook.enforcer.Enforcer` bring along: contexts, objects, functions, patterns and conditions."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import casbin
import pytest
from casbin.persist.adapters import StringAdapter

from gatebook.enforcer import EnforceContext, Enforcer
from gatebook.errors import InvalidRequestError

RBAC = Path(__file__).parents[1] / "cases" / "casbin" / "rbac"

SECTIONS = """
[request_definition]
r = sub, obj, act
r2 = age, obj
[policy_definition]
p = sub, obj, act
p2 = limit, obj, eft
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = r.obj == p.obj && r.act == p.act && (r.sub == p.sub || p.sub == '*')
m2 = r2.obj == p2.obj && eval(p2.limit)
m3 = r.obj == p2.obj
"""
SECTIONS_POLICY = (
    "p, ana, data1, read\np, *, data2, read\np2, r2.age > 17, data1, allow\np2, r2.age > 60, data1, deny\n"
)


@pytest.mark.parametrize("kind", [EnforceContext, casbin.core_enforcer.EnforceContext])
def test_a_context_names_the_sections(kind: Callable[[str, str, str, str], object]) -> None:
    """A request may name the sections that decide it, by our context or by Casbin's."""
    read = casbin.Model()
    read.load_model_from_text(SECTIONS)
    ours, theirs = Enforcer(SECTIONS, SECTIONS_POLICY), casbin.Enforcer(read, StringAdapter(SECTIONS_POLICY))
    second = kind("r2", "p2", "e", "m2"), casbin.core_enforcer.EnforceContext("r2", "p2", "e", "m2")

    for age, obj in itertools.product((16, 18, 61), ("data1", "data2")):
        assert theirs.enforce(second[1], age, obj) is ours.enforce(second[0], age, obj)
    for request in itertools.product(("ana", "ben"), ("data1", "data2"), ("read", "write")):
        usual = kind("r", "p", "e", "m")
        assert theirs.enforce(*request) is ours.enforce(*request) is ours.enforce(usual, *request)
    assert (False, ["r2.age > 60", "data1", "deny"]) == ours.enforce_ex(second[0], 61, "data1")
    with pytest.raises(InvalidRequestError, match="2 values"):
        ours.enforce(second[0], 18, "data1", "more")


class Odd(dict[str, object]):
    """An object that raises what it likes for an attribute that it lacks."""

    __getattr__ = dict.__getitem__


def test_odd_objects_are_values_like_others() -> None:
    """An object is asked for the attributes that the model names, and for no others."""
    enforcer = Enforcer(SECTIONS.replace("r.sub == p.sub", "r.sub.name == p.sub"), SECTIONS_POLICY)

    assert (True, ["ana", "data1", "read"]) == enforcer.enforce_ex(Odd(name="ana"), "data1", "read")
    assert not enforcer.enforce(Odd(), "data1", "read")


CALLS = """
[request_definition]
r = sub, obj
[policy_definition]
p = sub, obj
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = r.sub == p.sub && under(r.obj, p.obj)
"""


def under(name: object, folder: object) -> bool:
    """Tells whether a name lies in a folder."""
    if name == "/broken":
        raise RuntimeError("nobody knows")
    return str(name).startswith(str(folder))


def test_functions_may_be_added() -> None:
    """A function that the matcher calls is added before or after loading; until then asking is an error."""
    late, early = Enforcer(CALLS, "p, ana, /a\n"), Enforcer(CALLS, "p, ana, /a\n", functions={"under": under})

    with pytest.raises(InvalidRequestError, match="calls `under`, which nobody has added"):
        late.enforce("ana", "/a/b")
    late.add_function("under", under)
    for enforcer in (late, early):
        assert [True, False, False] == enforcer.batch_enforce([("ana", "/a/b"), ("ana", "/b"), ("ana", "/broken")])
        enforcer.load_policy()
        assert enforcer.enforce("ana", "/a/b")


def pattern_model(domains: bool) -> str:
    """Returns a model whose roles may be patterns, in domains or not."""
    names, role = (
        ("sub, dom, obj", "g(r.sub, p.sub, r.dom) && r.dom == p.dom") if domains else ("sub, obj", "g2(r.obj, p.obj)")
    )
    return (
        f"[request_definition]\nr = {names}\n[policy_definition]\np = {names}\n"
        f"[role_definition]\ng = _, _{', _' if domains else ''}\ng2 = _, _\n"
        "[policy_effect]\ne = some(where (p.eft == allow))\n"
        f"[matchers]\nm = {role} && " + ("r.obj == p.obj" if domains else "g(r.sub, p.sub)") + "\n"
    )


@pytest.mark.parametrize(
    ("domains", "policy", "requests"),
    [
        (
            False,
            "p, ana, books\ng, ben, ana\ng2, /book/:id, books\ng2, /pen, books\n",
            [("ana", "/book/1"), ("ben", "/book/7"), ("ana", "/pen"), ("ana", "/book/1/2"), ("eve", "/book/1")],
        ),
        (
            True,
            "p, admin, shop1, data1\np, admin, other, data1\ng, ana, admin, shop*\n",
            [
                ("ana", "shop1", "data1"),
                ("ana", "other", "data1"),
                ("ana", "shop2", "data1"),
                ("eve", "shop1", "data1"),
            ],
        ),
    ],
)
def test_relations_may_match_by_patterns(domains: bool, policy: str, requests: list[tuple[str, ...]]) -> None:
    """Names, and domains, of a relation match by the functions that are added, as in Casbin."""
    text = pattern_model(domains)
    read = casbin.Model()
    read.load_model_from_text(text)
    ours, theirs = Enforcer(text, policy), casbin.Enforcer(read, StringAdapter(policy))
    before = ours.batch_enforce(requests)
    for enforcer in (ours, theirs):
        if domains:
            enforcer.add_named_domain_matching_func("g", casbin.util.key_match_func)
        else:
            enforcer.add_named_matching_func("g2", casbin.util.key_match2_func)

    assert theirs.batch_enforce(requests) == ours.batch_enforce(requests) != before
    with pytest.raises(InvalidRequestError, match="`g9`"):
        ours.add_named_matching_func("g9", casbin.util.key_match_func)


def test_links_may_hold_under_conditions() -> None:
    """A link with a condition holds while that is True of its parameters, which may be replaced."""
    text = (RBAC / "model.conf").read_text().replace("g = _, _", "g = _, _, (_, _)")
    policy = "p, reader, data1, read\np, writer, data2, read\ng, ana, reader, 1, 9\ng, ben, writer, 1, 9\n"
    enforcer = Enforcer(text, policy)
    hour = [5]

    def in_hours(first: str, last: str) -> bool:
        return int(first) <= hour[0] <= int(last)

    assert not enforcer.enforce("ana", "data1", "read")
    assert enforcer.add_named_link_condition_func("g", "ana", "reader", in_hours)
    asked = ("ana", "data1", "read")
    assert enforcer.enforce(*asked)
    assert not enforcer.enforce("ben", "data2", "read")
    hour[0] = 10
    assert not enforcer.enforce(*asked)
    assert enforcer.set_named_link_condition_func_params("g", "ana", "reader", "9", "11")
    assert enforcer.enforce(*asked)
    assert enforcer.set_named_link_condition_func_params("g", "ana", "reader", "nine", "11")
    assert not enforcer.enforce(*asked)
    assert [["ana", "reader", "1", "9"], ["ben", "writer", "1", "9"]] == enforcer.get_grouping_policy()
