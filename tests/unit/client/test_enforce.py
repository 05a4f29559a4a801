"""What leaves of rows, and above all what does not."""

from __future__ import annotations

import copy
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from ruamel.yaml import YAML

from gatebook.v1 import types_pb2
from gatebook_client.enforce import enforce, is_same_row, supported_masks, supported_obligations
from gatebook_client.groups import aggregate
from gatebook_client.refusal import EnforcementError

CASES: dict[str, Any] = YAML(typ="safe").load(Path(__file__).parents[2] / "cases" / "enforce_fail_closed.yaml")
ROW: dict[str, Any] = CASES["row"]
KEYS = {"telemetry/model_training/0a1b2c3d": bytes(range(32))}
ALLOWED = {"effect": "EFFECT_ALLOW", "reason": "REASON_CODE_ALLOWED"}


class Wrapper:
    """A decision as the connection returns it, with its own view of whether it still holds."""

    def __init__(
        self,
        raw: types_pb2.Decision,
        *,
        allowed: bool,
        reason: str = "CLIENT_EXPIRED",
        asked_row: dict[str, Any] | None = None,
    ) -> None:
        """Takes the message and the view."""
        self.asked_row = asked_row
        self.raw = raw
        self.allowed = allowed
        self.reason = reason


def _decision(**change: Any) -> types_pb2.Decision:  # noqa: ANN401 - fields of any type
    fields = copy.deepcopy(CASES["good"])
    fields.update(change)
    decision = types_pb2.Decision()
    json_format.ParseDict({name: value for name, value in fields.items() if value is not None}, decision)
    return decision


def test_good_decision_lets_out_what_it_allows() -> None:
    """Allowed columns leave masked; withheld columns and columns that nobody asked for do not."""
    assert [CASES["left"]] == enforce(_decision(), [ROW], keys=KEYS)


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: case["name"])
def test_nothing_leaves_in_doubt(case: dict[str, Any]) -> None:
    """What this client cannot or must not apply raises, and names no value of the row."""
    with pytest.raises(EnforcementError) as caught:
        enforce(_decision(**case["change"]), [ROW], keys=KEYS)

    assert (case["reason"], False) == (caught.value.reason, "Secret" in str(caught.value))


@pytest.mark.parametrize(
    "case", [case for case in CASES["cases"] if case["name"] != "minimum group"], ids=lambda case: case["name"]
)
def test_no_group_leaves_in_doubt(case: dict[str, Any]) -> None:
    """What keeps rows in keeps groups in."""
    with pytest.raises(EnforcementError):
        aggregate(
            _decision(**case["change"]),
            [ROW],
            by=[],
            measures={"keys": ("count", "key_text"), "secure": ("count", "is_secure_field")},
            keys=KEYS,
        )


@pytest.mark.parametrize("allowed", [False, None, 1, "yes"])
def test_wrapper_that_is_not_true_lets_nothing_out(allowed: Any) -> None:  # noqa: ANN401 - of any type
    """A wrapped decision counts only while it says True, whatever the message says."""
    with pytest.raises(EnforcementError, match="CLIENT_EXPIRED"):
        enforce(Wrapper(_decision(), allowed=allowed), [ROW])


def test_wrapper_of_a_denial_lets_nothing_out() -> None:
    """A wrapped denial stays one, whatever the wrapper says."""
    with pytest.raises(EnforcementError):
        enforce(Wrapper(_decision(effect="EFFECT_DENY"), allowed=True), [ROW])


def test_wrapper_that_holds_lets_out_what_it_allows() -> None:
    """A wrapped decision expires by its own clock, not by the message's time."""
    decision = _decision(expires_time="2026-01-01T00:00:00Z")

    assert [CASES["left"]] == enforce(Wrapper(decision, allowed=True), [ROW])


def test_plain_set_lets_the_whole_row_out() -> None:
    """A decision of a plain set knows no columns and covers the row."""
    decision = _decision(columns=None, must_apply=None, directory_revision=None)

    assert [ROW] == enforce(decision, [ROW])


def test_missing_column_stays_missing() -> None:
    """A column that the row lacks is not made up."""
    assert [{"key_text": "Xx"}] == enforce(_decision(), [{"key_text": "Ab"}])


