"""The grammar of matchers and conditions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gatebook.expression.parse import DEPTH_MAX, LENGTH_MAX, ParseError, parse
from gatebook.expression.text import to_text
from gatebook.expression.tree import Call, Literal, Span
from gatebook.expression.tree import Path as Named

CASES: list[dict[str, Any]] = YAML(typ="safe").load(Path("tests/cases/expression/parse.yaml"))


@pytest.mark.parametrize("case", [case for case in CASES if "written" in case], ids=lambda case: case["text"])
def test_parses(case: dict[str, Any]) -> None:
    """A text of the grammar has the tree that its written form shows."""
    assert case["written"] == to_text(parse(case["text"]))


@pytest.mark.parametrize("case", [case for case in CASES if "refused" in case], ids=lambda case: case["text"])
def test_refuses(case: dict[str, Any]) -> None:
    """A text outside the grammar is refused, with what is wrong and where."""
    with pytest.raises(ParseError) as caught:
        parse(case["text"])

    assert (True, case["offset"]) == (caught.value.message.startswith(case["refused"]), caught.value.offset)


def test_spans() -> None:
    """Every node knows the characters it was parsed from."""
    tree = parse("r.sub == 'é' && !p.x")

    equal = Call("eq", (Named(("r", "sub"), Span(0, 5)), Literal("é", Span(9, 12))), Span(0, 12))
    negated = Call("not", (Named(("p", "x"), Span(17, 20)),), Span(16, 20))
    assert Call("and", (equal, negated), Span(0, 20)) == tree


@pytest.mark.parametrize(
    "text",
    [
        "(" * DEPTH_MAX + "1" + ")" * DEPTH_MAX,
        "!" * DEPTH_MAX + "r.a",
        "-" * DEPTH_MAX + "r.a",
        "1" + " + 1" * DEPTH_MAX,
        "f(" * DEPTH_MAX + "1" + ")" * DEPTH_MAX,
        "[" * 5_000,
        "r.a || " * (LENGTH_MAX // 7 + 1) + "r.a",
    ],
    ids=lambda text: text[:6],
)
def test_limits(text: str) -> None:
    """What is too deep or too long is refused before anything recurses into it."""
    with pytest.raises(ParseError, match="at most"):
        parse(text)


def test_long_chains() -> None:
    """A chain of alternatives is not deep, however long."""
    text = " || ".join(f"r.a == {number}" for number in range(900))

    assert text == to_text(parse(text))
