"""Queries answer what a look at every entry would answer, whatever the filter, the order and the page."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.audit_samples import ORIGIN
from tests.filters import FIELDS, FILTERS, IDS, NAMES, SIZE, matches, near, write_some

from gatebook.audit.book import Book
from gatebook.audit.index import Index
from gatebook.audit.people import People
from gatebook.audit.query import Query
from gatebook.audit.record import open_record
from gatebook.audit.sight import EVERYTHING
from gatebook.errors import (
    BookCorruptError,
    BookUnavailableError,
    DeadlineExceededError,
    EntryNotFoundError,
    GatebookError,
    InvalidPageTokenError,
    InvalidRequestError,
    LimitExceededError,
)
from gatebook.tlog.merkle import leaf_hash
from gatebook.v1 import audit_service_pb2, entry_pb2, types_pb2
from gatebook.v1.audit_service_pb2 import EntryFilter, ListEntriesRequest

NEWEST, OLDEST = audit_service_pb2.ENTRY_ORDER_NEWEST_FIRST, audit_service_pb2.ENTRY_ORDER_OLDEST_FIRST


class Hashed:
    """The entries of a book, with leaf hashes."""

    def __init__(self, book: Book) -> None:
        """Takes the book."""
        self._book = book

    @property
    def size(self) -> int:
        """The number of entries."""
        return self._book.size

    def read(self, start: int, end: int) -> list[bytes]:
        """The bytes of entries."""
        return self._book.read(start, end)

    def read_hashed(self, start: int, end: int) -> list[tuple[bytes, bytes]]:
        """The bytes of entries, behind their leaf hashes."""
        return [(leaf_hash(entry), entry) for entry in self.read(start, end)]


class Library:
    """A book of entries about something, with its index."""

    def __init__(self, data: Path, seed: int) -> None:
        """Writes the book."""
        self.data = data
        self.people = People.open(data)
        self.book = Book.open(data, origin=ORIGIN)
        write_some(self.book, self.people, SIZE, seed)
        raw_entries = self.book.read(0, SIZE)
        self.records = [open_record(i, raw, ORIGIN, self.people) for i, raw in enumerate(raw_entries)]
        self.open()

    def open(self) -> None:
        """Opens the index, whatever there is of it."""
        self.index = Index.open(self.data / "index.db", self.book, self.people, ORIGIN)
        self.index.catch_up(Hashed(self.book), SIZE)
        self.query = Query(self.data / "index.db", self.book, self.people, ORIGIN)

    def close_index(self) -> None:
        """Closes the index."""
        self.query.close()
        self.index.close()

    def close(self) -> None:
        """Closes everything."""
        self.close_index()
        self.book.close()
        self.people.close()

    def all_pages(self, wanted: EntryFilter, order: int = NEWEST, page_size: int = 7, size: int = SIZE) -> list[int]:
        """Returns the indexes of all pages, one after the other."""
        found: list[int] = []
        token = ""
        while True:
            asked = ListEntriesRequest(filter=wanted, page_size=page_size, page_token=token, order=order)  # type: ignore[arg-type]  # an order
            page = self.query.page(asked, size, EVERYTHING)
            assert all(record == self.records[record.index] for record in page.records)
            assert len(page.records) <= page_size
            found += [record.index for record in page.records]
            token = page.next_page_token
            if not token:
                return found


@pytest.fixture(scope="module", params=[1, 2])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """Provides a book of 300 entries; the second one has an index of many small blocks."""
    with pytest.MonkeyPatch.context() as patched:
        if request.param == 2:
            for module in ("index", "looking"):
                patched.setattr(f"gatebook.audit.{module}.BLOCK_BITS", 6)
                patched.setattr(f"gatebook.audit.{module}.CHUNK_BITS", 3)
            patched.setattr("gatebook.audit.index_file.BLOCK_BITS", 6)
            patched.setattr("gatebook.audit.looking.WINDOW_CHUNKS", 5)
        one = Library(tmp_path_factory.mktemp("data"), request.param)
        yield one
        one.close()


@settings(max_examples=300)
@given(
    fields=FILTERS,
    order=st.sampled_from([0, NEWEST, OLDEST]),
    page_size=st.integers(1, 7),
    size=st.one_of(st.just(SIZE), st.integers(0, SIZE)),
)
def test_pages_are_what_a_look_at_every_entry_finds(
    library: Library, fields: dict[str, object], order: int, page_size: int, size: int
) -> None:
    """All pages together are the matching entries before the size, in order, each once."""
    wanted = EntryFilter(**fields)  # type: ignore[arg-type]  # fields with their own strategies
    expected = [record.index for record in library.records[:size] if matches(record, wanted)]
    if order != OLDEST:
        expected.reverse()

    assert library.all_pages(wanted, order, page_size, size) == expected


@settings(max_examples=300)
@given(at=st.integers(0, SIZE - 1), names=NAMES, order=st.sampled_from([NEWEST, OLDEST]), page_size=st.integers(1, 7))
def test_filters_by_any_fields_of_an_entry_find_it(
    library: Library, at: int, names: list[str], order: int, page_size: int
) -> None:
    """Whatever fields are combined, the answer is that of a look at every entry, and the entry is in it."""
    record = library.records[at]
    wanted = near(record, names, {at: record.request.subject.id})
    expected = [each.index for each in library.records if matches(each, wanted)]

    assert library.all_pages(wanted, order, page_size) == (expected if order == OLDEST else expected[::-1])
    assert at in expected


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_every_field_of_the_filter_is_claimed(field: str) -> None:
    """The properties here draw every field that the proto has."""
    assert field in {f.name for f in EntryFilter.DESCRIPTOR.fields}
    assert len(FIELDS) == len(EntryFilter.DESCRIPTOR.fields)


MENTIONED = ("INTEGER PRIMARY KEY (rowid=?)", "LIST SUBQUERY", "PRIMARY KEY (block=? AND word=?)")


@pytest.mark.parametrize(
    ("fields", "plans"),
    [
        ({"subject_id": "ana.silva"}, {"entries_by_subject", "entries_by_actor", *MENTIONED}),
        ({"resource_id": "mci.prompts"}, {"entries_by_resource"}),
        ({"resource_id": "mci.prompts", "effect": types_pb2.EFFECT_DENY}, {"entries_by_resource"}),
        ({"decision_id": "x"}, {"entries_by_decision"}),
        ({"effect": types_pb2.EFFECT_DENY}, {"INTEGER PRIMARY KEY"}),
        ({"kind": entry_pb2.ENTRY_KIND_READ}, {"INTEGER PRIMARY KEY"}),
    ],
)
def test_a_page_costs_what_it_holds(library: Library, fields: dict[str, object], plans: set[str]) -> None:
    """A filter is searched in the order of the book by a key of the index, and nothing is sorted."""
    looked: list[str] = []
    library.query._looking._connection().set_trace_callback(looked.append)
    library.all_pages(EntryFilter(**fields))  # type: ignore[arg-type]  # fields with their own strategies
    library.query.close()
    plain = [query for query in looked if query.startswith("SELECT idx")]
    steps = [row[3] for query in plain for row in library.index._connection.execute(f"EXPLAIN QUERY PLAN {query}")]

    assert steps
    assert plans == {name for name in plans if any(name in step for step in steps)}
    assert [step for step in steps if not any(name in step for name in plans)] == []


@settings(max_examples=30)
@given(fields=FILTERS, order=st.sampled_from([NEWEST, OLDEST]))
def test_who_has_no_time_gets_short_pages_and_all_of_them(
    library: Library, fields: dict[str, object], order: int
) -> None:
    """Where a look takes too long the page is short or empty and has a token, and nothing is left out."""
    wanted = EntryFilter(**fields)  # type: ignore[arg-type]  # as above
    expected = library.all_pages(wanted, order)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("gatebook.audit.query.LOOK_SECONDS", -1.0)
        found = library.all_pages(wanted, order)

    assert expected == found


def test_a_statement_that_takes_far_too_long_is_ended(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says of which entries, and what would narrow the filter."""
    monkeypatch.setattr("gatebook.audit.looking.STATEMENT_SECONDS_MAX", -1.0)
    monkeypatch.setattr("gatebook.audit.looking.STEPS_BETWEEN_CHECKS", 1)
    library.query.close()

    with pytest.raises(DeadlineExceededError, match="narrow it by start_time or end_time, or name a subject_id"):
        library.query.page(ListEntriesRequest(filter=EntryFilter(caller="local")), SIZE, EVERYTHING)
    library.query.close()


