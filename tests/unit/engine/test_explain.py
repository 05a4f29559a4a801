"""The nearest rules of a denial."""

from __future__ import annotations

from typing import Any

from tests.property.governed_sets import governed_set
from tests.property.strategies import SHAPES, plain_set

from gatebook.compiler.program import compile_program
from gatebook.engine.evaluate import governed_tokens
from gatebook.engine.explain import NEAR_MAX, explain

RBAC = next(shape for shape in SHAPES if shape.name == "rbac").model
RULES = """\
p, role1, t, read, train, r.sub.level >= 3 && r.ctx.network == 'corp' && r.row.n == 1, allow
p, role2, t, read, cost, True, allow
p, role3, u, export, *, True, allow
p, role1, t, read, *, True, deny
g, ana, role1
"""


def near(row: dict[str, Any] | None, purpose: str) -> list[tuple[int, tuple[str, ...]]]:
    """Explains a request of ana to read `t.a`."""
    tokens = governed_tokens(
        subject="ana", attributes={"level": 1}, action="read", purpose=purpose, context={}, row=row
    )
    found = explain(compile_program(governed_set(RULES), None), {**tokens, "obj": "t.a"})
    return [(it.rule.line, it.lacked) for it in found]


def test_names_each_part_that_was_not_true() -> None:
    """A rule is explained by every part of its matcher and condition that failed, the nearest rule first."""
    unknown = "unknown, since a value is missing or of another type: "

    expected = [
        (2, ("`ana` does not inherit `role2` by `g`",)),
        (
            1,
            (
                "`cost` does not inherit `train` by `g3`",
                "not true: `r.sub.level >= 3`",
                f"{unknown}`r.ctx.network == 'corp'`",
                f"{unknown}`r.row.n == 1`",
            ),
        ),
    ]
    assert expected == near({}, "cost")


def test_says_what_depends_on_the_row() -> None:
    """Without a row, a part that reads it depends on it, and is not said to be false."""
    lacked = dict(near(None, "train"))[1]

    assert "depends on the row: `r.row.n == 1`" == lacked[-1]


def test_never_shows_the_value_of_an_attribute() -> None:
    """An explanation goes to the caller, so it names the attribute and not what it is."""
    texts = [text for _, lacked in near({"n": 424242}, "train") for text in lacked]

    assert not any("424242" in text for text in texts)


def test_explains_plain_sets() -> None:
    """In a plain set, near are the rules of the same resource and action, or else those of the subject."""
    policy = "p, role1, data1, read\np, ben, data2, write\np, ben, data3, write\ng, ana, role1\n"
    program = compile_program(plain_set(RBAC, policy), None)

    found = [(it.rule.line, it.lacked) for it in explain(program, {"sub": "ana", "obj": "data2", "act": "write"})]
    elsewhere = [(it.rule.line, it.lacked) for it in explain(program, {"sub": "ana", "obj": "data4", "act": "write"})]

    assert [(2, ("`ana` does not inherit `ben` by `g`",))] == found
    assert [(1, ("`r.obj` is not `data1`", "`r.act` is not `read`"))] == elsewhere


def test_is_short() -> None:
    """However many rules are near, the ten nearest are named."""
    policy = "".join(f"p, role{number}, data1, read\n" for number in range(500))
    program = compile_program(plain_set(RBAC, policy), None)

    assert NEAR_MAX == len(explain(program, {"sub": "ana", "obj": "data1", "act": "read"}))


def test_a_rule_that_lacked_nothing_is_not_near() -> None:
    """An allow that a deny overrode lacked nothing, so it is not among the rules that came near."""
    tokens = governed_tokens(
        subject="ana",
        attributes={"level": 3},
        action="read",
        purpose="train",
        context={"network": "corp"},
        row={"n": 1},
    )
    found = explain(compile_program(governed_set(RULES), None), {**tokens, "obj": "t.a"})

    assert [2] == [it.rule.line for it in found]
