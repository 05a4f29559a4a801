"""What differs between an entry and what deciding again gives is named, field by field."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.serving import POLICIES

from gatebook.engine.snapshot import Snapshot
from gatebook.policy.bundle import read_directory_folder, read_folder
from gatebook.policy.directory import load_directory
from gatebook.policy.policy_set import load
from gatebook.replay.again import decide_again
from gatebook.replay.asked_then import AskedThen
from gatebook.replay.compare import as_written
from gatebook.revisions.active import Past
from gatebook.revisions.validate import build_draft
from gatebook.v1 import entry_pb2, types_pb2
from gatebook.values import AccessRequest, Enforcer, Entity, MaskKind, ObligationKind

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
ABLE = Enforcer("app", frozenset(MaskKind) - {MaskKind.UNSPECIFIED}, frozenset(ObligationKind))
DINA = AccessRequest(
    subject=Entity("user", "dina"),
    action="read",
    resource="clinic.visits",
    columns=("ward", "complaint"),
    purpose="treatment",
    context={"ward": "w1"},
    row={"ward": "w1", "patient_id": "p-1"},
    enforcer=ABLE,
)


@pytest.fixture(scope="module")
def clinic() -> Snapshot:
    """The clinic with its staff."""
    files = read_folder(POLICIES / "clinic")
    policy_set = load(files, "clinic")
    return build_draft(policy_set, "0" * 64, load_directory(read_directory_folder(POLICIES / "clinic" / "directory")))


def asked(snapshot: Snapshot, request: AccessRequest) -> AskedThen:
    """Returns a question as the book would have it."""
    return AskedThen(request, "local", NOW, Past("clinic", snapshot.policy_revision, snapshot.directory_revision))


def written(snapshot: Snapshot, request: AccessRequest) -> entry_pb2.DecisionEntry:
    """Returns what the book would say."""
    return as_written(request, decide_again(snapshot, asked(snapshot, request), entry_pb2.DecisionEntry()).decision)


def test_what_is_written_comes_out_again(clinic: Snapshot) -> None:
    """The same question under the same snapshot differs in nothing."""
    assert decide_again(clinic, asked(clinic, DINA), written(clinic, DINA)).differences == ()


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("effect", lambda entry: setattr(entry, "effect", types_pb2.EFFECT_DENY)),
        ("reason", lambda entry: setattr(entry, "reason", types_pb2.REASON_CODE_DENIED_BY_RULE)),
        ("notice_id", lambda entry: entry.ClearField("notice_id")),
        ("columns[1].masks", lambda entry: entry.columns[1].ClearField("masks")),
        ("columns[0].reason", lambda entry: setattr(entry.columns[0], "reason", 5)),
        ("columns", lambda entry: entry.columns.pop()),
        ("rules[0].line", lambda entry: setattr(entry.rules[0], "line", 4711)),
        ("must_apply", lambda entry: entry.ClearField("must_apply")),
        ("policy_revision.number", lambda entry: setattr(entry.policy_revision, "number", 9)),
        ("directory_revision", lambda entry: entry.ClearField("directory_revision")),
        ("minimum_group", lambda entry: setattr(entry.minimum_group, "k", 5)),
        ("expires_time", lambda entry: setattr(entry.expires_time, "seconds", 1)),
        ("resource_id", lambda entry: setattr(entry, "resource_id", "clinic.lab_results")),
    ],
)
def test_each_field_that_differs_is_named(clinic: Snapshot, field: str, change: object) -> None:
    """Whatever an entry says otherwise is named, with what is written and what comes out; nothing else is."""
    entry = written(clinic, DINA)
    assert callable(change)
    change(entry)
    found = decide_again(clinic, asked(clinic, DINA), entry).differences

    assert [one.field for one in found] == [field]
    assert found[0].written != found[0].replayed


def test_ids_and_pseudonyms_are_not_compared(clinic: Snapshot) -> None:
    """What an entry has by chance differs each time, and says nothing."""
    entry = written(clinic, DINA)
    entry.decision_id, entry.subject_pseudonym, entry.trace_id = "f" * 32, b"p" * 16, b"t" * 16
    entry.data_subject_pseudonyms.append(b"d" * 16)

    assert decide_again(clinic, asked(clinic, DINA), entry).differences == ()
