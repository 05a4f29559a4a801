"""Queries answer what a look at every entry would answer, whatever the filter, the order and the page."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.audit_samples import (
    DIRECTORY_REVISION,
    EVERYTHING_KNOWN,
    NOW,
    ORIGIN,
    decided,
    decision,
    found_people,
    request,
)

from gatebook.audit.book import Book
from gatebook.audit.decision_entry import encode_decision
from gatebook.audit.entry import PolicyEvent, ReadEvent, Stamp, encode_policy, encode_read, encode_system, to_timestamp
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
from gatebook.v1.audit_service_pb2 import EntryFilter, EntryRecord, ListEntriesRequest
from gatebook.values import ColumnOutcome, Effect, Entity, Reason, Revision

SIZE = 300
IDS = ["ana.silva", "ben.okoro", "chidi.eze", "mallory.unknown", "svc-trainer-7"]
RESOURCES = ["mci.prompts", "mci.prompts2", "ai_usage.token_usage"]
COLUMNS = ["prompt_text", "prompt", "tokens_in", "ts"]
ACTIONS = ["read", "export"]
PURPOSES = ["model", "model.training", "model.training.evaluation", "model_x", "model/x", "billing"]
CALLERS = ["local", "svc-dashboard"]
REVISIONS = [Revision(c * 64, i + 1) for i, c in enumerate("ab")]
NEWEST, OLDEST = audit_service_pb2.ENTRY_ORDER_NEWEST_FIRST, audit_service_pb2.ENTRY_ORDER_OLDEST_FIRST


def some_entry(chance: random.Random, people: People, number: int, link: int) -> bytes:
    """Returns an entry of some kind about something."""
    stamp = Stamp.of(NOW + timedelta(seconds=number // 3), chance.choice(CALLERS), link)
    kind = chance.random()
    if kind < 0.05:
        event = PolicyEvent(step=entry_pb2.POLICY_STEP_ACTIVATED, revision=chance.choice(REVISIONS))
        return encode_policy(event, stamp)
    if kind < 0.1:
        return encode_read(ReadEvent(method="GetEntry", people=(people.stranger,)), stamp, ORIGIN)
    if kind < 0.12:
        return encode_system(entry_pb2.SYSTEM_EVENT_STARTED, stamp, version="1")
    known = frozenset(name for name in EVERYTHING_KNOWN if chance.random() < 0.8)
    columns = chance.sample(COLUMNS, chance.randint(0, 3))
    row = {"id": chance.choice(IDS)} if chance.random() < 0.2 else None
    asked = request(
        subject=Entity(chance.choice(["user", "service"]), chance.choice(IDS)),
        actor=Entity("agent", chance.choice(IDS)) if chance.random() < 0.3 else None,
        action=chance.choice(ACTIONS),
        resource=chance.choice(RESOURCES),
        columns=tuple(columns),
        purpose=chance.choice(["", *PURPOSES]),
        row=row,
    )
    outcome = decision(
        effect=chance.choice([Effect.ALLOW, Effect.DENY]),
        reason=chance.choice([Reason.ALLOWED, Reason.NO_MATCHING_RULE, Reason.UNKNOWN_SUBJECT]),
        policy_revision=chance.choice(REVISIONS),
        directory_revision=chance.choice([DIRECTORY_REVISION, DIRECTORY_REVISION, None]),
        columns=tuple(ColumnOutcome(c, Effect.ALLOW, Reason.ALLOWED) for c in columns),
        data_subjects=(row["id"],) if row else (),
        vocabulary_known=known,
    )
    one = decided(asked, outcome, number)
    return encode_decision(one, stamp, found_people(people, one), ORIGIN)


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
        chance = random.Random(seed)  # a repeatable choice is wanted
        self.data = data
        self.people = People.open(data)
        self.book = Book.open(data, origin=ORIGIN)
        link = 0
        while self.book.size < SIZE:
            raw = some_entry(chance, self.people, self.book.size, link)
            self.book.append_group([raw])
            link = self.book.size if entry_pb2.AuditEntry.FromString(raw).kind == entry_pb2.ENTRY_KIND_POLICY else link
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
            patched.setattr("gatebook.audit.looking.WINDOW_CHUNKS", 5)
        one = Library(tmp_path_factory.mktemp("data"), request.param)
        yield one
        one.close()


def matches(record: EntryRecord, wanted: EntryFilter) -> bool:
    """Tells whether an entry matches: the meaning of a filter, in the words of its fields."""
    entry, decided_entry = record.entry, record.entry.decision
    ids = {record.request.subject.id, record.request.actor.id}
    digests = {decided_entry.policy_revision.digest, entry.policy.revision.digest}
    purpose, time = decided_entry.purpose, entry.entry_time.ToNanoseconds()
    return all(
        (
            not wanted.subject_id or wanted.subject_id in ids,
            not wanted.resource_id or wanted.resource_id == decided_entry.resource_id,
            not wanted.column or wanted.column in {column.column for column in decided_entry.columns},
            not wanted.action or wanted.action == decided_entry.action,
            not wanted.purpose
            or (purpose if wanted.purpose == "*" else f"{purpose}.".startswith(f"{wanted.purpose}.")),
            not wanted.effect or wanted.effect == decided_entry.effect,
            not wanted.reason or wanted.reason == decided_entry.reason,
            not wanted.revision or wanted.revision in digests,
            not wanted.caller or wanted.caller == entry.caller,
            not wanted.decision_id or wanted.decision_id == decided_entry.decision_id,
            not wanted.kind or wanted.kind == entry.kind,
            not wanted.HasField("start_time") or time >= wanted.start_time.ToNanoseconds(),
            not wanted.HasField("end_time") or time < wanted.end_time.ToNanoseconds(),
            record.index >= wanted.start_index,
            not wanted.end_index or record.index < wanted.end_index,
        )
    )


TIMES = st.integers(-2, SIZE // 3 + 2).map(lambda s: to_timestamp(NOW + timedelta(seconds=s)))
FIELDS: dict[str, st.SearchStrategy[object]] = {
    "subject_id": st.sampled_from([*IDS, "nobody"]),
    "resource_id": st.sampled_from([*RESOURCES, "mci"]),
    "column": st.sampled_from([*COLUMNS, "none"]),
    "action": st.sampled_from([*ACTIONS, "none"]),
    "purpose": st.sampled_from([*PURPOSES, "mod", "*", "model.", "%", "model_training"]),
    "effect": st.sampled_from(types_pb2.Effect.values()),
    "reason": st.sampled_from([0, 1, 2, 8, 26]),
    "revision": st.sampled_from([*(r.digest for r in REVISIONS), DIRECTORY_REVISION.digest]),
    "caller": st.sampled_from([*CALLERS, "gatebook"]),
    "decision_id": st.integers(0, SIZE).map(lambda n: f"01930000-0000-7000-8000-{n:012}"),
    "kind": st.sampled_from(entry_pb2.EntryKind.values()),
    "start_time": TIMES,
    "end_time": TIMES,
    "start_index": st.integers(0, SIZE + 1),
    "end_index": st.integers(0, SIZE + 1),
}
FILTERS = st.lists(st.sampled_from(sorted(FIELDS)), max_size=6, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: FIELDS[name] for name in names})
)


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


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_every_field_of_the_filter_is_claimed(field: str) -> None:
    """The properties here draw every field that the proto has."""
    assert field in {f.name for f in EntryFilter.DESCRIPTOR.fields}
    assert len(FIELDS) == len(EntryFilter.DESCRIPTOR.fields)


@pytest.mark.parametrize(
    ("fields", "plans"),
    [
        ({"subject_id": "ana.silva"}, {"entries_by_subject", "entries_by_actor"}),
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
