"""Read leniently, a set answers as pycasbin does wherever the strict reading refuses it, or is refused as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from tests.unit.policy.test_vectors import VECTORS, expected_of, files_of

from gatebook.compiler.program import compile_program
from gatebook.engine.evaluate import evaluate
from gatebook.engine.reference import Reference
from gatebook.errors import PolicySetRefusedError
from gatebook.policy.library import load_plain
from gatebook.policy.oracle import Oracle
from gatebook.values import Effect, Severity

TESTS = Path(__file__).parents[2]
CASES: dict[str, Any] = YAML(typ="safe").load((TESTS / "cases/lenient.yaml").read_text(encoding="utf-8"))
UNTRUTHFUL = {"condition-is-a-number", "condition-is-a-text", "quoted-condition"}
"""A text or number is no truth value here, and true in pycasbin."""

MODEL: str = CASES["model"]


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: case["name"])
def test_answers_as_pycasbin(case: dict[str, Any]) -> None:
    """Compiled, defined and pycasbin's answers are one; what the strict reading refused is a warning."""
    model, policy = case.get("model", MODEL).encode(), case["policy"].encode()
    with pytest.raises(PolicySetRefusedError) as refused:
        load_plain(model, policy)

    policy_set = load_plain(model, policy, strict=False)

    found = [(it.file, it.line, it.column, it.invariant) for it in refused.value.findings]
    assert found == [(it.file, it.line, it.column, it.invariant) for it in policy_set.warnings]
    assert {Severity.WARNING} == {it.severity for it in policy_set.warnings}
    oracle = Oracle({"model.conf": model, "policy.csv": policy})
    program, reference = compile_program(policy_set, None), Reference(policy_set)
    for question in case["requests"]:
        *values, expected = question
        tokens = dict(zip(program.tokens, values, strict=True))
        verdict = evaluate(program, tokens)
        assert reference.evaluate(tokens) == verdict
        assert [expected, expected == "allow"] == [verdict.effect.name.lower(), oracle.enforce(*values)]


@pytest.mark.parametrize(
    "folder", [folder for folder in VECTORS if "casbin" in expected_of(folder)], ids=lambda folder: folder.name
)
@pytest.mark.filterwarnings("ignore:Possible nested set:FutureWarning")
def test_hazards_allow_no_more_than_in_pycasbin(folder: Path) -> None:
    """Each hazard that can be read leniently is answered as pycasbin answers it, or denied for a named reason."""
    files, shown = files_of(folder), expected_of(folder)["casbin"]
    try:
        program = compile_program(load_plain(files["model.conf"], files["policy.csv"], strict=False), None)
    except PolicySetRefusedError:
        return  # with its findings, as above

    verdict = evaluate(program, dict(zip(program.tokens, shown["request"], strict=True)))
    expected = "deny" if folder.name in UNTRUTHFUL or shown["answers"] == "error" else shown["answers"]
    assert expected == verdict.effect.name.lower()


@pytest.mark.parametrize("case", CASES["refused"], ids=lambda case: case["name"])
def test_refuses_what_has_no_meaning(case: dict[str, Any]) -> None:
    """What pycasbin fails at, and what it would run, is refused leniently too."""
    with pytest.raises(PolicySetRefusedError) as refused:
        compile_program(load_plain(case.get("model", MODEL).encode(), case["policy"].encode(), strict=False), None)

    assert case["message"] in refused.value.findings[0].message


def test_rows_mean_what_they_say() -> None:
    """A row that no line can say is refused, or taken leniently as it is."""
    rows = [("p", "ana", "a, b", "read", "allow"), ("p", "ben ", "x", "read", "allow"), ("g", "dora", "ana")]
    with pytest.raises(PolicySetRefusedError) as refused:
        load_plain(MODEL.encode(), rows)

    assert [1, 2] == [it.line for it in refused.value.findings]
    policy_set = load_plain(MODEL.encode(), rows, strict=False)
    program = compile_program(policy_set, None)
    assert Effect.ALLOW is evaluate(program, {"sub": "dora", "obj": "a, b", "act": "read"}).effect
    assert Effect.ALLOW is evaluate(program, {"sub": "ben ", "obj": "x", "act": "read"}).effect
    assert Effect.DENY is evaluate(program, {"sub": "ben", "obj": "x", "act": "read"}).effect


def test_rows_that_lines_can_say_are_lines() -> None:
    """Rows are read strictly like the lines that they are."""
    rows = [("p", "ana", "x", "read", "allow"), ("g", "dora", "ana")]

    from_rows = load_plain(MODEL.encode(), rows)

    assert load_plain(MODEL.encode(), b"p, ana, x, read, allow\ng, dora, ana\n") == from_rows
