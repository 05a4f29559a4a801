"""What is skimmed of an entry is what the generated messages say of the whole of it."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import DecodeError
from hypothesis import event, given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.audit_samples import NOW, ORIGIN, decided, request

from gatebook.audit.decision_entry import encode_decision, people_of
from gatebook.audit.entry import Stamp, nanoseconds
from gatebook.audit.people import Person
from gatebook.audit.skimming import LOOKS, REST, Skimmed, Skimming
from gatebook.audit.wire import delimited, tag, varint
from gatebook.v1 import entry_pb2, types_pb2
from gatebook.values import Entity

ID = "0123456789abcdef" * 2
SOMEBODY = [Person(bytes([at] * 16), bytes(16), AESGCM(bytes(32))) for at in range(1, 5)]


def of_stamp(entry: entry_pb2.AuditEntry) -> Any:  # noqa: ANN401  # whatever can be compared
    """Returns what is wanted of a stamp."""
    return (entry.caller, entry.control_link)


def of_clear(told: entry_pb2.DecisionEntry) -> Any:  # noqa: ANN401  # as above
    """Returns what is wanted of what stands in clear."""
    columns = [column.column for column in told.columns]
    return (told.policy_revision.digest, told.resource_id, columns, told.action, told.purpose, told.effect, told.reason)


def whole(entry: bytes) -> tuple[Skimmed[Any, Any], entry_pb2.AuditEntry]:
    """Returns the same of an entry that is parsed."""
    parsed = entry_pb2.AuditEntry.FromString(entry)
    told = parsed.decision
    return Skimmed(
        nanoseconds(parsed.entry_time), of_stamp(parsed), of_clear(told), told.decision_id, told.subject_pseudonym
    ), parsed


def field(name: str, content: bytes, of: type[Any] = entry_pb2.DecisionEntry) -> bytes:
    """Returns a field of bytes."""
    return delimited(tag(of, name), content)


SUBJECT = field("subject_pseudonym", b"s" * 16)
TOLD = st.lists(
    st.sampled_from(
        (
            field("policy_set", b"office"),
            field("policy_set", SUBJECT),  # what looks like the end of what stands in clear
            field("policy_revision", field("digest", b"d1", types_pb2.Revision)),
            field("resource_id", b"r1"),
            field("resource_id", b"r2"),
            field("action", b"read"),
            varint(11 << 3) + varint(1),
            varint(12 << 3) + varint(300),
            field("columns", field("column", b"c1", entry_pb2.ColumnEntry)),
            field("rules", b""),
        )
    ),
    max_size=6,
).map(b"".join)
ENDS = st.lists(
    st.sampled_from(
        (
            SUBJECT,
            field("subject_pseudonym", b"short"),
            field("actor_pseudonym", b"a" * 16),
            field("expires_time", b"\x08\x05"),
            field("expires_time", b"\x08\x05\x10\x07"),
            field("action", b"write"),
            varint(19 << 3) + varint(1),
            field("decision_id", b"other"),
        )
    ),
    max_size=3,
).map(b"".join)
STAMPS = st.lists(
    st.sampled_from(
        (
            field("entry_time", b"\x08\x05", entry_pb2.AuditEntry),
            field("entry_time", b"\x08\x06\x10\x07", entry_pb2.AuditEntry),
            field("caller", b"me", entry_pb2.AuditEntry),
            field("caller", field("salt", b"0" * 16, entry_pb2.AuditEntry), entry_pb2.AuditEntry),
            varint(5 << 3) + varint(7),
        )
    ),
    max_size=3,
).map(b"".join)
EXPIRY, TRACE = field("expires_time", b"\x08\x05\x10\x07"), field("trace_id", b"t" * 16)
TIME, USUAL_KIND = field("entry_time", b"\x08\x05", entry_pb2.AuditEntry), b"\x18\x01"
KINDS = st.sampled_from((b"\x18\x02", b"\x18\x81\x00", b""))
SEALED_LATE = field("sealed", b"", entry_pb2.AuditEntry)


def sealed(length: int) -> bytes:
    """Returns a sealed part."""
    return field("sealed", field("ciphertext", bytes(length), entry_pb2.Sealed), entry_pb2.AuditEntry)


SEALED = st.lists(st.integers(0, 200).map(sealed), max_size=3).map(b"".join)


@st.composite
def entries(draw: st.DrawFn) -> bytes:
    """Draws entries that are like those of a service, and not quite."""
    ids = st.sampled_from((field("decision_id", ID.encode()), field("decision_id", ID.encode()), b""))
    usual = st.sampled_from((True, True, True, False))
    told = draw(ids) + draw(TOLD) + (SUBJECT if draw(usual) else b"") + (b"" if draw(usual) else draw(ENDS))
    told += EXPIRY if draw(st.booleans()) else b""
    told += TRACE if draw(st.booleans()) else b""
    entry = (TIME if draw(usual) else b"") + (b"" if draw(usual) else draw(STAMPS))
    entry += field("salt", b"0" * 16, entry_pb2.AuditEntry) + (USUAL_KIND if draw(usual) else draw(KINDS))
    entry += draw(SEALED) + field("decision", told, entry_pb2.AuditEntry)
    return entry + (b"" if draw(usual) else SEALED_LATE)


@given(st.lists(entries(), min_size=1, max_size=6))
def test_what_is_skimmed_is_what_the_whole_says(drawn: list[bytes]) -> None:
    """One after the other, whatever was known before: an entry is skimmed as it is parsed, or not at all."""
    skimming = Skimming(of_stamp, of_clear)
    for entry in [*drawn, *drawn, *drawn]:
        found = skimming.read(entry)
        event(f"skimmed: {found is not None}")
        if found is not None:
            expected, parsed = whole(entry)

            assert expected == found
            assert parsed.kind == entry_pb2.ENTRY_KIND_DECISION
            assert not parsed.decision.actor_pseudonym


@given(st.lists(entries(), min_size=1, max_size=2), st.data())
def test_what_is_cut_or_changed_is_not_taken_for_something_else(drawn: list[bytes], data: st.DataObject) -> None:
    """An entry of which a byte is another, or the end is missing, says what is parsed of it, or is not skimmed."""
    skimming = Skimming(of_stamp, of_clear)
    for entry in drawn:
        for _ in range(3):
            skimming.read(entry)
        at = data.draw(st.integers(0, len(entry) - 1))
        for other in (entry[:at], entry[:at] + bytes([entry[at] ^ data.draw(st.integers(1, 255))]) + entry[at + 1 :]):
            found = skimming.read(other)
            try:
                expected, _ = whole(other)
            except DecodeError:
                continue  # of a sealed part or a time: nothing that is skimmed
            assert found is None or expected == found


def test_a_usual_entry_is_skimmed() -> None:
    """The decision about one subject is, from the second time on; one with an actor, or a row, is parsed."""
    skimming = Skimming(of_stamp, of_clear)
    stamp = Stamp.of(NOW, "local", 3)
    usual, acting, of_row = (
        replace(decided(asked), decision_id=ID)
        for asked in (request(), request(actor=Entity("agent", "a1")), request(row={"subject_id": "x"}))
    )
    raws = [
        encode_decision(one, stamp, SOMEBODY[: len(people_of(one))], ORIGIN)
        for one in (usual, usual, usual, acting, of_row, usual)
    ]

    assert [False, True, True, False, False, True] == [skimming.read(raw) is not None for raw in raws]
    assert whole(raws[0])[0] == skimming.read(raws[0])


def test_where_nothing_comes_again_nothing_is_looked_at_for_a_while() -> None:
    """After many entries of which none is like another, one that is known is parsed, too, until the rest is over."""
    skimming = Skimming(of_stamp, of_clear)

    def entry(resource: str) -> bytes:
        told = field("decision_id", ID.encode()) + field("resource_id", resource.encode()) + SUBJECT
        salted = TIME + field("salt", b"0" * 16, entry_pb2.AuditEntry) + USUAL_KIND
        return salted + field("decision", told, entry_pb2.AuditEntry)

    assert [False, True] == [skimming.read(entry("again")) is not None for _ in range(2)]
    assert not any(skimming.read(entry(str(number))) for number in range(LOOKS - 2))
    assert not any(skimming.read(entry("again")) for _ in range(REST))
    assert skimming.read(entry("again")) is not None
