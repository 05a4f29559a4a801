"""The bytes of a write-ahead segment: header, records, group trailers.

Owns the encoding, and the one judgement of recovery that depends on it: whether a group that does
not check is a torn tail or rot.

A segment is a zero-filled file. All integers are big-endian.

    header   4,096 bytes, synced before the first group is written
             magic 8 | sequence u64 | bytes of the file u64 | first index u64 | floor u64 | base u8 |
             seed 16 | SHA-256 of origin 32 | root before 32 | crc32c of the above u32 | zeros
    record   length u32 (1 to 65,535) | crc32c of entry u32 | index u64 | entry
    trailer  `G` and the first 7 bytes of the seed | first index u64 | count u32 |
             bytes of its records u32 | size after u64 | root after 32 |
             crc32c u32 of seed, records and the trailer so far

A group is one or more records and their trailer, written at once and followed by one sync. A group
is valid when its trailer's checksum is: it covers the whole group. The random seed keeps a caller
from having an entry written that looks like a group, and a group of another segment from counting
in this one. A base segment begins anew: older ones no longer count. `floor` is a size that was durable
before the segment got its name, so that what lies below it can never pass for a torn tail.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

import google_crc32c

from gatebook.tlog.tiles import ENTRY_BYTES_MAX

HEADER_BYTES = 4_096
SEED_BYTES = 16
_MAGIC = b"GBWAL\x00\x01\n"
_MARK_BYTES = 8
_HEADER = struct.Struct(">8sQQQQB16s32s32s")
_RECORD = struct.Struct(">IIQ")
_TRAILER = struct.Struct(">8sQIIQ32s")
_CRC = struct.Struct(">I")
RECORD_BYTES = _RECORD.size
TRAILER_BYTES = _TRAILER.size + _CRC.size

Buffer = bytes | mmap.mmap


@dataclass(frozen=True, slots=True)
class Header:
    """What a segment says about itself."""

    sequence: int
    file_bytes: int
    first_index: int
    floor: int
    base: bool
    seed: bytes
    origin_hash: bytes
    root_before: bytes

    def encode(self) -> bytes:
        """Returns the header block."""
        fields = _HEADER.pack(
            _MAGIC,
            self.sequence,
            self.file_bytes,
            self.first_index,
            self.floor,
            self.base,
            self.seed,
            self.origin_hash,
            self.root_before,
        )
        return (fields + _CRC.pack(google_crc32c.value(fields))).ljust(HEADER_BYTES, b"\x00")


@dataclass(frozen=True, slots=True)
class Group:
    """A valid group as it was read."""

    first_index: int
    entries: tuple[bytes, ...]
    root_after: bytes
    end: int
    """The offset after its trailer."""

    @property
    def size_after(self) -> int:
        """The size of the book after the group."""
        return self.first_index + len(self.entries)


@dataclass(frozen=True, slots=True)
class Broken:
    """A place where a group should be and is not valid; `index` is its first entry that does not check."""

    index: int
    offset: int


def origin_hash(origin: str) -> bytes:
    """Returns what a header holds of the origin."""
    return sha256(origin.encode()).digest()


def decode_header(block: bytes) -> Header | None:
    """Returns the header in a header block, or None where it does not check."""
    fields, crc = block[: _HEADER.size], block[_HEADER.size : _HEADER.size + _CRC.size]
    if len(block) != HEADER_BYTES or any(block[_HEADER.size + _CRC.size :]):
        return None
    if crc != _CRC.pack(google_crc32c.value(fields)) or fields[: len(_MAGIC)] != _MAGIC:
        return None
    _, sequence, file_bytes, first_index, floor, base, seed, origin, root = _HEADER.unpack(fields)
    return Header(sequence, file_bytes, first_index, floor, bool(base), seed, origin, root)


def _mark(seed: bytes) -> bytes:
    """Returns what a trailer begins with. No record does, since its length is below 65,536."""
    return b"G" + seed[: _MARK_BYTES - 1]


def group_bytes(entries: Iterable[bytes]) -> int:
    """Returns how many bytes a group of these entries takes."""
    return TRAILER_BYTES + sum(RECORD_BYTES + len(entry) for entry in entries)


def encode_group(entries: Sequence[bytes], first_index: int, root_after: bytes, seed: bytes) -> bytes:
    """Returns a group as it is written."""
    parts: list[bytes] = []
    crc, pack = google_crc32c.value, _RECORD.pack
    for index, entry in enumerate(entries, first_index):
        parts.append(pack(len(entry), crc(entry), index))
        parts.append(entry)
    records = b"".join(parts)
    count = len(entries)
    trailer = _TRAILER.pack(_mark(seed), first_index, count, len(records), first_index + count, root_after)
    group = records + trailer
    return group + _CRC.pack(google_crc32c.extend(google_crc32c.value(seed), group))


def decode_group(segment: Buffer, offset: int, first_index: int, seed: bytes) -> Group | Broken:
    """Returns the group that begins at an offset with an index, or where it is broken."""
    mark = _mark(seed)
    entries: list[bytes] = []
    at, index = offset, first_index
    while segment[at : at + _MARK_BYTES] != mark:
        entry = _decode_record(segment, at, index)
        if entry is None:
            return Broken(index, offset)
        entries.append(entry)
        at, index = at + RECORD_BYTES + len(entry), index + 1
    trailer = _decode_trailer(segment, at, seed)
    if trailer is None or trailer[:3] != (first_index, len(entries), at - offset):
        return Broken(first_index, offset)
    return Group(first_index, tuple(entries), trailer[3], at + TRAILER_BYTES)


def _decode_record(segment: Buffer, at: int, index: int) -> bytes | None:
    head = segment[at : at + RECORD_BYTES]
    if len(head) != RECORD_BYTES:
        return None
    length, crc, stated_index = _RECORD.unpack(head)
    if stated_index != index or not 0 < length <= ENTRY_BYTES_MAX:
        return None
    entry = segment[at + RECORD_BYTES : at + RECORD_BYTES + length]
    return entry if len(entry) == length and google_crc32c.value(entry) == crc else None


def _decode_trailer(segment: Buffer, at: int, seed: bytes) -> tuple[int, int, int, bytes] | None:
    """Returns first index, count, bytes of records and root of a trailer whose whole group checks."""
    fields = segment[at : at + _TRAILER.size]
    if len(fields) != _TRAILER.size:
        return None
    mark, first_index, count, records, size_after, root = _TRAILER.unpack(fields)
    start, end = at - records, at + _TRAILER.size
    if mark != _mark(seed) or not count or start < HEADER_BYTES or size_after != first_index + count:
        return None
    crc = google_crc32c.extend(google_crc32c.value(seed), segment[start:end])
    return (first_index, count, records, root) if segment[end : end + _CRC.size] == _CRC.pack(crc) else None


def valid_group_follows(segment: Buffer, offset: int, seed: bytes) -> bool:
    """Whether any valid group ends after an offset: if so, what is broken there was once durable."""
    at = segment.find(_mark(seed), offset)
    while at >= 0:
        if _decode_trailer(segment, at, seed) is not None:
            return True
        at = segment.find(_mark(seed), at + 1)
    return False


def blank(segment: Buffer, start: int) -> bool:
    """Whether only zeros are left from an offset on."""
    step = RECORD_BYTES
    while start < len(segment):
        chunk = segment[start : start + step]
        if chunk.count(0) != len(chunk):
            return False
        start, step = start + step, 1 << 20
    return True
