"""Entries as their readers get them: the exact bytes, parsed, with the personal parts opened.

Owns the way back from bytes to `EntryRecord`. Opening needs the keys of the people concerned;
where one is gone the part stays closed and the rest of the record is there.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from gatebook.audit.entry import decode
from gatebook.audit.people import People
from gatebook.audit.sealing import open_sealed
from gatebook.errors import BookCorruptError
from gatebook.tlog.merkle import leaf_hash
from gatebook.v1 import audit_service_pb2, entry_pb2


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
    record.row_json = _open_field(entry, entry_pb2.SEALED_FIELD_ROW, index, origin, people) or b""
    record.filter_json = _open_field(entry, entry_pb2.SEALED_FIELD_FILTER, index, origin, people) or b""
    return record


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
