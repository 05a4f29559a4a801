"""The write-ahead log: preallocated segments in a folder.

Owns the segment files of a running book and promises:

1. A group is durable when `append` returns; one `fdatasync` each is the commit point.
2. Space is found before a group is begun: the next segment is zero-filled and synced before it is
   needed, and where that fails `reserve` raises and nothing is written.
3. A segment goes only when a published, durable checkpoint covers all of it; its space is used again.

One thread appends. Others read, make space and retire at the same time; `_lock` guards the list of
segments and places between them.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gatebook.audit.files import Files
from gatebook.audit.limits import BookLimits
from gatebook.audit.segment import HEADER_BYTES, SEED_BYTES, Broken, Header, decode_group, encode_group
from gatebook.audit.wal_run import Run
from gatebook.errors import BookCorruptError, BookFailedError, BookUnavailableError, OverloadedError
from gatebook.tally import BYTES, COUNTS, SECONDS, Distribution

FILL_BYTES = 256 * 1024
"""What is filled and synced at once while nobody waits for it: a sync of a whole segment holds up those of groups."""
SEGMENT_SUFFIX = ".wal"
TEMPORARY_SUFFIX = ".new"


class RetiredError(Exception):
    """An entry is no longer in the write-ahead log, since it is published."""


@dataclass(slots=True)
class Segment:
    """An open segment file. `header` is None while it is a spare."""

    path: Path
    sequence: int
    size: int
    descriptor: int
    header: Header | None = None
    end: int = HEADER_BYTES
    """The offset after its last group."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a group lies."""

    first_index: int
    size_after: int
    segment: Segment
    offset: int
    end: int


def segment_path(folder: Path, sequence: int) -> Path:
    """Returns the path of a segment."""
    return folder / f"{sequence:016d}{SEGMENT_SUFFIX}"


