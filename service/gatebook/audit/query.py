"""Queries: the entries that match a filter, page by page.

Owns what a reader of the book is told. What it promises:

1. an answer covers every entry before a size, and none after it; all pages cover what the first one did;
2. pages go by index, up or down, so that entries which come meanwhile move nothing;
3. a page token belongs to its filter, order and caller, and cannot be made up;
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
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from gatebook.audit.chain import Entries
from gatebook.audit.conditions import require_valid
from gatebook.audit.index import is_person_word, person_word, stranger_word
from gatebook.audit.looking import STATEMENT_SECONDS_MAX, WHOEVER, Looking, Places, Range
from gatebook.audit.people import People
from gatebook.audit.record import open_record
from gatebook.audit.sight import Sight
from gatebook.errors import (
    BookCorruptError,
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
LOOK_SECONDS = 2.0
"""How long it is looked for the entries of one page, after which it is as short as it is by then."""
ENTRIES_READ_AT_ONCE = 256
COUNTED_AT_ONCE = 1_000
POSITION_BYTES = 8
TAG_BYTES = 16


class Page(msgspec.Struct, frozen=True):
    """A page of records, the token of the next one, or nothing, and how many entries all pages cover."""

    records: tuple[audit_service_pb2.EntryRecord, ...]
    next_page_token: str
    size: int


class Begun(Entries, Protocol):
    """A book that may have been pruned."""

    @property
    def first_index(self) -> int: ...  # noqa: D102  # of the first entry that it still has


class Query:
    """Answers queries about one book. Methods may be called from any thread."""

    def __init__(self, path: Path, book: Begun, people: People, origin: str) -> None:
        """Takes the path of an index that is written elsewhere (`Index.open`)."""
        self._looking = Looking(path)
        self._book = book
        self._people = people
        self._origin = origin

    def close(self) -> None:
        """Lets go of the index, as it must be where another file may have taken its place; the next query opens it."""
        self._looking.close()

    def page(self, request: audit_service_pb2.ListEntriesRequest, size: int, sight: Sight, caller: str = "") -> Page:
        """Returns one page of the entries that match and are seen: of all before `size`, or as the first page covered.

        Raises:
            InvalidRequestError: the filter, the order or the page size is malformed.
            LimitExceededError: the page size is over 1,000.
            InvalidPageTokenError: the token belongs to another filter, order or caller, or was made up.
            BookCorruptError: an entry is not what was indexed.
            BookUnavailableError: the index cannot be read, or does not cover the size.
            DeadlineExceededError: the filter takes far too long; narrow it by time or index.
        """
        require_valid(request.filter)
        limit = _page_size(request.page_size)
        newest_first = _newest_first(request.order)
        start, end = (begins := self._book.first_index), size
        if request.page_token:
            position, size = self._position(request, caller)
            start, end = (begins, position) if newest_first else (max(begins, position), size)
        shown: list[audit_service_pb2.EntryRecord] = []
        room, opened, wanted = PAGE_BYTES_MAX, 0, limit + 1
        until = time.monotonic() + LOOK_SECONDS

        def page(*, more: bool) -> Page:
            position = end if newest_first else start
            return Page(tuple(shown), self._token(request, caller, position, size) if more else "", size)

        while True:
            places = self._places(request.filter, (start, end), wanted + 1, newest_first=newest_first, until=until)
            for record in self._records(places.rows[:wanted]):
                if sight.sees(record):
                    room -= record.ByteSize()
                    if len(shown) == limit or (shown and room < 0):
                        return page(more=True)
                    shown.append(record)
                start, end = (start, record.index) if newest_first else (record.index + 1, end)
                opened += 1
            if len(places.rows) <= wanted:
                start, end = places.start, places.end
                return page(more=not places.whole)
            if opened >= OPENED_MAX or time.monotonic() > until:
                return page(more=True)
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
        until = time.monotonic() + STATEMENT_SECONDS_MAX
        places = (
            self._places(wanted, (self._book.first_index, size), 1, newest_first=True, until=until)
            if decision_id
            else None
        )
        for record in self._records(places.rows if places else ()):
            if sight.sees(record):
                return record
        raise EntryNotFoundError(f"there is no decision `{decision_id}` for you to see", decision_id=decision_id)

    def concerning(self, pseudonyms: Iterable[bytes], size: int) -> int:
        """Returns how many entries before `size` concern one of these people.

        Raises:
            BookUnavailableError: the index cannot be read, or does not cover the size.
            DeadlineExceededError: it takes far too long.
        """
        words = [person_word(one) for one in pseudonyms]
        count, start = 0, self._book.first_index
        while words and start < size:
            places = self._looking.places(
                WHOEVER, words, (start, size), COUNTED_AT_ONCE, newest_first=False, until=_long_from_now()
            )
            count += len(places.rows)
            start = size if places.whole else places.start
        return count

    def without_key(self, size: int, going_on: Callable[[], bool]) -> tuple[int, int | None]:
        """Returns how many people in entries before `size` have neither a key nor an erasure, and the first entry.

        Raises:
            BookUnavailableError: the index or the store of people cannot be read.
            DeadlineExceededError: it takes far too long.
        """
        missing, at = 0, -1
        first: int | None = None
        while going_on() and (rows := self._looking.words(at, COUNTED_AT_ONCE)):
            at = rows[-1][0]
            people = [word[1:] for _, word in rows if isinstance(word, bytes) and is_person_word(word)]
            for pseudonym in self._people.forgotten.missing(people):
                within = (self._book.first_index, size)
                words = [person_word(pseudonym)]
                places = self._looking.places(WHOEVER, words, within, 1, newest_first=False, until=_long_from_now())
                for index, _ in places.rows:  # none where all entries that concerned them are pruned
                    missing, first = missing + 1, index if first is None else min(first, index)
        return missing, first

    def first_since(self, since: int, size: int) -> int:
        """Returns the index of the first entry before `size` that was not made before a time, or `size`.

        Raises:
            BookUnavailableError: the index cannot be read.
        """
        return max(self._looking.first_since(since, size), min(self._book.first_index, size))

    def _places(
        self, wanted: audit_service_pb2.EntryFilter, within: Range, limit: int, *, newest_first: bool, until: float
    ) -> Places:
        """Returns the first matching entries in [start, end)."""
        askers: list[bytes] = []
        if wanted.subject_id:
            askers = [person_word(person.pseudonym) for person in self._people.find(wanted.subject_id)]
            askers.append(stranger_word(self._people.blind(wanted.subject_id)))
        return self._looking.places(wanted, askers, within, limit, newest_first=newest_first, until=until)

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

    def _position(self, request: audit_service_pb2.ListEntriesRequest, caller: str) -> tuple[int, int]:
        """Returns how far the pages before have come, and the size that they cover."""
        try:
            token = base64.urlsafe_b64decode(request.page_token.encode())
        except (binascii.Error, ValueError) as err:
            raise InvalidPageTokenError("the page token is malformed: start again without one") from err
        position = int.from_bytes(token[:POSITION_BYTES], "big")
        size = int.from_bytes(token[POSITION_BYTES : 2 * POSITION_BYTES], "big")
        expected = self._token(request, caller, position, size)
        if not hmac.compare_digest(expected.encode(), request.page_token.encode()):
            message = "the page token belongs to another filter, order or caller: start again without one"
            raise InvalidPageTokenError(message)
        return position, size

    def _token(self, request: audit_service_pb2.ListEntriesRequest, caller: str, position: int, size: int) -> str:
        place = position.to_bytes(POSITION_BYTES, "big") + size.to_bytes(POSITION_BYTES, "big")
        order = b"v2 newest " if _newest_first(request.order) else b"v2 oldest "
        named = msgspec.json.encode((self._origin, caller))
        text = order + place + named + b"\n" + request.filter.SerializeToString(deterministic=True)
        tag = hmac.digest(self._people.page_token_key, text, hashlib.sha256)[:TAG_BYTES]
        return base64.urlsafe_b64encode(place + tag).decode()


def _long_from_now() -> float:
    return time.monotonic() + STATEMENT_SECONDS_MAX


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
