"""What was copied: a published book, or a whole data directory with what belongs to it.

Owns which parts of a copy are at hand, and so how much can be checked.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from gatebook.audit.verify_range import Meaning


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

    def meaning(self, origin: str) -> Meaning:
        """Returns that its entries are to be read, with the keys of people where they were copied."""
        return Meaning(origin, self.data)
