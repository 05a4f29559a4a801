"""The file of the index: opened where it is that of the book, else begun anew.

Owns the schema, its version, and how SQLite is set. A change of the schema is a new version: indexes of older
ones are not read, but built again from the book (see `index`).
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from gatebook.audit.chain import Entries
from gatebook.tlog.merkle import leaf_hash

INDEX_VERSION = 3
BLOCK_BITS = 16
"""An entry is in block `index >> 16`, each of which is searched by its keys."""
CACHE_KIBIBYTES = 32_768
"""Pages of the index in memory, among them those of a transaction."""
WAL_PAGES = 4_096
"""After how many pages of 4 KiB the log of the index is folded in, which syncs."""

SCHEMA = """
CREATE TABLE covered (origin TEXT NOT NULL, size INTEGER NOT NULL, first INTEGER NOT NULL);
CREATE TABLE words (id INTEGER PRIMARY KEY, word NOT NULL UNIQUE);
CREATE TABLE column_sets (id INTEGER PRIMARY KEY, columns TEXT NOT NULL UNIQUE);
CREATE TABLE column_members (column INTEGER, column_set INTEGER, PRIMARY KEY (column, column_set)) WITHOUT ROWID;
CREATE TABLE entries (
    idx INTEGER PRIMARY KEY,
    leaf BLOB NOT NULL,
    time INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    caller INTEGER NOT NULL,
    revision INTEGER,
    decision_id TEXT,
    subject INTEGER,
    actor INTEGER,
    resource INTEGER,
    column_set INTEGER,
    action INTEGER,
    purpose INTEGER,
    effect INTEGER,
    reason INTEGER,
    block INTEGER GENERATED ALWAYS AS (idx >> {block_bits}) VIRTUAL
);
CREATE INDEX entries_by_decision ON entries (block, decision_id) WHERE decision_id IS NOT NULL;
CREATE INDEX entries_by_subject ON entries (block, subject) WHERE subject IS NOT NULL;
CREATE INDEX entries_by_actor ON entries (block, actor) WHERE actor IS NOT NULL;
CREATE INDEX entries_by_resource ON entries (block, resource, effect) WHERE resource IS NOT NULL;
CREATE TABLE mentions (
    block INTEGER, word INTEGER, entry INTEGER, PRIMARY KEY (block, word, entry)
) WITHOUT ROWID;
CREATE TABLE present (
    field INTEGER, value INTEGER, chunk INTEGER, PRIMARY KEY (field, value, chunk)
) WITHOUT ROWID;
"""


def connect_fitting(path: Path, book: Entries, origin: str) -> sqlite3.Connection | None:
    """Returns a connection to the index at this path if it is that of the book, else None."""
    if not path.exists():
        return None
    connection = sqlite3.connect(path)
    try:
        if _fits(connection, book, origin):
            return _connect(path)
    except (sqlite3.Error, ValueError):
        pass  # damaged: it is built anew
    finally:
        connection.close()
    return None


def _fits(connection: sqlite3.Connection, book: Entries, origin: str) -> bool:
    """Tells whether this is an index of this version and of the book, up to an entry that the book has."""
    if connection.execute("PRAGMA user_version").fetchone()[0] != INDEX_VERSION:
        return False
    [(found, size, first)] = connection.execute("SELECT origin, size, first FROM covered").fetchall()
    newest = connection.execute("SELECT idx, leaf FROM entries ORDER BY idx DESC LIMIT 1").fetchone()
    if found != origin or not (isinstance(size, int) and isinstance(first, int)):  # columns hold whatever rot made
        return False
    if not 0 <= first <= size <= book.size:
        return False
    if newest is None:
        return bool(size == first)
    expected = (size - 1, leaf_hash(book.read(size - 1, size)[0]))
    return bool(newest == expected)


def connect_new(path: Path, origin: str, first_index: int) -> sqlite3.Connection:
    """Begins a new index, in place of what is at this path."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    connection = _connect(path)
    schema = SCHEMA.format(block_bits=BLOCK_BITS)
    connection.executescript(f"BEGIN IMMEDIATE; {schema} PRAGMA user_version = {INDEX_VERSION}; COMMIT;")
    connection.execute("INSERT INTO covered VALUES (?, ?, ?)", (origin, first_index, first_index))
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    # A lost commit is made up for by the next `catch_up`; readers are not blocked.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIBIBYTES}")
    return connection