def test_pages_cover_what_the_first_one_did(library: Library) -> None:
    """The oldest come first and the book grows: further pages end where the first one did."""
    first = library.query.page(ListEntriesRequest(page_size=10, order=OLDEST), 25, EVERYTHING)
    found, token = [record.index for record in first.records], first.next_page_token
    while token:
        page = library.query.page(ListEntriesRequest(page_size=10, order=OLDEST, page_token=token), SIZE, EVERYTHING)
        assert page.size == first.size == 25
        found, token = [*found, *(record.index for record in page.records)], page.next_page_token

    assert found == list(range(25))


def test_a_page_token_belongs_to_its_caller(library: Library) -> None:
    """A token that one caller was given does not continue the list of another."""
    token = library.query.page(ListEntriesRequest(page_size=1), SIZE, EVERYTHING, "ana").next_page_token
    asked = ListEntriesRequest(page_size=1, page_token=token)

    assert [record.index for record in library.query.page(asked, SIZE, EVERYTHING, "ana").records] == [SIZE - 2]
    with pytest.raises(InvalidPageTokenError, match="another filter, order or caller"):
        library.query.page(asked, SIZE, EVERYTHING, "ben")


def test_entries_that_come_meanwhile_move_nothing(library: Library) -> None:
    """A page token from a smaller book continues in a larger one where it stopped."""
    wanted = EntryFilter(effect=types_pb2.EFFECT_DENY)
    first = library.query.page(ListEntriesRequest(filter=wanted, page_size=3), 200, EVERYTHING)
    asked = ListEntriesRequest(filter=wanted, page_size=1000, page_token=first.next_page_token)
    second = library.query.page(asked, SIZE, EVERYTHING)
    found = [record.index for record in (*first.records, *second.records)]

    assert found == [r.index for r in reversed(library.records[:200]) if matches(r, wanted)]


