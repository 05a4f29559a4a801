"""Patterns of a policy set: no deny is lost by one, and none costs more than its length."""

from __future__ import annotations

import tracemalloc

import pytest

from gatebook.compiler.program import compile_program
from gatebook.engine.evaluate import evaluate
from gatebook.errors import PolicySetRefusedError
from gatebook.policy.oracle import Oracle
from gatebook.policy.policy_set import load
from gatebook.values import Effect

MODEL = """[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act, eft
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = r.sub == p.sub && {function}(r.obj, p.obj) && r.act == p.act
"""
BYTES_MAX = 8 * 1024 * 1024


def files_of(function: str, *rules: str) -> dict[str, bytes]:
    """Returns a plain set whose objects are patterns."""
    return {"model.conf": MODEL.format(function=function).encode(), "policy.csv": "".join(rules).encode()}


@pytest.mark.parametrize(
    ("function", "everything", "denied", "asked"),
    [
        ("regexMatch", ".*", r"^hr/\w+$", "hr/josé"),
        ("regexMatch", ".*", r"^card/\d+$", "card/٣٤"),
        ("regexMatch", ".*", r"^[^\W]+$", "é"),
        ("regexMatch", ".*", "(?i)^admin$", "adm\u0131n"),
        ("regexMatch", ".*", r"(?i)^k$", "\u212a"),
        ("regexMatch", ".*", "^payroll$", "payroll\n"),
        ("keyMatch2", "/*", r"/hr/\w+", "/hr/josé"),
        ("keyMatch2", "/*", "/hr/:name", "/hr/ana\n"),
        ("globMatch", "/**", "/hr/*", "/hr/ana\n"),
    ],
)
def test_a_deny_is_not_lost(function: str, everything: str, denied: str, asked: str) -> None:
    """Where Casbin denies by a pattern that RE2 reads for ASCII, or with another end, Gatebook denies too."""
    files = files_of(function, f"p, ana, {everything}, read, allow\n", f"p, ana, {denied}, read, deny\n")
    program = compile_program(load(files), None)

    verdict = evaluate(program, {"sub": "ana", "obj": asked, "act": "read"})

    assert (Effect.DENY, False) == (verdict.effect, Oracle(files).enforce("ana", asked, "read"))


def test_an_allow_is_not_won() -> None:
    """What Casbin does not allow by a class is not allowed by a narrower reading of it."""
    program = compile_program(load(files_of("regexMatch", "p, ana, ^[^\\w]+$, read, allow\n")), None)

    assert evaluate(program, {"sub": "ana", "obj": "é", "act": "read"}).effect is Effect.DENY


@pytest.mark.timeout(30)
@pytest.mark.parametrize("function", ["keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5", "regexMatch", "globMatch"])
@pytest.mark.parametrize(
    "text",
    [
        "/" + "{" * 1_400,
        "/" + "{" * 16_000,
        "/" + "{" * 100_000,
        "(" + "x" * 25_000 + "{" + "," * 25_000 + "})",
        "(" + "x" * 7_000 + "{" + "," * 8_000 + "})",
        "(" + "{a,b}" * 3_000 + ")",
        "'" + "(x)" * 33_000,
        '"' + "(,)" * 33_000,
        "'" + "[]" * 8_000,
    ],
    ids=lambda text: f"{text[:2]} and {len(text)} characters",
)
def test_a_line_costs_no_more_than_its_length(function: str, text: str) -> None:
    """A rule that is made to be slow, or large, is refused within memory of a few megabytes."""
    files = files_of(function, f"p, ana, {text}, read, allow\n")
    tracemalloc.start()
    try:
        with pytest.raises(PolicySetRefusedError):
            load(files)
        assert tracemalloc.get_traced_memory()[1] < BYTES_MAX
    finally:
        tracemalloc.stop()


@pytest.mark.timeout(30)
@pytest.mark.parametrize("glob", ["(" + "x" * 490 + "{" + "b," * 240 + "b})", "(" + "{a,b}" * 190 + ")"])
def test_a_glob_is_counted_before_it_is_multiplied_out(glob: str) -> None:
    """A glob of allowed length that stands for very many alternatives is refused within memory of a few megabytes."""
    tracemalloc.start()
    try:
        with pytest.raises(PolicySetRefusedError):
            load(files_of("globMatch", f"p, ana, {glob}, read, allow\n"))
        assert tracemalloc.get_traced_memory()[1] < BYTES_MAX
    finally:
        tracemalloc.stop()


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "line",
    [
        "m2 = " + "'\\" * 50_000 + " # x",
        "m2 = '" + "\\'" * 8_000 + " # x",
        "m" + "9" * 10_000 + " = True",
        "\\\n" * 50_000,
    ],
    ids=["quotes", "escaped quotes", "digits", "continuations"],
)
def test_a_model_costs_no_more_than_its_length(line: str) -> None:
    """A model that is made to be slow is refused, with findings and not with an error."""
    files = files_of("keyMatch", "p, ana, a, read, allow\n")
    with pytest.raises(PolicySetRefusedError):
        load({**files, "model.conf": files["model.conf"] + line.encode()})


def test_work_ends_with_the_findings() -> None:
    """A file in which every line is wrong is read until its findings are as many as are reported."""
    with pytest.raises(PolicySetRefusedError) as refused:
        load(files_of("keyMatch", "x, ana, a, read, allow\n" * 100_000))

    assert len(refused.value.findings) <= 1_000
