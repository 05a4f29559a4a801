"""Queries: the entries that match a filter, page by page.

Owns what a reader of the book is told. What it promises:

1. an answer covers every entry before a size, and none after it;
2. pages go by index, up or down, so that entries which come meanwhile move nothing;
3. a page token belongs to its filter and order, and cannot be made up;
4. the index only says where to look: what is returned are the exact bytes from the book, whose leaf
   hash must be that of the index;
5. a page is bounded in entries and bytes, and a query in time and in the entries that it opens: a page may
   be short, even empty, and be followed by another;
6. whoever asks is shown what they see (`Sight`), and an entry that they do not see is as one that is not there:
   a page has a token where there is more that they see, or more entries than are opened for one page.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import itertools
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from gatebook.audit.chain import Entries
from gatebook.audit.conditions import Condition, conditions, require_valid, select
from gatebook.audit.entry import nanoseconds
from gatebook.audit.index import person_word, stranger_word
from gatebook.audit.people import People
from gatebook.audit.record import open_record
from gatebook.audit.sight import Sight
from gatebook.errors import (
    BookCorruptError,
    BookUnavailableError,
    DeadlineExceededError,
    EntryNotFoundError,
    InvalidPageTokenError,
    InvalidRequestError,
    LimitExceededError,
)
from gatebook.v1 import audit_service_pb2

PAGE_SIZE_DEFAULT = 50
PAGE_SIZE_MAX = 1_000
PAGE_BYTES_MAX = 3 << 20
"""Of the records of a page, so that it is below the 4 MiB that gRPC clients accept."""
OPENED_MAX = 2_000
"""How many entries are opened for one page, of which those that are not seen are left out."""
OPENED_AT_ONCE = 100
QUERY_SECONDS_MAX = 20.0
ENTRIES_READ_AT_ONCE = 256
STEPS_BETWEEN_CHECKS = 20_000
POSITION_BYTES = 8
TAG_BYTES = 16


class Page(msgspec.Struct, frozen=True):
    """A page of records, and the token of the next one, or nothing."""

    records: tuple[audit_service_pb2.EntryRecord, ...]
    next_page_token: str


class Query:
    """Answers queries about one book. Methods may be called from any thread."""

    def __init__(self, path: Path, book: Entries, people: People, origin: str) -> None:
        """Takes the path of an index that is written elsewhere (`Index.open`)."""
        self._path = path
        self._book = book
        self._people = people
        self._origin = origin
        self._lock = threading.Lock()  # INVARIANT: held around each use of the connection and the deadline
        self._deadline = 0.0
        self._opened: sqlite3.Connection | None = None

    def close(self) -> None:
        """Lets go of the index, as it must be where another file may have taken its place; the next query opens it."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._opened is None:
            uri = f"{self._path.absolute().as_uri()}?mode=ro"
            self._opened = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
            self._opened.set_progress_handler(lambda: time.monotonic() > self._deadline, STEPS_BETWEEN_CHECKS)
        return self._opened

    def page(self, request: audit_service_pb2.ListEntriesRequest, size: int, sight: Sight) -> Page:
        """Returns one page of the entries before `size` that match and are seen.

        Raises:
            InvalidRequestError: the filter, the order or the page size is malformed.
            LimitExceededError: the page size is over 1,000.
            InvalidPageTokenError: the token belongs to another filter or order, or was made up.
            BookCorruptError: an entry is not what was indexed.
            BookUnavailableError: the index cannot be read, or does not cover the size.
            DeadlineExceededError: the filter takes too long; narrow it by time or index.
        """
        require_valid(request.filter)
        limit = _page_size(request.page_size)
        newest_first = _newest_first(request.order)
        start, end = 0, size
        if request.page_token:
            position = self._position(request)
            start, end = (0, min(position, size)) if newest_first else (position, size)
        shown: list[audit_service_pb2.EntryRecord] = []
        room, opened, wanted = PAGE_BYTES_MAX, 0, limit + 1
        while True:
            rows = self._rows(request.filter, start, end, wanted + 1, newest_first=newest_first)
            for record in self._records(rows[:wanted]):
                if sight.sees(record):
                    room -= record.ByteSize()
                    if len(shown) == limit or (shown and room < 0):
                        return Page(tuple(shown), self._token(request, end if newest_first else start))
                    shown.append(record)
                start, end = (start, record.index) if newest_first else (record.index + 1, end)
                opened += 1
            if len(rows) <= wanted and (not rows or _is_past(rows[-1][0], start, end)):
                return Page(tuple(shown), "")
            if opened >= OPENED_MAX:
                return Page(tuple(shown), self._token(request, end if newest_first else start))
            wanted = min(max(wanted, OPENED_AT_ONCE), OPENED_MAX - opened)

    def entry(self, index: int, size: int, sight: Sight) -> audit_service_pb2.EntryRecord:
        """Returns the entry with an index before `size`.

        Raises:
            EntryNotFoundError: there is none, or none that is seen.
        """
        if index < size:
            record = open_record(index, self._book.read(index, index + 1)[0], self._origin, self._people)
            if sight.sees(record):
                return record
        raise EntryNotFoundError(f"there is no entry {index} for you to see", index=str(index))

    def decision(self, decision_id: str, size: int, sight: Sight) -> audit_service_pb2.EntryRecord:
        """Returns the entry of a decision before `size`.

        Raises:
            EntryNotFoundError: there is none, or none that is seen.
        """
        wanted = audit_service_pb2.EntryFilter(decision_id=decision_id)
        require_valid(wanted)
        rows = self._rows(wanted, 0, size, 1, newest_first=True) if decision_id else []
        for record in self._records(rows):
            if sight.sees(record):
                return record
        raise EntryNotFoundError(f"there is no decision `{decision_id}` for you to see", decision_id=decision_id)

    def _rows(
        self, wanted: audit_service_pb2.EntryFilter, start: int, end: int, limit: int, *, newest_first: bool
    ) -> list[tuple[int, bytes]]:
        """Returns index and leaf hash of the first matching entries in [start, end)."""
        words: list[bytes] = []
        if wanted.subject_id:
            words = [person_word(person.pseudonym) for person in self._people.find(wanted.subject_id)]
            words.append(stranger_word(self._people.blind(wanted.subject_id)))
        try:
            with self._lock:
                self._deadline = time.monotonic() + QUERY_SECONDS_MAX
                start, end = self._bounds(wanted, start, end)
                askers = [n for word in words for n in self._number(word)] if words else None
                bound = Condition("idx >= ? AND idx < ?", (start, end))
                sql, values = select([*conditions(wanted), bound], askers, limit, newest_first=newest_first)
                return self._connection.execute(sql, values).fetchall()
        except sqlite3.OperationalError as err:
            if err.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                raise DeadlineExceededError("the filter takes too long: narrow it by time or index") from err
            raise BookUnavailableError(f"the index cannot be read: {err}") from err
        except sqlite3.Error as err:
            raise BookUnavailableError(f"the index cannot be read: {err}") from err

    def _bounds(self, wanted: audit_service_pb2.EntryFilter, start: int, end: int) -> tuple[int, int]:
        """Returns [start, end), narrowed by the indexes and times of the filter."""
        covered = self._connection.execute("SELECT size FROM covered").fetchone()[0]
        if covered < end:
            raise BookUnavailableError(f"the index covers {covered} entries and not yet {end}")
        start = max(start, wanted.start_index)
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
            query = "SELECT time FROM entries WHERE idx = ?"
            if self._connection.execute(query, (middle,)).fetchone()[0] < since:
                start = middle + 1
            else:
                end = middle
        return start

    def _number(self, word: bytes) -> Iterator[int]:
        for row in self._connection.execute("SELECT id FROM words WHERE word = ?", (word,)):
            yield row[0]

    def _records(self, rows: Iterable[tuple[int, bytes]]) -> Iterator[audit_service_pb2.EntryRecord]:
        """Yields the records in these places, each opened when it is asked for."""
        for index, leaf, entry_bytes in self._read(rows):
            record = open_record(index, entry_bytes, self._origin, self._people)
            if record.leaf_hash != leaf:
                raise BookCorruptError(f"entry {index} is not what was indexed: run `gatebook audit verify`", index)
            yield record

    def _read(self, rows: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes, bytes]]:
        """Yields index, leaf hash and bytes; neighbours are read together."""
        for _, near in itertools.groupby(rows, key=lambda row: row[0] // ENTRIES_READ_AT_ONCE):
            group = list(near)
            first, last = min(group)[0], max(group)[0]
            entries = self._book.read(first, last + 1)
            for index, leaf in group:
                yield index, leaf, entries[index - first]

    def _position(self, request: audit_service_pb2.ListEntriesRequest) -> int:
        try:
            token = base64.urlsafe_b64decode(request.page_token.encode())
        except (binascii.Error, ValueError) as err:
            raise InvalidPageTokenError("the page token is malformed: start again without one") from err
        position = int.from_bytes(token[:POSITION_BYTES], "big")
        if not hmac.compare_digest(self._token(request, position).encode(), request.page_token.encode()):
            raise InvalidPageTokenError("the page token belongs to another filter or order: start again without one")
        return position

    def _token(self, request: audit_service_pb2.ListEntriesRequest, position: int) -> str:
        place = position.to_bytes(POSITION_BYTES, "big")
        order = b"v1 newest " if _newest_first(request.order) else b"v1 oldest "
        text = order + place + self._origin.encode() + b"\n" + request.filter.SerializeToString(deterministic=True)
        tag = hmac.digest(self._people.page_token_key, text, hashlib.sha256)[:TAG_BYTES]
        return base64.urlsafe_b64encode(place + tag).decode()


def _is_past(index: int, start: int, end: int) -> bool:
    """Tells whether an entry was looked at: what is left is [start, end)."""
    return not start <= index < end


def _page_size(wanted: int) -> int:
    if wanted < 0:
        raise InvalidRequestError("page_size", f"{wanted} is negative")
    if wanted > PAGE_SIZE_MAX:
        raise LimitExceededError(f"page_size: {wanted} is over {PAGE_SIZE_MAX}", limit="page_size")
    return wanted or PAGE_SIZE_DEFAULT


def _newest_first(order: int) -> bool:
    if order not in audit_service_pb2.EntryOrder.values():
        raise InvalidRequestError("order", f"{order} is not a value of it")
    return order != audit_service_pb2.ENTRY_ORDER_OLDEST_FIRST