class Wal:
    """The write-ahead log of an open book. `recovery.recover` makes one."""

    def __init__(self, folder: Path, files: Files, limits: BookLimits, base: Segment, places: list[Place]) -> None:
        """Takes the base segment that recovery wrote, and where its groups lie."""
        self._folder = folder
        self._files = files
        self._limits = limits
        self._lock = threading.Lock()
        self._spare_lock = threading.Lock()
        self._segments = [base]
        self._places = places
        self._spare: Segment | None = None
        self._retired: Path | None = None
        self._anew = False  # whether the next group begins a segment
        self._hurried = False  # while the thread that appends waits for the spare
        self.space_taken = threading.Event()
        """Is set when the spare came into use, and another one is to be made soon."""
        self._next_sequence = base.sequence + 1
        self._bytes = base.size
        self.sync_seconds = Distribution(SECONDS)  # these three belong to the thread that appends
        self.group_entries = Distribution(COUNTS)
        self.group_bytes = Distribution(BYTES)

    @property
    def size_bytes(self) -> int:
        """Returns how much space the segments take."""
        return self._bytes

    def reserve(self, needed: int, first_index: int, root_before: bytes) -> None:
        """Makes sure that a group of so many bytes fits, in a new segment if need be.

        Raises:
            BookUnavailableError: there is no space for another segment. Nothing was written.
            OverloadedError: too much is not yet published. Nothing was written.
            BookFailedError: the header of the next segment could not be made durable.
        """
        current = self._segments[-1]
        if current.end + needed <= current.size and not self._anew:
            return
        if self._bytes > self._limits.unpublished_bytes_max:
            raise OverloadedError("the write-ahead log is full: publishing does not keep up")
        self._hurried = True
        try:
            self.make_space()
        finally:
            self._hurried = False
        with self._spare_lock, self._lock:
            spare, self._spare = self._spare, None
        if spare is None:
            raise BookUnavailableError("no next segment of the write-ahead log")
        origin = current.header.origin_hash if current.header else b""
        spare.header = Header(
            spare.sequence,
            spare.size,
            first_index,
            first_index,
            base=False,
            seed=os.urandom(SEED_BYTES),
            origin_hash=origin,
            root_before=root_before,
        )
        try:
            self._files.write(spare.descriptor, spare.header.encode(), 0)
            self._files.sync_content(spare.descriptor)
        except OSError as err:
            raise BookFailedError(f"cannot begin a segment of the write-ahead log: {err.strerror}") from err
        with self._lock:
            self._segments.append(spare)
        self._anew = False
        self.space_taken.set()

    def begin_anew(self) -> None:
        """Has the next group begin a segment, so that the one in use goes once it is published. Any thread may call."""
        self._anew = True

    def drop_retired(self) -> None:
        """Removes the segment that was let go of and is kept for the next one, with all that was in it.

        Raises:
            OSError: it could not be removed.
        """
        with self._lock:
            retired, self._retired = self._retired, None
        if retired is not None:
            self._files.remove(retired)
            self._files.sync_directory(self._folder)

    def append(self, entries: Sequence[bytes], first_index: int, root_after: bytes) -> None:
        """Writes a group for which space is reserved, and makes it durable.

        Raises:
            BookFailedError: nobody knows what of it is on disk; no further group may be written.
        """
        segment = self._segments[-1]
        if segment.header is None:
            raise AssertionError
        group = encode_group(entries, first_index, root_after, segment.header.seed)
        try:
            self._files.write(segment.descriptor, group, segment.end)
            began = time.perf_counter()
            self._files.sync_content(segment.descriptor)  # the commit point
            self.sync_seconds.observe(time.perf_counter() - began)
        except OSError as err:
            raise BookFailedError(f"cannot write the book: {err.strerror}") from err
        self.group_entries.observe(len(entries))
        self.group_bytes.observe(len(group))
        offset, segment.end = segment.end, segment.end + len(group)
        place = Place(first_index, first_index + len(entries), segment, offset, segment.end)
        with self._lock:
            self._places.append(place)

    def make_space(self) -> None:
        """Makes the next segment, if it is not there yet, from a retired one if there is one.

        Raises:
            BookUnavailableError: there is no space.
        """
        with self._spare_lock:
            if self._spare is not None:
                return
            with self._lock:
                retired, self._retired = self._retired, None
            try:
                spare = self._make_spare(retired)
            except OSError as err:
                raise BookUnavailableError(f"no space for the write-ahead log: {err.strerror}") from err
            with self._lock:
                self._spare = spare
                self._bytes += spare.size

    def _make_spare(self, retired: Path | None) -> Segment:
        path = segment_path(self._folder, self._next_sequence)
        temporary = path.with_suffix(TEMPORARY_SUFFIX)
        if retired is not None:
            self._files.rename(retired, temporary)
        descriptor = self._files.open(temporary, os.O_RDWR | os.O_CREAT)
        try:
            size = self._limits.segment_bytes
            self._files.allocate(descriptor, size)
            for start in range(0, size, FILL_BYTES):
                self._files.zero_fill(descriptor, start, min(start + FILL_BYTES, size))
                if not self._hurried:
                    self._files.sync_content(descriptor)
            self._files.sync(descriptor)
            self._files.rename(temporary, path)
            self._files.sync_directory(self._folder)
        except OSError:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
            raise
        sequence, self._next_sequence = self._next_sequence, self._next_sequence + 1
        return Segment(path, sequence, self._limits.segment_bytes, descriptor)

    def retire(self, published_size: int) -> None:
        """Lets go of the segments that a durable checkpoint of this size covers wholly.

        Raises:
            OSError: a file could not be removed. It does no harm: recovery passes over it.
        """
        with self._lock:
            keep = 0
            for following in self._segments[1:]:
                if following.header is None or following.header.first_index > published_size:
                    break
                keep += 1
            if not keep:
                return
            gone, self._segments = self._segments[:keep], self._segments[keep:]
            first = self._segments[0].sequence
            self._places = self._places[bisect_left(self._places, first, key=lambda place: place.segment.sequence) :]
            for segment in gone:
                os.close(segment.descriptor)
                self._bytes -= segment.size
        for segment in gone:
            if self._retired is None and segment.size == self._limits.segment_bytes:
                retired = segment.path.with_suffix(TEMPORARY_SUFFIX)
                self._files.rename(segment.path, retired)
                self._retired = retired
            else:
                self._files.remove(segment.path)

    def read(self, start: int, end: int) -> list[bytes]:
        """Returns durable entries that are still here.

        Raises:
            RetiredError: some were retired.
            BookCorruptError: one does not check.
        """
        entries: list[bytes] = []
        while (at := start + len(entries)) < end:
            entries.extend(self.read_group(at)[: end - at])
        return entries

    def read_group(self, index: int) -> Sequence[bytes]:
        """Returns the entries of one group, from an index in it on.

        Raises:
            RetiredError: the group was retired.
            BookCorruptError: an entry does not check.
        """
        first_index, seed, content = self._read_group(index)
        group = decode_group(content, HEADER_BYTES, first_index, seed)
        if isinstance(group, Broken):
            raise BookCorruptError(f"entry {group.index} in the write-ahead log is not what was written", group.index)
        return group.entries[index - first_index :]

    def runs(self, start: int, end: int) -> list[Run]:
        """Returns where the groups with durable entries from `start` to before `end` lie, segment by segment.

        Raises:
            RetiredError: some were retired.
        """
        found: list[Run] = []
        with self._lock:
            places = self._places
            while start < end:
                at = bisect_right(places, start, key=lambda place: place.first_index) - 1
                if at < 0 or start >= places[at].size_after:
                    raise RetiredError(start)
                first, segment = places[at], places[at].segment
                until = bisect_right(places, segment.sequence, key=lambda place: place.segment.sequence)
                last = places[min(until, bisect_left(places, end, key=lambda place: place.first_index)) - 1]
                seed = segment.header.seed if segment.header else b""
                found.append(Run(str(segment.path), first.first_index, first.offset, last.end, seed))
                start = last.size_after
        return found

    def _read_group(self, index: int) -> tuple[int, bytes, bytes]:
        """Returns first index, seed and bytes of the group with an entry, at the offset of a segment's first."""
        with self._lock:
            at = bisect_right(self._places, index, key=lambda place: place.first_index) - 1
            if at < 0 or index >= self._places[at].size_after:
                raise RetiredError(index)
            place = self._places[at]
            segment = place.segment
            group = os.pread(segment.descriptor, place.end - place.offset, place.offset)
            seed = segment.header.seed if segment.header else b""
        return place.first_index, seed, bytes(HEADER_BYTES) + group

    def close(self) -> None:
        """Closes the files."""
        with self._spare_lock, self._lock:
            for segment in (*self._segments, *([self._spare] if self._spare else [])):
                os.close(segment.descriptor)
            self._segments, self._places, self._spare = [], [], None
