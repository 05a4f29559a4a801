"""What the compiler promises beside its answers: refusal, flat cost, bounded memory, any depth."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from tests.property.governed_sets import governed_set
from tests.property.strategies import EFFECTS, SHAPES, plain_set

from gatebook.compiler.index import Entry, Index
from gatebook.compiler.lookups import Values
from gatebook.compiler.program import Program, compile_program
from gatebook.compiler.roles import CLOSURES_MAX, Roles
from gatebook.engine.evaluate import evaluate, evaluate_columns
from gatebook.errors import PolicySetRefusedError
from gatebook.expression.environment import Named
from gatebook.expression.parse import parse
from gatebook.expression.text import to_text
from gatebook.policy.model import Matcher
from gatebook.policy.policy_set import PolicySet
from gatebook.values import Edge, Effect, Finding, Rule

RBAC = next(shape for shape in SHAPES if shape.name == "rbac").model
GOVERNED_QUESTION: dict[str, Any] = {
    "subject": "ana",
    "attributes": {},
    "columns": ["t.a"],
    "action": "read",
    "purpose": "train",
    "context": {},
    "row": None,
}


def conditioned(*conditions: str) -> PolicySet:
    """Returns a governed set with one rule per condition, which no loader has seen."""
    fields = [("ana", "t", "read", "*", condition, "allow") for condition in conditions]
    rules = [Rule("p", its, "policy.csv", line, ", ".join(("p", *its))) for line, its in enumerate(fields, 1)]
    return msgspec.structs.replace(governed_set(""), rules=tuple(rules))


@pytest.mark.parametrize(
    ("condition", "column", "message"),
    [
        ("r.sub.level >", 34, "unexpected end"),
        ("r.level > 3", 21, "unknown name `r.level`"),
        ("p.cond.x == 'a'", 21, "the field `p.cond` is a text and has no attributes"),
        ("x == 1", 21, "unknown name `x`"),
        ("True && timeMatch('a'; 'b')", 42, "unexpected character ';'"),
        ("True && later('a')", 29, "unknown function `later`"),
        ("keyMatch(r.sub.id)", 21, "`keyMatch` takes 2 arguments, not 1"),
        ("g(r.sub.id)", 21, "`g` takes 2 arguments, not 1"),
        ("regexMatch(r.sub.id; '(')", 40, "unexpected character ';'"),
        ("regexMatch(r.sub.id, '(?=x)')", 42, "`(?=x)` is no pattern of `regexMatch`"),
        ("!keyMatch2(r.sub.id, '/a(')", 42, "`/a(` is no pattern of `keyMatch2`"),
        ("ipMatch(r.ctx.address, 'ten')", 44, "`ten` is no pattern of `ipMatch`"),
        ("eval(p.cond)", 21, "`eval` takes one field of the rule"),
    ],
)
def test_refuses_what_it_does_not_understand(condition: str, column: int, message: str) -> None:
    """A condition that means nothing refuses the set, with the place of what is wrong."""
    with pytest.raises(PolicySetRefusedError) as caught:
        compile_program(conditioned("True", condition), None)

    (finding,) = caught.value.findings
    assert ("policy.csv", 2, column) == (finding.file, finding.line, finding.column)
    assert finding.message.startswith(message)


def test_refuses_every_finding_at_once() -> None:
    """All findings are reported, in the order of the file."""
    with pytest.raises(PolicySetRefusedError) as caught:
        compile_program(conditioned("True", "x", "1 +", "x"), None)

    assert [2, 3, 4] == [finding.line for finding in caught.value.findings]


def test_refuses_a_malformed_pattern_of_a_rule() -> None:
    """A rule whose pattern no function understands is refused, instead of never matching."""
    shape = next(shape for shape in SHAPES if shape.name == "restful")

    with pytest.raises(PolicySetRefusedError) as caught:
        compile_program(plain_set(shape.model, "p, ana, /a/*, GET\np, ben, /b/:id, G**\n"), None)

    message = (
        "`G**` is no pattern of `regexMatch`: `*` has nothing here that it could repeat: write `\\*` for the character"
    )
    expected = [("policy.csv", 2, 17, message)]
    assert expected == [(it.file, it.line, it.column, it.message) for it in caught.value.findings]


def test_refuses_a_rule_of_another_length() -> None:
    """A rule with a field too few or too many is never read as if it had the right number."""
    policy_set = conditioned("True")
    short = msgspec.structs.replace(policy_set.rules[0], fields=("ana", "t", "read"))

    with pytest.raises(PolicySetRefusedError, match="the rule has 3 fields"):
        compile_program(msgspec.structs.replace(policy_set, rules=(short,)), None)


def test_refuses_a_matcher_that_means_nothing() -> None:
    """A matcher that calls what is not defined refuses the set, at its line in the model, whatever a loader saw."""
    policy_set = plain_set(RBAC, "p, ana, data1, read\n")
    matcher = policy_set.model.matchers["m"]
    text = matcher.text.replace("r.act == p.act", "lookup(r.act)")
    changed = Matcher("m", text, parse(text), matcher.line)
    model = msgspec.structs.replace(policy_set.model, matchers={"m": changed})

    with pytest.raises(PolicySetRefusedError) as caught:
        compile_program(msgspec.structs.replace(policy_set, model=model), None)

    expected = Finding("model.conf", matcher.line, 38, "NOT_UNDERSTOOD", "matcher `m`: unknown function `lookup`")
    (finding,) = caught.value.findings
    assert (expected.file, expected.line, expected.column) == (finding.file, finding.line, finding.column)
    assert finding.message.startswith(expected.message)


class Counting(dict[Any, Any]):
    """A level of an index that counts how often it is looked at."""

    looks = 0

    def __getitem__(self, key: object) -> object:
        """Counts a look-up."""
        Counting.looks += 1
        return super().__getitem__(key)

    def get(self, key: object, default: object = None) -> object:
        """Counts a look-up."""
        Counting.looks += 1
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        """Counts a look-up."""
        Counting.looks += 1
        return super().__contains__(key)

    def __iter__(self) -> Any:  # noqa: ANN401 - as in a mapping
        """Counts every key."""
        Counting.looks += len(self)
        return super().__iter__()

    def items(self) -> Any:  # noqa: ANN401 - as in a mapping
        """Counts every item."""
        Counting.looks += len(self)
        return super().items()

    def values(self) -> Any:  # noqa: ANN401 - as in a mapping
        """Counts every value."""
        Counting.looks += len(self)
        return super().values()


def _counted(node: Any) -> Any:  # noqa: ANN401 - a level or leaf of an index
    return Counting({key: _counted(child) for key, child in node.items()}) if isinstance(node, dict) else node


def _looks(policy_set: PolicySet, *questions: Callable[[Program], Any]) -> int:
    """Counts what first questions look at in the indexes, and the rules that they find there."""
    found: list[int] = []
    original_init, original_reach = Index.__init__, Index.reach

    def counting_init(self: Index, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - those of an index
        original_init(self, *args, **kwargs)
        self.root = _counted(self.root)

    def counting_reach(self: Index, values: Sequence[Values]) -> tuple[Entry, ...]:
        entries = original_reach(self, values)
        found.append(len(entries))
        return entries

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Index, "__init__", counting_init)
        patch.setattr(Index, "reach", counting_reach)
        program = compile_program(policy_set, None)
        Counting.looks = 0
        for ask in questions:
            ask(program)
    assert Counting.looks > 0
    return Counting.looks + sum(found)


@pytest.mark.parametrize("unrelated", [10, 1_000, 20_000])
def test_the_cost_of_a_check_does_not_grow_with_unrelated_rules(unrelated: int) -> None:
    """A check looks at as many rules and levels whether ten or twenty thousand rules concern others."""
    policy = "p, role1, data1, read\ng, ana, role1\n" + "".join(
        f"p, group{number}, data{number // 7 + 2}, read\ng, user{number}, group{number}\n"
        for number in range(unrelated)
    )
    tokens = {"sub": "ana", "obj": "data1", "act": "read"}
    answers: list[object] = []

    def evaluates(program: Program) -> None:
        answers.append(evaluate(program, tokens).effect)

    def decides(program: Program) -> None:
        answers.append(program.decide is not None and program.decide(tuple(tokens.values())))

    def plans(program: Program) -> None:
        answers.append(len(program.planner.plan(program.planner.read(tokens), tokens)["allows"]))

    assert _looks(plain_set(RBAC, policy), evaluates, decides, plans) <= 16
    assert [Effect.ALLOW, True, 1] == answers


@pytest.mark.parametrize("unrelated", [10, 3_000])
def test_the_cost_of_columns_does_not_grow_with_unrelated_rules(unrelated: int) -> None:
    """So it is in a governed set, for allowed and for denied columns."""
    policy = "p, ana, t, read, train, r.row.x == 1 || True, allow\np2, ana, t.a, read, *, True, hash\n" + "".join(
        f"p, role{number}, d{number}, read, train, r.sub.level > {number}, {effect}\n"
        for number in range(unrelated)
        for effect in ("allow", "deny")
    )
    policy_set = governed_set(policy)
    denied = {**GOVERNED_QUESTION, "purpose": "cost"}

    assert _looks(policy_set, lambda it: evaluate_columns(it, **GOVERNED_QUESTION)) <= 40
    assert _looks(policy_set, lambda it: evaluate_columns(it, **denied)) <= 40


def test_strangers_take_no_memory() -> None:
    """Names without links are answered without being remembered, so that nobody can fill the memory with them."""
    roles = Roles([Edge("g", "ana", "role1")])
    within = roles.within(frozenset({"role1", "mallory7"}))
    answers = [within(f"mallory{number}") for number in range(1_000)]

    assert ("mallory7",) == answers[7]
    assert not roles.linked("mallory7", "role1")
    assert {"ana"} == set(within.prepared[()])
    assert 0 == roles._closure.cache_info().currsize <= CLOSURES_MAX
    assert 0 == within._memoised.cache_info().currsize


@pytest.mark.parametrize("names", [30, 700])
def test_closures_past_what_is_prepared(names: int) -> None:
    """In a chain whose closures together are too many, those that were not prepared are walked, with one answer."""
    roles = Roles([Edge("g", f"n{number}", f"n{number + 1}") for number in range(names)])
    used = frozenset(f"n{number}" for number in range(names + 1))
    within = roles.within(used)

    assert (names == 30) == (names == len(within.prepared[()]))
    for number in (0, 1, names // 2, names - 1, names):
        assert {f"n{above}" for above in range(number, names + 1)} == set(within(f"n{number}"))


def test_what_strangers_ask_takes_no_memory() -> None:
    """A program remembers what values of its rules lead to, not what anybody ever asked for."""
    program = compile_program(plain_set(RBAC, "p, role1, data1, read\ng, ana, role1\n"), None)
    for number in range(1_000):
        evaluate(program, {"sub": f"stranger{number}", "obj": f"data{number}", "act": f"act{number}"})

    assert program.planner._remembered.cache_info().currsize <= 3


def test_roles_have_no_depth() -> None:
    """A role is inherited over any number of steps, where Casbin stops at ten; a cycle does no harm."""
    links = "".join(f"g, n{number}, n{number + 1}\n" for number in range(500)) + "g, n500, n0\n"
    program = compile_program(plain_set(RBAC, f"p, n500, data1, read\n{links}"), None)

    assert evaluate(program, {"sub": "n0", "obj": "data1", "act": "read"}).effect is Effect.ALLOW


def test_attributes_are_not_kept() -> None:
    """What is remembered of a subject is its id, never the attributes that came with a request."""
    roles = Roles([Edge("g", "ana", "role1")])
    within = roles.within(frozenset({"ana", "role1"}))

    assert frozenset({str}) == {type(name) for name in within(Named("ana", {"secret": 1}))}


def test_threads_may_share_a_program() -> None:
    """Many threads that ask one program at once get the answers that one thread gets."""
    policy = "".join(f"p, role{n}, data{n % 5}, read\ng, user{n}, role{n}\n" for n in range(50))
    program = compile_program(plain_set(RBAC, policy), None)
    questions = [{"sub": f"user{n}", "obj": f"data{m}", "act": "read"} for n in range(50) for m in range(5)]
    expected = [n % 5 == m for n in range(50) for m in range(5)]
    answers: list[list[bool]] = []

    def ask() -> None:
        answers.append([evaluate(program, tokens).effect is Effect.ALLOW for tokens in questions])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [expected] * 8 == answers


def test_effects_without_rules() -> None:
    """A matcher that needs no rule is asked once, as in Casbin; one that needs a condition allows nobody."""
    model = RBAC.replace("g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act", "r.sub == 'ana'")
    program = compile_program(plain_set(model, ""), None)
    answers = [evaluate(program, {"sub": sub, "obj": "x", "act": "y"}) for sub in ("ana", "ben")]

    assert [Effect.ALLOW, Effect.DENY] == [answer.effect for answer in answers]
    assert "model.conf" == answers[0].rules[0].file
    by_default = compile_program(plain_set(model.replace(EFFECTS["allow"], EFFECTS["deny"]), ""), None)
    assert evaluate(by_default, {"sub": "ben", "obj": "x", "act": "y"}).effect is Effect.ALLOW


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [({"active": True}, ["r.row.secret"]), ({"active": False}, []), ({}, ["None && r.row.secret"])],
)
def test_a_condition_on_subject_and_row(attributes: dict[str, Any], expected: list[str]) -> None:
    """Without a row, what is known of a condition is decided, and the rest stays with the mask."""
    rules = "p, ana, t, read, *, True, allow\np2, ana, t, read, *, r.sub.active && r.row.secret == True, hash\n"
    program = compile_program(governed_set(rules), None)
    (verdict,) = evaluate_columns(program, **{**GOVERNED_QUESTION, "attributes": attributes})

    conditions = [to_text(it.condition) for it in verdict.masks if it.condition is not None]
    assert [text.replace("r.row", "row") + " == True" for text in expected] == conditions
