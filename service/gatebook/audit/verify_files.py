"""Verification of the files of a copied book: none is there that no size of the book has, and none contradicts another.

Runs after the tiles of the signed size are verified, which is what the others are held against.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from gatebook.audit.verify_range import read_content, read_tile
from gatebook.errors import VerificationError
from gatebook.tlog.tiles import (
    ENTRIES,
    TILE_HEIGHT,
    TILE_WIDTH,
    Tile,
    decode_bundle,
    encode_bundle,
    number_path,
    parse_path,
    split_tile,
    tile_count,
)

_NOT_TILES = frozenset({"checkpoint", "vkey", "witnessed"})
_FOLDERS_DEEP_MAX = 12
_FOLDER = re.compile(r"tile/(entries|[0-9]{1,2})/(x[0-9]{3}(?:/x[0-9]{3})*)")


class FileVerifier:
    """One pass over the files of one directory."""

    def __init__(self, book: Path, size: int, first_index: int = 0) -> None:
        """Takes the signed size. Tiles that end before the first index are not looked at."""
        self._book = book
        self._size = size
        self._first_index = first_index
        self.files = 0

    def verify(self) -> int:
        """Checks that every file belongs to the book; returns how many entries lie beyond the signed size.

        Raises:
            VerificationError: a file is none of a book, or contradicts what is verified.
        """
        beyond = 0
        for path in self._files(self._book, 0):
            name = path.relative_to(self._book).as_posix()
            if name not in _NOT_TILES:
                tile = parse_path(name)
                if tile.number < _tile_number(tile.level, self._first_index):
                    continue
                beyond = max(beyond, self._check_other(tile))
            self.files += 1
        return beyond

    def _files(self, folder: Path, depth: int) -> Iterator[Path]:
        """Yields every file, in no order. Nothing but plain files and folders may be there."""
        with os.scandir(folder) as found:
            for each in found:
                path = Path(each.path)
                if each.is_dir(follow_symlinks=False) and depth < _FOLDERS_DEEP_MAX:
                    if not self._all_before(path):
                        yield from self._files(path, depth + 1)
                elif each.is_file(follow_symlinks=False):
                    yield path
                else:
                    raise VerificationError(f"`{path.relative_to(self._book).as_posix()}` is no file of a book")

    def _all_before(self, folder: Path) -> bool:
        """Tells whether a folder can hold nothing but tiles before the first index, by their numbers."""
        match = _FOLDER.fullmatch(folder.relative_to(self._book).as_posix())
        if match is None or not self._first_index:
            return False
        level = ENTRIES if match[1] == "entries" else int(match[1])
        groups = match[2].split("/")
        deeper = number_path(_tile_number(level, self._size) + 1).count("/") + 1 - len(groups)
        after = (int("".join(groups).replace("x", "")) + 1) * 1000 ** max(deeper, 0)
        return deeper > 0 and after <= _tile_number(level, self._first_index)

    def _check_other(self, tile: Tile) -> int:
        """Checks a file that other sizes than the signed one need; returns how far it reaches beyond."""
        count = tile_count(tile.level, self._size)
        signed_width = min(max(count - tile.number * TILE_WIDTH, 0), TILE_WIDTH)
        if tile.width == signed_width:
            return 0
        content = read_content(self._book / tile.path, tile) or b""
        if signed_width:
            self._check_common(tile, content, Tile(tile.level, tile.number, signed_width))
        split = decode_bundle if tile.level == ENTRIES else split_tile
        split(content, tile)
        end = (tile.number * TILE_WIDTH + tile.width) << TILE_HEIGHT * max(tile.level, 0)
        return max(end - self._size, 0)

    def _check_common(self, tile: Tile, content: bytes, verified: Tile) -> None:
        """Checks that a file holds what the verified one does, as far as both reach.

        Compares before anything is decoded: a length that is wrong makes no sense of entries behind it only.
        """
        right_tile, right = read_tile(self._book, verified)
        bundle = tile.level == ENTRIES
        parts = (decode_bundle if bundle else split_tile)(right, right_tile)
        offset = 0
        for number, part in enumerate(parts[: min(tile.width, verified.width)]):
            expected = encode_bundle([part]) if bundle else part
            if not content.startswith(expected, offset):
                index = tile.first_index + (number << TILE_HEIGHT * max(tile.level, 0))
                raise VerificationError(f"`{tile.path}` contradicts entry {index}", index)
            offset += len(expected)


def _tile_number(level: int, index: int) -> int:
    """Returns the number of the tile of a level that an entry belongs to."""
    return tile_count(level, index) // TILE_WIDTH
