"""What a witness remembers: the last checkpoint that it cosigned of each origin, and evidence of contradictions.

One small SQLite database, `<data>/witness.db`, beside the key in `<data>/keys/witness.key`. Rules:

1. the database bears a mark of its kind and the key of its witness: any other is refused;
2. key and database are made together, and either without the other is refused: a witness that lost its memory would
   cosign a second history, so it must not go on under its name;
3. the check and the write are one transaction, synced with its directory before anybody is answered.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from gatebook.audit.files import Files
from gatebook.audit.signer import read_secret, write_signing_key
from gatebook.errors import BookRefusedError, BookUnavailableError, VerificationError
from gatebook.tlog.checkpoint import Checkpoint
from gatebook.tlog.cosignature import WitnessSigningKey

EVIDENCE_MAX = 1_000
_APPLICATION_ID = 0x47425754
_VERSION = 1
_SCHEMA = f"""
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
CREATE TABLE witness (one INTEGER PRIMARY KEY CHECK (one = 1), key TEXT NOT NULL) STRICT;
CREATE TABLE checkpoint (
    origin TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    note BLOB NOT NULL,
    seconds INTEGER NOT NULL
) STRICT;
CREATE TABLE evidence (
    origin TEXT NOT NULL,
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    cosigned BLOB NOT NULL,
    shown BLOB NOT NULL,
    seconds INTEGER NOT NULL,
    PRIMARY KEY (origin, size, root)
) STRICT;
"""


class Remembered(msgspec.Struct, frozen=True):
    """The checkpoint of an origin that was cosigned last: the note as it was sent, and when (POSIX seconds)."""

    checkpoint: Checkpoint
    note: bytes
    seconds: int


class Evidence(msgspec.Struct, frozen=True):
    """Two notes of one origin and size with different roots, both signed by the key of the book."""

    origin: str
    size: int
    cosigned: bytes
    shown: bytes
    seconds: int


def key_path(data: Path) -> Path:
    """Returns where the key of a witness lies."""
    return data / "keys" / "witness.key"


def read_witness_key(data: Path) -> WitnessSigningKey:
    """Returns the key of the witness in a data directory.

    Raises:
        BookRefusedError: there is none, others may read it, or it is none of a witness.
    """
    path = key_path(data)
    try:
        return WitnessSigningKey.parse(read_secret(path))
    except VerificationError as err:
        raise BookRefusedError(f"`{path}` holds no key of a witness: restore it from a backup") from err


def create_witness(data: Path, name: str) -> None:
    """Makes a new witness: its database, and then its key, whose name marks it as complete.

    Raises:
        BookRefusedError: there is one already, or no key may have this name.
    """
    path = data / "witness.db"
    if key_path(data).exists() or (path.exists() and _holds_checkpoints(path)):
        raise BookRefusedError(f"there is a witness in `{data}` already: name another folder")
    if "://" in name:
        raise BookRefusedError(f"`{name}` cannot be the name of a witness: leave out `{name.partition('://')[0]}://`")
    try:
        key = WitnessSigningKey.generate(name)
    except VerificationError as err:
        raise BookRefusedError(f"`{name}` cannot be the name of a witness: {err.message}") from err
    files = Files()
    files.make_directories(key_path(data).parent)
    key_path(data).parent.chmod(0o700)
    temporary = data / "witness.db.new"
    temporary.unlink(missing_ok=True)
    connection = sqlite3.connect(temporary, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = EXTRA")
        connection.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
        connection.execute("INSERT INTO witness VALUES (1, ?)", (str(key.public),))
    finally:
        connection.close()
    temporary.chmod(0o600)
    files.rename(temporary, path)
    files.sync_directory(data)
    write_signing_key(key_path(data), key, files)


def _holds_checkpoints(path: Path) -> bool:
    """Tells whether a database without a key holds something to lose, as far as can be told."""
    try:
        with sqlite3.connect(path) as connection:
            return bool(connection.execute("SELECT count(*) FROM checkpoint").fetchone()[0])
    except sqlite3.Error:
        return True


class State:
    """The open database of a witness. One thread uses it at a time."""

    def __init__(self, data: Path, key: WitnessSigningKey, *, read_only: bool = False) -> None:
        """Opens the database of the witness with this key.

        Raises:
            BookRefusedError: it is missing, damaged, of another kind, or that of another witness.
        """
        path = data / "witness.db"
        if not path.is_file():
            raise BookRefusedError(
                f"`{path}` is missing, so nobody knows what this witness cosigned: restore the newest, "
                "or make another witness with a key of its own"
            )
        mode = "ro" if read_only else "rw"
        self._connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
        )
        try:
            self._require_own(path, key)
            if not read_only:
                self._connection.execute("PRAGMA journal_mode = DELETE")
                self._connection.execute("PRAGMA synchronous = EXTRA")
        except sqlite3.DatabaseError as err:
            self._connection.close()
            raise BookRefusedError(f"`{path}` cannot be read: {err}") from err
        except BookRefusedError:
            self._connection.close()
            raise

    def _require_own(self, path: Path, key: WitnessSigningKey) -> None:
        kind = self._one("PRAGMA application_id"), self._one("PRAGMA user_version")
        if kind != (_APPLICATION_ID, _VERSION):
            raise BookRefusedError(f"`{path}` is not the database of a witness")
        if self._one("SELECT key FROM witness") != str(key.public):
            raise BookRefusedError(f"`{path}` is that of another witness than `{key.name}`")
        if self._one("PRAGMA quick_check") != "ok":
            raise BookRefusedError(f"`{path}` is damaged: restore the newest from a backup")

    def close(self) -> None:
        """Closes the database."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Makes what happens within the block one transaction, durable at its end or undone.

        Raises:
            BookUnavailableError: it could not be made durable. Nobody may be answered as if it were.
        """
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")  # the commit point
        except sqlite3.Error as err:
            raise BookUnavailableError(f"the witness cannot keep what it cosigns: {err}") from err
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def last(self, origin: str) -> Remembered | None:
        """Returns the checkpoint of an origin that was cosigned last."""
        row = self._connection.execute(
            "SELECT size, root, note, seconds FROM checkpoint WHERE origin = ?", (origin,)
        ).fetchone()
        return None if row is None else Remembered(Checkpoint(origin, row[0], row[1]), row[2], row[3])

    def put(self, new: Remembered) -> None:
        """Replaces the last checkpoint of an origin."""
        checkpoint = new.checkpoint
        self._connection.execute(
            "INSERT OR REPLACE INTO checkpoint VALUES (?, ?, ?, ?, ?)",
            (checkpoint.origin, checkpoint.size, checkpoint.root, new.note, new.seconds),
        )

    def put_evidence(self, last: Remembered, shown: Checkpoint, note: bytes, seconds: int) -> bool:
        """Keeps two contradicting notes, up to a limit; returns whether they are new."""
        if self._one("SELECT count(*) FROM evidence") >= EVIDENCE_MAX:  # type: ignore[operator]  # a number
            return False
        kept = self._connection.execute(
            "INSERT OR IGNORE INTO evidence VALUES (?, ?, ?, ?, ?, ?)",
            (shown.origin, shown.size, shown.root, last.note, note, seconds),
        )
        return kept.rowcount == 1

    def all(self) -> list[Remembered]:
        """Returns the last checkpoint of each origin, by origin."""
        rows = self._connection.execute("SELECT origin, size, root, note, seconds FROM checkpoint ORDER BY origin")
        return [Remembered(Checkpoint(*row[:3]), *row[3:]) for row in rows]

    def evidence(self) -> list[Evidence]:
        """Returns the contradictions that were shown, by time."""
        rows = self._connection.execute(
            "SELECT origin, size, cosigned, shown, seconds FROM evidence ORDER BY seconds, origin"
        )
        return [Evidence(*row) for row in rows]

    def newest_seconds(self) -> int:
        """Returns the newest time of a cosignature, or 0."""
        row = self._connection.execute("SELECT coalesce(max(seconds), 0) FROM checkpoint").fetchone()
        return int(row[0])

    def _one(self, query: str) -> object:
        row = self._connection.execute(query).fetchone()
        return None if row is None else row[0]
