"""A book that nobody signs for any more: closed, or its key lost. Owns reading it from its files, and writes none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from gatebook.audit.checkpoints import Signed
from gatebook.audit.opening import Layout, check_signed
from gatebook.audit.recovery import Replay
from gatebook.audit.tile_folder import TileFolder
from gatebook.tlog.keys import VerifierKey
from gatebook.tlog.proof import open_checkpoint


class LostBook:
    """The entries of a book that nobody can sign for any more, as they lie in its files."""

    def __init__(self, tiles: TileFolder, signed: Signed, tail: Sequence[bytes], root: bytes) -> None:
        """Takes the published entries with their newest checkpoint, those that came after, and the root over all."""
        self._tiles = tiles
        self._tail = tail
        self.signed = signed
        self.root = root

    @classmethod
    def at(cls, data: Path, key: VerifierKey, *, tail: bool = True) -> Self:
        """Returns the book in a directory, with or without what no checkpoint covers.

        Raises:
            BookRefusedError: its checkpoints contradict each other.
            BookCorruptError: bytes of it are not what was written.
        """
        layout = Layout(data)
        signed = check_signed(layout, key)
        shown = layout.checkpoint.read_bytes()
        if open_checkpoint(shown, key) == signed.checkpoint:
            signed = Signed(signed.checkpoint, shown, signed.time_ns)  # with cosignatures
        tiles, size = TileFolder(layout.book), signed.checkpoint.size
        if not tail:
            return cls(tiles, signed, (), signed.checkpoint.root)
        replay = Replay(layout.wal, signed.checkpoint, lambda at: tiles.frontier(at, size))
        found = [(group.first_index, group.entries) for group in replay.groups()]
        entries = [entry for first, group in found for index, entry in enumerate(group, first) if index >= size]
        return cls(tiles, signed, entries, replay.frontier.root())

    @property
    def size(self) -> int:
        """The number of entries."""
        return self.signed.checkpoint.size + len(self._tail)

    def read(self, start: int, end: int) -> list[bytes]:
        """Returns the bytes of [start, end)."""
        size = self.signed.checkpoint.size
        published = self._tiles.entries(start, min(end, size), size) if start < size else []
        return [*published, *self._tail[max(0, start - size) : max(0, end - size)]]
