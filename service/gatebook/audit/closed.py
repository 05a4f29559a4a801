"""Closed books of a data directory, for proofs: a receipt that an old book gave is still proved by its service.

Owns reading from `<data>/closed`. Nothing changes there any more, so a book is opened whenever somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gatebook.audit.checkpoints import Signed
from gatebook.audit.opening import Layout, check_signed
from gatebook.audit.rotation import CLOSED
from gatebook.audit.tile_folder import TileFolder
from gatebook.errors import BookUnavailableError, EntryNotFoundError, VerificationError
from gatebook.tlog.keys import VerifierKey

CLOSED_MAX = 1_000


class ClosedBook:
    """A closed book."""

    def __init__(self, key: VerifierKey, signed: Signed, tiles: TileFolder) -> None:
        """Takes its key, its final checkpoint and its tiles."""
        self.key = key
        self.signed = signed
        self._tiles = tiles

    def inclusion(self, index: int, size: int) -> tuple[bytes, list[bytes]]:
        """Returns the leaf hash of an entry and its inclusion proof in the tree of a size.

        Raises:
            EntryNotFoundError: the tree does not have this entry.
            BookCorruptError: a tile is not what was written.
        """
        final = self.signed.checkpoint.size
        if not 0 <= index < size <= final:
            message = f"no entry {index} in a tree of {size}: the closed book has {final} entries"
            raise EntryNotFoundError(message, index=str(index), size=str(final))
        # The leaf tile has it of a pruned entry, too; the proof is made of what is above and beside it.
        leaf = self._tiles.leaves(index, index + 1, final)[0]
        return leaf, self._tiles.inclusion_proof(index, size, final)

    def consistency(self, old_size: int, new_size: int) -> list[bytes]:
        """Returns the consistency proof between the trees of two sizes.

        Raises:
            EntryNotFoundError: the larger tree is not there, or is the smaller one.
            BookCorruptError: a tile is not what was written.
        """
        final = self.signed.checkpoint.size
        if not 0 <= old_size <= new_size <= final:
            raise EntryNotFoundError(f"no trees of {old_size} and {new_size}: the closed book has {final} entries")
        return self._tiles.consistency_proof(old_size, new_size, final)


def find_closed(data: Path, origin: str) -> ClosedBook | None:
    """Returns the closed book with an origin, if there is one.

    Raises:
        BookRefusedError, BookCorruptError: it is not what was signed.
        BookUnavailableError: it cannot be read.
    """
    try:
        for folder, key in _folders(data):
            if key.name == origin:
                return ClosedBook(key, check_signed(Layout(folder), key), TileFolder(folder / "book"))
    except OSError as err:
        raise BookUnavailableError(f"the closed book `{origin}` cannot be read: {err.strerror}") from err
    return None


def _folders(data: Path) -> Iterator[tuple[Path, VerifierKey]]:
    for path in sorted((data / CLOSED).glob("*/book/vkey"))[:CLOSED_MAX]:
        try:
            yield path.parent.parent, VerifierKey.parse(path.read_text("utf-8"))
        except (UnicodeDecodeError, VerificationError) as err:
            raise BookUnavailableError(f"`{path}` is no verifier key: restore it from a backup") from err
