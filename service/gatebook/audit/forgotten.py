"""Who was erased, and whom nobody may forget to have objected.

Owns two tables of `<data>/people.db`, and how a person leaves that store:

1. `erased` says which entry of the book erased a pseudonym, so that a part which stays closed can say why;
2. `suppressed` is the suppression list: a keyed hash (HMAC-SHA-256) of each erased id, under a key that is
   derived from the 0600 master key of the store. It outlives the person's row: whoever was erased still
   objects. It is of no use to whoever cannot guess an id *and* has the key;
3. the row of a person, its mark and its tag change in one commit. From the first step on the pseudonyms are
   void: whoever wants to seal under one is refused until the store is written;
4. `scrub` leaves no byte of a deleted row in any file: every page is written anew, the log of the store is
   cut to nothing, and both are synced.

The book is the truth: whatever is lost here is made again from the entries of erasures at a start, and what says here
that somebody was erased, and in no entry, is not believed: who deletes a key to hide a reader might write it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import sqlite3
import threading
from collections.abc import Collection, Iterable
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gatebook.audit.keyfile import derive_key
from gatebook.errors import BookRefusedError, BookUnavailableError

TABLES = """
CREATE TABLE erased (pseudonym BLOB NOT NULL PRIMARY KEY, entry INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE suppressed (tag BLOB NOT NULL PRIMARY KEY) WITHOUT ROWID;
"""
TAG_BYTES = 32
NONCE_BYTES = 12
ASKED_AT_ONCE = 500


class Tags:
    """The tags of ids in the suppression list of one store, whose key they need and nothing else."""

    def __init__(self, master: bytes) -> None:
        """Takes the master key of the store."""
        self._tag_key = derive_key(master, "people/suppression/v1")
        self._wrap = AESGCM(derive_key(master, "people/erasure/v1"))

    def tag(self, subject_id: str) -> bytes:
        """Returns the tag of an id in the suppression list."""
        return hmac.digest(self._tag_key, subject_id.encode(), hashlib.sha256)

    def seal_tag(self, tag: bytes) -> bytes:
        """Returns a tag as it stands in an entry: two of one person have nothing in common."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._wrap.encrypt(nonce, tag, b"suppression")

    def open_tag(self, sealed: bytes) -> bytes:
        """Returns the tag in an entry.

        Raises:
            BookRefusedError: it was sealed under another key.
        """
        try:
            return self._wrap.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], b"suppression")
        except (InvalidTag, ValueError) as err:
            raise BookRefusedError(
                "an erasure in the book was not written with `keys/people.key`: restore that key from a backup"
            ) from err


class Forgotten(Tags):
    """The part of an open store of people that says who is in it no more."""

    def __init__(self, connection: sqlite3.Connection, lock: threading.Lock, master: bytes, *, tables: bool) -> None:
        """Takes the connection and the lock of the store; `tables` says whether they are there (else nobody is)."""
        super().__init__(master)
        self._connection = connection
        self._lock = lock
        self._tables = tables
        self.void: frozenset[bytes] = frozenset()
        """Pseudonyms whose erasure is an entry and not yet done. Replaced as a whole."""

    def is_suppressed(self, subject_id: str) -> bool:
        """Tells whether somebody with this id was erased, and so objects to everything that one can object to."""
        return bool(self._ask("SELECT 1 FROM suppressed WHERE tag = ?", (self.tag(subject_id),)))

    def entry_of(self, pseudonym: bytes) -> int | None:
        """Returns the index of the entry that erased a pseudonym, or None where none did."""
        rows = self._ask("SELECT entry FROM erased WHERE pseudonym = ?", (pseudonym,))
        return rows[0][0] if rows else None

    def count(self) -> int:
        """Returns how many ids are in the suppression list."""
        rows = self._ask("SELECT count(*) FROM suppressed", ())
        return rows[0][0] if rows else 0

    def missing(self, pseudonyms: Collection[bytes]) -> list[bytes]:
        """Returns those pseudonyms that are neither in the store nor erased: their keys are gone without a word."""
        known: set[bytes] = set()
        wanted = list(pseudonyms)
        for start in range(0, len(wanted), ASKED_AT_ONCE):
            some = wanted[start : start + ASKED_AT_ONCE]
            marks = ", ".join("?" * len(some))
            for table in ("people", "erased") if self._tables else ("people",):
                rows = self._select(f"SELECT pseudonym FROM {table} WHERE pseudonym IN ({marks})", some)  # noqa: S608  # our own names
                known.update(row[0] for row in rows)
        return [pseudonym for pseudonym in wanted if pseudonym not in known]

    def knows(self, pseudonyms: Iterable[bytes], tag: bytes) -> bool:
        """Tells whether an erasure is in the store already, with its tag."""
        if any(self._select("SELECT 1 FROM people WHERE pseudonym = ?", (one,)) for one in pseudonyms):
            return False
        marked = all(self._ask("SELECT 1 FROM erased WHERE pseudonym = ?", (one,)) for one in pseudonyms)
        return marked and bool(self._ask("SELECT 1 FROM suppressed WHERE tag = ?", (tag,)))

    def erase(self, pseudonyms: Collection[bytes], tag: bytes, entry: int) -> None:
        """Deletes rows, says which entry did it, and puts the tag into the list, in one commit.

        Raises:
            BookUnavailableError: the store cannot be written; the pseudonyms stay void.
        """
        try:
            with self._lock, self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                for one in pseudonyms:
                    self._connection.execute("DELETE FROM people WHERE pseudonym = ?", (one,))
                    self._connection.execute("INSERT OR IGNORE INTO erased VALUES (?, ?)", (one, entry))
                self._connection.execute("INSERT OR IGNORE INTO suppressed VALUES (?)", (tag,))
            # The commit point: from here on the keys are gone for whoever asks the store.
        except sqlite3.Error as err:
            raise BookUnavailableError(f"the people store cannot be written: {err}") from err

    def believe(self, erased: Collection[bytes]) -> None:
        """Forgets of a pseudonym that is not among these that it was erased: no entry says so.

        Raises:
            BookUnavailableError: the store cannot be written.
        """
        made_up = [row for row in self._ask("SELECT pseudonym FROM erased", ()) if row[0] not in erased]
        try:
            with self._lock, self._connection:
                self._connection.executemany("DELETE FROM erased WHERE pseudonym = ?", made_up)
        except sqlite3.Error as err:
            raise BookUnavailableError(f"the people store cannot be written: {err}") from err

    def scrub(self) -> None:
        """Leaves no byte of a deleted row in a file.

        Rows are moved between pages, and pages into the log, so that deleting a row, even with `secure_delete`, may
        leave an older copy of it.

        Raises:
            BookUnavailableError: it could not be done.
        """
        try:
            with self._lock:
                self._connection.execute("VACUUM")
                busy, _, _ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as err:
            raise BookUnavailableError(f"the people store cannot be written anew: {err}") from err
        if busy:
            raise BookUnavailableError("the people store is being read, so that its log cannot be cut: erase again")

    def _ask(self, query: str, values: Collection[bytes]) -> list[tuple[Any]]:
        return self._select(query, values) if self._tables else []

    def _select(self, query: str, values: Collection[bytes]) -> list[tuple[Any]]:
        try:
            with self._lock:
                return self._connection.execute(query, tuple(values)).fetchall()
        except sqlite3.Error as err:
            raise BookUnavailableError(f"the people store cannot be read: {err}") from err