@pytest.mark.parametrize(
    ("secure", "expected"),
    [(True, None), (False, "Xxxxxx"), (None, None), ("no", None), (0, None)],
)
def test_at_05_unknown_condition_masks(secure: Any, expected: str | None) -> None:  # noqa: ANN401 - of any type
    """AT-05: `key_text` is null where `is_secure_field` is true, and where that is null or of another type."""
    condition = {
        "call": {
            "op": "eq",
            "operands": [{"path": {"names": ["row", "is_secure_field"]}}, {"literal": {"bool_value": True}}],
        }
    }
    masks = [{"kind": "MASK_KIND_NULLIFY", "condition": condition}, {"kind": "MASK_KIND_REDACT"}]
    decision = _decision(columns=[{"column": "key_text", **ALLOWED, "masks": masks}])

    assert [{"key_text": expected}] == enforce(decision, [{**ROW, "is_secure_field": secure}])


def test_condition_on_a_column_that_was_not_read_masks() -> None:
    """Where a condition speaks of a column that the row lacks, the mask applies."""
    condition = {"call": {"op": "not", "operands": [{"path": {"names": ["row", "absent"]}}]}}
    masks = [{"kind": "MASK_KIND_NULLIFY", "condition": condition}]
    decision = _decision(columns=[{"column": "key_text", **ALLOWED, "masks": masks}])

    assert [{"key_text": None}] == enforce(decision, [ROW])


def test_one_bad_row_keeps_all_in() -> None:
    """When one value cannot be masked no row leaves, and the error names the column."""
    with pytest.raises(EnforcementError, match="column `key_text`"):
        enforce(_decision(), [ROW, {**ROW, "key_text": 42}])


def test_rows_are_not_changed() -> None:
    """Enforcement returns new rows and leaves the given ones as they are."""
    row = copy.deepcopy(ROW)
    enforce(_decision(), [row])

    assert row == ROW


def test_declared_abilities() -> None:
    """The client declares every mask but custom ones, and masks and minimum groups alone."""
    masks = frozenset(types_pb2.MaskKind.values()) - {types_pb2.MASK_KIND_UNSPECIFIED, types_pb2.MASK_KIND_CUSTOM}
    obligations = frozenset({types_pb2.OBLIGATION_KIND_MASKS, types_pb2.OBLIGATION_KIND_MINIMUM_GROUP})

    assert (masks, obligations) == (supported_masks(), supported_obligations())


ABOUT_ONE = {"row_filter": {"kind": "ROW_FILTER_KIND_ASKED_ROW"}}
ASKED = {"id": "6F9619FF-8B86-D011-B42D-00CF4FC964FF", "cost": 1.5, "at": "2026-06-18T09:00:00Z", "note": None}
STORED = {
    "id": uuid.UUID("6f9619ff-8b86-d011-b42d-00cf4fc964ff"),
    "cost": Decimal("1.50"),
    "at": datetime(2026, 6, 18, 9, tzinfo=UTC),
    "note": None,
}


def test_an_answer_about_one_row_lets_that_row_out() -> None:
    """The row that was asked about leaves, also where the store has types of its own."""
    decision = Wrapper(_decision(**ABOUT_ONE), allowed=True, asked_row=ROW)

    assert [CASES["left"]] == enforce(decision, [ROW], keys=KEYS)
    assert is_same_row(STORED, ASKED)


@pytest.mark.parametrize(
    "other",
    [
        {"id": uuid.UUID(int=1)},
        {"cost": Decimal("1.51")},
        {"at": datetime(2026, 6, 18, 10, tzinfo=UTC)},
        {"note": "x"},
        {"more": 1},
        {"id": None},
        {"cost": True},
        {"cost": object()},
    ],
)
def test_an_answer_about_one_row_is_about_no_other(other: dict[str, Any]) -> None:
    """A row with another value, or with one that was not asked about, is another row."""
    assert not is_same_row({**STORED, **other}, ASKED)


def test_another_row_stays() -> None:
    """A row that was not asked about does not leave, and a message alone does not say which was."""
    decision = Wrapper(_decision(**ABOUT_ONE), allowed=True, asked_row={**ROW, "key_text": "another"})

    with pytest.raises(EnforcementError, match="CLIENT_OTHER_ROW"):
        enforce(decision, [ROW], keys=KEYS)
    with pytest.raises(EnforcementError, match="CLIENT_ROW_FILTER"):
        enforce(_decision(**ABOUT_ONE), [ROW], keys=KEYS)
    with pytest.raises(EnforcementError, match="CLIENT_ROW_FILTER"):
        enforce(Wrapper(_decision(), allowed=True, asked_row=ROW), [ROW], keys=KEYS)
