"""The client believes an allow only when nothing about it is in doubt."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.client_cases import TABLE, answer, asked

from gatebook.v1 import types_pb2
from gatebook_client.decision import LOCAL_MESSAGES, Decision, clock, denied_by, read_decision
from gatebook_client.doubts import DOUBTS
from gatebook_client.errors import UnavailableError


def decision(change: Mapping[str, Any] | None = None, question: Mapping[str, Any] | None = None) -> Decision:
    """Returns what the client makes of it."""
    return read_decision(answer(change), asked(question))


def test_an_allow_beyond_doubt_is_believed() -> None:
    """The good answer of the table is an allow, and truthy."""
    found = decision()

    assert (True, True, "ALLOWED") == (found.allowed, bool(found), found.reason)


@pytest.mark.parametrize("case", TABLE["cases"], ids=lambda case: case["name"])
def test_what_leaves_a_doubt_is_denied(case: dict[str, Any]) -> None:
    """Every case of the table is a denial with its local reason, and falsy."""
    found = decision(case.get("change"), case.get("asked"))

    assert (False, False, case["reason"]) == (found.allowed, bool(found), found.reason)
    assert () == found.allowed_columns
    assert LOCAL_MESSAGES[case["reason"]] == found.message


def test_every_doubt_has_a_case() -> None:
    """No doubt is left untested, and every local reason has a message."""
    reasons = {reason for reason, _ in DOUBTS}

    assert reasons == {case["reason"] for case in TABLE["cases"]}
    assert reasons == set(LOCAL_MESSAGES)


@given(st.binary(max_size=200))
def test_random_bytes_are_never_an_allow(data: bytes) -> None:
    """Whatever parses as a decision from random bytes is denied."""
    message = types_pb2.Decision()
    try:
        message.ParseFromString(data)
    except Exception:  # noqa: BLE001  # any failure to parse is as good
        return

    assert not read_decision(message, asked())


@given(st.data())
def test_an_allow_that_loses_any_part_it_needs_is_denied(data: st.DataObject) -> None:
    """Clearing any field of the good answer denies it, but for those that only inform."""
    informing = {"message", "directory_revision"}
    name = data.draw(st.sampled_from([f.name for f, _ in answer().ListFields() if f.name not in informing]))
    message = answer()
    message.ClearField(cast("Any", name))

    assert not read_decision(message, asked())


@pytest.mark.parametrize("effect", [types_pb2.EFFECT_DENY, types_pb2.EFFECT_UNSPECIFIED, 99])
def test_nothing_but_an_allow_allows(effect: types_pb2.Effect.ValueType) -> None:
    """Any other effect is a denial, whatever else the answer says."""
    message = answer()
    message.effect = effect

    assert not read_decision(message, asked())


def test_a_denial_keeps_the_reason_of_the_service() -> None:
    """A denial passes through with its reason and message, even without a receipt."""
    found = decision({"effect": "EFFECT_DENY", "reason": "REASON_CODE_PURPOSE_NOT_GRANTED", "receipt": None})

    assert ("PURPOSE_NOT_GRANTED", "every step passed") == (found.reason, found.message)


def test_a_denial_for_a_reason_of_a_later_version_is_a_denial() -> None:
    """An unknown reason of a denial has a name that shows its number."""
    assert "UNKNOWN_99" == decision({"effect": "EFFECT_DENY", "reason": 99}).reason


def test_an_allow_expires_by_itself() -> None:
    """A decision that was an allow turns falsy when its lifetime, counted from the question, is over."""
    lifetime_seconds = 300.0
    fresh = read_decision(answer(), asked(sent_clock=clock() - lifetime_seconds + 60))
    stale = read_decision(answer(), asked(sent_clock=clock() - lifetime_seconds))

    assert fresh
    assert (False, "CLIENT_EXPIRED", ()) == (stale.allowed, stale.reason, stale.allowed_columns)


def test_a_partial_allow_names_what_is_withheld() -> None:
    """With `allow_partial` the allowed columns are allowed and the others named."""
    denied = {"column": "response_text", "effect": "EFFECT_DENY", "reason": "REASON_CODE_DENIED_BY_RULE"}
    found = decision({"columns": [TABLE["good"]["columns"][0], denied]}, {"allow_partial": True})

    assert (("prompt_text",), ("response_text",)) == (found.allowed_columns, found.withheld_columns)
    assert "DENIED_BY_RULE" == found.columns[1].reason


def test_columns_of_a_denial_are_not_allowed() -> None:
    """A column that would be allowed by itself is not in a denial of the whole."""
    found = decision({"effect": "EFFECT_DENY", "reason": "REASON_CODE_COLUMN_DENIED"})

    assert (False, False) == tuple(column.allowed for column in found.columns)


def test_the_parts_of_a_decision_are_typed_values() -> None:
    """Columns, masks, groups, revisions and the receipt are read without knowledge of protobuf."""
    found = decision()

    assert ("MASKS", "MINIMUM_GROUP") == found.must_apply
    assert {"prompt_text": ("REDACT",), "response_text": ("NONE",)} == {
        name: tuple(mask.kind for mask in masks) for name, masks in found.masks.items()
    }
    assert found.minimum_group is not None
    assert (5, ("employee_id",)) == (found.minimum_group.k, found.minimum_group.entity_columns)
    assert found.receipt is not None
    assert ("book.example/gatebook", 7) == (found.receipt.origin, found.receipt.index)
    assert found.policy_revision is not None
    assert 3 == found.policy_revision.number


def test_a_decision_cannot_be_changed() -> None:
    """A decision is frozen, so that nobody turns a denial into an allow by accident."""
    found = decision({"effect": "EFFECT_DENY"})

    with pytest.raises(dataclasses.FrozenInstanceError):
        found._local_reason = ""  # type: ignore[misc]  # the refusal is what is tested


def test_an_error_stands_for_a_denial() -> None:
    """The decision of an error is falsy and carries the error."""
    error = UnavailableError("nobody answers", reason="UNREACHABLE")
    found = denied_by(error)

    assert (False, "UNREACHABLE", error) == (bool(found), found.reason, found.error)


def test_nothing_about_people_is_in_the_repr() -> None:
    """The repr is fit for a log."""
    assert "<Decision allowed ALLOWED d-1>" == repr(decision())
