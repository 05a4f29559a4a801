"""Growth of the published book: new bundles and tiles, each put in place whole and synced.

Owns the writing of one publication, from the published size on:

1. A file that exists is never given other content.
2. A full tile takes the place of its partial ones, which go once the full one is durable. Partial
   tiles of published sizes stay till then.
3. Nothing may be signed before `finish` has returned: then every file and every name is durable.
"""

from __future__ import annotations

from pathlib import Path

from gatebook.audit.files import Files
from gatebook.audit.tile_folder import TileFolder
from gatebook.errors import BookCorruptError
from gatebook.tlog.merkle import fold, leaf_hash, maximal_subtrees
from gatebook.tlog.tiles import (
    ENTRIES,
    TILE_HEIGHT,
    TILE_WIDTH,
    Tile,
    encode_bundle,
    hashes_root,
    levels,
    subtree_in_tile,
    tile_count,
)


class TileWriter:
    """Adds entries to a tlog-tiles directory, once."""

    def __init__(self, tiles: TileFolder, size: int, files: Files, temporary: Path) -> None:
        """Takes the directory, its published size, and a place for files that have no name in it yet.

        Raises:
            BookCorruptError: a tile at the right edge is missing or malformed, or an entry there has changed.
        """
        self._root = tiles.path
        self._files = files
        self._temporary = temporary
        self._rows = [tiles.hashes(level, tile_count(level, size) // TILE_WIDTH, size) for level in range(levels(size))]
        self._numbers = [tile_count(level, size) // TILE_WIDTH for level in range(levels(size))]
        # The root follows from the leaves: what is written again with the new entries must be what they are of.
        self._entries = tiles.entries(size - size % TILE_WIDTH, size, size)
        self._widths = [len(row) for row in self._rows]
        self._known: set[Path] = set()
        self._unsynced: set[Path] = set()
        self._superseded: list[Path] = []
        self.size = size

    def add(self, entry: bytes) -> None:
        """Adds one entry, and writes the tiles that it completes.

        Raises:
            BookCorruptError: a tile is there already, with other content.
            OSError: a tile could not be written.
        """
        self.size += 1
        self._entries.append(entry)
        if len(self._entries) == TILE_WIDTH:
            self._write(Tile(ENTRIES, self._numbers[0] if self._numbers else 0), encode_bundle(self._entries))
            self._entries = []
        level, value = 0, leaf_hash(entry)
        while True:
            if level == len(self._rows):
                self._rows.append([])
                self._numbers.append(0)
                self._widths.append(0)
            row = self._rows[level]
            row.append(value)
            if len(row) < TILE_WIDTH:
                return
            self._write(Tile(level, self._numbers[level]), b"".join(row))
            value = hashes_root(row)
            self._rows[level], self._widths[level] = [], 0
            self._numbers[level] += 1
            level += 1

    def root(self) -> bytes:
        """Returns the root of the tree so far: the maximal subtrees of a level are those of its unfinished tile."""
        found: list[bytes] = []
        for height, number in maximal_subtrees(self.size):
            level, within = divmod(height, TILE_HEIGHT)
            found.append(subtree_in_tile(self._rows[level], within, number % (TILE_WIDTH >> within)))
        return fold(found)

    def finish(self) -> None:
        """Writes the partial tiles, makes everything durable, and drops what full tiles replace.

        Raises:
            BookCorruptError: a tile is there already, with other content.
            OSError: not everything is durable.
        """
        for level, (row, number, width) in enumerate(zip(self._rows, self._numbers, self._widths, strict=True)):
            if len(row) != width:
                self._write(Tile(level, number, len(row)), b"".join(row))
                if level == 0:
                    self._write(Tile(ENTRIES, number, len(row)), encode_bundle(self._entries))
        for folder in sorted(self._unsynced, key=lambda path: len(path.parts), reverse=True):
            self._files.sync_directory(folder)
        for folder in self._superseded:
            if folder.is_dir():
                for partial in folder.iterdir():
                    self._files.remove(partial)
                folder.rmdir()

    def _write(self, tile: Tile, content: bytes) -> None:
        path = self._root / tile.path
        self._make_folder(path.parent)
        if path.exists() and path.read_bytes() != content:
            message = f"`{tile.path}` has other content than the write-ahead log"
            raise BookCorruptError(f"{message}: restore the book from a backup", tile.first_index)
        # Written again even if it is there: a start after a failed sync must not trust the page cache.
        self._files.replace_content(path, content, self._temporary / "tile")
        self._unsynced.add(path.parent)
        if tile.full:
            self._superseded.append(path.with_name(f"{path.name}.p"))

    def _make_folder(self, folder: Path) -> None:
        if folder in self._known:
            return
        self._known.add(folder)
        if folder != self._root:
            self._make_folder(folder.parent)
            folder.mkdir(exist_ok=True)
            # Synced even if it is there: whoever made it may not have come to that.
            self._unsynced.add(folder.parent)
