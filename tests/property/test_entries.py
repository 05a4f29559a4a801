"""What is written by hand on the wire is what the generated messages would write."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.audit_samples import EVERYTHING_KNOWN, NOW, ORIGIN, found_people
from tests.decisions import decision_of

from gatebook.audit.asked import ask
from gatebook.audit.decision_entry import Decided, encode_decision
from gatebook.audit.entry import Stamp, to_timestamp
from gatebook.audit.people import People
from gatebook.audit.record import open_record
from gatebook.audit.wire import delimited, dense, tag, varint
from gatebook.v1 import entry_pb2, types_pb2
from gatebook.values import (
    AccessRequest,
    ColumnOutcome,
    Decision,
    Effect,
    Enforcer,
    Entity,
    Mask,
    MaskKind,
    MinimumGroup,
    ObligationKind,
    Reason,
    Revision,
    RuleRef,
)

TEXT = st.one_of(st.text(max_size=20), st.text("ä€𝄞x", min_size=100, max_size=300))
NAME = st.text(min_size=1, max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=3)
ENTITY = st.builds(Entity, TEXT, NAME, OBJECT)
KINDS = st.sampled_from([kind for kind in MaskKind if kind])
DUTIES = st.sampled_from([kind for kind in ObligationKind if kind])
REQUEST = st.builds(
    AccessRequest,
    subject=ENTITY,
    action=NAME,
    resource=NAME,
    columns=st.lists(NAME, max_size=5).map(tuple),
    purpose=TEXT,
    context=OBJECT,
    row=st.none() | OBJECT,
    enforcer=st.builds(Enforcer, TEXT, st.frozensets(KINDS), st.frozensets(DUTIES)),
    allow_partial=st.booleans(),
    actor=st.none() | ENTITY,
    action_properties=OBJECT,
    resource_type=TEXT,
    resource_properties=OBJECT,
)
OUTCOME = st.builds(
    ColumnOutcome,
    NAME,
    st.sampled_from(Effect),
    st.sampled_from([Reason.ALLOWED, Reason.UNKNOWN_COLUMN, Reason.EVALUATION_ERROR]),
    st.lists(st.builds(Mask, KINDS), max_size=3).map(tuple),
)
REVISION = st.builds(Revision, NAME, st.integers(0, 2**62))
DECISION = st.builds(
    decision_of,
    effect=st.sampled_from(Effect),
    reason=st.sampled_from(Reason),
    message=TEXT,
    policy_set=TEXT,
    policy_revision=REVISION,
    directory_revision=st.none() | REVISION,
    decide_time=st.just(NOW),
    columns=st.lists(OUTCOME, max_size=5).map(tuple),
    must_apply=st.lists(DUTIES, max_size=4).map(tuple),
    minimum_group=st.none() | st.builds(MinimumGroup, st.integers(1, 2**31 - 1), st.lists(NAME, max_size=2).map(tuple)),
    rules=st.lists(st.builds(RuleRef, TEXT, NAME, st.integers(0, 2**31 - 1), TEXT), max_size=3).map(tuple),
    notice_id=TEXT,
    expires_time=st.none() | st.datetimes(timezones=st.just(UTC)),
    vocabulary_known=st.frozensets(st.sampled_from(sorted(EVERYTHING_KNOWN))),
    data_subjects=st.lists(NAME, max_size=3).map(tuple),
)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    """Provides a store of its own."""
    store = People.open(tmp_path_factory.mktemp("people"))
    yield store
    store.close()


def as_json(values: Mapping[str, Any]) -> object:
    """Returns an object as it comes back from JSON."""
    return json.loads(json.dumps(dict(values)))


def loaded(content: bytes) -> object:
    """Returns the object in JSON; none is an empty one."""
    return json.loads(content) if content else {}


def named(request: AccessRequest, decision: Decision) -> entry_pb2.DecisionEntry:
    """Returns what the entry says in clear, apart from pseudonyms, by the generated messages."""
    known = decision.vocabulary_known
    message = entry_pb2.DecisionEntry(
        decision_id="decision-1",
        policy_set=decision.policy_set,
        policy_revision=types_pb2.Revision(
            digest=decision.policy_revision.digest, number=decision.policy_revision.number
        ),
        resource_id=request.resource if "resource" in known else "",
        action=request.action if "action" in known else "",
        purpose=request.purpose if "purpose" in known else "",
        effect=int(decision.effect),  # type: ignore[arg-type]  # the numbers are equal
        reason=int(decision.reason),  # type: ignore[arg-type]  # as above
        must_apply=[int(kind) for kind in decision.must_apply],  # type: ignore[misc]  # as above
        rules=[entry_pb2.RuleEntry(file=rule.file, line=rule.line) for rule in decision.rules],
        notice_id=decision.notice_id,
        allow_partial=request.allow_partial,
        row_given=request.row is not None,
        trace_id=bytes(16),
    )
    for outcome in decision.columns:
        column = message.columns.add(effect=int(outcome.effect), reason=int(outcome.reason))
        column.masks.extend(int(mask.kind) for mask in outcome.masks)  # type: ignore[misc]  # as above
        if "columns" in known and outcome.reason != Reason.UNKNOWN_COLUMN:
            column.column = outcome.column
    if decision.directory_revision is not None:
        message.directory_revision.digest = decision.directory_revision.digest
        message.directory_revision.number = decision.directory_revision.number
        message.subject_type = request.subject.type if "subject" in known else ""
    if decision.minimum_group is not None:
        message.minimum_group.k = decision.minimum_group.k
        message.minimum_group.entity_columns.extend(decision.minimum_group.entity_columns)
    if decision.expires_time is not None:
        message.expires_time.CopyFrom(to_timestamp(decision.expires_time))
    return message


@given(request=REQUEST, decision=DECISION, link=st.integers(0, 2**63), caller=TEXT)
def test_a_decision_entry_says_what_was_asked_and_decided(
    people: People, request: AccessRequest, decision: Decision, link: int, caller: str
) -> None:
    """Every field, of whatever value and length, reads back through the generated messages as it was."""
    one = Decided(ask(request, "request-1", bytes(16)), decision, "decision-1")
    found = found_people(people, one)
    record = open_record(0, encode_decision(one, Stamp.of(NOW, caller, link), found, ORIGIN), ORIGIN, people)
    clear, opened = record.entry.decision, record.request
    pseudonyms = [person.pseudonym for person in found]
    stated = [clear.subject_pseudonym, *filter(None, [clear.actor_pseudonym]), *clear.data_subject_pseudonyms]
    for field in ("subject_pseudonym", "actor_pseudonym", "data_subject_pseudonyms"):
        clear.ClearField(field)

    assert clear == named(request, decision)
    assert stated == pseudonyms
    assert (record.entry.caller, record.entry.control_link) == (caller, link)
    for entity, message in ((request.subject, opened.subject), (request.actor, opened.actor)):
        if entity is not None:
            assert (message.type, message.id) == (entity.type, entity.id)
            assert loaded(message.properties_json) == as_json(entity.properties)
    assert opened.HasField("actor") == (request.actor is not None)
    assert (opened.action.name, opened.resource.type, opened.resource.id) == (
        request.action,
        request.resource_type,
        request.resource,
    )
    assert tuple(opened.resource.columns) == request.columns
    assert (opened.purpose, opened.request_id) == (request.purpose, "request-1")
    assert loaded(opened.context_json) == as_json(request.context)
    assert loaded(opened.action.properties_json) == as_json(request.action_properties)
    assert loaded(opened.resource.properties_json) == as_json(request.resource_properties)
    assert opened.enforcer.id == request.enforcer.id
    assert set(map(int, opened.enforcer.supported_masks)) == set(map(int, request.enforcer.supported_masks))
    duties = request.enforcer.supported_obligations
    assert set(map(int, opened.enforcer.supported_obligations)) == set(map(int, duties))
    assert (json.loads(record.row_json) if record.row_json else None) == (
        None if request.row is None else as_json(request.row)
    )


@given(length=st.one_of(st.integers(0, 70_000), st.sampled_from([127, 128, 4_095, 4_096, 16_383, 16_384])))
def test_lengths(length: int) -> None:
    """A field of any length has the same bytes as the generated message's."""
    content = b"x" * length
    written = delimited(tag(entry_pb2.Sealed, "ciphertext"), content)

    assert written == entry_pb2.Sealed(ciphertext=content).SerializeToString() if length else written[-1:] == b"\0"


@given(number=st.integers(0, 2**63))
def test_numbers(number: int) -> None:
    """A number has the same bytes as the generated message's."""
    written = tag(entry_pb2.AuditEntry, "control_link") + varint(number)

    assert written == (entry_pb2.AuditEntry(control_link=number).SerializeToString() or written)
    assert dense(number) == varint(number)
