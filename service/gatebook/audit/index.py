"""The derived index: which entries match a filter.

Owns `<data>/index.db`, which is made from the book alone and may be deleted at any time without
changing an answer. What it promises:

1. it holds published entries only, without a gap from the first entry on that the book still has;
2. it holds no personal data: people by pseudonym, strangers by a keyed hash of their id;
3. a transaction is bounded, and the size that is covered is part of it;
4. an index of another version, another book, or one that is damaged is built anew.

Every key begins with the block that an entry is in, so that what is written lies together however large the
book is: a key that is random, such as the id of a decision, would touch a page of its own for each entry. A
search goes through the blocks (see `looking`), and knows by `present` in which chunks a word occurs at all.

`catch_up` may be called from any thread; readers have connections of their own (see `query`).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from gatebook.audit.chain import Entries
from gatebook.audit.entry import decode, nanoseconds
from gatebook.audit.index_file import BLOCK_BITS, connect_fitting, connect_new
from gatebook.audit.people import People
from gatebook.audit.record import open_request
from gatebook.audit.skimming import Skimming
from gatebook.errors import BookUnavailableError
from gatebook.v1 import entry_pb2

_DECISION = int(entry_pb2.ENTRY_KIND_DECISION)
CHUNK_BITS = 12
"""An entry is in chunk `index >> 12`, of which each is known what occurs in it."""
READ_ENTRIES_MAX = 2_048
COMMIT_ENTRIES_MAX = 4 * READ_ENTRIES_MAX
"""Of one transaction: each page that it changes is written once, and ids of decisions lie anywhere."""
FORGOTTEN_AT_ONCE = 20_000
"""Entries of a pruned prefix that one transaction takes out."""
NUMBERS_CACHED_MAX = 131_072
"""Of words and column sets, beyond which all are forgotten before the next transaction."""

PRESENT = {
    "kind": 3,
    "caller": 4,
    "revision": 5,
    "column_set": 10,
    "action": 11,
    "purpose": 12,
    "effect": 13,
    "reason": 14,
}
"""The fields of which `present` says where a value occurs, each with its place in a row, which is its number there."""


class HashedEntries(Entries, Protocol):
    """Published entries, with the leaf hashes that they were checked against."""

    def read_hashed(self, start: int, end: int) -> list[tuple[bytes, bytes]]: ...  # noqa: D102  # those of [start, end), each behind its leaf hash


Word = str | bytes
"""A text of the vocabulary, or the bytes that stand for a person."""


def decision_key(decision_id: str) -> bytes | str:
    """Returns the id of a decision as it is kept: the ids that a service gives are 16 bytes in hexadecimal."""
    try:
        short = bytes.fromhex(decision_id)
    except ValueError:
        return decision_id
    return short if short.hex() == decision_id else decision_id


def person_word(pseudonym: bytes) -> bytes:
    """Returns the word for a person."""
    return b"p" + pseudonym


def stranger_word(blind: bytes) -> bytes:
    """Returns the word for a stranger, made of the keyed hash of an id (`People.blind`)."""
    return b"s" + blind


def is_person_word(word: Word) -> bool:
    """Tells whether a word stands for a person who has a pseudonym."""
    return isinstance(word, bytes) and word[:1] == b"p"


def mentioned(entry: entry_pb2.AuditEntry) -> set[bytes]:
    """Returns the pseudonyms of all whom an entry concerns, but for subject and actor of a decision."""
    match entry.WhichOneof("body"):
        case "decision":
            decision = entry.decision
            return set(decision.data_subject_pseudonyms) - {decision.subject_pseudonym, decision.actor_pseudonym}
        case "read":
            found = {entry.read.subject_pseudonym}
        case "erasure":
            erasure = entry.erasure
            found = {*erasure.pseudonyms, erasure.requested_by_pseudonym, erasure.approved_by_pseudonym}
        case "retention":
            found = {entry.retention.requested_by_pseudonym, entry.retention.approved_by_pseudonym}
        case "policy":
            found = {entry.policy.requested_by_pseudonym, entry.policy.approved_by_pseudonym}
        case _:
            return set()
    return found - {b""}


class Numbers(dict[Word, int | None]):
    """The numbers of words; a word that is not here is looked up, and nothing has none."""

    def __init__(self, look_up: Callable[[Word], int]) -> None:
        """Takes what finds the number of a word, or gives it one."""
        super().__init__()
        self._look_up = look_up
        self.forget()

    def __missing__(self, word: Word) -> int:
        """Looks a word up."""
        number = self[word] = self._look_up(word)
        return number

    def forget(self) -> None:
        """Forgets all words."""
        self.clear()
        self[""] = self[b""] = None


class Index:
    """The index, open for its one writer."""

    def __init__(self, connection: sqlite3.Connection, people: People, origin: str) -> None:
        """Takes a connection that this object alone uses; call `open` instead."""
        self._connection = connection
        self._people = people
        self._stranger = people.stranger.pseudonym
        self._origin = origin
        self._lock = threading.Lock()  # INVARIANT: held around each use of the connection and the numbers
        self._numbers = Numbers(lambda word: self._number("words", "word", word)[0])
        self._set_numbers: dict[tuple[str, ...], int | None] = {}
        self._skimming = Skimming(self._of_stamp, self._of_clear)
        self._mentions: list[tuple[int, int | None, int]] = []  # whom the entries of the transaction concern besides
        self._present: set[tuple[int, int, int]] = set()  # what is known to be present in the chunk at hand
        self._size: int
        self._first: int
        self._size, self._first = connection.execute("SELECT size, first FROM covered").fetchone()

    @classmethod
    def open(cls, path: Path, book: Entries, people: People, origin: str, first_index: int = 0) -> Self:
        """Opens the index of a book, or begins a new one, at the book's first entry, where there is none that fits.

        Raises:
            BookUnavailableError: no index can be kept at this path.
        """
        try:
            connection = connect_fitting(path, book, origin) or connect_new(path, origin, first_index)
        except (OSError, sqlite3.Error) as err:
            raise BookUnavailableError(f"no index can be kept in `{path}`: {err}") from err
        return cls(connection, people, origin)

    @property
    def size(self) -> int:
        """Returns before which index all entries are covered, from the first one on."""
        return self._size

    @property
    def first(self) -> int:
        """Returns the index of the first entry that is covered."""
        return self._first

    def forget_some(self, first_index: int) -> None:
        """Takes out entries before an index, which are pruned, as many as one transaction takes.

        Raises:
            BookUnavailableError: the index cannot be written.
        """
        with self._lock:
            end = min(first_index, self._size, self._first + FORGOTTEN_AT_ONCE)
            if end <= self._first:
                return
            try:
                with self._connection:
                    self._connection.execute("BEGIN IMMEDIATE")
                    blocks = (end >> BLOCK_BITS, end)
                    self._connection.execute("DELETE FROM mentions WHERE block <= ? AND entry < ?", blocks)
                    self._connection.execute("DELETE FROM entries WHERE idx < ?", (end,))
                    if end == first_index:
                        self._connection.execute("DELETE FROM present WHERE chunk < ?", (end >> CHUNK_BITS,))
                    self._connection.execute("UPDATE covered SET first = ?", (end,))
            except sqlite3.Error as err:
                raise BookUnavailableError(f"the index cannot be written: {err}") from err
            self._first = end

    def catch_up(self, book: HashedEntries, to_size: int) -> None:
        """Covers all entries before `to_size`, which must be published.

        Raises:
            BookCorruptError: an entry is malformed.
            BookUnavailableError: the index cannot be written.
        """
        with self._lock:
            while self._size < to_size:
                try:
                    self._cover(book, min(to_size, self._size + COMMIT_ENTRIES_MAX))
                except sqlite3.Error as err:
                    raise BookUnavailableError(f"the index cannot be written: {err}") from err

    def close(self) -> None:
        """Closes the index."""
        with self._lock:
            self._connection.close()

    def _cover(self, book: HashedEntries, end: int) -> None:
        try:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                if len(self._numbers) + len(self._set_numbers) > NUMBERS_CACHED_MAX:
                    self._forget()
                for start in range(self._size, end, READ_ENTRIES_MAX):
                    entries = book.read_hashed(start, min(end, start + READ_ENTRIES_MAX))
                    rows = [self._skimmed(i, leaf, raw) for i, (leaf, raw) in enumerate(entries, start)]
                    places = ", ".join("?" * len(rows[0]))
                    self._connection.executemany(f"INSERT INTO entries VALUES ({places})", rows)  # noqa: S608  # only marks
                    self._note_present(rows)
                    self._connection.executemany("INSERT OR IGNORE INTO mentions VALUES (?, ?, ?)", self._mentions)
                    self._mentions.clear()
                self._connection.execute("UPDATE covered SET size = ?", (end,))
        except BaseException:
            self._forget()  # numbers given in this transaction are void
            raise
        self._size = end

    def _note_present(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Notes which values occur in the chunks of these rows, whose indexes follow one another."""
        found: set[tuple[int, int, int]] = set()
        start = 0
        while start < len(rows):
            chunk = rows[start][0] >> CHUNK_BITS
            end = min(len(rows), start + ((chunk + 1) << CHUNK_BITS) - rows[start][0])
            for field in PRESENT.values():
                found |= {
                    (field, value, chunk) for value in {row[field] for row in rows[start:end]} if value is not None
                }
            start = end
        self._connection.executemany("INSERT OR IGNORE INTO present VALUES (?, ?, ?)", found - self._present)
        self._present = found

    def _skimmed(self, index: int, leaf: bytes, raw: bytes) -> tuple[Any, ...]:
        """Returns the row of an entry, which is parsed where it is not as most decisions are."""
        found = self._skimming.read(raw)
        if found is None or found.subject == self._stranger:
            return self._row(index, leaf, decode(raw, index))
        time, caller = found.nanoseconds, found.of_stamp[0]
        revision, resource, *others = found.of_clear
        asker = self._numbers[person_word(found.subject)]
        key = decision_key(found.decision_id)
        return (index, leaf, time, _DECISION, caller, revision, key, asker, None, resource, *others)

    def _of_stamp(self, entry: entry_pb2.AuditEntry) -> tuple[int | None]:
        return (self._numbers[entry.caller],)

    def _of_clear(self, decision: entry_pb2.DecisionEntry) -> tuple[int | None, ...]:
        """Returns what a row has of what stands in clear."""
        numbers = self._numbers
        return (
            numbers[decision.policy_revision.digest],
            numbers[decision.resource_id],
            self._column_set(tuple([column.column for column in decision.columns])),
            numbers[decision.action],
            numbers[decision.purpose],
            decision.effect,
            decision.reason,
        )

    def _row(self, index: int, leaf: bytes, entry: entry_pb2.AuditEntry) -> tuple[Any, ...]:
        numbers = self._numbers
        block, stranger = index >> BLOCK_BITS, self._stranger
        self._mentions += [(block, numbers[person_word(one)], index) for one in mentioned(entry) if one != stranger]
        row = (index, leaf, nanoseconds(entry.entry_time), entry.kind, numbers[entry.caller])
        if not entry.HasField("decision"):
            digest = entry.policy.revision.digest
            return (*row, numbers[digest], *(None,) * 9)
        subject, actor = self._askers(entry, index)
        revision, *others = self._of_clear(entry.decision)
        key = decision_key(entry.decision.decision_id)
        return (*row, revision, key, numbers[subject], numbers[actor], *others)

    def _askers(self, entry: entry_pb2.AuditEntry, index: int) -> tuple[bytes, bytes]:
        """Returns the words for subject and actor. Who is a stranger is found by the hash of the id."""
        decision = entry.decision
        subject, actor = decision.subject_pseudonym, decision.actor_pseudonym
        subject_word = person_word(subject) if subject else b""
        actor_word = person_word(actor) if actor else b""
        stranger = self._stranger
        if stranger in (subject, actor):
            request = open_request(entry, index, self._origin, self._people)
            if request is not None and subject == stranger and request.subject.id:
                subject_word = stranger_word(self._people.blind(request.subject.id))
            if request is not None and actor == stranger and request.actor.id:
                actor_word = stranger_word(self._people.blind(request.actor.id))
        return subject_word, actor_word

    def _forget(self) -> None:
        self._numbers.forget()
        self._set_numbers.clear()
        self._skimming.forget()
        self._mentions.clear()
        self._present = set()

    def _column_set(self, columns: tuple[str, ...]) -> int | None:
        """Returns the number of the set of these columns, and gives it one, with its members, if it is new."""
        if columns not in self._set_numbers:
            members = sorted({number for column in columns if (number := self._numbers[column]) is not None})
            number, new = (
                self._number("column_sets", "columns", " ".join(map(str, members))) if members else (None, False)
            )
            if new:
                pairs = [(member, number) for member in members]
                self._connection.executemany("INSERT INTO column_members VALUES (?, ?)", pairs)
            self._set_numbers[columns] = number
        return self._set_numbers[columns]

    def _number(self, table: str, field: str, value: Word) -> tuple[int, bool]:
        query = f"SELECT id FROM {table} WHERE {field} = ?"  # noqa: S608  # our own names
        row = self._connection.execute(query, (value,)).fetchone()
        if row is not None:
            return row[0], False
        cursor = self._connection.execute(f"INSERT INTO {table} ({field}) VALUES (?)", (value,))  # noqa: S608  # as above
        return int(cursor.lastrowid or 0), True
