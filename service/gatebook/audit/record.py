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
        index=index, leaf_hash=leaf_hash(entry_bytes), entry_bytes=entry_bytes, entry=entry
    )
    for sealed in entry.sealed:
        try:
            plaintext = open_sealed(sealed, origin, people)
        except BookCorruptError as err:
            raise BookCorruptError(f"entry {index}: {err}", index) from err
        if plaintext is None:
            continue
        if sealed.field == entry_pb2.SEALED_FIELD_REQUEST:
            record.request.MergeFrom(sealed_request(plaintext, index))
        elif sealed.field == entry_pb2.SEALED_FIELD_ROW:
            record.row_json = plaintext
        elif sealed.field == entry_pb2.SEALED_FIELD_FILTER:
            record.filter_json = plaintext
    return record


def sealed_request(plaintext: bytes, index: int) -> entry_pb2.SealedRequest:
    """Returns the personal part of a request, parsed.

    Raises:
        BookCorruptError: it is none.
    """
    try:
        return entry_pb2.SealedRequest.FromString(plaintext)
    except DecodeError as err:
        raise BookCorruptError(f"entry {index}: the sealed request is malformed", index) from err
