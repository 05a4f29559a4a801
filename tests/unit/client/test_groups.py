"""What leaves of rows under a minimum group (AT-09)."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gatebook.v1 import types_pb2
from gatebook_client.groups import Measure, aggregate
from gatebook_client.refusal import EnforcementError

CASES: dict[str, Any] = YAML(typ="safe").load(Path(__file__).parents[2] / "cases" / "groups.yaml")
TOKENS: dict[str, Measure] = {"rows": ("count", "*"), "tokens": ("sum", "tokens")}


def _decision(
    k: int = 5,
    columns: tuple[str, ...] = ("team", "tokens"),
    entities: tuple[str, ...] = ("subject_id",),
    mask: types_pb2.Mask | None = None,
) -> types_pb2.Decision:
    """Returns an allow of the columns; `mask` is that of the first."""
    decision = types_pb2.Decision(
        effect=types_pb2.EFFECT_ALLOW,
        reason=types_pb2.REASON_CODE_ALLOWED,
        row_filter=types_pb2.RowFilter(kind=types_pb2.ROW_FILTER_KIND_ALL_ROWS),
    )
    decision.expires_time.FromJsonString("9999-01-01T00:00:00Z")
    for name in columns:
        outcome = decision.columns.add(column=name, effect=types_pb2.EFFECT_ALLOW, reason=types_pb2.REASON_CODE_ALLOWED)
        if mask is not None and name == columns[0]:
            outcome.masks.append(mask)
            decision.must_apply.append(types_pb2.OBLIGATION_KIND_MASKS)
    if k:
        decision.must_apply.append(types_pb2.OBLIGATION_KIND_MINIMUM_GROUP)
        decision.minimum_group.k = k
        decision.minimum_group.entity_columns.extend(entities)
    return decision


def _rows(case: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"team": team, "subject_id": None if person == "~" else person, "tokens": tokens}
        for team, people, tokens in case["rows"]
        for person in people.split()
    ]


def _people(*names: str, **more: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - values of a row
    return [{"team": "red", "subject_id": name, "tokens": 1, **more} for name in names]


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: case["name"])
def test_groups_that_leave(case: dict[str, Any]) -> None:
    """Groups of k people leave; smaller ones merge into a remainder, which leaves if it reaches k."""
    found = aggregate(_decision(case.get("k", 5)), _rows(case), by=["team"], measures=TOKENS)

    assert case["left"] == [[group["team"], group["rows"], group["tokens"]] for group in found]


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: case["name"])
def test_order_of_rows_does_not_matter(case: dict[str, Any]) -> None:
    """The answer does not tell in which order the rows lay in the store."""
    rows = _rows(case)
    forward = aggregate(_decision(case.get("k", 5)), rows, by=["team"], measures=TOKENS)

    assert forward == aggregate(_decision(case.get("k", 5)), rows[::-1], by=["team"], measures=TOKENS)


def test_without_a_key_all_rows_are_one_group() -> None:
    """Grouping by nothing makes one group, which leaves only if it reaches k."""
    few, enough = _people(*"abcd"), _people(*"abcde")

    assert ([], [{"rows": 5, "tokens": 5}]) == (
        aggregate(_decision(), few, by=[], measures=TOKENS),
        aggregate(_decision(), enough, by=[], measures=TOKENS),
    )


def test_every_entity_column_must_reach_k() -> None:
    """With several entity columns one that names too few people keeps the group in."""
    rows = [{"team": "red", "tokens": 1, "sender_id": name, "recipient_ids": ["z", "y"]} for name in "abcde"]
    decision = _decision(entities=("sender_id", "recipient_ids"))

    assert [] == aggregate(decision, rows, by=["team"], measures=TOKENS)


def test_each_element_of_a_list_is_somebody() -> None:
    """A list of people counts each of them, and a null among them nobody."""
    few = [{"team": "red", "tokens": 1, "participant_ids": [*"abcd", None, "a"]}]
    enough = [
        {"team": "red", "tokens": 1, "participant_ids": [*"abc"]},
        {"team": "red", "tokens": 1, "participant_ids": ["d", "e"]},
    ]
    decision = _decision(entities=("participant_ids",))

    assert ([], 1) == (
        aggregate(decision, few, by=["team"], measures=TOKENS),
        len(aggregate(decision, enough, by=["team"], measures=TOKENS)),
    )


def test_people_are_counted_before_masks() -> None:
    """A mask that makes all people look alike, or each row look new, does not change who is counted."""
    nullified = types_pb2.Mask(kind=types_pb2.MASK_KIND_NULLIFY)
    decision = _decision(columns=("subject_id", "tokens"), mask=nullified)

    assert [{"subject_id": None, "rows": 5, "tokens": 5}] == aggregate(
        decision, _people(*"abcde"), by=["subject_id"], measures=TOKENS
    )


def test_columns_are_masked_before_grouping() -> None:
    """Rows group by what may be seen of a value, not by the value."""
    month = types_pb2.Mask(kind=types_pb2.MASK_KIND_TRUNCATE)
    month.parameters["unit"] = "month"
    rows = [row | {"day": f"2026-06-{day:02}"} for day, row in enumerate(_people(*"abcde"), 1)]
    decision = _decision(columns=("day", "tokens"), mask=month)

    assert [{"day": "2026-06-01", "rows": 5, "tokens": 5}] == aggregate(decision, rows, by=["day"], measures=TOKENS)


def test_columns_are_masked_before_measuring() -> None:
    """A measure is taken of what may be seen of a value."""
    band = types_pb2.Mask(kind=types_pb2.MASK_KIND_BAND)
    band.parameters["step"] = 1000
    decision = _decision(columns=("tokens", "team"), mask=band)

    assert [{"team": "red", "tokens": 5000}] == aggregate(
        decision, _people(*"abcde", tokens=1999), by=["team"], measures={"tokens": ("sum", "tokens")}
    )


@pytest.mark.parametrize(
    ("by", "measures"),
    [
        (["display_name"], TOKENS),
        (["team"], {"names": ("count", "display_name")}),
        (["subject_id"], TOKENS),
        (["rank"], TOKENS),
    ],
)
def test_at_09_column_that_is_not_allowed(by: list[str], measures: dict[str, Measure]) -> None:
    """AT-09: a column that the decision does not allow is neither grouped by nor measured."""
    with pytest.raises(EnforcementError) as caught:
        aggregate(_decision(), _people(*"abcde", display_name="x", rank=1), by=by, measures=measures)

    assert caught.value.reason == "CLIENT_COLUMN_NOT_ALLOWED"


@pytest.mark.parametrize(
    "measures",
    [
        {"m": ("max", "tokens")},
        {"m": ("min", "tokens")},
        {"m": ("list", "tokens")},
        {"m": ("sum", "*")},
        {"m": ("", "tokens")},
        {"team": ("count", "*")},
    ],
)
def test_measure_that_could_show_a_row_is_refused(measures: Any) -> None:  # noqa: ANN401 - not of the type
    """There is no measure that shows one row's value, and none that hides a key."""
    with pytest.raises(EnforcementError, match="CLIENT_UNKNOWN_MEASURE"):
        aggregate(_decision(), _people(*"abcde"), by=["team"], measures=measures)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([{"team": "red", "tokens": 1}], "CLIENT_ENTITY_MISSING"),
        ([*_people(*"abcde"), {"team": "red", "tokens": 1}], "CLIENT_ENTITY_MISSING"),
        ([{"subject_id": "a", "tokens": 1}], "CLIENT_COLUMN_MISSING"),
        (_people(*"abcde", tokens="7"), "CLIENT_UNCOUNTABLE"),
        (_people(*"abcde", tokens=True), "CLIENT_UNCOUNTABLE"),
        (_people(*"abcde", team=b"red"), "CLIENT_UNCOUNTABLE"),
        ([{"team": "red", "tokens": 1, "subject_id": b"a"}], "CLIENT_UNCOUNTABLE"),
        ([{"team": "red", "tokens": 1, "subject_id": [b"a"]}], "CLIENT_UNCOUNTABLE"),
    ],
)
def test_row_that_cannot_be_counted(rows: list[dict[str, Any]], reason: str) -> None:
    """A row that does not say whom it is about, or cannot be grouped or summed, keeps all in."""
    with pytest.raises(EnforcementError) as caught:
        aggregate(_decision(), rows, by=["team"], measures=TOKENS)

    assert reason == caught.value.reason


