"""The published book: a C2SP tlog-tiles directory, as its own service reads it.

Owns reading. `publish` writes it, `verify` checks it without trusting anything here. Whoever reads
names a published size; a partial tile of that size may meanwhile have given way to the full one.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from gatebook.errors import BookCorruptError, VerificationError
from gatebook.tlog import merkle
from gatebook.tlog.merkle import Frontier, SubtreeHash, leaf_hash
from gatebook.tlog.tiles import (
    BUNDLE_BYTES_MAX,
    ENTRIES,
    TILE_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    Tile,
    decode_bundle,
    split_tile,
    subtree_in_tile,
    tile_count,
)


class TileFolder:
    """Reads tiles and bundles, and proves with them."""

    def __init__(self, path: Path) -> None:
        """Takes the directory that holds `checkpoint` and `tile`."""
        self.path = path

    def hashes(self, level: int, number: int, size: int) -> list[bytes]:
        """Returns the hashes of a tile in the tree of a published size; empty where it has none.

        Raises:
            BookCorruptError: the tile is missing or malformed.
        """
        return self._read(level, number, size)

    def bundle(self, number: int, size: int) -> list[bytes]:
        """Returns the entries of a bundle in the tree of a published size.

        Raises:
            BookCorruptError: the bundle is missing or malformed.
        """
        return self._read(ENTRIES, number, size)

    def first_bundle(self, size: int) -> int:
        """Returns the number of the first bundle that is there: those before it are pruned, or lost."""
        number = 0
        while number < size // TILE_WIDTH and not (self.path / Tile(ENTRIES, number).path).exists():
            number += 1
        return number

    def entries(self, start: int, end: int, size: int) -> list[bytes]:
        """Returns published entries, each checked against its leaf hash.

        Raises:
            BookCorruptError: one is missing or not what was written.
        """
        return [entry for _, entry in self.hashed_entries(start, end, size)]

    def hashed_entries(self, start: int, end: int, size: int) -> list[tuple[bytes, bytes]]:
        """Returns published entries behind their leaf hashes, each checked against it.

        Raises:
            BookCorruptError: one is missing or not what was written.
        """
        entries: list[tuple[bytes, bytes]] = []
        while start < end:
            number, first = divmod(start, TILE_WIDTH)
            bundle, leaves = self.bundle(number, size), self.hashes(0, number, size)
            last = min(end - number * TILE_WIDTH, TILE_WIDTH)
            found = list(zip(leaves[first:last], bundle[first:last], strict=True))
            for index, (leaf, entry) in enumerate(found, start):
                if leaf_hash(entry) != leaf:
                    raise BookCorruptError(f"entry {index} does not hash to its leaf", index)
            entries += found
            start += len(found)
        return entries

    def leaves(self, start: int, end: int, size: int) -> list[bytes]:
        """Returns the leaf hashes of published entries, as they are in the leaf tiles: of pruned entries, too.

        Raises:
            BookCorruptError: a tile is missing or malformed.
        """
        found: list[bytes] = []
        while start < end:
            number, first = divmod(start, TILE_WIDTH)
            found += self.hashes(0, number, size)[first : min(end - number * TILE_WIDTH, TILE_WIDTH)]
            start = (number + 1) * TILE_WIDTH
        return found

    def frontier(self, size: int, published_size: int) -> Frontier:
        """Returns the frontier of the first `size` entries.

        Raises:
            BookCorruptError: a tile is missing or malformed.
        """
        return merkle.frontier_at(size, self._subtree(published_size))

    def inclusion_proof(self, index: int, size: int, published_size: int) -> list[bytes]:
        """Returns the inclusion proof of an entry in the tree of a size.

        Raises:
            BookCorruptError: a tile is missing or malformed.
        """
        return merkle.inclusion_proof(index, size, self._subtree(published_size))

    def inclusion_proofs(self, indexes: Sequence[int], size: int, published_size: int) -> list[list[bytes]]:
        """Returns the inclusion proofs of entries in the tree of a size; what they have in common is hashed once.

        Raises:
            BookCorruptError: a tile is missing or malformed.
        """
        subtree = functools.cache(self._subtree(published_size))
        return [merkle.inclusion_proof(index, size, subtree) for index in indexes]

    def consistency_proof(self, old_size: int, new_size: int, published_size: int) -> list[bytes]:
        """Returns the consistency proof between the trees of two sizes.

        Raises:
            BookCorruptError: a tile is missing or malformed.
        """
        return merkle.consistency_proof(old_size, new_size, self._subtree(published_size))

    def _subtree(self, published_size: int) -> SubtreeHash:
        tiles: dict[tuple[int, int], list[bytes]] = {}

        def subtree(level: int, number: int) -> bytes:
            tile_level, height = divmod(level, TILE_HEIGHT)
            tile_number, within = divmod(number, TILE_WIDTH >> height)
            key = (tile_level, tile_number)
            if key not in tiles:
                tiles[key] = self.hashes(tile_level, tile_number, published_size)
            return subtree_in_tile(tiles[key], height, within)

        return subtree

    def _read(self, level: int, number: int, size: int) -> list[bytes]:
        width = min(max(tile_count(level, size) - number * TILE_WIDTH, 0), TILE_WIDTH)
        if not width:
            return []
        full, partial = Tile(level, number), Tile(level, number, width)
        # The partial tile goes only once the full one is there, so the last look cannot miss both.
        for tile in (full,) if width == TILE_WIDTH else (partial, full):
            content = self._content(tile)
            if content is not None:
                return _decode(content, tile)[:width]
        index = full.first_index
        raise BookCorruptError(f"`{partial.path}` is missing: restore the book from a backup", index)

    def _content(self, tile: Tile) -> bytes | None:
        bytes_max = BUNDLE_BYTES_MAX if tile.level == ENTRIES else TILE_BYTES
        try:
            with (self.path / tile.path).open("rb") as file:
                return file.read(bytes_max + 1)
        except FileNotFoundError:
            return None


def _decode(content: bytes, tile: Tile) -> list[bytes]:
    try:
        return decode_bundle(content, tile) if tile.level == ENTRIES else split_tile(content, tile)
    except VerificationError as err:
        raise BookCorruptError(f"{err}: restore the book from a backup", err.index) from err
