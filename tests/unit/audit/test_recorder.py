"""The recorder: times that never go back, links that are exact, people before entries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.audit_samples import NOW, ORIGIN, POLICY_REVISION, decided, request

from gatebook.audit.book import Book
from gatebook.audit.chain import control_chain, find_end
from gatebook.audit.entry import EPOCH, PolicyEvent, ReadEvent, decode, from_timestamp, is_control
from gatebook.audit.people import People
from gatebook.audit.record import open_record
from gatebook.audit.recorder import Recorder
from gatebook.audit.writer import BookWriter
from gatebook.errors import BookCorruptError
from gatebook.tlog.merkle import leaf_hash
from gatebook.v1 import entry_pb2
from gatebook.values import Entity

ACTIVATED = PolicyEvent(step=entry_pb2.POLICY_STEP_ACTIVATED, policy_set="telemetry", revision=POLICY_REVISION)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        """Starts now."""
        self.now = NOW

    def __call__(self) -> datetime:
        """Returns the time."""
        return self.now


class Open:
    """An open data directory."""

    def __init__(self, data: Path) -> None:
        """Opens book and people."""
        self.clock = Clock()
        self.book = Book.open(data, origin=ORIGIN)
        self.people = People.open(data)
        self.writer = BookWriter(self.book)
        self.recorder = Recorder(self.writer, self.people, find_end(self.book), origin=ORIGIN, clock=self.clock)

    def entries(self) -> list[entry_pb2.AuditEntry]:
        """Returns every entry of the book, checked."""
        return [decode(raw, i) for i, raw in enumerate(self.book.read(0, self.book.size))]


@asynccontextmanager
async def opened(data: Path) -> AsyncIterator[Open]:
    """Opens a data directory and closes it again."""
    one = Open(data)
    one.writer.start()
    try:
        yield one
    finally:
        await one.writer.close()
        one.book.close()
        one.people.close()


def check_links(entries: list[entry_pb2.AuditEntry]) -> None:
    """Checks that times never go back and that each link names the newest control entry before."""
    link, time = 0, EPOCH
    for index, entry in enumerate(entries):
        assert entry.control_link == link, index
        assert from_timestamp(entry.entry_time) >= time, index
        time = from_timestamp(entry.entry_time)
        link = index + 1 if is_control(entry) else link


async def test_what_is_returned_is_in_the_book(tmp_path: Path) -> None:
    """Each decision of a batch is at its index, with its bytes and leaf hash, in the order of the batch."""
    async with opened(tmp_path) as one:
        written = await one.recorder.record_decisions([decided(number=i) for i in range(5)], "svc")
        stored = one.book.read(0, one.book.size)

        assert [w.index for w in written] == [0, 1, 2, 3, 4]
        assert [w.entry_bytes for w in written] == stored
        assert [w.leaf_hash for w in written] == [leaf_hash(raw) for raw in stored]
        assert [e.decision.decision_id[-1] for e in one.entries()] == list("01234")
        assert {w.entry_time for w in written} == {NOW}


async def test_links_are_exact_under_concurrency(tmp_path: Path) -> None:
    """With decisions, reads and policy steps all at once, every entry names the newest policy entry before it."""

    async def decide(one: Open, number: int) -> None:
        for i in range(8):
            asked = request(subject=Entity("user", f"person-{number}-{i % 3}"))
            await one.recorder.record_decisions([decided(asked), decided()], "svc")

    async with opened(tmp_path) as one:
        work: list[Coroutine[Any, Any, object]] = [decide(one, i) for i in range(20)]
        work += [one.recorder.record_policy(ACTIVATED, "local") for _ in range(10)]
        work += [one.recorder.record_read(ReadEvent(method="GetEntry"), "local") for _ in range(10)]
        await asyncio.gather(*work)
        entries = one.entries()

        assert len(entries) == 20 * 8 * 2 + 20
        check_links(entries)
        expected = [i for i, entry in enumerate(entries) if is_control(entry)]
        assert [index for index, _ in control_chain(one.book)] == expected[::-1]


async def test_a_restart_continues_times_and_links(tmp_path: Path) -> None:
    """After a restart with a clock an hour behind, times stand still and links go on."""
    async with opened(tmp_path) as one:
        await one.recorder.record_policy(ACTIVATED, "local")
        await one.recorder.record_decisions([decided()], "svc")
    async with opened(tmp_path) as one:
        one.clock.now = NOW - timedelta(hours=1)
        await one.recorder.record_decisions([decided()], "svc")
        await one.recorder.record_policy(ACTIVATED, "local")
    async with opened(tmp_path) as one:
        assert one.recorder.control_link == 4
        one.clock.now = NOW + timedelta(seconds=1)
        await one.recorder.record_decisions([decided()], "svc")
        entries = one.entries()

    check_links(entries)
    assert [from_timestamp(e.entry_time) - NOW for e in entries] == [timedelta(0)] * 4 + [timedelta(seconds=1)]


@pytest.mark.parametrize("stop", [True, False])
async def test_a_stop_is_known_at_the_next_start(tmp_path: Path, *, stop: bool) -> None:
    """A book that ends with a stop ended cleanly; any other end is unclean."""
    async with opened(tmp_path) as one:
        await one.recorder.record_system(entry_pb2.SYSTEM_EVENT_STARTED, version="1")
        if stop:
            await one.recorder.record_system(entry_pb2.SYSTEM_EVENT_STOPPED, version="1")
        assert {e.caller for e in one.entries()} == {"gatebook"}
        assert find_end(one.book).clean == stop


async def test_an_empty_book_has_an_end(tmp_path: Path) -> None:
    """A new book ends cleanly with nothing before it."""
    async with opened(tmp_path) as one:
        assert (find_end(one.book).size, find_end(one.book).control_link, find_end(one.book).clean) == (0, 0, True)
        assert list(control_chain(one.book)) == []


async def test_a_policy_step_outlives_its_caller(tmp_path: Path) -> None:
    """When the caller of a publish goes away, the entry is written and the link follows it."""
    async with opened(tmp_path) as one:
        task = asyncio.create_task(one.recorder.record_policy(ACTIVATED, "local"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await one.recorder.record_decisions([decided()], "svc")

        check_links(one.entries())
        assert [e.kind for e in one.entries()] == [entry_pb2.ENTRY_KIND_POLICY, entry_pb2.ENTRY_KIND_DECISION]


async def test_new_people_of_many_calls_are_all_stored(tmp_path: Path) -> None:
    """A hundred calls for a hundred new people leave a hundred people whose entries open after a restart."""
    async with opened(tmp_path) as one:
        ids = [f"person-{i}" for i in range(100)]
        calls = [one.recorder.record_decisions([decided(request(subject=Entity("user", i)))], "svc") for i in ids]
        await asyncio.gather(*calls)
    async with opened(tmp_path) as one:
        raw = one.book.read(0, one.book.size)
        found = [open_record(i, entry, ORIGIN, one.people).request.subject.id for i, entry in enumerate(raw)]

        assert sorted(found) == sorted(ids)


class Listed:
    """Entries in a list, which no gate wrote."""

    def __init__(self, entries: list[entry_pb2.AuditEntry]) -> None:
        """Takes the entries."""
        self._entries = entries

    @property
    def size(self) -> int:
        """Returns how many there are."""
        return len(self._entries)

    def read(self, start: int, end: int) -> list[bytes]:
        """Returns the bytes of [start, end)."""
        return [entry.SerializeToString() for entry in self._entries[start:end]]


def made_up(*links: int, kind: entry_pb2.EntryKind.ValueType = entry_pb2.ENTRY_KIND_POLICY) -> Listed:
    """Returns entries with these links."""
    entries = [entry_pb2.AuditEntry(salt=bytes(16), kind=kind, control_link=link) for link in links]
    for entry in entries:
        entry.entry_time.GetCurrentTime()
        entry.policy.policy_set = "x"
    return Listed(entries)


@pytest.mark.parametrize(("links", "bad"), [((0, 2), 1), ((0, 1, 5), 2), ((1,), 0), ((0, 0, 3), 2)])
def test_a_link_that_does_not_lead_back_is_refused(links: tuple[int, ...], bad: int) -> None:
    """A chain that would not end is refused with the index of the entry that bends it."""
    with pytest.raises(BookCorruptError, match="leads forward") as caught:
        list(control_chain(made_up(*links)))
    assert caught.value.index == bad


def test_a_link_to_a_decision_is_refused() -> None:
    """A chain that leads to an entry of another kind is refused."""
    with pytest.raises(BookCorruptError, match="no control entry") as caught:
        list(control_chain(made_up(0, 1, kind=entry_pb2.ENTRY_KIND_READ)))
    assert caught.value.index == 0