@given(position=st.integers(0, 31), bit=st.integers(0, 7))
def test_a_page_token_cannot_be_made_up(library: Library, position: int, bit: int) -> None:
    """A token with any bit changed is refused."""
    token = library.query.page(ListEntriesRequest(page_size=1), SIZE, EVERYTHING).next_page_token
    changed = bytearray(base64.urlsafe_b64decode(token))
    changed[position % len(changed)] ^= 1 << bit

    with pytest.raises(InvalidPageTokenError):
        library.query.page(
            ListEntriesRequest(page_size=1, page_token=base64.urlsafe_b64encode(changed).decode()), SIZE, EVERYTHING
        )


@pytest.mark.parametrize("token", ["x", "é", "AAAA", "A" * 5000, "====", "\n"])
def test_a_malformed_page_token_is_refused(library: Library, token: str) -> None:
    """What is no token is refused."""
    with pytest.raises(InvalidPageTokenError):
        library.query.page(ListEntriesRequest(page_token=token), SIZE, EVERYTHING)


def test_a_page_token_belongs_to_its_filter_and_order(library: Library) -> None:
    """A token of one list does not continue another."""
    token = library.query.page(ListEntriesRequest(page_size=1), SIZE, EVERYTHING).next_page_token

    with pytest.raises(InvalidPageTokenError):
        library.query.page(ListEntriesRequest(page_token=token, filter=EntryFilter(caller="local")), SIZE, EVERYTHING)
    with pytest.raises(InvalidPageTokenError):
        library.query.page(ListEntriesRequest(page_token=token, order=OLDEST), SIZE, EVERYTHING)


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (ListEntriesRequest(page_size=-1), InvalidRequestError),
        (ListEntriesRequest(page_size=1001), LimitExceededError),
        (ListEntriesRequest(order=7), InvalidRequestError),  # type: ignore[arg-type]  # no such order
        (ListEntriesRequest(filter=EntryFilter(kind=77)), InvalidRequestError),  # type: ignore[arg-type]  # no such kind
        (ListEntriesRequest(filter=EntryFilter(subject_id="x" * 513)), InvalidRequestError),
        (ListEntriesRequest(filter=EntryFilter(start_index=2**63)), InvalidRequestError),
    ],
)
def test_a_malformed_request_is_refused(
    library: Library, asked: ListEntriesRequest, error: type[GatebookError]
) -> None:
    """What is over a limit, or is no value of its field, is refused and not cut."""
    with pytest.raises(error):
        library.query.page(asked, SIZE, EVERYTHING)


