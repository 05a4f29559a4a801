"""Clocks that step, forwards and backwards, while a book is written and between two starts."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.audit_samples import ORIGIN, decided, request
from tests.books import LIMITS, check_log

from gatebook.audit.book import Book
from gatebook.audit.chain import find_end
from gatebook.audit.checkpoints import Checkpoints
from gatebook.audit.entry import decode, from_timestamp
from gatebook.audit.people import People
from gatebook.audit.publish import Publisher
from gatebook.audit.recorder import Recorder
from gatebook.audit.writer import BookWriter
from gatebook.errors import BookRefusedError
from gatebook.values import Entity

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
TOLERANCE = timedelta(seconds=LIMITS.clock_tolerance_seconds)


class SteppedClock:
    """A clock that is set."""

    def __init__(self, now: datetime) -> None:
        """Takes what it says."""
        self.now = now

    def time(self) -> datetime:
        """Returns what it says."""
        return self.now

    def time_ns(self) -> int:
        """Returns the same in nanoseconds since the epoch."""
        return int((self.now - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)) * 1_000


async def write(data: Path, clock: SteppedClock, steps: list[timedelta], *, published: bool = True) -> None:
    """Starts a book, and writes and publishes a decision after each step of the clock."""
    book = Book.open(data, origin=ORIGIN, limits=LIMITS, clock_ns=clock.time_ns)
    people = People.open(data, create=book.size == 0)
    writer = BookWriter(book)
    writer.start()
    publisher = Publisher(book, clock_ns=clock.time_ns)
    recorder = Recorder(writer, people, find_end(book), origin=ORIGIN, clock=clock.time)
    for step in steps:
        clock.now += step
        asked = request(subject=Entity("user", f"u{book.size}"))
        await recorder.record_decisions([decided(asked, number=book.size)], "svc")
        if published:
            await asyncio.to_thread(publisher.publish_now)
    await writer.close()
    people.close()
    book.close()


def times(data: Path) -> list[datetime]:
    """Returns the times of the entries of a book, which must verify in bytes and in meaning."""
    book = Book.open(data, origin=ORIGIN, limits=LIMITS, clock_ns=lambda: time.time_ns() + 10**18)
    entries, signed = book.read(0, book.size), book.signed.checkpoint.size
    book.close()
    check_log(data, entries, signed, meaning=True)
    return [from_timestamp(decode(raw, index).entry_time) for index, raw in enumerate(entries)]


async def test_steps_while_it_is_written(memory_path: Path) -> None:
    """Whatever the clock does, times of entries and checkpoints never go back, and nobody is kept waiting."""
    dice = random.Random(20261121)
    steps = [timedelta(seconds=dice.choice([-86_400, -3_600, -1, 0, 1, 5, 86_400])) for _ in range(60)]
    clock = SteppedClock(NOON)
    await write(memory_path, clock, steps)
    said, now = [], NOON
    for step in steps:
        now += step
        said.append(now)

    assert [max(said[: at + 1]) for at in range(len(said))] == times(memory_path)
    assert Checkpoints(memory_path / "checkpoints.db").newest().time_ns == SteppedClock(max(said)).time_ns()


async def test_steps_between_starts(memory_path: Path) -> None:
    """A clock within the tolerance behind is borne, further behind is refused with nothing changed, ahead is let be."""
    clock = SteppedClock(NOON)
    await write(memory_path, clock, [timedelta(0)])
    clock.now = NOON - TOLERANCE
    await write(memory_path, clock, [timedelta(0)])
    clock.now = NOON - TOLERANCE - timedelta(milliseconds=1)
    before = files_of(memory_path)
    with pytest.raises(BookRefusedError, match="the clock is 10 s behind"):
        await write(memory_path, clock, [timedelta(0)])
    assert before == files_of(memory_path)
    clock.now = NOON + timedelta(days=400)
    await write(memory_path, clock, [timedelta(0)])

    assert [NOON, NOON, NOON + timedelta(days=400)] == times(memory_path)


async def test_a_step_back_over_entries_that_are_not_published(memory_path: Path) -> None:
    """Entries that no checkpoint covers keep their order, too: what comes after is not before them."""
    clock = SteppedClock(NOON)
    await write(memory_path, clock, [timedelta(0)])
    await write(memory_path, clock, [timedelta(hours=1)], published=False)
    clock.now = NOON + timedelta(minutes=1)
    await write(memory_path, clock, [timedelta(0)])

    assert [NOON, NOON + timedelta(hours=1), NOON + timedelta(hours=1)] == times(memory_path)


def files_of(data: Path) -> dict[str, bytes]:
    """Returns every file of a data directory."""
    return {str(path.relative_to(data)): path.read_bytes() for path in sorted(data.rglob("*")) if path.is_file()}
