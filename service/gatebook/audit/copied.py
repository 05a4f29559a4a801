"""The entries of a copied book, read once and in order, and checked against its signed checkpoint.

Owns the stream that everything is made of which trusts no index: each entry hashes to its leaf, and the leaves lead to
the root that is signed. Whoever reads it knows that only at its end, and must say nothing before.

A pruned book begins later. The leaves of what is gone are still there, and lead to the root with all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from gatebook.audit.chain import control_links
from gatebook.audit.control_state import control_state
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
from gatebook.tlog.tiles import TILE_WIDTH
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
        self.first_index = self._first_index()
        """Where the book begins: what is before it is pruned, as an entry says."""

    @property
    def size(self) -> int:
        """Returns how many entries are published."""
        return self.checkpoint.size

    def read(self, start: int, end: int) -> list[bytes]:
        """Returns the bytes of [start, end)."""
        return self._tiles.entries(start, end, self.size)

    def leaves(self, start: int, end: int) -> Iterator[list[bytes]]:
        """Yields the leaf hashes of entries, pruned ones too, many at a time.

        Raises:
            VerificationError: a tile is missing or malformed.
        """
        for first in range(start, end, ENTRIES_AT_ONCE):
            try:
                yield self._tiles.leaves(first, min(end, first + ENTRIES_AT_ONCE), self.size)
            except BookCorruptError as err:
                raise VerificationError(err.message, err.index) from err

    def edge(self) -> list[bytes]:
        """Returns the maximal subtrees over what is pruned, the largest first.

        Raises:
            VerificationError: a tile is missing or malformed.
        """
        try:
            return list(self._tiles.frontier(self.first_index, self.size).hashes)
        except BookCorruptError as err:
            raise VerificationError(err.message, err.index) from err

    def _first_index(self) -> int:
        """Returns where the book begins.

        Raises:
            VerificationError: entries are missing, and none says why.
        """
        begins = self._tiles.first_bundle(self.size) * TILE_WIDTH
        if not begins:
            return 0
        try:
            permitted = control_state(control_links(self)).first_index
        except BookCorruptError as err:
            raise VerificationError(err.message, err.index) from err
        if permitted < begins:
            raise VerificationError(f"entry {permitted} is missing, and no retention entry says why", permitted)
        return begins

    def batches(self, start: int = 0) -> Iterator[Sequence[audit_service_pb2.EntryRecord]]:
        """Yields the entries from `start` on that are there, many at a time, each of which hashes to its leaf.

        Raises:
            VerificationError: one is missing, or not what was written.
        """
        size = self.checkpoint.size
        for first in range(max(start, self.first_index), size, ENTRIES_AT_ONCE):
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

    def begin(self, size: int, subtrees: Sequence[bytes]) -> None:
        """Begins at a size, with the maximal subtrees over all leaves before; only the root shows whether they hold.

        Raises:
            ContradictionError: they do not continue a checkpoint that was seen.
            VerificationError: there is one of before, which cannot be compared.
        """
        if len(subtrees) != size.bit_count():
            raise VerificationError(
                f"what is pruned before {size} has {size.bit_count()} subtrees, not {len(subtrees)}"
            )
        before = max((each for each in self._kept if 0 < each < size), default=0)
        if before:
            message = f"a checkpoint of size {before} is remembered, from before entry {size}, where this begins"
            raise VerificationError(f"{message}: verify a copy of the book first, which remembers a newer one")
        self._frontier = Frontier(size, subtrees)
        if size in self._kept and self._frontier.root() != self._kept[size][0]:
            message = f"the entries before {size} are not those that were signed at that size"
            raise ContradictionError(message, 0, (self._kept[size][1], self._note))

    @property
    def reached(self) -> int:
        """Returns how many leaves there were so far."""
        return self._frontier.size

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
