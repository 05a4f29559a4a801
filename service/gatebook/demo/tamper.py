"""What somebody with access to the disk could do to a book: change one bit of one entry.

Owns the finding of an entry's bytes in the published files (C2SP tlog-tiles, "Log Entries").
"""

from __future__ import annotations

from pathlib import Path

from gatebook.tlog.tiles import ENTRIES, TILE_WIDTH, Tile

LENGTH_BYTES = 2


def flip_bit(book: Path, index: int, size: int) -> Path:
    """Flips the lowest bit in the middle of an entry of a book of a size; returns the file, within the book."""
    number, within = divmod(index, TILE_WIDTH)
    width = min(size - number * TILE_WIDTH, TILE_WIDTH)
    path = (Tile(ENTRIES, number) if width == TILE_WIDTH else Tile(ENTRIES, number, width)).path
    content = bytearray((book / path).read_bytes())
    start, end = entry_span(content, within)
    content[(start + end) // 2] ^= 1
    (book / path).write_bytes(content)
    return Path(path)


def entry_span(bundle: bytes | bytearray, within: int) -> tuple[int, int]:
    """Returns where an entry of a bundle begins and ends. Each has its length before it, big-endian."""
    start, end = LENGTH_BYTES, LENGTH_BYTES + int.from_bytes(bundle[:LENGTH_BYTES])
    for _ in range(within):
        start, end = end + LENGTH_BYTES, end + LENGTH_BYTES + int.from_bytes(bundle[end : end + LENGTH_BYTES])
    return start, end
