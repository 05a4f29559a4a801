"""The book: append-only, one writer, durable before it answers.

Owns a data directory as long as it is open, and promises:

1. Exactly one process has it open: it holds a lock.
2. `append_group` returns only when every entry is durable, with dense indexes.
3. `read` returns any entry that is durable, checked.
4. A book is not opened unless what is published, what is signed and what was written agree. A
   stored checkpoint that is newer than the database, another root for the same size, another
   origin or key, a clock behind the last checkpoint, or rot: each refuses the start.
5. After a failed write or sync nothing more is written, and only a restart helps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from gatebook.audit.checkpoints import Checkpoints, Signed
from gatebook.audit.files import Files
from gatebook.audit.limits import BookLimits
from gatebook.audit.lock import DirectoryLock
from gatebook.audit.opening import Layout, check_book, create_book
from gatebook.audit.recovery import Recovery, recover
from gatebook.audit.segment import HEADER_BYTES, group_bytes
from gatebook.audit.signing_elsewhere import BookKey, SignerKey, elsewhere
from gatebook.audit.tile_folder import TileFolder
from gatebook.audit.wal import RetiredError, Wal
from gatebook.errors import (
    BookCorruptError,
    BookFailedError,
    BookRefusedError,
    BookUnavailableError,
    EntryNotFoundError,
    EntryPrunedError,
    LimitExceededError,
)
from gatebook.tlog.merkle import Frontier, leaf_hash
from gatebook.tlog.tiles import ENTRY_BYTES_MAX, TILE_WIDTH


@dataclass(frozen=True, slots=True)
class Head:
    """How far the book is durable: a size, and the root over that many entries."""

    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Appended:
    """Where entries stand that were appended together: at dense indexes from the first one on."""

    first_index: int
    leaf_hashes: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Opened:
    """What a start found: the parts that an open book is made of."""

    lock: DirectoryLock
    key: BookKey
    signed: Signed
    wal: Wal
    frontier: Frontier
    recovery: Recovery


class Book:
    """An open book. One thread appends and one publishes; any thread reads."""

    def __init__(self, layout: Layout, opened: Opened, files: Files, limits: BookLimits) -> None:
        """Takes what a start found; `Book.open` is how to get here."""
        self.layout = layout
        self.files = files
        self.limits = limits
        self.key = opened.key
        self.recovery = opened.recovery
        self.checkpoints = Checkpoints(layout.checkpoints)
        self.tiles = TileFolder(layout.book)
        self.wal = opened.wal
        self._lock = opened.lock
        self._frontier = opened.frontier  # owned by the thread that appends
        self._head = Head(opened.frontier.size, opened.frontier.root())
        self._signed = opened.signed  # replaced by the thread that publishes
        self._first_index = 0
        self._failure = ""
        self._publish_trouble = ""
        self._closed = False

    @classmethod
    def open(
        cls,
        data_dir: Path,
        *,
        origin: str,
        create: bool = True,
        signer: Path | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        limits: BookLimits | None = None,
        files: Files | None = None,
    ) -> Self:
        """Opens the book in a data directory, or makes a new one where there is none; `signer` holds its key.

        Raises:
            BookRefusedError: the book must not be served. Nothing of it was changed.
            BookCorruptError: bytes of it are not what was written; its `index` says where.
            BookUnavailableError: it could not be made or read, or its tail not be copied.
        """
        layout, limits, files = Layout(data_dir), limits or BookLimits(), files or Files()
        if not create and not layout.key.exists():
            raise BookRefusedError(f"there is no book in `{data_dir}`")
        try:
            files.make_directories(data_dir)
            lock = DirectoryLock(layout.lock)
            try:
                # What a killed process has begun to name may be in memory only, and all that follows builds on it.
                with suppress(PermissionError):  # who made the folder for us made its name durable, too
                    files.settle(data_dir.absolute().parent)
                files.settle(data_dir, layout.key.parent, layout.book, layout.wal)
                if not layout.key.exists():
                    made = None if signer is None else SignerKey.asked(signer, origin)
                    create_book(layout, origin, clock_ns(), files, limits, made)
                key, signed = check_book(layout, origin, clock_ns(), files, limits)
                if signer is not None:
                    key = elsewhere(key, signer)
                size = signed.checkpoint.size
                tiles = TileFolder(layout.book)
                recovered = recover(layout.wal, signed.checkpoint, lambda at: tiles.frontier(at, size), files, limits)
                return cls(layout, Opened(lock, key, signed, *recovered), files, limits)
            except BaseException:
                lock.release()
                raise
        except OSError as err:
            raise BookUnavailableError(f"cannot open the book in `{data_dir}`: {err.strerror}") from err

    @property
    def origin(self) -> str:
        """The name of the book, which is also the name of its key."""
        return self.key.name

    @property
    def head(self) -> Head:
        """How far the book is durable."""
        return self._head

    @property
    def size(self) -> int:
        """The number of durable entries."""
        return self._head.size

    @property
    def first_index(self) -> int:
        """The index of the first entry that is kept: those before it are pruned."""
        return self._first_index

    @property
    def root(self) -> bytes:
        """The root over the durable entries."""
        return self._head.root

    @property
    def signed(self) -> Signed:
        """The newest published checkpoint."""
        return self._signed

    @property
    def failure(self) -> str:
        """Why the book cannot be written any more until the next start; empty when it can."""
        return self._failure

    @property
    def trouble(self) -> str:
        """Why the book cannot be written now; empty when it can."""
        return self._failure or self._publish_trouble

    def append_group(self, entries: Sequence[bytes]) -> Appended:
        """Appends entries, all or none, and returns when they are durable. For one thread at a time.

        Raises:
            LimitExceededError: an entry is empty or too large, or there are too many. Nothing was written.
            BookUnavailableError: there is no space, or publishing is in trouble. Nothing was written.
            OverloadedError: publishing does not keep up. Nothing was written.
            BookFailedError: a write or sync failed, now or before. What is on disk is decided by the
                next start.
        """
        needed = self._require_fitting(entries)
        if self.trouble:
            raise (BookFailedError if self._failure else BookUnavailableError)(self.trouble)
        head, frontier = self._head, self._frontier
        leaves = [leaf_hash(entry) for entry in entries]
        try:
            self.wal.reserve(needed, head.size, head.root)
            frontier.extend(leaves)
            root = frontier.root()
            self.wal.append(entries, head.size, root)  # returns after the commit point
        except BookFailedError as err:
            self._failure = err.message
            raise
        self._head = Head(frontier.size, root)
        return Appended(head.size, leaves)

    def _require_fitting(self, entries: Sequence[bytes]) -> int:
        """Returns how many bytes the group takes."""
        limits = self.limits
        if not 0 < len(entries) <= limits.group_entries_max:
            raise LimitExceededError(f"a group has 1 to {limits.group_entries_max} entries, not {len(entries)}")
        if any(not 0 < len(entry) <= ENTRY_BYTES_MAX for entry in entries):
            raise LimitExceededError(f"an entry has 1 to {ENTRY_BYTES_MAX} bytes")
        needed = group_bytes(entries)
        if needed > min(limits.group_bytes_max, limits.segment_bytes - HEADER_BYTES):
            raise LimitExceededError(f"a group has at most {limits.group_bytes_max} bytes, not {needed}")
        return needed

    def read(self, start: int, end: int) -> list[bytes]:
        """Returns the bytes of the durable entries from `start` to before `end`, each checked.

        Raises:
            EntryNotFoundError: the book does not reach so far, or begins later.
            LimitExceededError: these are too many at once.
            BookCorruptError: one is not what was written.
            BookUnavailableError: the book is closed, or cannot be read now.
        """
        if not 0 <= start <= end <= self.size:
            raise EntryNotFoundError(f"the book has no entries {start} to {end}: it ends at {self.size}")
        self.require_kept(start)
        if end - start > self.limits.read_entries_max:
            raise LimitExceededError(f"a read returns at most {self.limits.read_entries_max} entries")
        entries: list[bytes] = []
        with _reading():
            while (at := start + len(entries)) < end:
                published = self._signed.checkpoint.size
                if at < published:
                    entries += self.tiles.entries(at, min(end, published), published)
                    continue
                try:
                    entries += self.wal.read(at, end)
                except RetiredError as err:
                    if self._closed:
                        raise BookUnavailableError("the book is closed") from err
                    # Published and retired in between, so that the tiles have it; or lost.
                    if self._signed.checkpoint.size <= at:
                        raise BookCorruptError(f"entry {at} is nowhere: restore the book from a backup", at) from err
        return entries

    def inclusion_proof(self, index: int, size: int = 0) -> list[bytes]:
        """Returns the inclusion proof of an entry in the tree of a published size; 0 means the newest.

        Raises:
            EntryNotFoundError: the tree does not have this entry, or is not published.
            BookCorruptError: a tile is not what was written.
            BookUnavailableError: the tiles cannot be read now.
        """
        published = self._signed.checkpoint.size
        size = size or published
        if not 0 <= index < size <= published:
            message = f"no entry {index} in a tree of {size}: {published} entries are published"
            raise EntryNotFoundError(message, index=str(index), size=str(published))
        with _reading():
            return self.tiles.inclusion_proof(index, size, published)

    def inclusion_proofs(self, indexes: Sequence[int], size: int) -> list[list[bytes]]:
        """Returns the inclusion proofs of entries in the tree of a published size.

        Raises:
            EntryNotFoundError: the tree does not have one of them, or is not published.
            BookCorruptError: a tile is not what was written.
        """
        published = self._signed.checkpoint.size
        if not 0 <= min(indexes) <= max(indexes) < size <= published:
            raise EntryNotFoundError(f"not all are in a tree of {size}: {published} entries are published")
        return self.tiles.inclusion_proofs(indexes, size, published)

    def consistency_proof(self, old_size: int, new_size: int = 0) -> list[bytes]:
        """Returns the consistency proof between the trees of two published sizes; 0 means the newest.

        Raises:
            EntryNotFoundError: the larger tree is not published, or is the smaller one.
            BookCorruptError: a tile is not what was written.
            BookUnavailableError: the tiles cannot be read now.
        """
        published = self._signed.checkpoint.size
        new_size = new_size or published
        if not 0 <= old_size <= new_size <= published:
            raise EntryNotFoundError(f"no trees of {old_size} and {new_size}: {published} entries are published")
        with _reading():
            return self.tiles.consistency_proof(old_size, new_size, published)

    def leaf_hash(self, index: int) -> bytes:
        """Returns the leaf hash of a published entry, be it pruned or not.

        Raises:
            EntryNotFoundError: so many are not published.
            BookCorruptError: the tile is not there.
        """
        published = self._signed.checkpoint.size
        if not 0 <= index < published:
            raise EntryNotFoundError(f"no entry {index} is published", index=str(index), size=str(published))
        return self.tiles.hashes(0, index // TILE_WIDTH, published)[index % TILE_WIDTH]

    def require_kept(self, index: int) -> None:
        """Requires that an entry is not pruned.

        Raises:
            EntryPrunedError: it is.
        """
        if index < self._first_index:
            raise EntryPrunedError(
                f"entry {index} is pruned: the book begins with entry {self._first_index}",
                index=str(index),
                first_index=str(self._first_index),
            )

    def mark_first(self, first_index: int) -> None:
        """Takes note of where the book begins. For whoever prunes, and for a start."""
        self._first_index = max(self._first_index, first_index)

    def mark_published(self, signed: Signed) -> None:
        """Takes note of a checkpoint that is stored and published. For the publisher."""
        self._signed = signed

    def mark_publish_trouble(self, trouble: str) -> None:
        """Stops writing while publishing fails; empty means it works again. For the publisher."""
        self._publish_trouble = trouble

    def mark_failed(self, failure: str) -> None:
        """Stops writing for good. For the publisher, when a sync failed or disk and memory differ."""
        self._failure = self._failure or failure

    def close(self) -> None:
        """Closes the files and lets others in. Who writes and publishes must have stopped."""
        self._failure = self._failure or "the book is closed"
        self._closed = True
        self.wal.close()
        self._lock.release()


@contextmanager
def _reading() -> Iterator[None]:
    """Says of a disk that cannot be read what it is: the world's fault, which may pass."""
    try:
        yield
    except OSError as err:
        raise BookUnavailableError(f"the book cannot be read: {err.strerror}") from err
