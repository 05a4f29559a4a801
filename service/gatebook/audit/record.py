"""Entries as their readers get them: the exact bytes, parsed, with the personal parts opened.

Owns the way back from bytes to `EntryRecord`. Opening needs the keys of the people concerned;
where one is gone the part stays closed and the rest of the record is there.
"""

from __future__ import annotations

import msgspec
from google.protobuf.message import DecodeError, Message

from gatebook.audit.entry import decode
from gatebook.audit.people import People
from gatebook.audit.sealing import open_sealed
from gatebook.errors import BookCorruptError
from gatebook.tlog.merkle import leaf_hash
from gatebook.v1 import audit_service_pb2, entry_pb2

PERSONAL_IN_RECORD = (
    "entry_bytes",
    "request",
    "row_json",
    "filter_json",
    "requested_by",
    "approved_by",
    "stated_reason",
    "policy_text",
)
PERSONAL_IN_BODY = {
    "decision": ("subject_pseudonym", "actor_pseudonym", "data_subject_pseudonyms", "trace_id"),
    "read": ("subject_pseudonym",),
    "policy": ("request_id_hash", "requested_by_pseudonym", "approved_by_pseudonym"),
    "system": (),
    "erasure": ("pseudonyms", "suppression", "requested_by_pseudonym", "approved_by_pseudonym"),
    "retention": ("requested_by_pseudonym", "approved_by_pseudonym"),
    "carried": ("entry_bytes",),
    "lineage": (),
    "reclassification": (),
}
"""What names or links people, or could, by kind of body. A body that is not here is not shown at all."""
NO_PERSON = ("spiffe://", "cn:")


def open_record(index: int, entry_bytes: bytes, origin: str, people: People) -> audit_service_pb2.EntryRecord:
    """Returns the record of an entry.

    Raises:
        BookCorruptError: these are not the bytes of an entry, or a sealed part is not what was sealed.
    """
    entry = decode(entry_bytes, index)
    record = audit_service_pb2.EntryRecord(
        index=index, leaf_hash=leaf_hash(entry_bytes), entry_bytes=entry_bytes, entry=entry, origin=origin
    )
    request = open_request(entry, index, origin, people)
    if request is not None:
        record.request.CopyFrom(request)
    record.requested_by = _text(entry, entry_pb2.SEALED_FIELD_REQUESTED_BY, index, origin, people)
    record.approved_by = _text(entry, entry_pb2.SEALED_FIELD_APPROVED_BY, index, origin, people)
    record.stated_reason = _text(entry, entry_pb2.SEALED_FIELD_REASON, index, origin, people)
    record.policy_text = _open_field(entry, entry_pb2.SEALED_FIELD_POLICY, index, origin, people) or b""
    _say_what_is_closed(record, people)
    record.row_json = _open_field(entry, entry_pb2.SEALED_FIELD_ROW, index, origin, people) or b""
    record.filter_json = _open_field(entry, entry_pb2.SEALED_FIELD_FILTER, index, origin, people) or b""
    return record


def _say_what_is_closed(record: audit_service_pb2.EntryRecord, people: People) -> None:
    """Tells of the parts that stay closed whether somebody was erased, or a key is missing."""
    for pseudonym in {one for sealed in record.entry.sealed for one in sealed.pseudonyms}:
        if people.by_pseudonym(pseudonym) is None:
            if people.forgotten.entry_of(pseudonym) is None and pseudonym not in people.forgotten.void:
                record.key_missing = True
            else:
                record.erased = True


def _text(
    entry: entry_pb2.AuditEntry, field: entry_pb2.SealedField.ValueType, index: int, origin: str, people: People
) -> str:
    plaintext = _open_field(entry, field, index, origin, people)
    return "" if plaintext is None else msgspec.json.decode(plaintext, type=str)


def named_in(entry: entry_pb2.AuditEntry, index: int, origin: str, people: People) -> tuple[str, str]:
    """Returns who is named as having asked, and as having approved; "" for who is not, or whose key is gone.

    Raises:
        BookCorruptError: a sealed part is not what was sealed.
    """
    asked = _text(entry, entry_pb2.SEALED_FIELD_REQUESTED_BY, index, origin, people)
    return asked, _text(entry, entry_pb2.SEALED_FIELD_APPROVED_BY, index, origin, people)


def without_personal_data(record: audit_service_pb2.EntryRecord) -> audit_service_pb2.EntryRecord:
    """Returns a record without what is or was personal: what stays is what was decided, by which rules, and when.

    The exact bytes hold what is sealed, so they go too; the leaf hash stays, and with it the proof.
    """
    shown = audit_service_pb2.EntryRecord()
    shown.CopyFrom(record)
    _clear(shown, *PERSONAL_IN_RECORD)
    _clear(shown.entry, "sealed", "salt")
    caller = shown.entry.caller
    if ":" in caller and not caller.startswith(NO_PERSON):
        shown.entry.caller = caller.partition(":")[0]  # a token: its issuer stays, whoever it names goes
    body = shown.entry.WhichOneof("body") or ""
    _clear(getattr(shown.entry, body), *PERSONAL_IN_BODY[body])
    return shown


def _clear(message: Message, *names: str) -> None:
    for name in names:
        message.ClearField(name)


def open_request(
    entry: entry_pb2.AuditEntry, index: int, origin: str, people: People
) -> entry_pb2.SealedRequest | None:
    """Returns the personal part of a decision, or None where there is none or a key is gone.

    Raises:
        BookCorruptError: it is not what was sealed.
    """
    plaintext = _open_field(entry, entry_pb2.SEALED_FIELD_REQUEST, index, origin, people)
    try:
        return None if plaintext is None else entry_pb2.SealedRequest.FromString(plaintext)
    except DecodeError as err:
        raise BookCorruptError(f"entry {index}: the sealed request is malformed", index) from err


def _open_field(
    entry: entry_pb2.AuditEntry, field: entry_pb2.SealedField.ValueType, index: int, origin: str, people: People
) -> bytes | None:
    for sealed in entry.sealed:
        if sealed.field == field:
            try:
                return open_sealed(sealed, origin, people)
            except BookCorruptError as err:
                raise BookCorruptError(f"entry {index}: {err}", index) from err
    return None
