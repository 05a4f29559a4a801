"""What a start finds in the write-ahead log, and what it makes of it.

Owns the judgement between a torn tail and rot:

1. Replay begins in the last segment that starts at or below the published size, with the frontier
   that the published tiles give for it; what lies before is covered by a signed checkpoint.
2. Every record, group and root is checked; at the published size the root must be the signed one.
3. Only the last group may be torn: it is not valid, nothing valid follows, nothing below the
   published size or a segment's floor is lost with it, and the file is as long as it was made. Such
   a group was never acknowledged.
4. Anything else that does not check is rot, and raises with its index.
5. What is not yet published is copied to a new, synced segment, since after a failed sync the page
   cache may show what the disk does not hold. Only then the old segments go.

A start after an orderly stop takes the same way.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gatebook.audit.files import Files
from gatebook.audit.limits import BookLimits
from gatebook.audit.segment import (
    HEADER_BYTES,
    SEED_BYTES,
    Buffer,
    Group,
    Header,
    blank,
    decode_group,
    decode_header,
    encode_group,
    origin_hash,
    valid_group_follows,
)
from gatebook.audit.wal import SEGMENT_SUFFIX, TEMPORARY_SUFFIX, Place, Segment, Wal, segment_path
from gatebook.errors import BookCorruptError, BookRefusedError
from gatebook.tlog.checkpoint import Checkpoint
from gatebook.tlog.merkle import Frontier, leaf_hash

FrontierAt = Callable[[int], Frontier]


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a start found."""

    published_size: int
    size: int
    torn_bytes: int
    """Bytes of a group that was begun and never acknowledged."""


class Replay:
    """One pass over the segments, which changes nothing."""

    def __init__(self, folder: Path, published: Checkpoint, frontier_at: FrontierAt) -> None:
        """Takes the signed checkpoint of the published tiles, and the frontiers that they give."""
        self._published = published
        self._origin_hash = origin_hash(published.origin)
        self._segments = [(path, _read_header(path)) for path in segment_paths(folder)]
        self._begin(frontier_at)
        self.torn_bytes = 0

    def _begin(self, frontier_at: FrontierAt) -> None:
        size = self._published.size
        starts = [at for at, (_, header) in enumerate(self._segments) if header and header.first_index <= size]
        if not starts:
            raise BookCorruptError(f"no segment of the write-ahead log begins at or below entry {size}", size)
        self._segments = self._segments[starts[-1] :]
        first = self._segments[0][1]
        self._floor = size
        self.frontier = frontier_at(first.first_index if first else 0)

    def groups(self) -> Iterator[Group]:
        """Yields the valid groups, each after it is checked.

        Raises:
            BookCorruptError: something that was durable is not what was written.
            BookRefusedError: a segment belongs to another book.
        """
        for at, (path, header) in enumerate(self._segments):
            with _content(path) as content:
                if header is None:
                    self._require_unused(content, at)
                    break
                self._check_header(header, path)
                yield from self._segment_groups(content, header, at)
            if self.torn_bytes:
                break
        if self.frontier.size < self._floor:
            self._rot(self.frontier.size, "is missing from the write-ahead log, but was durable")

    def _segment_groups(self, content: Buffer, header: Header, at: int) -> Iterator[Group]:
        offset = HEADER_BYTES
        while not blank(content, offset):
            group = decode_group(content, offset, self.frontier.size, header.seed)
            if not isinstance(group, Group):
                cut = len(content) < header.file_bytes
                if cut or group.index < self._floor or valid_group_follows(content, offset, header.seed):
                    self._rot(group.index, "in the write-ahead log is not what was written")
                self._require_blank_after(at, group.index)
                self.torn_bytes = len(content[offset:].rstrip(b"\x00"))
                return
            self._advance(group)
            yield group
            offset = group.end
        if len(content) < header.file_bytes:
            self._rot(self.frontier.size, "may have been in a segment that is shorter than it was made")

    def _advance(self, group: Group) -> None:
        published = self._published
        for entry in group.entries:
            self.frontier.append(leaf_hash(entry))
        root = self.frontier.root()
        if root != group.root_after:
            self._rot(group.first_index, "or a later one of its group does not lead to the root that was written")
        if group.first_index < published.size < group.size_after:
            self._rot(group.first_index, "is in a group of which only a part was published")
        if group.size_after == published.size and root != published.root:
            self._rot(group.first_index, "does not lead to the root that was signed")

    def _check_header(self, header: Header, path: Path) -> None:
        if header.origin_hash != self._origin_hash:
            raise BookRefusedError(f"`{path.name}` belongs to another book than `{self._published.origin}`")
        size = self.frontier.size
        if path.name != segment_path(path.parent, header.sequence).name or header.first_index != size:
            self._rot(size, f"should be in `{path.name}`, which begins with entry {header.first_index}")
        if header.root_before != self.frontier.root():
            self._rot(size, f"in `{path.name}` follows another history")
        self._floor = max(self._floor, header.floor)

    def _require_unused(self, content: Buffer, at: int) -> None:
        """A segment without a valid header is a spare, or was just begun: no group is in it or after it."""
        if not blank(content, HEADER_BYTES):
            self._rot(self.frontier.size, "should be in a segment whose header is not what was written")
        self._require_blank_after(at, self.frontier.size)

    def _require_blank_after(self, at: int, index: int) -> None:
        for path, _ in self._segments[at + 1 :]:
            with _content(path) as content:
                if not blank(content, 0):
                    self._rot(index, "in the write-ahead log is not what was written")

    def _rot(self, index: int, what: str) -> None:
        raise BookCorruptError(f"entry {index} {what}: restore the book from a backup", index)