def test_the_index_may_be_deleted(library: Library) -> None:
    """With the index deleted, or of another version, or damaged, the answers are the same."""
    wanted = [EntryFilter(subject_id=i) for i in IDS] + [EntryFilter(purpose="model"), EntryFilter(column="ts")]
    before = [library.all_pages(one) for one in wanted]
    path = library.data / "index.db"

    def delete() -> None:
        for file in library.data.glob("index.db*"):
            file.unlink()

    def damage() -> None:
        path.write_bytes(b"SQLite format 3\0" + bytes(5000))

    def age() -> None:
        library.index._connection.execute("PRAGMA user_version = 999")

    def shift() -> None:
        library.index._connection.execute("UPDATE entries SET leaf = zeroblob(32) WHERE idx = ?", (SIZE - 1,))

    for change in (age, shift):
        change()
        library.close_index()
        library.open()
        assert [library.all_pages(one) for one in wanted] == before
    for change in (delete, damage):
        library.close_index()
        change()
        library.open()
        assert [library.all_pages(one) for one in wanted] == before


def test_the_index_of_another_book_is_built_anew(library: Library) -> None:
    """An index with another origin is not used."""
    library.close_index()
    Index.open(library.data / "index.db", library.book, library.people, "other.test/book").close()
    library.open()

    assert library.all_pages(EntryFilter()) == list(reversed(range(SIZE)))


def test_an_entry_that_is_not_what_was_indexed_is_named(library: Library) -> None:
    """Where index and book differ, the answer is an error that names the entry."""
    connection = library.index._connection
    connection.execute("UPDATE entries SET leaf = zeroblob(32) WHERE idx = 7")
    wanted = ListEntriesRequest(filter=EntryFilter(start_index=5, end_index=10))

    with pytest.raises(BookCorruptError) as caught:
        library.query.page(wanted, SIZE, EVERYTHING)
    assert caught.value.index == 7
    connection.execute("UPDATE entries SET leaf = ? WHERE idx = 7", (library.records[7].leaf_hash,))


def test_an_index_that_is_behind_gives_no_answer(library: Library) -> None:
    """Rather than leave entries out, a query fails."""
    with pytest.raises(BookUnavailableError, match="covers 300"):
        library.query.page(ListEntriesRequest(), SIZE + 1, EVERYTHING)


def test_no_raw_id_is_in_the_index(library: Library) -> None:
    """The files of the index name no person."""
    content = b"".join(file.read_bytes() for file in library.data.glob("index.db*"))

    assert b"mci.prompts" in content
    assert [i for i in IDS if i.encode() in content] == []


def test_single_entries(library: Library) -> None:
    """An entry is found by its index and by the id of its decision, and only before the size."""
    record = next(r for r in library.records if r.entry.HasField("decision"))
    decision_id = record.entry.decision.decision_id

    assert library.query.entry(record.index, SIZE, EVERYTHING) == record
    assert library.query.decision(decision_id, SIZE, EVERYTHING) == record
    for missing in ("", "no-such-decision"):
        with pytest.raises(EntryNotFoundError):
            library.query.decision(missing, SIZE, EVERYTHING)
    with pytest.raises(EntryNotFoundError):
        library.query.decision(decision_id, record.index, EVERYTHING)
    with pytest.raises(EntryNotFoundError):
        library.query.entry(SIZE, SIZE, EVERYTHING)
