"""The wire format of protobuf, as far as decision entries are written by hand.

Owns the functions that write fields, for the one place where building message objects costs more than
all else together. What they write is read by the generated messages, which is also how it is tested.
Fields with their default value are left out, as proto3 does.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

VARINT, DELIMITED = 0, 2
_DELIMITED_TYPES = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE)


def varint(number: int) -> bytes:
    """Returns a number, not negative, in base 128."""
    encoded = bytearray()
    while number > 0x7F:  # noqa: PLR2004  # seven bits of each byte
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


_SHORT = 1 << 12


class _Sizes(dict[int, bytes]):
    """Encoded numbers, of which the small ones are at hand: the lengths before nearly all contents."""

    def __missing__(self, number: int) -> bytes:
        return varint(number)


SIZES: Mapping[int, bytes] = _Sizes((number, varint(number)) for number in range(_SHORT))
"""What `varint` returns, by number."""
_LOWEST = tuple(bytes([number | 0x80]) for number in range(0x80))
_higher = functools.lru_cache(maxsize=64)(varint)


def dense(number: int) -> bytes:
    """Returns what `varint` does, for numbers of which each comes close after the one before."""
    return SIZES[number] if number < _SHORT else _LOWEST[number & 0x7F] + _higher(number >> 7)


def tag(message: type[Message], name: str) -> bytes:
    """Returns what stands before each value of a field."""
    field = message.DESCRIPTOR.fields_by_name[name]
    wire_type = DELIMITED if field.type in _DELIMITED_TYPES else VARINT
    return varint(field.number << 3 | wire_type)


def head(message: type[Message], name: str, length: int) -> bytes:
    """Returns what stands before each value of a field whose values all have this length."""
    return tag(message, name) + varint(length)


def delimited(before: bytes, content: bytes) -> bytes:
    """Returns a field with this content, also where it is empty."""
    return before + SIZES[len(content)] + content


def text(before: bytes, content: str) -> bytes:
    """Returns a field with this text, or nothing."""
    return delimited(before, content.encode()) if content else b""