def recover(
    folder: Path, published: Checkpoint, frontier_at: FrontierAt, files: Files, limits: BookLimits
) -> tuple[Wal, Frontier, Recovery]:
    """Returns the write-ahead log ready for writing, the frontier at its end, and what was found.

    Raises:
        BookCorruptError: something that was durable is not what was written.
        BookRefusedError: a segment belongs to another book.
        OSError: the tail could not be copied.
    """
    old = segment_paths(folder)
    replay = Replay(folder, published, frontier_at)
    sequence = int(old[-1].stem) + 1
    base, places = _write_base(folder, sequence, published, replay.groups(), files, limits)
    for path in (*old, *folder.glob(f"*{TEMPORARY_SUFFIX}")):
        files.remove(path)
    files.sync_directory(folder)
    found = Recovery(published.size, replay.frontier.size, replay.torn_bytes)
    return Wal(folder, files, limits, base, places), replay.frontier, found


def begin(folder: Path, published: Checkpoint, files: Files, limits: BookLimits) -> None:
    """Makes the first segment of a new book.

    Raises:
        OSError: it could not be made.
    """
    segment, _ = _write_base(folder, 1, published, iter(()), files, limits)
    os.close(segment.descriptor)


def copy_tail(replay: Replay, folder: Path, published: Checkpoint, files: Files, limits: BookLimits) -> Path:
    """Makes the first segment of a copied book, which holds what is not yet published; returns its path.

    Raises:
        BookCorruptError: something that was durable is not what was written.
        BookRefusedError: a segment belongs to another book.
        OSError: it could not be made.
    """
    segment, _ = _write_base(folder, 1, published, replay.groups(), files, limits)
    os.close(segment.descriptor)
    return segment.path


def _write_base(
    folder: Path, sequence: int, published: Checkpoint, groups: Iterator[Group], files: Files, limits: BookLimits
) -> tuple[Segment, list[Place]]:
    """Writes a segment that makes the older ones superfluous, whole and synced before it has its name."""
    path = segment_path(folder, sequence)
    temporary = path.with_suffix(TEMPORARY_SUFFIX)
    seed = os.urandom(SEED_BYTES)
    segment = Segment(path, sequence, 0, files.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC))
    places: list[Place] = []
    size = published.size
    try:
        for group in groups:
            if group.size_after <= published.size:
                continue
            content = encode_group(group.entries, group.first_index, group.root_after, seed)
            files.write(segment.descriptor, content, segment.end)
            offset, segment.end = segment.end, segment.end + len(content)
            places.append(Place(group.first_index, group.size_after, segment, offset, segment.end))
            size = group.size_after
        whole = limits.segment_bytes
        segment.size = whole if segment.end <= whole // 2 else segment.end + whole
        files.zero_fill(segment.descriptor, segment.end, segment.size)
        segment.header = Header(
            sequence,
            segment.size,
            published.size,
            size,
            base=True,
            seed=seed,
            origin_hash=origin_hash(published.origin),
            root_before=published.root,
        )
        files.write(segment.descriptor, segment.header.encode(), 0)
        files.sync(segment.descriptor)
        files.rename(temporary, path)
        files.sync_directory(folder)
    except BaseException:
        os.close(segment.descriptor)
        temporary.unlink(missing_ok=True)
        raise
    return segment, places


def segment_paths(folder: Path) -> list[Path]:
    """Returns the segments in a folder, in their order."""
    return sorted(folder.glob(f"{'[0-9]' * 16}{SEGMENT_SUFFIX}"))


@contextmanager
def _content(path: Path) -> Iterator[Buffer]:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield content


def _read_header(path: Path) -> Header | None:
    with path.open("rb") as file:
        return decode_header(file.read(HEADER_BYTES))
