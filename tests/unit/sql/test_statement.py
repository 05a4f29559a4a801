"""The SQL of plans: values are bound in order, names are quoted, and what cannot be said narrows or denies."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given, settings
from tests.planned import ABLE, NOW, SHOWN, THINGS, Line, planned, policies, question, snapshot_of

from gatebook.errors import InvalidRequestError, LimitExceededError
from gatebook.planning import plan, require_plannable
from gatebook.sql import compile as compiling
from gatebook.sql.dialects import DIALECTS, dialect_of
from gatebook.sql.statement import KeyPad
from gatebook.values import MaskKind, ObligationKind, Reason
from gatebook_client.dialects import DIALECTS as CLIENT_DIALECTS
from gatebook_client.fragments import read_fragment

ALLOW: Line = ("p", THINGS, "True", "allow")


@settings(max_examples=40, deadline=None)
@given(policies())
def test_the_client_reads_whatever_is_written(policy: list[Line]) -> None:
    """In each dialect the client knows every word of a plan, and its placeholders are numbered in their order."""
    snapshot = snapshot_of(policy)
    for dialect in DIALECTS:
        _, statement = planned(snapshot, SHOWN, dialect, allow_partial=True)
        read = 0
        for sql in filter(None, (*statement.columns.values(), statement.filter_sql)):
            read += len(read_fragment(sql, CLIENT_DIALECTS[dialect], read + 1).placeholders)
        assert len(statement.parameters) == read


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("text", ["' OR TRUE --", '" OR 1=1', "a\\' OR TRUE", "$1", ":p1", "?", "{}"])
def test_a_value_never_stands_in_the_sql(dialect: str, text: str) -> None:
    """Whatever a rule compares with is bound, in rows and in masks."""
    encoded = text.translate({ord(sign): f"%{ord(sign):02X}" for sign in "'\",:#%"})
    policy: list[Line] = [ALLOW, ("p2", f"{THINGS}.name", "True", f"constant:{encoded}")]
    snapshot = snapshot_of([*policy, ("p", THINGS, f"r.row.other == {text!r}", "deny")])
    decision, statement = planned(snapshot, ["name"], dialect)

    assert decision.allowed
    assert (text, text) == statement.parameters
    if text not in ("$1", ":p1", "?"):  # which stand there as placeholders
        assert text not in "".join((statement.filter_sql, *statement.columns.values()))


def test_a_key_is_named_and_never_sent() -> None:
    """A hash has two parameters that name the key, and none that holds it."""
    snapshot = snapshot_of([ALLOW, ("p2", f"{THINGS}.name", "True", "hash")])
    decision, statement = planned(snapshot, ["name"], "duckdb")
    key_id = decision.columns[0].masks[0].key_id

    assert (KeyPad(key_id, 0x5C), KeyPad(key_id, 0x36)) == statement.parameters


@pytest.mark.parametrize(
    "condition", ["regexMatch(r.row.name, '^a')", "r.row.amount % 2 == 1", "r.row.meta == r.row.meta.team"]
)
@pytest.mark.parametrize("effect", ["allow", "deny"])
def test_what_cannot_be_said_denies(condition: str, effect: str) -> None:
    """An allow that has no SQL allows nothing, and a deny that has none denies everything; the plan says why."""
    rules: list[Line] = [("p", THINGS, condition, effect)] + ([ALLOW] if effect == "deny" else [])
    decision, statement = planned(snapshot_of(rules), ["name"], "duckdb")

    assert (False, Reason.EVALUATION_ERROR) == (decision.allowed, decision.reason)
    assert "cannot be said in `duckdb`" in decision.message
    assert (None, {}) == (statement.filter, statement.columns)


def test_what_cannot_be_said_masks() -> None:
    """A mask whose condition has no SQL applies to every row, and the plan says why."""
    snapshot = snapshot_of([ALLOW, ("p2", f"{THINGS}.name", "regexMatch(r.row.name, '^a')", "nullify")])
    decision, statement = planned(snapshot, ["name"], "duckdb")

    assert decision.allowed
    assert {"name": "CAST(NULL AS TEXT)"} == statement.columns
    assert ("`regexMatch` of values of the row has no SQL",) == statement.narrowings


def test_a_mask_that_may_not_apply_satisfies_no_tag() -> None:
    """Where a tag demands a mask and the condition of the only one has no SQL, no row is returned."""
    rules: list[Line] = [ALLOW, ("p2", f"{THINGS}.mail", "regexMatch(r.row.name, '^a')", "redact")]
    decision, _ = planned(snapshot_of(rules), ["mail"], "duckdb")

    assert (False, Reason.EVALUATION_ERROR) == (decision.allowed, decision.reason)


@pytest.mark.parametrize("mask", ["custom:ours", "regex:(a|b)+:x"])
@pytest.mark.parametrize("dialect", ["postgres", "spark", "trino"])
def test_a_mask_without_sql_denies_its_column(dialect: str, mask: str) -> None:
    """A column whose mask a dialect cannot say is denied, also where the mask depends on the row."""
    for condition in ("True", "r.row.flag"):
        snapshot = snapshot_of([ALLOW, ("p2", f"{THINGS}.name", condition, mask)])
        decision, statement = planned(snapshot, ["name", "small"], dialect, allow_partial=True)
        assert [Reason.MASK_NOT_APPLICABLE, Reason.ALLOWED] == [outcome.reason for outcome in decision.columns]
        assert ["small"] == list(statement.columns)


def test_rows_are_filtered_only_by_who_declared_it() -> None:
    """An enforcer that did not declare row filters gets no plan that needs one, and others as ever."""
    snapshot = snapshot_of([("p", f"{THINGS}.name", "r.row.flag", "allow"), ("p", f"{THINGS}.small", "True", "allow")])
    less = msgspec.structs.replace(ABLE, supported_obligations=ABLE.supported_obligations - {ObligationKind.ROW_FILTER})
    reasons = {}
    for column in ("name", "small"):
        asked = question(snapshot, [column])
        request = msgspec.structs.replace(asked.request, enforcer=less)
        asked = msgspec.structs.replace(asked, asked=msgspec.structs.replace(asked.asked, request=request))
        decision, _ = plan(snapshot, asked, NOW, DIALECTS["duckdb"])
        reasons[column] = decision.reason

    assert {"name": Reason.OBLIGATION_NOT_SUPPORTED, "small": Reason.ALLOWED} == reasons


def test_partial_plans_null_what_a_row_does_not_show() -> None:
    """With allow_partial rows are kept that show any column, and the decision says by a mask what is null where."""
    snapshot = snapshot_of([("p", f"{THINGS}.name", "r.row.flag", "allow"), ("p", f"{THINGS}.small", "True", "allow")])
    whole, statement = planned(snapshot, ["name", "small"], "duckdb")
    assert statement.filter_sql == '"flag"'
    assert ObligationKind.ROW_FILTER in whole.must_apply

    partial, statement = planned(snapshot, ["name", "small"], "duckdb", allow_partial=True)
    assert statement.filter_sql == ""
    assert statement.columns == {
        "name": 'CASE WHEN COALESCE(NOT "flag", TRUE) THEN CAST(NULL AS TEXT) ELSE "name" END',
        "small": '"small"',
    }
    assert [(MaskKind.NULLIFY,), ()] == [tuple(mask.kind for mask in it.masks) for it in partial.columns]


def test_a_plan_has_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan with too many conditions is denied, and one of too much SQL refused; neither is cut."""
    many: list[Line] = [
        ("p", THINGS, " || ".join(f"r.row.small == {number + place}" for number in range(50)), "allow")
        for place in range(0, 2_000, 50)
    ]
    decision, _ = planned(snapshot_of(many), ["name"], "duckdb")
    assert (Reason.EVALUATION_ERROR, True) == (decision.reason, "ask for fewer columns" in decision.message)

    monkeypatch.setattr(compiling, "PARAMETERS_MAX", 1)
    with pytest.raises(LimitExceededError, match="at most 1 are written"):
        planned(snapshot_of([("p", THINGS, "r.row.small in (1, 2)", "allow")]), ["name"], "duckdb")


def test_refused_questions() -> None:
    """A plan is about all rows, and in a dialect that is known; the refusal names those that are."""
    snapshot = snapshot_of([ALLOW])
    with pytest.raises(InvalidRequestError, match=re.escape("access.row: a plan is about all rows")):
        require_plannable(snapshot, question(snapshot, ["name"], {"name": "a"}))
    with pytest.raises(InvalidRequestError, match="`duckdb`, `postgres`, `spark`, `trino`"):
        dialect_of("mysql")
