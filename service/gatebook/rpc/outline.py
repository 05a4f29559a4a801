"""The outlines of check requests: read at once, with what is asked left as the bytes that came.

Owns messages that are those of access_service.proto but for `access`, which is bytes: on the wire both are the same.
What is asked is often remembered by its bytes, and then need not be read. An outline says what protobuf says:

1. whatever comes twice, or in other than its shortest form, makes the outline shorter than what came; the generated
   message then reads it, and the outline is of what that one writes. No field of an outline can make it longer;
2. the bytes of `access` are read by who finds them new, and are a mistake of the whole request where they are no
   message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from gatebook.v1 import access_service_pb2 as pb

PACKAGE = "gatebook.outline"
ITEM = pb.CheckItem.DESCRIPTOR
OUTLINED = (pb.CheckItem, pb.CheckAccessRequest, pb.BatchCheckAccessRequest, pb.StreamCheckAccessRequest)


class AskedBytes(Protocol):
    """What is asked of a check or an item of many."""

    access: bytes
    allow_partial: bool


class Item(AskedBytes, Protocol):
    """The outline of a `CheckItem`."""

    correlation_id: str

    def ByteSize(self) -> int: ...  # noqa: D102, N802  # protobuf names it


class Check(AskedBytes, Protocol):
    """The outline of a `CheckAccessRequest`."""

    request_id: str
    policy_set: str
    at_least: int
    explain: bool
    receipt_level: int


class Many(Protocol):
    """The outline of a `StreamCheckAccessRequest`."""

    policy_set: str
    items: Sequence[Item]
    receipt_level: int


class Batch(Many, Protocol):
    """The outline of a `BatchCheckAccessRequest`."""

    request_id: str
    at_least: int


def _outlines() -> dict[type[Message], Any]:
    file = descriptor_pb2.FileDescriptorProto(name="gatebook/outline.proto", package=PACKAGE, syntax="proto3")
    for kind in OUTLINED:
        message = file.message_type.add()
        kind.DESCRIPTOR.CopyToProto(message)
        for field in message.field:
            whole = kind.DESCRIPTOR.fields_by_name[field.name]
            if whole.message_type is ITEM:
                field.type_name = f".{PACKAGE}.{ITEM.name}"
            elif whole.message_type is not None:
                field.type = FieldDescriptor.TYPE_BYTES  # type: ignore[assignment]  # the numbers are equal
                field.ClearField("type_name")
            elif whole.enum_type is not None:
                # A negative number can come in five bytes and would be written in ten; this one has no sign.
                field.type = FieldDescriptor.TYPE_UINT32  # type: ignore[assignment]  # as above
                field.ClearField("type_name")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    found = {kind: pool.FindMessageTypeByName(f"{PACKAGE}.{kind.DESCRIPTOR.name}") for kind in OUTLINED}
    return {kind: message_factory.GetMessageClass(descriptor) for kind, descriptor in found.items()}


_OUTLINES = _outlines()


def outline(kind: type[Message], raw: bytes) -> Any:  # noqa: ANN401  # see the functions below
    """Returns the outline of a message in these bytes.

    Raises:
        DecodeError: there is none.
    """
    made = _OUTLINES[kind]
    found = made.FromString(raw)
    if found.ByteSize() != len(raw):
        found = made.FromString(kind.FromString(raw).SerializeToString())
    return found


def check(raw: bytes) -> Check:
    """Returns the outline of a `CheckAccessRequest`; see `outline`."""
    found: Check = outline(pb.CheckAccessRequest, raw)
    return found


def batch(raw: bytes) -> Batch:
    """Returns the outline of a `BatchCheckAccessRequest`; see `outline`."""
    found: Batch = outline(pb.BatchCheckAccessRequest, raw)
    return found


def message(raw: bytes) -> Many:
    """Returns the outline of a `StreamCheckAccessRequest`; see `outline`."""
    found: Many = outline(pb.StreamCheckAccessRequest, raw)
    return found
