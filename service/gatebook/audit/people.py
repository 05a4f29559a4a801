"""The store of people: who is behind a pseudonym, and with which key their data is sealed.

Owns `<data>/people.db` and its master key `<data>/keys/people.key`. What it promises:

1. a person has one random pseudonym and one random key, both durable before any entry uses them;
2. no id stands in clear in the store: a person is found by a keyed hash of type and id, and the
   id itself is encrypted under the person's own key;
3. the keys of people are wrapped by a key derived from the master key;
4. people whom the directory does not know share one person, the stranger, so that made-up names
   do not fill the store;
5. where a person's row is gone, so are the key and the meaning of the pseudonym: whatever was
   sealed for that person stays sealed. Who is erased (see `forgotten`) gets another pseudonym and
   another key when seen again.

One process writes the store: the one that holds the book. Methods may be called from any thread.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gatebook.audit.files import Files
from gatebook.audit.forgotten import TABLES, Forgotten
from gatebook.audit.keyfile import create_key, derive_key, read_key
from gatebook.errors import BookRefusedError, BookUnavailableError
from gatebook.generations import Generations

STORE_VERSION = 2
"""Version 1 had nobody erased."""
PSEUDONYM_BYTES = 16
PEOPLE_CACHED_MAX = 65_536
NONCE_BYTES = 12

SCHEMA = """
CREATE TABLE people (
    pseudonym   BLOB NOT NULL PRIMARY KEY,
    lookup      BLOB NOT NULL UNIQUE,
    blind       BLOB NOT NULL,
    wrapped_key BLOB NOT NULL,
    sealed_id   BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX people_by_blind ON people (blind);
"""


class PersonId(NamedTuple):
    """Names a person as requests do. Ids are compared byte for byte."""

    type: str
    id: str


STRANGER = PersonId("", "")
"""Stands for everyone whom the directory does not know. No request can name it: its id is empty."""


class Person(msgspec.Struct, frozen=True, eq=False):
    """A pseudonym and the key behind it."""

    pseudonym: bytes
    key: bytes
    cipher: AESGCM

    def __repr__(self) -> str:
        """Shows the pseudonym and never the key."""
        return f"Person({self.pseudonym.hex()})"


class People:
    """The open store."""

    def __init__(self, connection: sqlite3.Connection, master: bytes, *, cached_max: int) -> None:
        """Takes a connection that this object alone uses; call `open` instead."""
        self._connection = connection
        self._lock = threading.Lock()  # INVARIANT: held around each use of the connection
        self._lookup_key = derive_key(master, "people/lookup/v1")
        self._blind_key = derive_key(master, "people/blind/v1")
        self._token_key = derive_key(master, "audit/page-token/v1")
        self._wrap = AESGCM(derive_key(master, "people/wrap/v1"))
        self._cached_max = cached_max
        self._by_id: Generations[PersonId, Person] = Generations(cached_max)
        self._by_pseudonym: Generations[bytes, Person] = Generations(cached_max)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        self.forgotten = Forgotten(connection, self._lock, master, tables=version == STORE_VERSION)
        self.erasures = 0
        """How often somebody was erased since this was opened: who was fetched before may be nobody now."""

    @classmethod
    def open(
        cls,
        data: Path,
        *,
        read_only: bool = False,
        create: bool = True,
        cached_max: int = PEOPLE_CACHED_MAX,
        files: Files | None = None,
    ) -> Self:
        """Opens the store of a data directory; with `create` also where there is none yet.

        A book that has entries is opened without `create`: an empty store in place of a lost one would make
        everything that was sealed for people unreadable in silence.

        Raises:
            BookRefusedError: the store or its key is missing, unsafe, another one, or not readable.
        """
        path, key_path, files = data / "people.db", data / "keys" / "people.key", files or Files()
        try:
            if not (read_only or create) and not (path.is_file() and path.stat().st_size):
                raise BookRefusedError(f"`{path}` is lost: restore it and `keys/people.key` from one backup")
            known = read_only or not create or path.exists() or key_path.exists()
            master = read_key(key_path) if known else create_key(key_path, files)
            if not read_only:
                # Rows that a killed process wrote and did not sync count from here on: entries may name them.
                files.settle(path, path.with_name(f"{path.name}-wal"))
            people = cls(_connect(path, files, read_only=read_only), master, cached_max=cached_max)
            people._require_stranger(read_only=read_only)
        except (OSError, sqlite3.OperationalError) as err:  # which may pass, as with a full disk
            raise BookUnavailableError(f"cannot open the people store `{path}`: {err}") from err
        except (sqlite3.Error, UnicodeDecodeError) as err:
            raise BookRefusedError(f"cannot open the people store `{path}`: {err}") from err
        return people

    def close(self) -> None:
        """Closes the store."""
        with self._lock:
            self._connection.close()

    @property
    def page_token_key(self) -> bytes:
        """Returns the key that page tokens are authenticated with."""
        return self._token_key

    def cached(self, ids: Iterable[PersonId]) -> dict[PersonId, Person] | None:
        """Returns the people with these ids if all are at hand without I/O, else None."""
        people = {}
        for person_id in ids:
            person = self._by_id.get(person_id)
            if person is None:
                return None
            people[person_id] = person
        return people

    def ensure(self, ids: Iterable[PersonId]) -> dict[PersonId, Person]:
        """Returns the people with these ids, and creates those who are missing in one commit.

        What it returns is durable: entries may use it.

        Raises:
            BookUnavailableError: the store cannot be written.
        """
        erasures, wanted = self.erasures, dict.fromkeys(ids)
        by_id, by_pseudonym = self._by_id, self._by_pseudonym
        people = {i: p for i in wanted if (p := by_id.get(i)) is not None}
        missing = [i for i in wanted if i not in people]
        if missing:
            try:
                with self._lock, self._connection:
                    self._connection.execute("BEGIN IMMEDIATE")
                    fresh = {i: self._select_id(i) or self._insert(i) for i in missing}
                # The commit point: from here on the people exist.
            except sqlite3.Error as err:
                raise BookUnavailableError(f"the people store cannot be written: {err}") from err
            if self.erasures != erasures:
                return self.ensure(wanted)
            for person_id, person in fresh.items():
                by_id.put(person_id, person)
                by_pseudonym.put(person.pseudonym, person)
            people |= fresh
        return people

    def make_void(self, pseudonyms: Iterable[bytes]) -> None:
        """Lets nobody be had any more who is to be erased, and forgets all keys in memory. Any thread may call it."""
        self.forgotten.void |= frozenset(pseudonyms)
        self.erasures += 1
        self._by_id, self._by_pseudonym = Generations(self._cached_max), Generations(self._cached_max)

    def erase(self, pseudonyms: Collection[bytes], tag: bytes, entry: int) -> None:
        """Deletes whoever was made void; the entry with this index says so.

        Raises:
            BookUnavailableError: the store cannot be written; they stay void.
        """
        self.forgotten.erase(pseudonyms, tag, entry)
        # Once more: whoever was being unwrapped while they became void may have been remembered.
        self._by_id, self._by_pseudonym = Generations(self._cached_max), Generations(self._cached_max)
        self.forgotten.void -= frozenset(pseudonyms)

    def current(self, people: tuple[Person, ...]) -> tuple[Person, ...]:
        """Returns people that were fetched earlier, with the stranger in the place of who was erased since."""
        if not self.erasures:
            return people
        return tuple(dict.fromkeys(self.by_pseudonym(one.pseudonym) or self._stranger for one in people))

    def find(self, subject_id: str) -> tuple[Person, ...]:
        """Returns everyone with this id, of whatever type, in the order of their pseudonyms."""
        query = "SELECT pseudonym, wrapped_key FROM people WHERE blind = ? ORDER BY pseudonym"
        rows = self._fetch(query, self.blind(subject_id))
        return tuple(self._unwrap(*row) for row in rows if row[0] not in self.forgotten.void)

    def by_pseudonym(self, pseudonym: bytes) -> Person | None:
        """Returns the person behind a pseudonym, or None where the store has no such row."""
        remembered = self._by_pseudonym  # another one, once somebody is erased meanwhile
        person = remembered.get(pseudonym)
        if person is None:
            query = "SELECT pseudonym, wrapped_key FROM people WHERE pseudonym = ?"
            for row in self._fetch(query, pseudonym):
                person = self._unwrap(*row)
                remembered.put(pseudonym, person)
        return None if pseudonym in self.forgotten.void else person

    def identify(self, pseudonym: bytes) -> PersonId | None:
        """Returns the type and id behind a pseudonym, or None where the store has no such row."""
        query = "SELECT wrapped_key, sealed_id FROM people WHERE pseudonym = ?"
        for wrapped_key, sealed_id in self._fetch(query, pseudonym):
            cipher = self._unwrap(pseudonym, wrapped_key).cipher
            plain = _open(cipher, sealed_id, b"id" + pseudonym)
            return PersonId(*msgspec.json.decode(plain, type=tuple[str, str]))
        return None

    def ids(self) -> Iterator[tuple[bytes, str]]:
        """Yields the pseudonym and the id of everybody in the store, but for the stranger."""
        query = "SELECT pseudonym, sealed_id FROM people WHERE pseudonym != ?"
        for pseudonym, _ in self._fetch(query, self._stranger.pseudonym):
            person_id = self.identify(pseudonym)
            if person_id is not None:
                yield pseudonym, person_id.id

    @property
    def stranger(self) -> Person:
        """Returns the person who stands for everyone whom the directory does not know."""
        return self._stranger

    def blind(self, subject_id: str) -> bytes:
        """Returns the keyed hash (16 bytes) by which people with an id are found, of whatever type."""
        return hmac.digest(self._blind_key, subject_id.encode(), hashlib.sha256)[:16]

    def _require_stranger(self, *, read_only: bool) -> None:
        """Opens the stranger, which also proves that the master key is that of the store."""
        with self._lock:
            stranger = self._select_id(STRANGER)
            count = self._connection.execute("SELECT count(*) FROM (SELECT 1 FROM people LIMIT 1)").fetchone()[0]
        if stranger is None:
            if count or read_only:
                raise BookRefusedError("the key `people.key` is not that of `people.db`: restore both from one backup")
            stranger = self.ensure([STRANGER])[STRANGER]
        self._stranger = stranger

    def _fetch(self, query: str, key: bytes) -> list[tuple[bytes, bytes]]:
        try:
            with self._lock:
                return self._connection.execute(query, (key,)).fetchall()
        except sqlite3.Error as err:
            raise BookUnavailableError(f"the people store cannot be read: {err}") from err

    def _lookup(self, person_id: PersonId) -> bytes:
        kind = person_id.type.encode()
        text = len(kind).to_bytes(4, "big") + kind + person_id.id.encode()
        return hmac.digest(self._lookup_key, text, hashlib.sha256)

    def _select_id(self, person_id: PersonId) -> Person | None:
        query = "SELECT pseudonym, wrapped_key FROM people WHERE lookup = ?"
        row = self._connection.execute(query, (self._lookup(person_id),)).fetchone()
        if row is not None and row[0] in self.forgotten.void:
            raise BookUnavailableError("the person is being erased: ask again")
        return None if row is None else self._unwrap(*row)

    def _insert(self, person_id: PersonId) -> Person:
        pseudonym, key = os.urandom(PSEUDONYM_BYTES), AESGCM.generate_key(256)
        person = Person(pseudonym, key, AESGCM(key))
        row = (
            pseudonym,
            self._lookup(person_id),
            self.blind(person_id.id),
            _seal(self._wrap, key, b"key" + pseudonym),
            _seal(person.cipher, msgspec.json.encode(person_id), b"id" + pseudonym),
        )
        self._connection.execute("INSERT INTO people VALUES (?, ?, ?, ?, ?)", row)
        return person

    def _unwrap(self, pseudonym: bytes, wrapped_key: bytes) -> Person:
        key = _open(self._wrap, wrapped_key, b"key" + pseudonym)
        return Person(pseudonym, key, AESGCM(key))


def _connect(path: Path, files: Files, *, read_only: bool) -> sqlite3.Connection:
    """Opens the database, where every commit is durable when it returns."""
    if not read_only:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    mode = "ro" if read_only else "rw"
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10)
    if not read_only:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA temp_store = MEMORY")  # what is written anew is in no other file meanwhile
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0 and not read_only:
        connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} {TABLES} PRAGMA user_version = {STORE_VERSION}; COMMIT;")
        files.sync_directory(path.parent)
    elif version == 1 and not read_only:
        connection.executescript(f"BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {STORE_VERSION}; COMMIT;")
    elif version not in (1, STORE_VERSION):
        raise BookRefusedError(f"`{path}` has version {version} and this Gatebook knows {STORE_VERSION}")
    return connection


def _seal(cipher: AESGCM, plaintext: bytes, associated: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, plaintext, associated)


def _open(cipher: AESGCM, sealed: bytes, associated: bytes) -> bytes:
    try:
        return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], associated)
    except InvalidTag as err:
        raise BookRefusedError("a row of `people.db` is not what was written: restore it from a backup") from err
