"""The known entities of a plain set: which files are accepted, and what they change in decisions."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gatebook.authorize import decide, question_of
from gatebook.errors import PolicySetRefusedError
from gatebook.policy import bundle
from gatebook.policy.policy_set import load
from gatebook.revisions.validate import build_draft
from gatebook.values import AccessRequest, Entity, Reason

RECORDS = bundle.read_folder(Path(__file__).parents[3] / "policies" / "records")
NOW = datetime(2026, 6, 1, tzinfo=UTC)
USERS, RESOURCES = "directory/users.jsonl", "resources/records.jsonl"

REFUSED: dict[str, tuple[str, str]] = {
    "a byte that is no UTF-8": ("\udcff", "1:1 NOT_UTF8"),
    "no JSON": ('{"type": "user",}', "1:17 JSON_SYNTAX"),
    "no object": ('["user"]', "1:1 WRONG_VALUE"),
    "nothing named": ('{"type": "user"}', "1:1 MISSING_KEY"),
    "an id that is a number": ('{"type": "user", "id": 7}', "1:18 MISSING_KEY"),
    "a type that is no word": ('{"type": "a b", "id": "x"}', "1:2 MALFORMED_NAME"),
    "an invisible character": ('{"type": "user", "id": "a\\u200bb"}', "1:18 MALFORMED_NAME"),
    "a misspelt key": ('{"type": "user", "id": "x", "propertys": {}}', "1:29 UNKNOWN_KEY"),
    "a key twice": ('{"type": "user", "id": "x", "id": "y"}', "1:29 DUPLICATE_KEY"),
    "a property twice": ('{"type": "user", "id": "x", "properties": {"a": 1, "a": 2}}', "1:52 DUPLICATE_KEY"),
    "properties that are a list": ('{"type": "user", "id": "x", "properties": []}', "1:29 WRONG_VALUE"),
    "a property that hides the type": (
        '{"type": "user", "id": "x", "properties": {"type": "y"}}',
        "1:44 NODE_COLLISION",
    ),
    "an integer beyond 64 bits": (f'{{"type": "user", "id": "x", "properties": {{"n": {2**63}}}}}', "1:44 WRONG_VALUE"),
    "no number": ('{"type": "user", "id": "x", "properties": {"n": NaN}}', "1:1 WRONG_VALUE"),
    "half a character": ('{"type": "user", "id": "x", "properties": {"n": "\\ud800"}}', "1:44 WRONG_VALUE"),
    "too deep": ('{"type": "user", "id": "x", "properties": {"n": ' + "[" * 9 + "]" * 9 + "}}", "1:44 WRONG_VALUE"),
    "one user twice": ('{"type": "user", "id": "x"}\n{"type": "user", "id": "x"}', "2:1 DUPLICATE_NAME"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_malformed_entities_are_refused_where_they_stand(name: str) -> None:
    """A set with a malformed entity is refused as a whole, and the finding points at it."""
    text, expected = REFUSED[name]

    with pytest.raises(PolicySetRefusedError) as refused:
        load({**RECORDS, USERS: text.encode(errors="surrogateescape")}, "records")

    assert [expected] == [f"{f.line}:{f.column} {f.invariant}" for f in refused.value.findings if f.file == USERS]


def test_every_finding_is_reported_at_once() -> None:
    """Both kinds of files are read to their ends before the set is refused."""
    files = {**RECORDS, USERS: b'{"id": "x"}\n{"type": "user"}\n', RESOURCES: b"{}\n"}

    with pytest.raises(PolicySetRefusedError) as refused:
        load(files, "records")

    assert [(USERS, 1), (USERS, 2), (RESOURCES, 1)] == [(f.file, f.line) for f in refused.value.findings]


def test_a_governed_set_has_its_directory_elsewhere() -> None:
    """A set with a catalogue that brings a directory of its own is refused, and told where to publish it."""
    with pytest.raises(PolicySetRefusedError) as refused:
        load({**RECORDS, "catalogue.yaml": b"", RESOURCES: b""}, "records")

    wrong = {f.file: f.message for f in refused.value.findings if f.invariant == "UNKNOWN_FILE"}

    assert {USERS, RESOURCES} == set(wrong)
    assert "gatebook directory publish" in wrong[USERS]


def test_a_type_and_id_name_one_entity() -> None:
    """The same id may stand under two types; without a type, an id that stands once is found."""
    text = b'{"type": "user", "id": "x"}\n{"type": "agent", "id": "x"}\n{"type": "agent", "id": "y"}\n'

    subjects = load({**RECORDS, USERS: text}, "records").subjects

    assert subjects is not None
    assert [("agent", ["x", "y"]), ("user", ["x"])] == [(t, list(ids)) for t, ids in subjects.by_type.items()]
    assert subjects.find("", "x") is None
    assert subjects.find("user", "y") is None
    assert subjects.find("", "y") == subjects.find("agent", "y")


BELIEVING = b"name: records\nattribute_sources:\n  pep: {subject: [role]}\n"


@pytest.mark.parametrize(
    ("caller", "settings", "expected"),
    [
        ("pep", b"name: records\n", Reason.EVALUATION_ERROR),
        ("other", BELIEVING, Reason.EVALUATION_ERROR),
        ("pep", BELIEVING, Reason.ALLOWED),
    ],
)
def test_a_claimed_property_counts_only_from_its_named_source(caller: str, settings: bytes, expected: Reason) -> None:
    """What a caller says of a known subject counts only where `gatebook.yaml` names the caller for it."""
    files = {path: content for path, content in RECORDS.items() if not path.startswith("tests/")}
    snapshot = build_draft(load({**files, "gatebook.yaml": settings}, "records"), "", None)
    request = AccessRequest(
        subject=Entity("user", "alice", {"role": "admin"}), action="write", resource="record-2", resource_type="record"
    )

    decision = decide(snapshot, question_of(snapshot, request, caller=caller), NOW)

    assert expected == decision.reason


@pytest.mark.parametrize(
    "changed",
    [
        {"subject": Entity("user", "mallory", {"role": "admin"})},
        {"subject": Entity("agent", "alice")},
        {"actor": Entity("user", "mallory")},
        {"resource": "record-3", "resource_properties": {"status": "active"}},
        {"resource_type": "report"},
    ],
    ids=str,
)
def test_what_the_set_does_not_know_is_denied(changed: dict[str, Any]) -> None:
    """A name that is not in the files denies, whatever properties are sent with it."""
    snapshot = build_draft(load(RECORDS, "records"), "", None)
    parts: dict[str, Any] = {
        "subject": Entity("user", "alice"),
        "action": "read",
        "resource": "record-1",
        "resource_type": "record",
    }
    allowed, denied = (
        decide(snapshot, question_of(snapshot, AccessRequest(**asked), caller="local"), NOW)
        for asked in (parts, {**parts, **changed})
    )

    assert Reason.ALLOWED == allowed.reason
    assert (Reason.UNCATALOGUED if "resource" in str(list(changed)) else Reason.UNKNOWN_SUBJECT) == denied.reason
