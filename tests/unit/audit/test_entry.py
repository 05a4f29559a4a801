"""Entries: what is in clear, what is sealed, and that they fit."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import example, given
from hypothesis import strategies as st
from tests.audit_samples import (
    DECISION,
    DIRECTORY_REVISION,
    EVERYTHING_KNOWN,
    NOW,
    ORIGIN,
    POLICY_REVISION,
    REQUEST,
    decided,
    decision,
    entry,
    request,
)

from gatebook.audit.asked import PERSONAL_BYTES_MAX, ask
from gatebook.audit.entry import (
    ENTRY_BYTES_MAX,
    PolicyEvent,
    ReadEvent,
    Stamp,
    decode,
    encode_policy,
    encode_read,
    encode_system,
    encode_time,
    from_timestamp,
    to_timestamp,
)
from gatebook.audit.people import STRANGER, People, PersonId
from gatebook.audit.record import open_record
from gatebook.errors import BookCorruptError, LimitExceededError
from gatebook.tlog.merkle import leaf_hash
from gatebook.v1 import audit_service_pb2, entry_pb2, types_pb2
from gatebook.values import (
    AccessRequest,
    ColumnOutcome,
    Decision,
    Effect,
    Entity,
    Finding,
    Mask,
    MaskKind,
    MinimumGroup,
    Reason,
    RuleRef,
)

STAMP = Stamp.of(NOW, "local", 4)


@pytest.fixture
def people(tmp_path: Path) -> Iterator[People]:
    """Provides a store of its own."""
    store = People.open(tmp_path)
    yield store
    store.close()


def record(people: People, entry_bytes: bytes) -> audit_service_pb2.EntryRecord:
    """Returns the record of an entry at index 9."""
    return open_record(9, entry_bytes, ORIGIN, people)


def test_what_a_decision_repeats_is_believed_only_where_it_is_the_same(people: People) -> None:
    """An entry says what was decided, whether or not it repeats a decision, and whichever it is said to repeat."""
    made = decision()
    again = msgspec.structs.replace(made, decide_time=NOW + timedelta(seconds=1))
    other = decision(notice_id="another")
    for one in (made, again, made, other, made):
        repeating = decided(outcome=one)
        plain = decode(entry(people, repeating)).decision
        told = decode(entry(people, msgspec.structs.replace(repeating, repeats=made))).decision

        assert plain == told
        assert one.outcome.notice_id == told.notice_id


def test_a_decision_reads_back(people: People) -> None:
    """Every part of a request and its decision is in the record, each field once."""
    row = {"subject_id": "ana", "jurisdiction": "DE", "count": 2**60 + 1}
    asked = request(row=row, actor=Entity("agent", "bot-7", {"agent": True}), allow_partial=True)
    encoded = entry(people, decided(asked, decision(data_subjects=("ana",))), control_link=4)
    found = record(people, encoded)
    written = found.entry.decision

    assert found.leaf_hash == leaf_hash(encoded)
    assert found.entry_bytes == encoded
    assert from_timestamp(found.entry.entry_time) == NOW
    assert (found.entry.kind, found.entry.caller) == (entry_pb2.ENTRY_KIND_DECISION, "svc-training")
    assert found.entry.control_link == 4
    assert len(found.entry.salt) == 16
    assert msgspec.json.decode(found.row_json) == row
    assert written == entry_pb2.DecisionEntry(
        decision_id="01930000-0000-7000-8000-000000000000",
        policy_set="telemetry",
        policy_revision=types_pb2.Revision(digest=POLICY_REVISION.digest, number=3),
        directory_revision=types_pb2.Revision(digest=DIRECTORY_REVISION.digest, number=7),
        subject_pseudonym=people.find("farah")[0].pseudonym,
        actor_pseudonym=people.find("bot-7")[0].pseudonym,
        subject_type="user",
        resource_id="mci.keystroke_events",
        action="read",
        purpose="model_training",
        effect=types_pb2.EFFECT_ALLOW,
        reason=types_pb2.REASON_CODE_ALLOWED,
        columns=[
            entry_pb2.ColumnEntry(
                column="event_id", effect=types_pb2.EFFECT_ALLOW, reason=types_pb2.REASON_CODE_ALLOWED
            ),
            entry_pb2.ColumnEntry(
                column="key_text",
                effect=types_pb2.EFFECT_ALLOW,
                reason=types_pb2.REASON_CODE_ALLOWED,
                masks=[types_pb2.MASK_KIND_REDACT],
            ),
        ],
        must_apply=[types_pb2.OBLIGATION_KIND_MASKS, types_pb2.OBLIGATION_KIND_MINIMUM_GROUP],
        minimum_group=types_pb2.MinimumGroup(k=5, entity_columns=["subject_id"]),
        rules=[entry_pb2.RuleEntry(file="policy.csv", line=12)],
        notice_id="mci-2026-05",
        expires_time=to_timestamp(NOW),
        allow_partial=True,
        row_given=True,
        trace_id=bytes(range(16)),
        data_subject_pseudonyms=[people.find("ana")[0].pseudonym],
    )
    assert found.request == entry_pb2.SealedRequest(
        subject=types_pb2.Subject(type="user", id="farah", properties_json=b'{"level":4}'),
        actor=types_pb2.Subject(type="agent", id="bot-7", properties_json=b'{"agent":true}'),
        action=types_pb2.Action(name="read"),
        resource=types_pb2.Resource(id="mci.keystroke_events", columns=["event_id", "key_text"]),
        purpose="model_training",
        context_json=b'{"network":"corp"}',
        enforcer=types_pb2.Enforcer(
            id="svc-training",
            supported_masks=[types_pb2.MASK_KIND_REDACT],
            supported_obligations=[types_pb2.OBLIGATION_KIND_MASKS],
        ),
        request_id="order-66",
    )


PERSONAL_REQUEST = request(
    subject=Entity("user", "SECRET-subject", {"SECRET-key": "SECRET-value"}),
    actor=Entity("agent", "SECRET-actor", {"nested": [{"x": "SECRET-deep"}]}),
    action="SECRET-action",
    action_properties={"audience": "SECRET-audience"},
    resource="SECRET-resource",
    resource_type="SECRET-type",
    resource_properties={"owner": "SECRET-owner"},
    columns=("SECRET-column",),
    purpose="SECRET-purpose",
    context={"note": "SECRET-context"},
    row={"subject_id": "SECRET-data-subject", "text": "SECRET-text"},
)


@pytest.mark.parametrize("governed", [True, False])
def test_no_unknown_name_stands_in_clear(people: People, tmp_path: Path, *, governed: bool) -> None:
    """Of a request in which nothing is known, nothing is in clear: not in the entry, not in the store."""
    outcome = decision(
        effect=Effect.DENY,
        reason=Reason.UNCATALOGUED,
        message="SECRET-message",
        directory_revision=DIRECTORY_REVISION if governed else None,
        columns=(ColumnOutcome("SECRET-column", Effect.DENY, Reason.UNKNOWN_COLUMN),),
        rules=(RuleRef("p, SECRET-rule", "policy.csv", 3, "deny"),),
        minimum_group=None,
        vocabulary_known=frozenset(),
        data_subjects=("SECRET-data-subject",),
    )
    encoded = entry(people, decided(PERSONAL_REQUEST, outcome))
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())

    assert b"SECRET" not in encoded
    assert b"order-66" not in encoded
    assert b"SECRET" not in stored
    assert record(people, encoded).request.resource.id == "SECRET-resource"


def test_an_unknown_column_among_known_ones_is_not_in_clear(people: People) -> None:
    """Where the catalogue knows the dataset and not the column, its outcome is written without a name."""
    outcome = decision(
        columns=(
            ColumnOutcome("event_id", Effect.ALLOW, Reason.ALLOWED),
            ColumnOutcome("SECRET-column", Effect.DENY, Reason.UNKNOWN_COLUMN),
        )
    )
    encoded = entry(people, decided(request(columns=("event_id", "SECRET-column")), outcome))

    assert [c.column for c in decode(encoded).decision.columns] == ["event_id", ""]
    assert b"SECRET" not in encoded


def test_strangers_share_one_person(people: People) -> None:
    """A subject whom the directory does not know adds nobody to the store and can still be read."""
    outcome = decision(vocabulary_known=EVERYTHING_KNOWN - {"subject"})
    encoded = entry(people, decided(request(subject=Entity("user", "mallory")), outcome))

    assert people.find("mallory") == ()
    assert decode(encoded).decision.subject_pseudonym == people.stranger.pseudonym
    assert decode(encoded).decision.subject_type == ""
    assert record(people, encoded).request.subject.id == "mallory"


def test_a_subject_of_a_plain_set_is_a_person(people: People) -> None:
    """A plain set has no directory: its subjects are people of their own, and their type is not in clear."""
    encoded = entry(people, decided(outcome=decision(directory_revision=None)))

    assert decode(encoded).decision.subject_pseudonym == people.find("farah")[0].pseudonym
    assert decode(encoded).decision.subject_type == ""


def forget(people: People, subject_id: str) -> None:
    """Deletes everyone with this id from the store, as an erasure will."""
    people._connection.execute("DELETE FROM people WHERE blind = ?", (people.blind(subject_id),))


@pytest.mark.parametrize(
    ("gone", "request_opens", "row_opens"),
    [("farah", False, True), ("bot-7", False, True), ("ana", True, False), ("ben", True, False), ("eve", True, True)],
)
def test_what_opens_after_erasure(tmp_path: Path, gone: str, *, request_opens: bool, row_opens: bool) -> None:
    """The request needs the keys of subject and actor, the row those of all its data subjects."""
    people = People.open(tmp_path)
    asked = request(actor=Entity("agent", "bot-7"), row={"from": "ana", "to": "ben"})
    encoded = entry(people, decided(asked, decision(data_subjects=("ana", "ben"))))
    forget(people, gone)
    people.close()
    found = record(People.open(tmp_path), encoded)

    assert found.HasField("request") == request_opens
    assert (found.row_json != b"") == row_opens


def test_a_row_about_nobody_is_sealed_for_the_subject(people: People) -> None:
    """A row without data subjects is sealed under the keys of the request, and an empty row is a row."""
    found = record(people, entry(people, decided(request(row={}))))

    assert [list(s.pseudonyms) for s in found.entry.sealed] == [[people.find("farah")[0].pseudonym]] * 2
    assert (found.row_json, found.entry.decision.row_given) == (b"{}", True)


def test_a_row_about_the_subject_needs_the_key_once(people: People) -> None:
    """Where one person is named twice, the part names the person once."""
    asked = request(actor=Entity("user", "farah"), row={"subject_id": "farah"})
    found = record(people, entry(people, decided(asked, decision(data_subjects=("farah", "farah")))))

    assert [len(s.pseudonyms) for s in found.entry.sealed] == [1, 1]
    assert found.row_json == b'{"subject_id":"farah"}'


def largest(personal_bytes: int = PERSONAL_BYTES_MAX) -> tuple[AccessRequest, Decision]:
    """Returns the largest request and decision that the limits of requests and policy sets let through."""
    names = tuple(f"{i:03}".ljust(64, "c") for i in range(256))
    masks = (Mask(MaskKind.REDACT), Mask(MaskKind.HASH), Mask(MaskKind.CUSTOM), Mask(MaskKind.NULLIFY))
    outcome = decision(
        policy_set="s" * 128,
        columns=tuple(ColumnOutcome(name, Effect.ALLOW, Reason.ALLOWED, masks) for name in names),
        rules=tuple(RuleRef("", f"{i:03}".ljust(128, "f"), 2_000_000 + i, "") for i in range(150)),
        minimum_group=MinimumGroup(2**31 - 1, tuple(f"{i:02}".ljust(128, "g") for i in range(31))),
        notice_id="n" * 128,
        data_subjects=tuple(f"person-{i}" for i in range(64)),
    )
    entity = Entity("t" * 128, "i" * 256)
    asked = request(
        subject=entity, actor=entity, action="a" * 128, resource="r" * 512, purpose="p" * 128, columns=(), row={}
    )
    room = personal_bytes - len(ask(asked, "order-66").personal) - len('{"x":""}')
    return msgspec.structs.replace(asked, row={"x": "x" * room}), outcome


def test_the_largest_decision_fits(people: People) -> None:
    """The sum in `decision_entry` holds: with every limit reached the entry fits, and is near its limit."""
    asked, outcome = largest()
    encoded = entry(people, decided(asked, outcome), caller="c" * 256, control_link=2**62)

    assert ENTRY_BYTES_MAX - 3_000 < len(encoded) <= ENTRY_BYTES_MAX


def test_one_byte_more_is_refused_before_deciding() -> None:
    """A request that takes one byte more than the limit is refused by `ask`, and at the limit is not."""
    for size in (PERSONAL_BYTES_MAX, PERSONAL_BYTES_MAX + 1):
        asked, _ = largest(size)
        if size > PERSONAL_BYTES_MAX:
            with pytest.raises(LimitExceededError, match="20481 bytes"):
                ask(asked, "order-66")
        else:
            ask(asked, "order-66")


def test_what_does_not_fit_is_refused(people: People) -> None:
    """An entry over 65,535 bytes is never made."""
    columns = tuple(ColumnOutcome(f"{i:03}".ljust(128, "c"), Effect.ALLOW, Reason.ALLOWED) for i in range(600))

    with pytest.raises(LimitExceededError, match="over 65535"):
        entry(people, decided(outcome=decision(columns=columns)))


def test_too_many_data_subjects_are_refused(people: People) -> None:
    """A row with more than 64 data subjects is refused before anyone is added to the store."""
    outcome = decision(data_subjects=tuple(f"person-{i}" for i in range(65)))

    with pytest.raises(LimitExceededError, match="65 data subjects"):
        entry(people, decided(request(row={}), outcome))
    assert people.find("person-0") == ()


def test_equal_decisions_have_different_entries(people: People) -> None:
    """The salt makes the leaf hash of a guessed entry useless."""
    assert entry(people, decided()) != entry(people, decided())


def test_a_policy_step_reads_back() -> None:
    """A policy entry counts all findings, names the first hundred and holds no message."""
    findings = tuple(Finding("policy.csv", i, 1, "UNKNOWN_ROLE", f"SECRET {i}") for i in range(150))
    event = PolicyEvent(
        step=entry_pb2.POLICY_STEP_REFUSED,
        policy_set="telemetry",
        revision=POLICY_REVISION,
        findings=findings,
        tests_run=40,
        tests_failed=2,
        request_id_hash=bytes(32),
    )
    encoded = encode_policy(event, STAMP)
    written = decode(encoded).policy

    assert (written.findings_count, len(written.findings), written.findings[99].line) == (150, 100, 99)
    assert (written.revision.digest, written.tests_run, written.tests_failed) == (POLICY_REVISION.digest, 40, 2)
    assert b"SECRET" not in encoded


def test_a_read_reads_back(people: People) -> None:
    """The filter of a read is sealed for the person that it names."""
    farah = people.ensure([PersonId("user", "farah")])[PersonId("user", "farah")]
    event = ReadEvent(
        method="ListEntries", indexes=(0, 7), count=3, filter_json=b'{"subject_id":"farah"}', people=(farah,)
    )
    encoded = encode_read(event, STAMP, ORIGIN)
    found = record(people, encoded)

    assert b"farah" not in encoded
    assert found.filter_json == b'{"subject_id":"farah"}'
    assert (found.entry.read.first_index, found.entry.read.last_index, found.entry.read.count) == (0, 7, 3)
    assert found.entry.read.subject_pseudonym == farah.pseudonym


def test_a_read_of_nothing_has_no_indexes(people: People) -> None:
    """A read that returned nothing says so, rather than naming entry 0."""
    event = ReadEvent(method="ListEntries", people=(people.ensure([STRANGER])[STRANGER],))
    written = decode(encode_read(event, STAMP, ORIGIN)).read

    assert (written.HasField("first_index"), written.HasField("last_index")) == (False, False)


def test_a_start_reads_back() -> None:
    """A start says what recovery found."""
    encoded = encode_system(entry_pb2.SYSTEM_EVENT_STARTED, STAMP, version="0.1.0", recovered_size=70_000, unclean=True)

    assert decode(encoded).system == entry_pb2.SystemEntry(
        event=entry_pb2.SYSTEM_EVENT_STARTED, version="0.1.0", recovered_size=70_000, unclean=True
    )


@given(time=st.datetimes(timezones=st.just(UTC)))
def test_times_are_exact(time: datetime) -> None:
    """A time comes back to the microsecond."""
    assert from_timestamp(to_timestamp(time)) == time


@pytest.mark.parametrize("content", [b"", b"\xff\xff", bytes(20), STAMP.head])
def test_what_is_no_entry_is_named(content: bytes) -> None:
    """Bytes that are no entry are reported with their index."""
    with pytest.raises(BookCorruptError) as caught:
        decode(content, 12)
    assert caught.value.index == 12


def test_the_samples_are_what_the_gate_makes() -> None:
    """The sample decision answers the sample request."""
    assert tuple(c.column for c in DECISION.columns) == REQUEST.columns


@given(time=st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)))  # noqa: DTZ001  # naive bounds
@example(time=datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC))
@example(time=datetime(2026, 1, 1, tzinfo=UTC))
def test_a_time_reads_back(time: datetime) -> None:
    """A time that is encoded by hand is that of the generated message, before 1970 and without a fraction too."""
    assert to_timestamp(time) == Timestamp.FromString(encode_time(time))
