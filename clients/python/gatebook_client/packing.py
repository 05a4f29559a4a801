"""Checks as bytes: the requests of coalesced checks, put together without a message for each part.

Owns the encoding by hand of what `asking` builds from messages; the bytes parse to the same message
(Protocol Buffers, Encoding: a message is its fields one after the other, in any order). A check whose
parts are plain texts takes the short way; any other is built as a message. Nothing is cached.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from gatebook.v1 import access_service_pb2 as access_pb2
from gatebook.v1 import types_pb2
from gatebook_client.question import Check, access_request, as_json

_VARINT_CONTINUES = 0x80
_SIZES_MAX = 512


def _varint(number: int) -> bytes:
    """Encodes an unsigned number."""
    found = bytearray()
    while number >= _VARINT_CONTINUES:
        found.append(number & 0x7F | _VARINT_CONTINUES)
        number >>= 7
    found.append(number)
    return bytes(found)


_SIZES = tuple(_varint(size) for size in range(_SIZES_MAX))


def _tag(message: type, name: str) -> bytes:
    """Returns the tag of a field whose value has a length (wire type 2)."""
    return _varint(message.DESCRIPTOR.fields_by_name[name].number << 3 | 2)  # type: ignore[attr-defined]  # every message has it


def _flag(message: type, name: str) -> bytes:
    """Returns a field of type bool that is true (wire type 0)."""
    return _varint(message.DESCRIPTOR.fields_by_name[name].number << 3) + b"\x01"  # type: ignore[attr-defined]  # as above


def _field(tag: bytes, value: bytes) -> bytes:
    """Encodes one field with its length."""
    size = len(value)
    return tag + (_SIZES[size] if size < _SIZES_MAX else _varint(size)) + value


_SUBJECT = _tag(types_pb2.AccessRequest, "subject")
_ACTION = _tag(types_pb2.AccessRequest, "action")
_RESOURCE = _tag(types_pb2.AccessRequest, "resource")
_PURPOSE = _tag(types_pb2.AccessRequest, "purpose")
_CONTEXT = _tag(types_pb2.AccessRequest, "context_json")
_ROW = _tag(types_pb2.AccessRequest, "row_json")
_ENFORCER = _tag(types_pb2.AccessRequest, "enforcer")
_SUBJECT_TYPE, _SUBJECT_ID = _tag(types_pb2.Subject, "type"), _tag(types_pb2.Subject, "id")
_USER = _field(_SUBJECT_TYPE, b"user")
_ACTION_NAME = _tag(types_pb2.Action, "name")
_RESOURCE_ID, _RESOURCE_COLUMN = _tag(types_pb2.Resource, "id"), _tag(types_pb2.Resource, "columns")

_ITEM = _tag(access_pb2.BatchCheckAccessRequest, "items")
_ITEM_ID = _tag(access_pb2.CheckItem, "correlation_id")
_ITEM_ACCESS = _tag(access_pb2.CheckItem, "access")
_ITEM_PARTIAL = _flag(access_pb2.CheckItem, "allow_partial")
_CHECK_ACCESS = _tag(access_pb2.CheckAccessRequest, "access")
_CHECK_PARTIAL = _flag(access_pb2.CheckAccessRequest, "allow_partial")


class Packed(NamedTuple):
    """One check as bytes: its `AccessRequest`, and whether a part of the columns will do."""

    access: bytes
    allow_partial: bool


def pack_enforcer(declared: types_pb2.Enforcer) -> bytes:
    """Returns the bytes that declare an enforcer, for `pack`; they are the same for every check."""
    return _field(_ENFORCER, declared.SerializeToString())


def pack(check: Check, enforcer: bytes) -> Packed:
    """Returns a check as bytes.

    Raises:
        ValueError: an argument cannot be sent as it is; the message names it.
    """
    if not _is_plain(check):
        return Packed(access_request(check, None).SerializeToString() + enforcer, check.allow_partial)
    access = (
        _field(_SUBJECT, _USER + _text(_SUBJECT_ID, check.subject))
        + _field(_ACTION, _text(_ACTION_NAME, check.action))
        + _field(_RESOURCE, _text(_RESOURCE_ID, check.resource) + _columns(check))
        + enforcer
    )
    if check.purpose:
        access += _text(_PURPOSE, check.purpose)
    if check.context:
        access += _field(_CONTEXT, as_json(check.context, "context"))
    if check.row is not None:
        access += _field(_ROW, as_json(check.row, "row"))
    return Packed(access, check.allow_partial)


def one_request(head: bytes, check: Packed) -> bytes:
    """Returns a `CheckAccessRequest` of the fields in `head` and one check."""
    partial = _CHECK_PARTIAL if check.allow_partial else b""
    return head + _field(_CHECK_ACCESS, check.access) + partial


def batch_request(head: bytes, checks: Iterable[Packed], correlation_ids: Iterable[str]) -> bytes:
    """Returns a `BatchCheckAccessRequest` of the fields in `head` and an item for each check."""
    parts = [head]
    for check, correlation_id in zip(checks, correlation_ids, strict=True):
        item = _field(_ITEM_ID, correlation_id.encode()) + _field(_ITEM_ACCESS, check.access)
        parts.append(_field(_ITEM, item + _ITEM_PARTIAL if check.allow_partial else item))
    return b"".join(parts)


def _is_plain(check: Check) -> bool:
    """Tells whether every part that is packed by hand is text."""
    texts = check.subject, check.action, check.resource, check.purpose
    return (
        all(type(part) is str for part in texts)
        and check.actor is None
        and not isinstance(check.columns, str)
        and all(type(column) is str for column in check.columns)
    )


def _text(tag: bytes, text: object) -> bytes:
    """Encodes a text; an empty one is left out, as proto3 has it."""
    return _field(tag, str(text).encode()) if text else b""


def _columns(check: Check) -> bytes:
    """Encodes the columns, empty names included."""
    return b"".join([_field(_RESOURCE_COLUMN, column.encode()) for column in check.columns]) if check.columns else b""
