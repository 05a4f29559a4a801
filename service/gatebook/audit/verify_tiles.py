"""Verification of the tiles of a copied book: every file, every byte.

Trusts nothing in the directory. Reads each bundle once, in order, and recomputes every tile from the
leaves up; memory holds one row of hashes for each level, whatever the size of the book.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from gatebook.errors import VerificationError
from gatebook.tlog.merkle import HASH_BYTES, Frontier, leaf_hash
from gatebook.tlog.tiles import (
    BUNDLE_BYTES_MAX,
    ENTRIES,
    TILE_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    Tile,
    decode_bundle,
    hashes_root,
    parse_path,
    split_tile,
    tile_count,
)

_NOT_TILES = frozenset({"checkpoint", "vkey", "witnessed"})
_FOLDERS_DEEP_MAX = 12


class TileVerifier:
    """One verification of one directory."""

    def __init__(self, book: Path, size: int, sizes: set[int], promised: dict[int, bytes]) -> None:
        """Takes the signed size, sizes at which roots are wanted, and leaf hashes promised at indexes.

        Promises that are kept are taken out of `promised`.
        """
        self._book = book
        self._size = size
        self._wanted = {*sizes, size}
        self._promised = promised
        self._rows: list[list[bytes]] = []
        self._numbers: list[int] = []
        self._frontier = Frontier()
        self.roots: dict[int, bytes] = {}
        """The root at each wanted size that the book reaches."""
        self.entry_bytes = 0
        self.files = 0

    def verify(self, progress: Callable[[int, int], None]) -> None:
        """Checks every bundle and tile that the size needs.

        Raises:
            VerificationError: one is missing or wrong; `index` is the first entry concerned.
        """
        self._note_root()
        for number in range((self._size + TILE_WIDTH - 1) // TILE_WIDTH):
            first = number * TILE_WIDTH
            self._verify_bundle(number, min(self._size - first, TILE_WIDTH))
            progress(self._frontier.size, self._size)
        for level, row in enumerate(self._rows):
            if row:
                self._check_row(level, row)

    def _verify_bundle(self, number: int, width: int) -> None:
        bundle_tile, bundle = self._read(Tile(ENTRIES, number, width))
        leaf_tile, leaves = self._read(Tile(0, number, width))
        expected = [leaves[at : at + HASH_BYTES] for at in range(0, width * HASH_BYTES, HASH_BYTES)]
        offset, end = 0, len(bundle)
        for index, leaf in enumerate(expected, number * TILE_WIDTH):
            start = offset + 2
            offset = start + int.from_bytes(bundle[offset:start], "big")
            if start > end or offset > end:
                raise VerificationError(f"entry {index} is cut short", index)
            if leaf_hash(bundle[start:offset]) != leaf:
                raise VerificationError(f"entry {index} does not hash to its leaf", index)
            self._add(leaf, index)
            self.entry_bytes += offset - start
        if bundle_tile.width == width and offset != end:
            message = f"{end - offset} bytes follow the last entry in `{bundle_tile.path}`"
            raise VerificationError(message, number * TILE_WIDTH + width)
        split_tile(leaves, leaf_tile)

    def _add(self, leaf: bytes, index: int) -> None:
        if self._promised and self._promised.pop(index, leaf) != leaf:
            raise VerificationError(f"entry {index} is not the one that its receipt promises", index)
        self._frontier.append(leaf)
        self._note_root()
        level, value = 0, leaf
        while True:
            if level == len(self._rows):
                self._rows.append([])
                self._numbers.append(0)
            row = self._rows[level]
            row.append(value)
            if len(row) < TILE_WIDTH:
                return
            self._check_row(level, row)
            value = hashes_root(row)
            self._rows[level] = []
            self._numbers[level] += 1
            level += 1

    def _note_root(self) -> None:
        if self._frontier.size in self._wanted:
            self.roots[self._frontier.size] = self._frontier.root()

    def _check_row(self, level: int, row: list[bytes]) -> None:
        """Checks a tile above the leaves against what the leaves give; the leaves' own are checked by now."""
        if level == 0:
            return
        tile, content = self._read(Tile(level, self._numbers[level], len(row)))
        hashes = split_tile(content, tile)
        for number, (stated, computed) in enumerate(zip(hashes, row, strict=False)):
            if stated != computed:
                index = tile.first_index + (number << TILE_HEIGHT * level)
                raise VerificationError(f"`{tile.path}` does not follow from the entries from {index} on", index)

    def _read(self, tile: Tile) -> tuple[Tile, bytes]:
        """Returns a tile, or the full one that took the place of a partial one."""
        full = Tile(tile.level, tile.number)
        for each in (tile,) if tile.full else (tile, full):
            content = _content(self._book / each.path, each)
            if content is not None:
                return each, content
        raise VerificationError(f"`{tile.path}` is missing", tile.first_index)

    def verify_files(self) -> int:
        """Checks that every file belongs to the book; returns how many entries lie beyond the signed size.

        Raises:
            VerificationError: a file is none of a book, or contradicts what is verified.
        """
        beyond = 0
        for path in _files(self._book, self._book, 0):
            self.files += 1
            name = path.relative_to(self._book).as_posix()
            if name in _NOT_TILES:
                continue
            tile = parse_path(name)
            beyond = max(beyond, self._check_other(tile))
        return beyond

    def _check_other(self, tile: Tile) -> int:
        """Checks a file that other sizes than the signed one need; returns how far it reaches beyond."""
        count = tile_count(tile.level, self._size)
        signed_width = min(max(count - tile.number * TILE_WIDTH, 0), TILE_WIDTH)
        if tile.width == signed_width:
            return 0
        content = _content(self._book / tile.path, tile) or b""
        parts = decode_bundle(content, tile) if tile.level == ENTRIES else split_tile(content, tile)
        if signed_width:
            verified_tile, verified = self._read(Tile(tile.level, tile.number, signed_width))
            split = decode_bundle if tile.level == ENTRIES else split_tile
            for number, (part, right) in enumerate(zip(parts, split(verified, verified_tile), strict=False)):
                if part != right and number < signed_width:
                    index = tile.first_index + (number << TILE_HEIGHT * max(tile.level, 0))
                    raise VerificationError(f"`{tile.path}` contradicts entry {index}", index)
        end = (tile.number * TILE_WIDTH + tile.width) << TILE_HEIGHT * max(tile.level, 0)
        return max(end - self._size, 0)


def _content(path: Path, tile: Tile) -> bytes | None:
    bytes_max = BUNDLE_BYTES_MAX if tile.level == ENTRIES else TILE_BYTES
    try:
        with path.open("rb") as file:
            return file.read(bytes_max + 1)
    except FileNotFoundError:
        return None
    except OSError as err:
        raise VerificationError(f"cannot read `{tile.path}`: {err.strerror}", tile.first_index) from err


def _files(folder: Path, book: Path, depth: int) -> Iterator[Path]:
    """Yields every file, in no order. Nothing but plain files and folders may be there."""
    with os.scandir(folder) as found:
        for each in found:
            path = Path(each.path)
            if each.is_dir(follow_symlinks=False) and depth < _FOLDERS_DEEP_MAX:
                yield from _files(path, book, depth + 1)
            elif each.is_file(follow_symlinks=False):
                yield path
            else:
                raise VerificationError(f"`{path.relative_to(book).as_posix()}` is no file of a book")
