"""What a user of the library brings along decides, and never by failing."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from gatebook.compiler.program import compile_program
from gatebook.engine.evaluate import evaluate
from gatebook.engine.reference import Reference
from gatebook.errors import PolicySetRefusedError
from gatebook.policy.brought import NOTHING_BROUGHT, Brought
from gatebook.policy.library import load_plain
from gatebook.policy.model import Sections
from gatebook.policy.policy_set import PolicySet
from gatebook.values import Effect

MODEL = """
[request_definition]
r = sub, obj
r2 = sub, act
[policy_definition]
p = sub, obj, eft
p2 = sub, act
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = {}
m2 = r2.sub == p2.sub && r2.act == p2.act
m3 = r2.sub == p.sub && r2.act == p.obj
"""
ALLOWED, DENIED = Effect.ALLOW, Effect.DENY


def answer(policy_set: PolicySet, brought: Brought = NOTHING_BROUGHT, **tokens: Any) -> Effect:  # noqa: ANN401 - any value
    """Returns what the program answers, which is what the definition does."""
    program = compile_program(policy_set, None, brought=brought)
    verdict = evaluate(program, tokens)
    assert Reference(policy_set, brought=brought).evaluate(tokens) == verdict
    if program.decide is not None:
        assert program.decide(tuple(tokens.values())) in (None, verdict.effect is Effect.ALLOW)
    return verdict.effect


def fails(*_values: object) -> bool:
    """Raises."""
    raise ValueError(_values)


@pytest.mark.parametrize(
    ("function", "with_allow", "with_deny"),
    [
        (lambda sub, own: sub == own, ALLOWED, DENIED),
        (lambda _sub, _own: False, DENIED, ALLOWED),
        (fails, DENIED, DENIED),
        (lambda _sub, _own: 1, DENIED, DENIED),
        (lambda _sub, _own: "yes", DENIED, DENIED),
        (lambda _sub, _own: None, DENIED, DENIED),
        (lambda _sub: True, DENIED, DENIED),
    ],
)
def test_a_function_never_allows_by_failing(
    function: Callable[..., object], with_allow: Effect, with_deny: Effect
) -> None:
    """Only True allows; only False keeps a deny away; all else, and an exception, is UNKNOWN."""
    brought = Brought(functions={"mine": function})
    model = MODEL.format("mine(r.sub, p.sub) && r.obj == p.obj || r.obj == 'open' && p.obj == 'open'").encode()

    allow = load_plain(model, b"p, ana, x, allow\n", brought=brought)
    deny = load_plain(model, b"p, ana, open, deny\np, ben, open, allow\n", brought=brought)

    assert with_allow is answer(allow, brought, sub="ana", obj="x")
    assert DENIED is answer(deny, brought, sub="ana", obj="open")  # by the other way of the matcher
    both = load_plain(
        MODEL.format("mine(r.sub, p.sub) && p.eft == 'deny' || p.eft == 'allow'").encode(),
        b"p, ana, x, deny\np, ana, x, allow\n",
        brought=brought,
    )
    assert with_deny is answer(both, brought, sub="ana", obj="x")


def test_a_function_takes_any_values_and_may_give_any() -> None:
    """Functions take any value, stand in the place of Casbin's own, and what they return can be compared."""
    brought = Brought(functions={"level": lambda subject: subject.level + 1, "keyMatch": lambda _a, _b: True})
    model = MODEL.format("level(r.sub) == 3 && keyMatch(r.obj, p.obj)").encode()
    policy_set = load_plain(model, b"p, ana, x, allow\n", brought=brought)

    assert ALLOWED is answer(policy_set, brought, sub=SimpleNamespace(level=2), obj="y")
    assert DENIED is answer(policy_set, brought, sub=SimpleNamespace(level=1), obj="y")
    assert DENIED is answer(policy_set, brought, sub=SimpleNamespace(), obj="y")


def test_functions_that_are_awaited_are_refused_only_when_they_never_come() -> None:
    """A set may be loaded before its functions are there, and not compiled."""
    model = MODEL.format("mine(r.sub, p.sub)").encode()
    with pytest.raises(PolicySetRefusedError, match="unknown function `mine`"):
        load_plain(model, b"p, ana, x, allow\n")

    policy_set = load_plain(model, b"p, ana, x, allow\n", brought=Brought(awaits=True))

    with pytest.raises(PolicySetRefusedError, match="unknown function `mine`"):
        compile_program(policy_set, None)
    assert ALLOWED is answer(policy_set, Brought(functions={"mine": lambda a, b: a == b}), sub="ana", obj="x")


class Person:
    """Somebody with attributes, a method, and a property that raises."""

    def __init__(self, age: int) -> None:
        """Takes the age."""
        self.age = age
        self.home = {"city": "Graz"}
        self._hidden = 1

    def name(self) -> str:
        """Is a method, and so no attribute."""
        return "ana"

    @property
    def broken(self) -> int:
        """Raises."""
        raise OSError


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("r.sub.age > 18", ALLOWED),
        ("r.sub.age < 18", DENIED),
        ("r.sub.home.city == 'Graz'", ALLOWED),
        ("r.sub.home.street == 'Graz'", DENIED),
        ("r.sub.broken == 1", DENIED),
        ("r.sub.name == 'ana'", DENIED),
        ("r.sub.age.real == 20", DENIED),
    ],
)
def test_objects_have_attributes_and_nothing_else(condition: str, expected: Effect) -> None:
    """Attributes and the items of mappings are read; methods are not, and what raises is not there."""
    assert expected is answer(load_plain(MODEL.format(condition).encode(), b""), sub=Person(20), obj="x")


@pytest.mark.parametrize("name", ["_hidden", "__class__"])
def test_hidden_attributes_cannot_be_named(name: str) -> None:
    """A matcher that speaks of what begins with `_` is refused."""
    with pytest.raises(PolicySetRefusedError):
        load_plain(MODEL.format(f"r.sub.{name} == 1").encode(), b"")


def test_sections_decide_by_their_own_rules() -> None:
    """Each matcher decides by the request and the rules that it speaks of, in one set."""
    policy_set = load_plain(
        MODEL.format("r.sub == p.sub && r.obj == p.obj").encode(), b"p, ana, x, allow\np2, ben, go\n"
    )

    def asked(matcher: str, sections: Sections, **tokens: str) -> Effect:
        assert sections == policy_set.model.sections(matcher)
        verdict = evaluate(compile_program(policy_set, None, sections=sections), tokens)
        assert Reference(policy_set, sections=sections).evaluate(tokens) == verdict
        return verdict.effect

    assert ALLOWED is asked("m", Sections(), sub="ana", obj="x")
    assert ALLOWED is asked("m2", Sections("r2", "p2", "m2"), sub="ben", act="go")
    assert DENIED is asked("m2", Sections("r2", "p2", "m2"), sub="ana", act="x")
    assert ALLOWED is asked("m3", Sections("r2", "p", "m3"), sub="ana", act="x")
    with pytest.raises(PolicySetRefusedError, match="does not define the rules `p9`"):
        compile_program(policy_set, None, sections=Sections("r", "p9", "m"))
