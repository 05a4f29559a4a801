"""Looking for entries in the index.

Owns the reading connection and the way through the blocks of the index (see `index`). What it promises:

1. the places that it finds are the first that match, in order, of all before a size that the index covers;
2. one statement looks at one block, or one chunk, so that nobody waits for a long one, whether to read or to write;
3. a block or chunk in which a word of the filter does not occur at all is passed over;
4. who looks for longer than they have time for is told how far they came, and goes on from there; a statement that
   takes far too long is ended.

Methods may be called from any thread.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from gatebook.audit.conditions import Conditions, conditions, listed
from gatebook.audit.entry import nanoseconds
from gatebook.audit.index import CHUNK_BITS, PRESENT, Word
from gatebook.audit.index_file import BLOCK_BITS
from gatebook.errors import BookUnavailableError, DeadlineExceededError
from gatebook.v1 import audit_service_pb2, types_pb2

STATEMENT_SECONDS_MAX = 20.0
"""How long one statement may take, which looks at 65,536 entries at most."""
STEPS_BETWEEN_CHECKS = 20_000
WINDOW_CHUNKS = 512
"""For how many chunks at once it is looked up which of them are worth looking at."""

BLOCK = "@block"
"""Stands in a condition for the number of the block that is looked at."""
MENTIONED = f"idx IN (SELECT entry FROM mentions WHERE block = {BLOCK} AND word = {{word:d}})"  # noqa: S608  # numbers
WHOEVER = audit_service_pb2.EntryFilter(subject_id="*")
"""Asks for whatever concerns the people whose words go with it."""

Range = tuple[int, int]


class Places(msgspec.Struct, frozen=True):
    """Index and leaf hash of the first entries that match, and what was not looked at: nothing, or [start, end)."""

    rows: list[tuple[int, bytes]]
    start: int
    end: int

    @property
    def whole(self) -> bool:
        """Tells whether these are all."""
        return self.start >= self.end


DAMAGED = "the index is damaged: stop the service, delete `index.db` and start it again"


class Arm(msgspec.Struct, frozen=True):
    """A way to find entries: by a key of the index, or by none."""

    source: str
    where: tuple[str, ...] = ()
    values: tuple[bytes | str, ...] = ()
    columns: tuple[str, ...] = ()
    """The columns that the key is about."""


class Looking:
    """Looks for entries, within the index of one book."""

    def __init__(self, path: Path) -> None:
        """Takes the path of an index that is written elsewhere (`Index.open`)."""
        self._path = path
        self._lock = threading.Lock()  # INVARIANT: held around each use of what follows
        self._deadline = 0.0
        self._opened: sqlite3.Connection | None = None
        self._openings = 0

    def close(self) -> None:
        """Lets go of the index, as it must be where another file may have taken its place; the next look opens it."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def places(
        self,
        wanted: audit_service_pb2.EntryFilter,
        askers: Sequence[Word],
        within: Range,
        limit: int,
        *,
        newest_first: bool,
        until: float,
    ) -> Places:
        """Returns the first entries in a range that match a valid filter, or those found `until` a moment.

        `askers` are the words of everyone with the id that the filter names.

        Raises:
            BookUnavailableError: the index cannot be read, or does not cover the range.
            DeadlineExceededError: a statement takes too long.
        """
        start, end = within
        found: list[tuple[int, bytes]] = []
        try:
            with self._lock:
                start, end = self._bounds(wanted, start, end)
                sought = conditions(wanted, askers, self)
                opening = self._openings
            if sought.nothing or start >= end:
                return Places([], 0, 0)
            arms = _arms(sought)
            for low, high in self._ranges(sought, start, end, newest_first=newest_first, keyed=bool(arms[0].where)):
                with self._lock:
                    self._require_same(opening)
                    found += self._look(sought, arms, (low, high), limit - len(found), newest_first=newest_first)
                if len(found) >= limit:
                    last = found[-1][0]
                    return Places(found, *((start, last) if newest_first else (last + 1, end)))
                if time.monotonic() > until:
                    return Places(found, *((start, low) if newest_first else (high, end)))
        except sqlite3.Error as err:
            # Python's own errors of rows that rotted, as of text that is none, have no code.
            if getattr(err, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
                raise DeadlineExceededError(_too_long(wanted, start, end)) from err
            raise BookUnavailableError(f"the index cannot be read: {err}") from err
        return Places(found, 0, 0)

    def first_since(self, since: int, end: int) -> int:
        """Returns the index of the first entry before `end` that was not made before a time, or `end`.

        Raises:
            BookUnavailableError: the index cannot be read.
        """
        with self._told(), self._lock:
            [(start,)] = self._integers("SELECT first FROM covered LIMIT 1", (), 1)
            return self._first_since(since, min(start, end), end)

    def words(self, after: int, limit: int) -> list[tuple[int, Word]]:
        """Returns the next words that the index knows, with their numbers.

        Raises:
            BookUnavailableError: the index cannot be read.
        """
        query = "SELECT id, word FROM words WHERE id > ? ORDER BY id LIMIT ?"
        with self._told(), self._lock:
            rows = self._connection().execute(query, (after, limit)).fetchall()
            if not all(isinstance(number, int) for number, _ in rows):
                raise BookUnavailableError(DAMAGED)
            return rows

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as err:
            raise BookUnavailableError(f"the index cannot be read: {err}") from err

    def number(self, word: Word) -> Sequence[int]:
        """Returns the number of a word, or nothing. For who holds the lock."""
        return self._numbers("SELECT id FROM words WHERE word = ?", word)

    def between(self, first: str, last: str) -> Sequence[int]:
        """Returns the numbers of the words between two. For who holds the lock."""
        return self._numbers("SELECT id FROM words WHERE word > ? AND word < ?", first, last)

    def column_sets(self, column: str) -> Sequence[int]:
        """Returns the numbers of the sets that have a column. For who holds the lock."""
        query = "SELECT column_set FROM column_members WHERE column = (SELECT id FROM words WHERE word = ?)"
        return self._numbers(query, column)

    def _numbers(self, query: str, *values: Word) -> Sequence[int]:
        return tuple(row[0] for row in self._integers(query, values))

    def _integers(self, query: str, values: Sequence[Word | int], count: int | None = None) -> list[tuple[int, ...]]:
        """Returns rows of integers, as many as there must be. SQLite gives what rot made of a column, of any type."""
        rows: list[tuple[int, ...]] = self._connection().execute(query, values).fetchall()
        if count not in {None, len(rows)} or not all(isinstance(value, int) for row in rows for value in row):
            raise BookUnavailableError(DAMAGED)
        return rows

    def _connection(self) -> sqlite3.Connection:
        self._deadline = time.monotonic() + STATEMENT_SECONDS_MAX
        if self._opened is None:
            uri = f"{self._path.absolute().as_uri()}?mode=ro"
            self._opened = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
            self._opened.set_progress_handler(lambda: time.monotonic() > self._deadline, STEPS_BETWEEN_CHECKS)
            self._openings += 1
        return self._opened

    def _require_same(self, opening: int) -> None:
        """Requires that the index has not been let go of: numbers of words are those of one index."""
        if self._opened is None or opening != self._openings:
            raise BookUnavailableError("the index has been opened anew meanwhile: ask again")

    def _bounds(self, wanted: audit_service_pb2.EntryFilter, start: int, end: int) -> Range:
        """Returns [start, end), narrowed by the indexes and times of the filter."""
        [(covered, first)] = self._integers("SELECT size, first FROM covered LIMIT 1", (), 1)
        if covered < end:
            raise BookUnavailableError(f"the index covers {covered} entries and not yet {end}: ask again")
        start = max(start, wanted.start_index, first)
        end = min(end, wanted.end_index or end)
        if wanted.HasField("start_time"):
            start = self._first_since(nanoseconds(wanted.start_time), start, end)
        if wanted.HasField("end_time"):
            end = self._first_since(nanoseconds(wanted.end_time), start, end)
        return start, end

    def _first_since(self, since: int, start: int, end: int) -> int:
        """Returns the first index in [start, end) whose time is not before `since`, or `end`.

        INVARIANT: entry times never go backwards within a book.
        """
        while start < end:
            middle = (start + end) // 2
            [(time_ns,)] = self._integers("SELECT time FROM entries WHERE idx = ?", (middle,), 1)
            if time_ns < since:
                start = middle + 1
            else:
                end = middle
        return start

    def _ranges(self, sought: Conditions, start: int, end: int, *, newest_first: bool, keyed: bool) -> Iterator[Range]:
        """Yields the ranges worth looking at, in order: blocks where there is a key to search by, else chunks."""
        fields = {name: numbers for name, numbers in sought.numbers.items() if name in PRESENT}
        bits = BLOCK_BITS if keyed else CHUNK_BITS
        windows = range(start >> CHUNK_BITS, ((end - 1) >> CHUNK_BITS) + 1, WINDOW_CHUNKS)
        for first in reversed(windows) if newest_first else windows:
            last = min(first + WINDOW_CHUNKS, windows.stop)
            chunks = set(range(first, last))
            for name, numbers in fields.items():
                query = f"SELECT chunk FROM present WHERE field = ? AND value IN ({listed(numbers)}) AND chunk >= ? AND chunk < ?"  # noqa: E501, S608  # numbers
                with self._lock:
                    rows = self._integers(query, (PRESENT[name], first, last))
                chunks.intersection_update(row[0] for row in rows)
            low, high = max(start, first << CHUNK_BITS), min(end, last << CHUNK_BITS)
            if not fields and not keyed:
                yield low, high
                continue
            for number in sorted({chunk >> (bits - CHUNK_BITS) for chunk in chunks}, reverse=newest_first):
                yield max(low, number << bits), min(high, (number + 1) << bits)

    def _look(
        self, sought: Conditions, arms: Sequence[Arm], within: Range, limit: int, *, newest_first: bool
    ) -> list[tuple[int, bytes]]:
        """Returns the first entries that match in a range, which has one block where there is a key."""
        found: set[tuple[int, bytes]] = set()
        damaged = False
        for arm in arms:
            keyed = ("block = ?",) if arm.where else ()
            where = " AND ".join((*keyed, *arm.where, *sought.sql(without=arm.columns), "idx >= ?", "idx < ?"))
            order = "DESC" if newest_first else "ASC"
            where = where.replace(BLOCK, str(within[0] >> BLOCK_BITS))
            query = f"SELECT idx, leaf FROM entries {arm.source} WHERE {where} ORDER BY idx {order} LIMIT {limit:d}"  # noqa: S608  # names and numbers of our own
            values = (*((within[0] >> BLOCK_BITS,) if keyed else ()), *arm.values, *within)
            rows: list[tuple[object, object]] = self._connection().execute(query, values).fetchall()
            found.update((index, leaf) for index, leaf in rows if isinstance(index, int) and isinstance(leaf, bytes))
            damaged = damaged or any(not isinstance(leaf, bytes) for _, leaf in rows)
        if damaged:
            raise BookUnavailableError(DAMAGED)
        return sorted(found, reverse=newest_first)[:limit]


def _arms(sought: Conditions) -> list[Arm]:
    """Returns the keys to search by, each of which gives entries in order: the one that is likely to find the least."""
    if sought.decision:
        return [Arm("INDEXED BY entries_by_decision", ("decision_id = ?",), (sought.decision,))]
    if sought.askers is not None:
        roles = ("subject", "actor")
        return [
            Arm(f"INDEXED BY entries_by_{role}", (f"{role} = {n:d}",), columns=roles)
            for n in sought.askers
            for role in roles
        ] + [Arm("NOT INDEXED", (MENTIONED.format(word=n),), columns=roles) for n in sought.askers]
    if "resource" in sought.numbers:
        effects = sought.numbers.get("effect") or types_pb2.Effect.values()
        return [
            Arm(
                "INDEXED BY entries_by_resource",
                (f"resource = {n:d}", f"effect = {effect:d}"),
                columns=("resource", "effect"),
            )
            for n in sought.numbers["resource"]
            for effect in effects
        ]
    return [Arm("NOT INDEXED")]


def _too_long(wanted: audit_service_pb2.EntryFilter, start: int, end: int) -> str:
    """Says what would make it quicker."""
    narrow = "start_index" if wanted.HasField("start_time") or wanted.HasField("end_time") else "start_time or end_time"
    key = "" if wanted.subject_id or wanted.decision_id else ", or name a subject_id, a resource_id or a decision_id"
    return f"the filter takes too long over entries {start} to {end}: narrow it by {narrow}{key}"
