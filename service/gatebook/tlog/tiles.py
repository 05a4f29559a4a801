"""C2SP tlog-tiles: where tiles are, how wide they are, and what is in them.

Owns the paths and encodings of hash tiles and entry bundles:

1. A tile path is `tile/<L>/<N>[.p/<W>]`, a bundle path `tile/entries/<N>[.p/<W>]`; N in groups of
   three digits, all but the last prefixed `x`. There is exactly one path for each tile.
2. A full tile holds 256 hashes, 8,192 bytes. A partial one is floor(size / 256^level) mod 256 wide,
   and width 0 is never written.
3. A bundle is a sequence of `uint16 big-endian length || entry`, so an entry has at most 65,535
   bytes. Decoding accepts exactly the stated number of entries and not one byte more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gatebook.errors import VerificationError
from gatebook.tlog.merkle import HASH_BYTES, fold, maximal_subtrees, node_hash

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
TILE_BYTES = TILE_WIDTH * HASH_BYTES
ENTRY_BYTES_MAX = 65_535
BUNDLE_BYTES_MAX = TILE_WIDTH * (2 + ENTRY_BYTES_MAX)
LEVEL_MAX = 63
ENTRIES = -1
"""The level of entry bundles: they lie under the leaf hashes."""

_PATH = re.compile(r"tile/(entries|0|[1-9][0-9]?)/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")
_PATH_GROUPS_MAX = 7


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """One tile: its level (`ENTRIES` for a bundle), its number within the level, and its width."""

    level: int
    number: int
    width: int = TILE_WIDTH

    @property
    def full(self) -> bool:
        """Whether the tile is complete, and so never changes."""
        return self.width == TILE_WIDTH

    @property
    def first_index(self) -> int:
        """The index of the first entry under the tile."""
        return self.number << TILE_HEIGHT * (max(self.level, 0) + 1)

    @property
    def path(self) -> str:
        """The path under the prefix of the log (C2SP tlog-tiles, Merkle Tree)."""
        level = "entries" if self.level == ENTRIES else str(self.level)
        path = f"tile/{level}/{number_path(self.number)}"
        return path if self.full else f"{path}.p/{self.width}"


def number_path(number: int) -> str:
    """Returns the number of a tile as path: `x001/x234/067` for 1234067."""
    last = f"{number % 1000:03d}"
    while number := number // 1000:
        last = f"x{number % 1000:03d}/{last}"
    return last


def parse_path(path: str) -> Tile:
    """Returns the tile at a path.

    Raises:
        VerificationError: no tile has this path.
    """
    match = _PATH.fullmatch(path)
    if match is None or path.count("/x") > _PATH_GROUPS_MAX:
        raise VerificationError(f"`{path}` is not the path of a tile")
    level_text, number_text, width_text = match.groups()
    number = int(number_text.replace("x", "").replace("/", ""))
    level = ENTRIES if level_text == "entries" else int(level_text)
    tile = Tile(level, number, int(width_text) if width_text else TILE_WIDTH)
    if level > LEVEL_MAX or tile.width > TILE_WIDTH or tile.path != path:
        raise VerificationError(f"`{path}` is not the path of a tile")
    return tile


def tile_count(level: int, size: int) -> int:
    """Returns how many hashes (or entries) a level holds in a tree of `size` leaves."""
    return size >> TILE_HEIGHT * max(level, 0)


def levels(size: int) -> int:
    """Returns the number of levels that have a tile in a tree of `size` leaves."""
    return (size.bit_length() + TILE_HEIGHT - 1) // TILE_HEIGHT


def new_tiles(old_size: int, new_size: int) -> Iterator[Tile]:
    """Yields the tiles and bundles that growth from one size to another adds, level by level.

    `new_tiles(0, size)` are all tiles of a tree: those, and those alone, that a checkpoint of this
    size needs.
    """
    for level in range(ENTRIES, levels(new_size)):
        old, new = tile_count(level, old_size), tile_count(level, new_size)
        if old == new:
            continue
        for number in range(old // TILE_WIDTH, new // TILE_WIDTH):
            yield Tile(level, number)
        if width := new % TILE_WIDTH:
            yield Tile(level, new // TILE_WIDTH, width)


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Returns entries as a bundle (C2SP tlog-tiles, Log entries)."""
    parts: list[bytes] = []
    for entry in entries:
        parts.append(len(entry).to_bytes(2, "big"))
        parts.append(entry)
    return b"".join(parts)


def decode_bundle(bundle: bytes, tile: Tile) -> list[bytes]:
    """Returns the entries of a bundle, which has exactly as many as it is wide.

    Raises:
        VerificationError: an entry is cut short, or bytes follow the last one.
    """
    first_index = tile.first_index
    entries: list[bytes] = []
    offset, end = 0, len(bundle)
    for index in range(first_index, first_index + tile.width):
        start = offset + 2
        offset = start + int.from_bytes(bundle[offset:start], "big")
        if offset > end or start > end:
            raise VerificationError(f"entry {index} is cut short in `{tile.path}`", index)
        entries.append(bundle[start:offset])
    if offset != end:
        message = f"{end - offset} bytes follow the last entry of `{tile.path}`"
        raise VerificationError(message, first_index + tile.width)
    return entries


def split_tile(hashes: bytes, tile: Tile) -> list[bytes]:
    """Returns the hashes of a tile, which has exactly as many as it is wide.

    Raises:
        VerificationError: the tile has another length.
    """
    if len(hashes) != tile.width * HASH_BYTES:
        complete = min(len(hashes) // HASH_BYTES, tile.width)
        message = f"`{tile.path}` has {len(hashes)} bytes, not {tile.width * HASH_BYTES}"
        raise VerificationError(message, tile.first_index + (complete << TILE_HEIGHT * tile.level))
    return [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]


def hashes_root(hashes: Sequence[bytes]) -> bytes:
    """Returns the root over the hashes of one tile, full or partial."""
    return fold([subtree_in_tile(hashes, level, number) for level, number in maximal_subtrees(len(hashes))])


def subtree_in_tile(hashes: Sequence[bytes], level: int, number: int) -> bytes:
    """Returns the hash of a complete subtree over hashes of one tile.

    `level` counts from the hashes of the tile (0 to 8), `number` from its left edge.
    """
    row = list(hashes[number << level : (number + 1) << level])
    while len(row) > 1:
        row = [node_hash(row[at], row[at + 1]) for at in range(0, len(row), 2)]
    return row[0]
