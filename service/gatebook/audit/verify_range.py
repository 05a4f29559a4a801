"""Verification of one range of a copied book: up to 65,536 entries, which are one tile of level 1.

Owns what needs the entries themselves: bundles, leaves, the tile above them, and what entries say. A range
knows nothing of others, so that several processes can verify ranges at once, and its memory is that of one
bundle, whatever the size of the book.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path

import msgspec

from gatebook.audit.people import People
from gatebook.audit.verify_entries import EntryPart, EntryVerifier
from gatebook.errors import VerificationError
from gatebook.tlog.merkle import HASH_BYTES, maximal_subtrees
from gatebook.tlog.tiles import (
    BUNDLE_BYTES_MAX,
    ENTRIES,
    TILE_BYTES,
    TILE_WIDTH,
    Tile,
    hashes_root,
    split_tile,
    subtree_in_tile,
)

RANGE_ENTRIES = TILE_WIDTH * TILE_WIDTH


class Meaning(msgspec.Struct, frozen=True):
    """That entries are to be read, of which book, and with whose keys, where they are at hand."""

    origin: str
    data: Path | None = None
    """The data directory with the store of people."""
    erased: frozenset[bytes] = frozenset()
    """Pseudonyms that books which succeed this one say were erased."""


class Asked(msgspec.Struct, frozen=True):
    """One range, and what is wanted of it."""

    start: int
    """The first entry to read, a multiple of 256; those of the range before it are vouched for elsewhere."""
    end: int
    sizes: tuple[int, ...] = ()
    """Sizes in it at which edges are wanted; a full range has none at its end."""
    promised: Mapping[int, bytes] = msgspec.field(default_factory=dict)
    """Leaf hashes that receipts promise at indexes."""

    @property
    def number(self) -> int:
        """The number of its tile of level 1."""
        return self.start // RANGE_ENTRIES


class Found(msgspec.Struct, frozen=True):
    """What one range holds, all of it as its tiles say."""

    entry_bytes: int
    edges: Mapping[int, tuple[bytes, ...]]
    """At each wanted size the maximal complete subtrees within the range, the largest first."""
    root: bytes
    """The hash of its tile of level 1, where it is full."""
    part: EntryPart | None
    begins: int = 0
    """The first entry that is there: bundles before it are missing, as they are where a book was pruned."""


class Failed(msgspec.Struct, frozen=True):
    """The first thing that is wrong in a range."""

    message: str
    index: int | None


class RangeVerifier:
    """Verifies ranges of one directory, one after the other."""

    def __init__(self, book: Path, meaning: Meaning | None) -> None:
        """Opens the store of people where it is needed.

        Raises:
            BookRefusedError: it cannot be opened.
        """
        self._book = book
        self._meaning = meaning
        data = meaning.data if meaning is not None else None
        self._people = People.open(data, read_only=True) if data is not None else None

    def close(self) -> None:
        """Closes the store of people."""
        if self._people is not None:
            self._people.close()

    def verify(self, asked: Asked) -> Found | Failed:
        """Checks every bundle and both rows of tiles of a range."""
        try:
            return self._verify(asked)
        except VerificationError as err:
            return Failed(err.message, err.index)

    def _verify(self, asked: Asked) -> Found:
        base = asked.number * RANGE_ENTRIES
        row = self._vouched(asked, (asked.start - base) // TILE_WIDTH)
        entries: EntryVerifier | None = None
        begins = asked.start
        promised = _by_bundle(asked.promised)
        edges: dict[int, tuple[bytes, ...]] = {}
        entry_bytes = 0
        for first in range(asked.start, asked.end, TILE_WIDTH):
            width = min(asked.end - first, TILE_WIDTH)
            if begins == first and width == TILE_WIDTH and self._is_missing(first // TILE_WIDTH):
                bundle: list[bytes] = []
                leaves = self._leaves(first // TILE_WIDTH)
                begins = first + TILE_WIDTH
            else:
                bundle, leaves = self._bundle(first // TILE_WIDTH, width)
            for index in promised.get(first, ()):
                if leaves[index - first] != asked.promised[index]:
                    raise VerificationError(f"entry {index} is not the one that its receipt promises", index)
            entry_bytes += sum(map(len, bundle))
            if self._meaning is not None and bundle:
                if entries is None:
                    entries = EntryVerifier(self._meaning.origin, self._people, first, self._leaf_at)
                entries.add(bundle)
            reached = [size for size in asked.sizes if first < size <= first + len(leaves)]
            edges |= {size: (*_all(row), *_all(leaves[: size - first])) for size in reached if size % TILE_WIDTH}
            if len(leaves) == TILE_WIDTH:
                row.append(hashes_root(leaves))
            edges |= {size: _all(row) for size in reached if not size % TILE_WIDTH}
        if row:
            check_row(self._book, 1, asked.number, row)
        full = len(row) == TILE_WIDTH
        part = entries.part() if entries else None
        return Found(entry_bytes, edges, hashes_root(row) if full else b"", part, begins)

    def _is_missing(self, number: int) -> bool:
        """Tells whether a full bundle is not there: whether it may be, is for entries to say."""
        return not (self._book / Tile(ENTRIES, number).path).exists()

    def _leaves(self, number: int) -> list[bytes]:
        tile, content = read_tile(self._book, Tile(0, number))
        return split_tile(content, tile)

    def _leaf_at(self, index: int) -> bytes:
        """Returns the leaf hash of an entry before the one at hand that is not there any more."""
        return self._leaves(index // TILE_WIDTH)[index % TILE_WIDTH]

    def _vouched(self, asked: Asked, width: int) -> list[bytes]:
        """Returns the hashes over what is not read: those of the tile, to be held against a root that is known."""
        if not width:
            return []
        count = min(asked.end // TILE_WIDTH - asked.number * TILE_WIDTH, TILE_WIDTH)
        tile, content = read_tile(self._book, Tile(1, asked.number, count))
        return split_tile(content, tile)[:width]

    def _bundle(self, number: int, width: int) -> tuple[list[bytes], list[bytes]]:
        """Returns the entries of a bundle and their leaf hashes, which are those of its tile."""
        bundle_tile, bundle = read_tile(self._book, Tile(ENTRIES, number, width))
        leaf_tile, content = read_tile(self._book, Tile(0, number, width))
        leaves = [content[at : at + HASH_BYTES] for at in range(0, width * HASH_BYTES, HASH_BYTES)]
        entries: list[bytes] = []
        offset, end = 0, len(bundle)
        for index, leaf in enumerate(leaves, number * TILE_WIDTH):
            start = offset + 2
            offset = start + int.from_bytes(bundle[offset:start], "big")
            if start > end or offset > end:
                raise VerificationError(f"entry {index} is cut short", index)
            entry = bundle[start:offset]
            if sha256(b"\x00" + entry).digest() != leaf:
                raise VerificationError(f"entry {index} does not hash to its leaf", index)
            entries.append(entry)
        if bundle_tile.width == width and offset != end:
            message = f"{end - offset} bytes follow the last entry in `{bundle_tile.path}`"
            raise VerificationError(message, number * TILE_WIDTH + width)
        split_tile(content, leaf_tile)
        return entries, leaves


def _by_bundle(promised: Iterable[int]) -> dict[int, list[int]]:
    """Returns indexes in order, behind the first index of their bundle."""
    found: dict[int, list[int]] = {}
    for index in sorted(promised):
        found.setdefault(index // TILE_WIDTH * TILE_WIDTH, []).append(index)
    return found


def _all(row: list[bytes]) -> tuple[bytes, ...]:
    """Returns the maximal complete subtrees over the hashes of a tile, the largest first."""
    return tuple(subtree_in_tile(row, level, number) for level, number in maximal_subtrees(len(row)))


def check_row(book: Path, level: int, number: int, row: list[bytes]) -> None:
    """Checks a tile above the leaves against what the leaves give.

    Raises:
        VerificationError: it is missing or says something else; `index` is the first entry concerned.
    """
    tile, content = read_tile(book, Tile(level, number, len(row)))
    for at, computed in enumerate(row):
        stated = content[at * HASH_BYTES : (at + 1) * HASH_BYTES]
        if stated != computed:
            index = tile.first_index + at * TILE_WIDTH**level
            raise VerificationError(f"`{tile.path}` does not follow from the entries from {index} on", index)
    split_tile(content, tile)


def read_tile(book: Path, tile: Tile) -> tuple[Tile, bytes]:
    """Returns a tile, or the full one that took the place of a partial one.

    Raises:
        VerificationError: neither can be read.
    """
    full = Tile(tile.level, tile.number)
    for each in (tile,) if tile.full else (tile, full):
        content = read_content(book / each.path, each)
        if content is not None:
            return each, content
    raise VerificationError(f"`{tile.path}` is missing", tile.first_index)


def read_content(path: Path, tile: Tile) -> bytes | None:
    """Returns what is in a file, or one byte more than any tile has; None where there is no file.

    Raises:
        VerificationError: it cannot be read.
    """
    bytes_max = BUNDLE_BYTES_MAX if tile.level == ENTRIES else TILE_BYTES
    try:
        with path.open("rb") as file:
            return file.read(bytes_max + 1)
    except FileNotFoundError:
        return None
    except OSError as err:
        raise VerificationError(f"cannot read `{tile.path}`: {err.strerror}", tile.first_index) from err
