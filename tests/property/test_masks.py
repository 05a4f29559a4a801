"""On every row the strictest mask wins, from the rules to the value that leaves."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gatebook.engine.obligations import oblige
from gatebook.engine.verdict import Applicable, ColumnVerdict
from gatebook.expression.tree import Call, Expression, Literal, Path
from gatebook.expression.truth import evaluate
from gatebook.policy.dataset import Ceiling, Column, Dataset, Sensitivity
from gatebook.rpc import encode
from gatebook.v1 import types_pb2
from gatebook.values import Effect, Enforcer, Mask, MaskKind, ObligationKind, Reason, Rule
from gatebook_client.enforce import enforce
from gatebook_client.expression import compile_condition

# The masks of a text, the strictest first, written down here once more: line by line, not by the code.
STRICTEST_FIRST = (
    "nullify",
    "default",
    "constant:x",
    "hash",
    "redact",
    "regex:[a-z]:_",
    "partial:last:2",
    "partial:last:4",
    "email",
    "none",
)
KEY_ID = "telemetry/model_training/0a1b2c3d"
KEYS = {KEY_ID: bytes(range(32))}
DATASET = Dataset(
    "t.d", {"c": Column("c", "t.d.c", "text")}, ("subject_id",), Sensitivity.INTERNAL, 1, Ceiling((), 0), "n", ()
)
ABLE = Enforcer("e", frozenset(MaskKind) - {MaskKind.CUSTOM}, frozenset(ObligationKind))

columns = st.sampled_from(["flag", "number", "word", "absent"])
values = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a", "b"]) | st.just(0.5)
leaves = st.one_of(
    st.builds(lambda name: Path(("row", name)), columns),
    st.builds(Literal, values),
    st.builds(lambda items: Literal(tuple(items)), st.lists(values, max_size=3)),
)


def _calls(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    binary = st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge", "in", "add", "sub", "mul", "div", "mod"])
    return st.one_of(
        st.builds(lambda op, a, b: Call(op, (a, b)), binary, inner, inner),
        st.builds(
            lambda op, items: Call(op, tuple(items)),
            st.sampled_from(["and", "or"]),
            st.lists(inner, min_size=1, max_size=3),
        ),
        st.builds(lambda op, item: Call(op, (item,)), st.sampled_from(["not", "neg"]), inner),
        st.builds(lambda items: Call("list", tuple(items)), st.lists(inner, max_size=2)),
    )


expressions = st.recursive(leaves, _calls, max_leaves=8)
rows = st.fixed_dictionaries(
    {"c": st.sampled_from(["Ana@example.com", "Farah 42", "1234", "ab", "Zoë"])},
    optional={"flag": values, "number": values, "word": values},
)
conditions = st.none() | expressions


def _applicable(mask: str, condition: Expression | None, line: int = 1) -> Applicable:
    fields = ("role:r", "t.d", "read", "*", "True", mask)
    return Applicable(Rule("p2", fields, "policy.csv", line, mask), condition)


def _masks(rules: list[tuple[str, Expression | None]]) -> tuple[Mask, ...] | None:
    """Returns the ordered masks, or None where the column is denied."""
    applicable = tuple(_applicable(mask, condition, line) for line, (mask, condition) in enumerate(rules, 1))
    verdict = ColumnVerdict("t.d.c", Effect.ALLOW, Reason.ALLOWED, (), applicable, ())
    obliged = oblige(DATASET, [verdict], ABLE, key_id=KEY_ID)
    return obliged.columns[0].masks if obliged.failed is None else None


def _decision(masks: tuple[Mask, ...]) -> types_pb2.Decision:
    decision = types_pb2.Decision(
        effect=types_pb2.EFFECT_ALLOW,
        reason=types_pb2.REASON_CODE_ALLOWED,
        must_apply=[types_pb2.OBLIGATION_KIND_MASKS],
        row_filter=types_pb2.RowFilter(kind=types_pb2.ROW_FILTER_KIND_ALL_ROWS),
    )
    decision.expires_time.FromJsonString("9999-01-01T00:00:00Z")
    outcome = decision.columns.add(column="c", effect=types_pb2.EFFECT_ALLOW, reason=types_pb2.REASON_CODE_ALLOWED)
    outcome.masks.extend(encode.mask(mask) for mask in masks)
    return decision


def _oracle(rules: list[tuple[str, Expression | None]], row: dict[str, Any]) -> str:
    """Says which mask a row gets: of all whose condition is true or unknown, the strictest; else clear."""
    applies = {
        mask
        for mask, condition in rules
        if condition is None or (mask != "none" and evaluate(condition, {"row": row}) is not False)
    }
    return next((mask for mask in STRICTEST_FIRST if mask in applies), "none")


@given(expressions, rows)
def test_client_reads_conditions_as_the_service_does(expression: Expression, row: dict[str, Any]) -> None:
    """The client finds a condition true, false or unknown exactly where the service does."""
    expected = evaluate(expression, {"row": row})
    expected = expected if isinstance(expected, bool) else None

    assert expected == compile_condition(encode.expression(expression))(row)


@given(st.lists(st.tuples(st.sampled_from(STRICTEST_FIRST), conditions), min_size=1, max_size=7), rows)
def test_strictest_mask_wins_on_every_row(rules: list[tuple[str, Expression | None]], row: dict[str, Any]) -> None:
    """What leaves of a row is what its strictest mask alone would make of the value."""
    masks = _masks(rules)
    assert masks is not None

    alone = _masks([(_oracle(rules, row), None)])
    assert alone is not None
    assert enforce(_decision(alone), [row], keys=KEYS) == enforce(_decision(masks), [row], keys=KEYS)


@given(st.lists(st.tuples(st.sampled_from(STRICTEST_FIRST), conditions), max_size=7))
def test_order_of_rules_does_not_matter(rules: list[tuple[str, Expression | None]]) -> None:
    """The same rules in another order make the same masks, up to the order of equal ones."""

    def told(masks: tuple[Mask, ...] | None) -> list[MaskKind] | None:
        return None if masks is None else [mask.kind for mask in masks]

    assert told(_masks(rules)) == told(_masks(rules[::-1]))


@given(
    st.lists(
        st.tuples(st.sampled_from([*STRICTEST_FIRST, "constant:y", "custom:z", "partial:first:2"]), conditions),
        min_size=1,
        max_size=5,
    )
)
def test_contradicting_masks_never_both_stand(rules: list[tuple[str, Expression | None]]) -> None:
    """An allow never leaves two masks of one column of which neither is the stricter."""
    masks = _masks(rules) or ()
    kinds = [mask.kind for mask in masks]
    contradictions = [
        len({str(mask.parameters) for mask in masks if mask.kind is MaskKind.CONSTANT}) > 1,
        len({mask.parameters["keep"] for mask in masks if mask.kind is MaskKind.PARTIAL}) > 1,
        MaskKind.CUSTOM in kinds,  # which the enforcer did not declare
    ]

    assert [False, False, False] == contradictions


@given(st.sampled_from(["nullify", "default", "constant:x", "hash", "redact"]), conditions, rows)
def test_sensitive_value_never_leaves_in_clear(mask: str, condition: Expression | None, row: dict[str, Any]) -> None:
    """Where the condition of a mask is not false the clear value does not leave, whatever else clears it."""
    masks = _masks([("none", None), (mask, condition)])
    assert masks is not None
    left = enforce(_decision(masks), [row], keys=KEYS)[0]["c"]

    clear = condition is not None and evaluate(condition, {"row": row}) is False
    assert clear == (left == row["c"])