@pytest.mark.parametrize(
    ("values", "function", "expected"),
    [
        ([1, 2, 3, None, 4, 5], "count", 5),
        ([1, 2, 3, None, 4, 5], "sum", 15),
        ([1, 2, 3, None, 4, 5], "average", 3),
        ([1, 2, 2, None, 1, 1], "distinct", 2),
        ([None, None, 100, None, None], "sum", None),
        ([None, None, 100, None, None], "average", None),
        ([None, None, 100, None, None], "count", None),
        ([1, 2, 3, None, 4], "sum", None),
        ([None] * 5, "sum", None),
        ([None] * 5, "average", None),
        ([0.1] * 10, "sum", 1.0),
        ([Decimal("0.1")] * 10, "sum", Decimal("1.0")),
        ([Decimal("0.5"), 0.5, 1, 2, 3], "sum", 7.0),
        ([2**60, 1, 0, 0, 0], "sum", 2**60 + 1),
    ],
)
def test_measures(values: list[Any], function: Any, expected: Any) -> None:  # noqa: ANN401 - of any type
    """Measures leave nulls out, and are null where fewer than k people have a value; numbers add up exactly."""
    rows = [{"team": "red", "subject_id": f"p{n}", "tokens": value} for n, value in enumerate(values)]
    found = aggregate(_decision(), rows, by=["team"], measures={"m": (function, "tokens")})

    assert [{"team": "red", "m": expected}] == found


def test_without_a_minimum_every_group_leaves() -> None:
    """A decision without a minimum group may be aggregated too, and counts nobody."""
    rows = [{"team": "red", "tokens": 1}]

    assert [{"team": "red", "rows": 1, "tokens": 1}] == aggregate(_decision(k=0), rows, by=["team"], measures=TOKENS)
