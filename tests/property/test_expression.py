"""Laws of expressions: their text, their three-valued truth, their residual."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.property.strategies import strange_values

from gatebook.compiler.closure import compile_expression
from gatebook.expression.environment import Named
from gatebook.expression.functions import BUILTINS
from gatebook.expression.operations import STRICT
from gatebook.expression.parse import ParseError, parse
from gatebook.expression.residual import residual
from gatebook.expression.text import to_text
from gatebook.expression.tree import Call, Expression, Literal, Path
from gatebook.expression.truth import apply, evaluate
from gatebook.policy.model import without_spans

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.sampled_from((0.5, -2.5, 1e300))
    | st.text("ab'\\\n\"é.", max_size=3)
)
LITERALS = (SCALARS | st.lists(SCALARS, max_size=2).map(tuple)).map(Literal)
PATHS = st.sampled_from(
    [("r", "sub"), ("r", "sub", "level"), ("r", "ctx", "a", "b"), ("p", "cond"), ("r", "row", "x"), ("r", "row", "y")]
).map(Path)
BINARY = ("eq", "ne", "lt", "le", "gt", "ge", "add", "sub", "mul", "div", "mod")


def _calls(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    several = st.lists(inner, min_size=2, max_size=3).map(tuple)
    a_list = st.one_of(
        PATHS,
        st.lists(SCALARS, max_size=2).map(lambda items: Literal(tuple(items))),
        several.filter(_varies).map(lambda items: Call("list", items)),
    )
    return st.one_of(
        st.builds(Call, st.sampled_from(("and", "or")), several),
        st.builds(lambda operand: Call("not", (operand,)), inner),
        st.builds(lambda operand: Call("neg", (operand,)), inner.filter(_is_no_number)),
        st.builds(lambda op, left, right: Call(op, (left, right)), st.sampled_from(BINARY), inner, inner),
        st.builds(lambda left, right: Call("in", (left, right)), inner, a_list),
        st.builds(Call, st.sampled_from(sorted(BUILTINS)), several),
    )


def _varies(items: tuple[Expression, ...]) -> bool:
    return not all(isinstance(item, Literal) for item in items)


def _is_no_number(expression: Expression) -> bool:
    return not isinstance(expression, Literal) or isinstance(expression.value, (bool, str, tuple, type(None)))


EXPRESSIONS: st.SearchStrategy[Expression] = st.recursive(LITERALS | PATHS, _calls, max_leaves=8)
VALUES = strange_values() | st.builds(
    Named, st.text(max_size=3), st.dictionaries(st.sampled_from(("level",)), strange_values())
)
ROWS = st.dictionaries(st.sampled_from(("x", "y")), strange_values())
TOKENS = st.fixed_dictionaries({"sub": VALUES, "ctx": st.dictionaries(st.just("a"), VALUES), "row": ROWS})


@settings(max_examples=300)
@given(EXPRESSIONS)
def test_text_parses_back(expression: Expression) -> None:
    """An expression written as text and parsed again is the same expression."""
    assert expression == without_spans(parse(to_text(expression)))


@settings(max_examples=1000)
@given(st.text(max_size=40) | st.text("r.sub()[]'\"\\&|!<>=+-*/%,0123456789 eandoritn", max_size=60))
@example("not " * 100)
@example("a.(")
@example("((((((((((" * 100)
def test_no_text_breaks_the_parser(text: str) -> None:
    """Any text is either an expression or refused with an offset within it."""
    offset = 0
    try:
        parse(text)
    except ParseError as err:
        offset = err.offset

    assert 0 <= offset <= len(text)


@settings(max_examples=300)
@given(EXPRESSIONS, TOKENS, st.text(max_size=3))
def test_closures_mean_what_trees_mean(expression: Expression, tokens: dict[str, Any], cond: str) -> None:
    """A compiled expression gives the value that walking its tree gives, for any values, and neither ever raises."""
    walked = evaluate(expression, {"r": tokens, "p": {"cond": cond}})
    compiled = compile_expression(expression, {"cond": 0}, {})(tokens, (cond,))

    assert repr(walked) == repr(compiled)


@settings(max_examples=300)
@given(EXPRESSIONS, TOKENS, st.text(max_size=3))
@example(Call("in", (Path(("r", "sub")), Path(("r", "row", "x")))), {"sub": {}, "ctx": {}, "row": {"x": []}}, "")
def test_residual_means_what_the_whole_means(expression: Expression, tokens: dict[str, Any], cond: str) -> None:
    """What is left without the row has, for every row, the truth of the whole."""
    blind = {name: value for name, value in tokens.items() if name != "row"}
    whole = evaluate(Call("and", (expression,)), {"r": tokens, "p": {"cond": cond}})
    left = residual(expression, {"r": blind, "p": {"cond": cond}})
    row = {"row": tokens["row"]}
    truth = evaluate(Call("and", (left,)), row) if isinstance(left, (Literal, Path, Call)) else left

    assert whole is truth


@settings(max_examples=300)
@given(EXPRESSIONS, TOKENS, st.sets(st.sampled_from(("sub", "ctx", "row", "x", "y"))))
def test_knowing_less_decides_nothing_else(expression: Expression, tokens: dict[str, Any], lost: set[str]) -> None:
    """A value that becomes unknown may make True and False UNKNOWN, and never makes one the other."""
    row = {name: None if name in lost else value for name, value in tokens["row"].items()}
    less = {name: None if name in lost else value for name, value in {**tokens, "row": row}.items()}
    before, after = (evaluate(Call("and", (expression,)), {"r": it, "p": {}}) for it in (tokens, less))

    assert after is None or after is before


@settings(max_examples=300)
@given(st.sampled_from(sorted({*STRICT, *BUILTINS})), st.lists(strange_values(), min_size=3, max_size=3))
def test_operations_are_total(op: str, values: list[Any]) -> None:
    """Every operator and function takes any values; a null makes its result UNKNOWN."""
    arity = 1 if op in ("not", "neg") else 2 if op in STRICT else BUILTINS[op].arity
    result = apply(op, values[:arity])

    assert result is None or None not in values[:arity]


@given(st.sampled_from((True, False, None)), st.sampled_from((True, False, None)))
def test_kleene(left: bool | None, right: bool | None) -> None:
    """Conjunction is the minimum and disjunction the maximum of False < UNKNOWN < True; De Morgan holds."""
    ranked = (False, None, True)
    a, b = Literal(left), Literal(right)
    both, either = evaluate(Call("and", (a, b)), {}), evaluate(Call("or", (a, b)), {})
    negated = evaluate(Call("not", (Call("and", (Call("not", (a,)), Call("not", (b,)))),)), {})

    assert min(left, right, key=ranked.index) is both
    assert max(left, right, key=ranked.index) is either
    assert either is negated
