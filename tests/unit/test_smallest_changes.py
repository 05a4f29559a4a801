"""The smallest changes that would allow a denial: each kind where it is the smallest, and what the gate says of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from tests.serving import POLICIES

from gatebook.authorize import decide, question_of
from gatebook.policy.bundle import read_directory_folder, read_folder
from gatebook.policy.directory import load_directory
from gatebook.policy.policy_set import load
from gatebook.replay.again import Again
from gatebook.replay.changes import DECISIONS_MAX, Changes, smallest_changes
from gatebook.replay.repairs import Files
from gatebook.replay.world import Edit, EditKind, applied
from gatebook.revisions.validate import build_draft
from gatebook.values import AccessRequest, Enforcer, Entity, MaskKind, ObligationKind

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
ABLE = Enforcer("app", frozenset(MaskKind) - {MaskKind.UNSPECIFIED}, frozenset(ObligationKind))
WARD = {"ward": "w1"}
POLICY = read_folder(POLICIES / "clinic")
STAFF = read_directory_folder(POLICIES / "clinic" / "directory")
AS_CSV = b"""type,id,groups,ward,level:int
user,dina,role:staff role:nurse,w2,2
user,amara,role:staff,,
"""


def changes(
    subject: str,
    resource: str,
    purpose: str,
    *columns: str,
    policy: Mapping[str, bytes] = POLICY,
    directory: Mapping[str, bytes] = STAFF,
    **fields: Any,  # noqa: ANN401  # of the request
) -> Changes:
    """Returns the smallest changes that would allow a question about the clinic."""
    snapshot = build_draft(load(policy, "clinic"), "0" * 64, load_directory(directory))
    request = AccessRequest(Entity("user", subject), "read", resource, columns, purpose, enforcer=ABLE)
    question = question_of(snapshot, msgspec.structs.replace(request, **fields), caller="local")
    decision = decide(snapshot, question, NOW)
    return smallest_changes(snapshot, Again(question, decision, NOW), Files(policy, directory))


def kinds(found: Changes) -> list[list[str]]:
    """Returns the kinds of the edits of each change."""
    return [[edit.kind.name for edit in change.edits] for change in found.changes]


def test_a_circumstance_is_stated() -> None:
    """A nurse at the terminal of another ward states the ward of the row, and of her own."""
    found = changes("dina", "clinic.visits", "treatment", "complaint", context={"ward": "w2"}, row=WARD)

    assert kinds(found)[0] == ["STATE_CONTEXT"]
    assert found.changes[0].request.context == WARD
    assert found.changes[0].findings == ()


def test_what_a_caller_is_not_believed_is_not_told_to_state() -> None:
    """Where no source is believed about the ward, stating it would change nothing."""
    settings = POLICY["gatebook.yaml"].replace(b"  local: {context: [ward]}\n", b"")
    policy = {**POLICY, "gatebook.yaml": settings}
    found = changes("dina", "clinic.visits", "treatment", "complaint", policy=policy, row=WARD)

    assert "STATE_CONTEXT" not in {kind for some in kinds(found) for kind in some}


def test_a_deny_is_met_lifted_for_one_or_removed_in_this_order() -> None:
    """An attribute that the deny spares comes first, then a narrower deny, then none; a publish refuses them."""
    found = changes("amara", "clinic.visits", "treatment", "therapist_note", context=WARD, row=WARD)

    assert kinds(found) == [["SET_ATTRIBUTE"], ["NARROW_DENY"], ["REMOVE_DENY"]]
    assert '"specialty": "psychiatry"' in found.changes[0].edits[0].after
    assert [{one.invariant for one in change.findings} for change in found.changes] == [
        {"TEST_FAILED"},
        {"TEST_FAILED", "GUARDRAIL_REFUTED"},
        {"TEST_FAILED", "GUARDRAIL_REFUTED"},
    ]


def test_a_role_is_given() -> None:
    """Whoever lacks nothing but the role of a rule is given it."""
    found = changes("igor", "finance.invoices", "billing", "amount")

    assert kinds(found) == [["GIVE_ROLE"], ["ADD_GRANT"]]
    assert found.changes[0].edits[0] == Edit(
        EditKind.GIVE_ROLE,
        "give `igor` `role:billing`",
        "staff.jsonl",
        9,
        '{"type": "user", "id": "igor", "attributes": {}, "groups": ["role:staff"]}',
        '{"type": "user", "id": "igor", "attributes": {}, "groups": ["role:staff", "role:billing"]}',
        in_directory=True,
    )


def test_a_purpose_that_one_has_is_named() -> None:
    """Who reads for another purpose than the one that was named names that."""
    found = changes("flora", "finance.invoices", "own_records", "amount", row={"patient_id": "igor"})

    assert kinds(found)[0] == ["NAME_PURPOSE"]
    assert found.changes[0].request.purpose == "billing"


def test_obligations_are_declared_and_no_more_than_are_needed() -> None:
    """An enforcer that declared nothing declares the mask that it meets."""
    found = changes("dina", "clinic.visits", "treatment", "complaint", context=WARD, row=WARD, enforcer=Enforcer("app"))
    [change] = found.changes

    assert kinds(found) == [["DECLARE_OBLIGATIONS"]]
    assert change.request.enforcer.supported_masks == {MaskKind.REDACT}
    assert change.request.enforcer.supported_obligations == {ObligationKind.MASKS}


def test_a_mask_is_given_where_a_tag_demands_one() -> None:
    """A physician reads results that no rule masks: one line gives the strictest mask."""
    policy = {**POLICY, "policy.csv": POLICY["policy.csv"].replace(b"p2, role:physician, tag:health, read", b"# p2")}
    found = changes("boris", "clinic.lab_results", "treatment", "result", policy=policy)

    assert kinds(found)[0] == ["ADD_MASK"]
    assert found.changes[0].edits[0].after.startswith("p2, role:physician, clinic.lab_results.result, read, treatment")


def test_a_notice_permits_a_purpose_and_the_file_says_so() -> None:
    """Where a dataset lacks the purpose that its notice permits, one line of the catalogue changes."""
    rules = POLICY["policy.csv"] + b"p, role:billing, clinic.visits.ward, read, billing, True, allow\n"
    catalogue = POLICY["catalogue.yaml"].replace(b"role:nurse]", b"role:nurse, role:billing]")
    policy = {**POLICY, "policy.csv": rules, "catalogue.yaml": catalogue}
    found = changes("flora", "clinic.visits", "billing", "ward", policy=policy)
    permitted = [change for change in found.changes if change.edits[0].kind is EditKind.PERMIT_PURPOSE]

    assert [edit.after.strip() for change in permitted for edit in change.edits] == [
        "purposes: [treatment, own_records, billing]"
    ]


def test_columns_that_are_denied_are_left_out() -> None:
    """Of several columns those that are allowed are asked for."""
    found = changes("dina", "clinic.visits", "treatment", "complaint", "therapist_note", context=WARD, row=WARD)

    assert kinds(found)[0] == ["LEAVE_OUT_COLUMNS"]
    assert found.changes[0].request.columns == ("complaint",)


def test_several_edits_are_told_where_one_is_not_enough() -> None:
    """A nurse without a ward, by an enforcer that declared nothing, needs two edits, and nothing of one is told."""
    found = changes("emil", "clinic.visits", "treatment", "complaint", context=WARD, row=WARD, enforcer=Enforcer("app"))

    assert {len(some) for some in kinds(found)} == {2}
    assert {"SET_ATTRIBUTE", "DECLARE_OBLIGATIONS"} in [set(some) for some in kinds(found)]


def test_what_a_ceiling_would_refuse_is_marked() -> None:
    """A grant to somebody beyond the ceiling is told with the finding of the gate."""
    found = changes("goran", "clinic.lab_results", "treatment", "sample_id", action="export")

    assert kinds(found) == [["ADD_GRANT"]]
    assert {one.invariant for one in found.changes[0].findings} == {
        "AUDIENCE_CEILING",
        "AUDIENCE_HEAD_COUNT",
        "GUARDRAIL_REFUTED",
    }


def test_a_directory_of_commas_is_edited_too() -> None:
    """The line of a CSV file gets the role in its cell."""
    files = {"staff.csv": AS_CSV}
    found = changes("amara", "finance.invoices", "billing", "amount", directory=files)

    assert [change.edits[0].after for change in found.changes][:1] == ["user,amara,role:staff role:billing,,"]


@pytest.mark.parametrize(
    ("subject", "resource", "purpose", "told"),
    [
        ("nobody", "clinic.visits", "treatment", "the directory does not know the subject"),
        ("goran", "clinic.nothing", "treatment", "the catalogue does not have the dataset"),
    ],
)
def test_what_no_edit_allows_is_said(subject: str, resource: str, purpose: str, told: str) -> None:
    """Whom or what the set does not know, no change of this kind lets in, and that is said."""
    found = changes(subject, resource, purpose)

    assert found.changes == ()
    assert told in found.left_out[0]


def test_the_search_is_bounded() -> None:
    """Where time is over, no more is tried, and it is said that there may be others."""
    snapshot = build_draft(load(POLICY, "clinic"), "0" * 64, load_directory(STAFF))
    request = AccessRequest(Entity("user", "igor"), "read", "finance.invoices", ("amount",), "billing", enforcer=ABLE)
    question = question_of(snapshot, request, caller="local")
    ticks = iter(range(0, 1_000_000, 10))
    again = Again(question, decide(snapshot, question, NOW), NOW)
    found = smallest_changes(snapshot, again, Files(POLICY, STAFF), clock=lambda: next(ticks))

    assert found.changes == ()
    assert f"no more than {DECISIONS_MAX} were tried" in found.left_out[0]


def test_edits_of_files_are_made_line_by_line() -> None:
    """A line is replaced or emptied where it stands, whatever ends lines, and what is appended is a line of its own."""
    files = {"a.csv": b"one\r\ntwo\r\nthree"}
    edits = (
        Edit(EditKind.ADD_GRANT, "", "a.csv", 0, "", "four"),
        Edit(EditKind.REMOVE_DENY, "", "a.csv", 2, "two", ""),
        Edit(EditKind.NARROW_DENY, "", "a.csv", 1, "one", "1"),
    )

    assert applied(files, edits) == {"a.csv": b"1\r\n\r\nthree\nfour\n"}
