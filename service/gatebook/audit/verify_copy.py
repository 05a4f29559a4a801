"""Verification of what was copied: a published book, or a whole data directory with what belongs to it.

Owns which parts of a copy are at hand, and so how much can be checked.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from gatebook.audit.chain import Entries
from gatebook.audit.people import People
from gatebook.audit.tile_folder import TileFolder
from gatebook.audit.verify import Report
from gatebook.audit.verify_entries import EntryReport, verify_entries


class Copy(msgspec.Struct, frozen=True):
    """What was copied: a book, or a whole data directory with what belongs to it."""

    book: Path
    wal: Path | None
    data: Path | None

    @classmethod
    def at(cls, path: Path) -> Copy:
        """Returns what is at a path."""
        if (path / "checkpoint").exists() or not (path / "book").is_dir():
            return cls(path, None, None)
        wal = path / "wal"
        has_people = (path / "people.db").exists() and (path / "keys" / "people.key").exists()
        return cls(path / "book", wal if wal.is_dir() else None, path if has_people else None)


class Published(msgspec.Struct, frozen=True):
    """The entries of a copied book, up to its checkpoint."""

    tiles: TileFolder
    size: int

    def read(self, start: int, end: int) -> list[bytes]:
        """Returns the bytes of [start, end)."""
        return self.tiles.entries(start, end, self.size)


def verify_meaning(copy: Copy, report: Report, progress: Callable[[int, int], None]) -> EntryReport:
    """Checks what the verified entries say, and with the whole data directory also that nobody is missing."""
    entries: Entries = Published(TileFolder(copy.book), report.size)
    if copy.data is None:
        return verify_entries(entries, report.origin, progress=progress)
    people = People.open(copy.data, read_only=True)
    try:
        return verify_entries(entries, report.origin, people=people, progress=progress)
    finally:
        people.close()
