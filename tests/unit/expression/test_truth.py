"""What expressions mean, case by case."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gatebook.compiler.closure import compile_expression
from gatebook.expression.environment import Named
from gatebook.expression.operations import conjunction
from gatebook.expression.parse import parse
from gatebook.expression.residual import residual
from gatebook.expression.tree import Call, Literal
from gatebook.expression.tree import Path as Reading
from gatebook.expression.truth import evaluate

CASES: list[dict[str, Any]] = YAML(typ="safe").load(Path("tests/cases/expression/truth.yaml"))
TIME = datetime(2026, 6, 1, tzinfo=UTC)
TOKENS: dict[str, Any] = {
    "sub": Named(
        "ana",
        {
            "level": 3,
            "score": 2.5,
            "team": "safety",
            "active": True,
            "groups": ["a", "b"],
            "null": None,
            "huge": 1e300,
            "endless": 10**400,
            "nan": float("nan"),
        },
    ),
    "row": {"ts": TIME, "later": TIME + timedelta(days=1), "day": date(2026, 6, 1), "number": 5},
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["text"])
def test_truth(case: dict[str, Any]) -> None:
    """An expression is true, false or unknown as the case says, walked as a tree and compiled."""
    expression = parse(case["text"])
    walked = evaluate(expression, {"r": TOKENS})
    compiled = compile_expression(expression, {}, {})(TOKENS, ())

    assert [case["is"]] * 2 == [value if isinstance(value, bool) else None for value in (walked, compiled)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["text"])
def test_truth_without_the_row(case: dict[str, Any]) -> None:
    """What is left without the row comes to the same when the row is there."""
    left = residual(parse(case["text"]), {"r": {"sub": TOKENS["sub"]}})
    truth = (
        conjunction([evaluate(left, {"row": TOKENS["row"]})]) if isinstance(left, (Literal, Reading, Call)) else left
    )

    assert case["is"] is truth
