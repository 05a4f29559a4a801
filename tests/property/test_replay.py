"""Random decisions of random sets are the same when decided again, and each change told allows what was denied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property.whole_sets import (
    ACTIONS,
    CALLERS,
    PURPOSE_NAMES,
    directories,
    files_of,
    policies,
)

from gatebook import authorize
from gatebook.compiler.program import Program
from gatebook.engine.reference import Reference
from gatebook.engine.snapshot import Snapshot
from gatebook.engine.verdict import ColumnVerdict
from gatebook.policy.directory import load_directory
from gatebook.policy.policy_set import load
from gatebook.replay.again import decide_again
from gatebook.replay.asked_then import AskedThen
from gatebook.replay.changes import smallest_changes
from gatebook.replay.compare import as_written
from gatebook.replay.repairs import Files
from gatebook.replay.world import applied
from gatebook.revisions.active import Past
from gatebook.revisions.validate import build_draft
from gatebook.values import AccessRequest, Decision, Enforcer, Entity, MaskKind, ObligationKind

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
ABLE = Enforcer("app", frozenset(MaskKind) - {MaskKind.UNSPECIFIED}, frozenset(ObligationKind))


@contextmanager
def by_reference(snapshot: Snapshot) -> Iterator[None]:
    """Has the rules asked one by one, as the definition does."""
    reference = Reference(snapshot.policy_set, snapshot.directory)

    def evaluate_columns(_program: Program, **facts: Any) -> tuple[ColumnVerdict, ...]:  # noqa: ANN401  # of a request
        return reference.evaluate_columns(**facts)

    with mock.patch.object(authorize, "evaluate_columns", evaluate_columns):
        yield


def decided(policy: Mapping[str, bytes], people: Mapping[str, bytes], request: AccessRequest, caller: str) -> Decision:
    """Decides under files, by the definition."""
    snapshot = build_draft(load(policy, "whole", accepted=True), "0" * 64, load_directory(people))
    question = authorize.question_of(snapshot, request, caller=caller)
    with by_reference(snapshot):
        return authorize.decide(snapshot, question, NOW)


@st.composite
def requests(draw: st.DrawFn) -> AccessRequest:
    """Draws a request that a set of these knows, or nearly."""
    dataset = draw(st.sampled_from(("t.rows", "t.rows", "t.sums")))
    columns = ("who", "team", "level", "active") if dataset == "t.rows" else ("team", "level")
    row = {"who": draw(st.sampled_from(("ana", "ben"))), "team": "x", "level": draw(st.integers(0, 3)), "active": True}
    return AccessRequest(
        subject=Entity("user", draw(st.sampled_from(("ana", "ben", "chidi", "nobody")))),
        action=draw(st.sampled_from((*ACTIONS, "read"))),
        resource=dataset,
        columns=tuple(draw(st.lists(st.sampled_from(columns), unique=True, max_size=2))),
        purpose=draw(st.sampled_from(PURPOSE_NAMES)),
        context=draw(st.sampled_from(({}, {"net": "corp"}, {"net": "home", "shift": 2}))),
        row=draw(st.sampled_from((None, row))) if dataset == "t.rows" else None,
        enforcer=draw(st.sampled_from((ABLE, ABLE, Enforcer()))),
        allow_partial=draw(st.booleans()),
    )


@settings(max_examples=40)
@given(policies(), directories(), requests(), st.sampled_from(CALLERS))
def test_replays_are_equal_and_changes_allow(policy: str, people: bytes, request: AccessRequest, caller: str) -> None:
    """Deciding again gives what the definition gave; each change, made in the files, allows by the definition.

    No change is told of which fewer of its edits allow already.
    """
    files, directory = files_of(policy), {"people.jsonl": people}
    snapshot = build_draft(load(files, "whole", accepted=True), "0" * 64, load_directory(directory))
    past = Past("whole", snapshot.policy_revision, snapshot.directory_revision)
    written = as_written(request, decided(files, directory, request, caller))
    again = decide_again(snapshot, AskedThen(request, caller, NOW, past), written)
    found = smallest_changes(snapshot, again, Files(files, directory))

    assert again.differences == ()
    for change in found.changes:
        rules = [edit for edit in change.edits if edit.file and not edit.in_directory]
        subjects = [edit for edit in change.edits if edit.in_directory]
        made = decided(applied(files, rules), applied(directory, subjects), change.request, caller)
        assert made.allowed, (change, made.outcome)
        for edit in change.edits:
            some = [one for one in change.edits if one is not edit and one.file]
            if edit.file and not any(one.line == edit.line and one.in_directory == edit.in_directory for one in some):
                fewer = decided(
                    applied(files, [one for one in some if not one.in_directory]),
                    applied(directory, [one for one in some if one.in_directory]),
                    change.request,
                    caller,
                )
                assert not fewer.allowed, (change, edit)
