"""From the write-ahead log to tiles: what one publication writes, and the root that it comes to.

Owns this one step, wherever it is done: in the process that holds the book, or in its clerk's. It reads what
is on disk and not what anybody remembers, and gives back the root over it. Who signs compares that root with its own
once more: where the tiles were written is not where it is decided what is signed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from gatebook.audit.files import Files
from gatebook.audit.tile_folder import TileFolder
from gatebook.audit.tile_writer import TileWriter
from gatebook.audit.wal_run import Run, read_run
from gatebook.errors import BookCorruptError


class Tiling(msgspec.Struct, frozen=True, tag=True):
    """The growth of a book from a published size on, the root that it led to, and where the entries of it lie."""

    old_size: int
    size: int
    root: bytes
    runs: Sequence[Run]


WriteTiles = Callable[[Tiling], bytes]
"""Writes the tiles of a growth; when it returns the root they are durable."""


def write_tiles(
    tiling: Tiling, tiles: TileFolder, files: Files, temporary: Path, on_group: Callable[[], None] = lambda: None
) -> bytes:
    """Writes the tiles of a growth and returns the root on disk, once every file and every name is durable.

    `on_group` is called after each group of entries, to tell that it goes on.

    Raises:
        BookCorruptError: an entry or the root is not what was written, or a tile is there with other content.
        OSError: not everything is durable.
    """
    growing = TileWriter(tiles, tiling.old_size, files, temporary)
    for run in tiling.runs:
        for first_index, entries in read_run(run):
            for entry in entries[growing.size - first_index : tiling.size - first_index]:
                growing.add(entry)
            on_group()
    root = growing.root()
    if root != tiling.root:
        message = f"the entries from {tiling.old_size} on lead to another root on disk than when they were written"
        raise BookCorruptError(message, tiling.old_size)
    growing.finish()
    return root
