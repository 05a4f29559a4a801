"""The newest signed checkpoint, in a small database of its own.

Owns the one truth about what was signed: a checkpoint is stored by compare-and-swap before anybody
else sees it, so that no two checkpoints of one book can contradict each other, and a book directory
put back from an older copy is noticed at start.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from gatebook.errors import BookRefusedError, BookUnavailableError
from gatebook.tlog.checkpoint import Checkpoint

_SCHEMA = """
CREATE TABLE checkpoint (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    note BLOB NOT NULL,
    time_ns INTEGER NOT NULL
) STRICT
"""


_DAMAGED = (sqlite3.DatabaseError, UnicodeDecodeError)
"""What SQLite raises of a damaged file; the second where the damage is in words that it quotes."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint as it was signed: the note, verbatim, and when, in nanoseconds since the epoch."""

    checkpoint: Checkpoint
    note: bytes
    time_ns: int


@dataclass(frozen=True, slots=True)
class Stored:
    """What the database holds, not yet checked against the key."""

    size: int
    root: bytes
    note: bytes
    time_ns: int


class Checkpoints:
    """The checkpoint database. Each use opens it anew: it is used once a second, by one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Takes the path of the database."""
        self._path = path

    def create(self, first: Signed) -> None:
        """Makes the database of a new book, in place of one that holds nothing.

        Raises:
            BookUnavailableError: it could not be made.
        """
        for path in (self._path, self._path.with_name(f"{self._path.name}-journal")):
            path.unlink(missing_ok=True)
        checkpoint = first.checkpoint
        row = (checkpoint.size, checkpoint.root, first.note, first.time_ns)
        try:
            with self._connect() as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(_SCHEMA)
                connection.execute("INSERT INTO checkpoint VALUES (1, ?, ?, ?, ?)", row)
                connection.execute("COMMIT")
        except sqlite3.Error as err:
            raise BookUnavailableError(f"cannot make `{self._path.name}`: {err}") from err

    def holds_size(self) -> bool:
        """Whether a checkpoint of more than nothing was ever stored.

        Raises:
            BookRefusedError: the database is damaged.
        """
        if not self._path.is_file():
            return False
        try:
            with self._connect() as connection:
                tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        except _DAMAGED as err:
            raise BookRefusedError(f"`{self._path.name}` cannot be read: {err}") from err
        return bool(tables) and self.newest().size > 0

    def newest(self) -> Stored:
        """Returns the newest checkpoint.

        Raises:
            BookRefusedError: the database is missing or damaged.
        """
        if not self._path.is_file():
            raise BookRefusedError(f"`{self._path.name}` is missing: restore the book from a backup")
        try:
            with self._connect() as connection:
                row = connection.execute("SELECT size, root, note, time_ns FROM checkpoint").fetchone()
        except _DAMAGED as err:
            raise BookRefusedError(f"`{self._path.name}` cannot be read: {err}") from err
        if row is None:
            raise BookRefusedError(f"`{self._path.name}` holds no checkpoint: restore the book from a backup")
        stored = Stored(*row)
        if [type(value) for value in row] != [int, bytes, bytes, int]:
            raise BookRefusedError(f"`{self._path.name}` is damaged: restore the book from a backup")
        return stored

    def advance(self, old: Checkpoint, new: Signed) -> None:
        """Replaces the old checkpoint by the new one, durably, if it is still the newest.

        Raises:
            BookRefusedError: another checkpoint is the newest. Nothing was changed.
            sqlite3.Error: nobody knows which one is stored.
        """
        checkpoint = new.checkpoint
        with self._connect() as connection:
            connection.execute("BEGIN IMMEDIATE")
            swapped = connection.execute(
                "UPDATE checkpoint SET size = ?, root = ?, note = ?, time_ns = ? WHERE size = ? AND root = ?",
                (checkpoint.size, checkpoint.root, new.note, new.time_ns, old.size, old.root),
            )
            connection.execute("COMMIT")
        if swapped.rowcount != 1:
            raise BookRefusedError(f"the newest checkpoint is not that of size {old.size}: another writer was here")

    def _connect(self) -> _Connection:
        return _Connection(self._path)


class _Connection:
    """A connection that is closed at the end of its `with` block. A transaction not committed is undone."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)

    def __enter__(self) -> sqlite3.Connection:
        # FULL, and the directory too: a commit that came back after a power loss would refuse the start.
        self._connection.execute("PRAGMA journal_mode = DELETE")
        self._connection.execute("PRAGMA synchronous = EXTRA")
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._connection.close()
