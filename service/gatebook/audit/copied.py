"""The entries of a copied book, read once and in order, and checked against its signed checkpoint.

Owns the stream that everything is made of which trusts no index: each entry hashes to its leaf, and the leaves lead to
the root that is signed. Whoever reads it knows that only at its end, and must say nothing before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from gatebook.audit.entry import decode
from gatebook.audit.people import People
from gatebook.audit.record import open_record
from gatebook.audit.tile_folder import TileFolder
from gatebook.audit.verify import CHECKPOINT
from gatebook.errors import BookCorruptError, ContradictionError, VerificationError
from gatebook.tlog.keys import VerifierKey
from gatebook.tlog.merkle import Frontier
from gatebook.tlog.note import NOTE_BYTES_MAX
from gatebook.tlog.proof import open_checkpoint
from gatebook.v1 import audit_service_pb2

ENTRIES_AT_ONCE = 1_024


class CopiedBook:
    """A copied `book` directory, and the store of people where that was copied, too."""

    def __init__(self, book: Path, key: VerifierKey, people: People | None = None) -> None:
        """Opens the copy.

        Raises:
            VerificationError: its checkpoint is not signed by the key, or cannot be read.
        """
        try:
            with (book / CHECKPOINT).open("rb") as file:
                self.note = file.read(NOTE_BYTES_MAX + 1)
        except OSError as err:
            raise VerificationError(f"cannot read the checkpoint in `{book}`: {err.strerror}") from err
        self.checkpoint = open_checkpoint(self.note, key)
        self._key = key
        self._tiles = TileFolder(book)
        self._people = people

    def batches(self, start: int = 0) -> Iterator[Sequence[audit_service_pb2.EntryRecord]]:
        """Yields the entries from `start` on, many at a time, each of which hashes to its leaf.

        Raises:
            VerificationError: one is missing, or not what was written.
        """
        size = self.checkpoint.size
        for first in range(start, size, ENTRIES_AT_ONCE):
            try:
                found = self._tiles.hashed_entries(first, min(size, first + ENTRIES_AT_ONCE), size)
                yield [self._record(index, leaf, raw) for index, (leaf, raw) in enumerate(found, first)]
            except BookCorruptError as err:
                raise VerificationError(err.message, err.index) from err

    def _record(self, index: int, leaf: bytes, raw: bytes) -> audit_service_pb2.EntryRecord:
        if self._people is not None:
            return open_record(index, raw, self.checkpoint.origin, self._people)
        return audit_service_pb2.EntryRecord(index=index, leaf_hash=leaf, entry_bytes=raw, entry=decode(raw, index))


class Rooted:
    """Computes the root of a stream of leaves, and those of checkpoints that were seen on the way."""

    def __init__(self, note: bytes, key: VerifierKey, remembered: Sequence[bytes] = ()) -> None:
        """Takes the checkpoint that the stream must lead to, and those that it must continue.

        Raises:
            ContradictionError: one that must be continued is larger.
            VerificationError: one is not signed by the key.
        """
        self._note = note
        self._checkpoint = open_checkpoint(note, key)
        self._kept = {(seen := open_checkpoint(kept, key)).size: (seen.root, kept) for kept in remembered}
        self._frontier = Frontier()
        for size, (_, kept) in self._kept.items():
            if size > self._checkpoint.size:
                message = f"the book ends at {self._checkpoint.size}, but a checkpoint of size {size} was signed"
                raise ContradictionError(message, self._checkpoint.size, (kept, note))

    @property
    def size(self) -> int:
        """Returns how many leaves there must be."""
        return self._checkpoint.size

    def add(self, leaves: Sequence[bytes]) -> None:
        """Takes the next leaves.

        Raises:
            ContradictionError: they do not continue a checkpoint that was seen.
        """
        start, end = self._frontier.size, self._frontier.size + len(leaves)
        for size in sorted(size for size in self._kept if start < size <= end):
            self._frontier.extend(leaves[self._frontier.size - start : size - start])
            root, kept = self._kept[size]
            if self._frontier.root() != root:
                message = f"the entries before {size} are not those that were signed at that size"
                raise ContradictionError(message, 0, (kept, self._note))
        self._frontier.extend(leaves[self._frontier.size - start :])

    def require_root(self) -> None:
        """Checks that these were all leaves, and that they lead to the root that is signed.

        Raises:
            VerificationError: they do not.
        """
        checkpoint, frontier = self._checkpoint, self._frontier
        if (frontier.size, frontier.root()) != (checkpoint.size, checkpoint.root):
            raise VerificationError(
                f"{frontier.size} entries do not lead to the root that is signed for {checkpoint.size}"
            )
