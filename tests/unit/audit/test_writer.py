"""The writer: groups form by themselves, every call is answered once, and nothing fails quietly."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.books import LIMITS, check_log, open_book, publisher, unending

import gatebook
from gatebook.audit.book import Appended, Book
from gatebook.audit.files import Files
from gatebook.audit.limits import BookLimits
from gatebook.audit.writer import EXIT_BOOK_FAILED, BookWriter
from gatebook.errors import (
    BookFailedError,
    BookUnavailableError,
    DrainingError,
    GatebookError,
    LimitExceededError,
    OverloadedError,
)
from gatebook.tlog.merkle import leaf_hash


class SlowDisk(Files):
    """A disk whose next content sync waits until the test lets it go on, or fails."""

    def __init__(self) -> None:
        """Begins as a good one."""
        self.go_on = threading.Event()
        self.go_on.set()
        self.reached = threading.Event()
        self.error: OSError | None = None
        self.content_syncs = 0

    def sync_content(self, descriptor: int) -> None:
        """Waits, and syncs or fails."""
        self.content_syncs += 1
        self.reached.set()
        assert self.go_on.wait(10)
        if self.error:
            raise self.error
        super().sync_content(descriptor)

    def hold(self) -> None:
        """Lets nothing pass until `go_on` is set."""
        self.reached.clear()
        self.go_on.clear()


def begin(data: Path, files: Files | None = None, limits: BookLimits = LIMITS) -> tuple[Book, BookWriter]:
    """A book and its writer."""
    book = open_book(data, files=files, limits=limits)
    writer = BookWriter(book, on_failure=unending)
    writer.start()
    return book, writer


async def test_every_call_gets_its_own_place(tmp_path: Path) -> None:
    """Many calls at once: each finds its entries at its indexes, in order, and the book verifies."""
    book, writer = begin(tmp_path)
    calls = [[f"{call}/{at}".encode() for at in range(1 + call % 5)] for call in range(300)]

    answers = await asyncio.gather(*(writer.submit(call) for call in calls))

    await writer.close()
    for call, answer in zip(calls, answers, strict=True):
        assert list(map(leaf_hash, call)) == list(answer.leaf_hashes)
        assert call == book.read(answer.first_index, answer.first_index + len(call))
    publisher(book).publish_now()
    entries = [entry for call in calls for entry in call]
    assert entries == book.read(0, book.size)
    book.close()
    check_log(tmp_path, entries, len(entries))


async def test_what_waits_shares_one_sync(tmp_path: Path) -> None:
    """Calls that come while the disk is busy are made durable by one sync, together."""
    disk = SlowDisk()
    book, writer = begin(tmp_path, disk)
    disk.hold()
    first = writer.submit([b"first"])
    await asyncio.to_thread(disk.reached.wait)
    syncs = disk.content_syncs
    rest = [writer.submit([f"{number}".encode()]) for number in range(50)]
    disk.go_on.set()
    await asyncio.gather(first, *rest)

    assert syncs + 1 == disk.content_syncs
    assert list(range(1, 51)) == [answer.result().first_index for answer in rest]
    await writer.close()
    book.close()


async def test_no_answer_before_the_sync(tmp_path: Path) -> None:
    """A call is not answered while its sync is under way."""
    disk = SlowDisk()
    book, writer = begin(tmp_path, disk)
    disk.hold()
    answer = writer.submit([b"entry"])
    await asyncio.to_thread(disk.reached.wait)

    assert not answer.done()
    assert 0 == book.size
    disk.go_on.set()
    assert Appended(0, [leaf_hash(b"entry")]) == await answer
    await writer.close()
    book.close()


async def test_a_call_larger_than_a_group(tmp_path: Path) -> None:
    """A call that does not fit one group takes several, dense and in order, and is answered once."""
    book, writer = begin(tmp_path)
    entries = [f"{number}".encode() * 20 for number in range(500)]
    answers = await asyncio.gather(writer.submit([b"before"]), writer.submit(entries), writer.submit([b"after"]))

    assert [0, 1, 501] == [answer.first_index for answer in answers]
    assert list(map(leaf_hash, entries)) == list(answers[1].leaf_hashes)
    assert [b"before", *entries, b"after"] == book.read(0, 502)
    await writer.close()
    book.close()


async def test_overload_is_refused_and_forgotten(tmp_path: Path) -> None:
    """Beyond its bounds the writer refuses at once, writes nothing of it, and takes more when it can."""
    disk = SlowDisk()
    limits = BookLimits(segment_bytes=65_536, waiting_entries_max=10, waiting_bytes_max=1_000)
    book, writer = begin(tmp_path, disk, limits)
    disk.hold()
    accepted = [writer.submit([b"a"] * 5), writer.submit([b"b"] * 5)]
    with pytest.raises(OverloadedError):
        writer.submit([b"c"])
    disk.go_on.set()
    await asyncio.gather(*accepted)
    disk.hold()
    large = writer.submit([b"d" * 900])
    with pytest.raises(OverloadedError):
        writer.submit([b"e" * 100])
    disk.go_on.set()
    await large

    assert 0 == writer.waiting_entries
    assert 11 == (await writer.submit([b"f"])).first_index
    await writer.close()
    assert [b"a"] * 5 + [b"b"] * 5 + [b"d" * 900, b"f"] == book.read(0, book.size)
    book.close()


@pytest.mark.parametrize("entries", [[], [b""], [b"a" * 65_536], [b"a"] * 11, [b"a" * 500] * 2])
async def test_what_never_fits_is_refused(tmp_path: Path, entries: list[bytes]) -> None:
    """A call beyond a limit is refused at once."""
    limits = BookLimits(segment_bytes=65_536, waiting_entries_max=10, waiting_bytes_max=1_000)
    book, writer = begin(tmp_path, limits=limits)
    with pytest.raises(LimitExceededError):
        writer.submit(entries)
    await writer.close()
    book.close()


async def test_closing_writes_what_waits(tmp_path: Path) -> None:
    """A graceful close answers every accepted call, and refuses what comes later."""
    disk = SlowDisk()
    book, writer = begin(tmp_path, disk)
    disk.hold()
    answers = [writer.submit([f"{number}".encode()]) for number in range(200)]
    closing = asyncio.create_task(writer.close())
    await asyncio.sleep(0)
    with pytest.raises(DrainingError):
        writer.submit([b"late"])
    disk.go_on.set()
    await closing

    assert list(range(200)) == [answer.result().first_index for answer in answers]
    assert 200 == book.size
    book.close()


async def test_a_caller_who_goes_away(tmp_path: Path) -> None:
    """A cancelled call is written all the same, and its neighbours are answered."""
    disk = SlowDisk()
    book, writer = begin(tmp_path, disk)
    disk.hold()
    answers = [writer.submit([f"{number}".encode()]) for number in range(3)]
    answers[1].cancel()
    disk.go_on.set()

    assert [0, 2] == [(await answers[at]).first_index for at in (0, 2)]
    assert [b"0", b"1", b"2"] == book.read(0, 3)
    assert 0 == writer.waiting_entries
    await writer.close()
    book.close()


async def test_a_failed_sync_fails_every_waiting_call_and_then_ends_the_process(tmp_path: Path) -> None:
    """After a failed sync all calls that wait fail; only then is the process ended; no later call is taken."""
    disk = SlowDisk()
    book = open_book(tmp_path, files=disk)
    ended = threading.Event()
    states: list[list[bool]] = []
    answers: list[asyncio.Future[Appended]] = []

    def end() -> None:
        states.append([answer.done() for answer in answers])
        ended.set()

    writer = BookWriter(book, on_failure=end)
    writer.start()
    disk.hold()
    answers += [writer.submit([b"first"])]
    await asyncio.to_thread(disk.reached.wait)
    answers += [writer.submit([f"{number}".encode()]) for number in range(20)]
    disk.error = OSError(5, "Input/output error")
    disk.go_on.set()
    failures = await asyncio.gather(*answers, return_exceptions=True)
    await asyncio.to_thread(ended.wait)

    assert [BookFailedError] * 21 == [type(failure) for failure in failures]
    assert [[True] * 21] == states
    with pytest.raises(GatebookError):
        writer.submit([b"late"])
    book.close()


async def test_the_process_ends_with_its_own_exit_code(tmp_path: Path) -> None:
    """A real process whose sync fails answers its callers, logs why, and ends with exit code 74."""
    program = """
import asyncio, sys
from pathlib import Path
from gatebook.audit.book import Book
from gatebook.audit.files import Files
from gatebook.audit.writer import BookWriter
from gatebook.errors import BookFailedError
from gatebook.log import configure_log

class Broken(Files):
    def sync_content(self, descriptor):
        raise OSError(5, "Input/output error")

configure_log(as_json=True)

async def main():
    writer = BookWriter(Book.open(Path(sys.argv[1]), origin="gatebook.test/book", files=Broken()))
    writer.start()
    try:
        await writer.submit([b"entry"])
    except BookFailedError as err:
        print(err, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
    environment = os.environ | {"PYTHONPATH": str(Path(gatebook.__file__).parents[1])}
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    failure = "cannot write the book: Input/output error"
    told = json.loads(done.stderr)
    assert (EXIT_BOOK_FAILED, f"{failure}\n") == (done.returncode, done.stdout)
    assert ("book failed", failure) == (told["event"], told["error"])
    open_book(tmp_path).close()


async def test_trouble_in_publishing_stops_the_writing(tmp_path: Path) -> None:
    """While publishing is in trouble calls fail as unavailable, and are taken again afterwards."""
    book, writer = begin(tmp_path)
    book.mark_publish_trouble("cannot publish the book: No space left on device")
    with pytest.raises(BookUnavailableError, match="No space"):
        writer.submit([b"entry"])
    book.mark_publish_trouble("")

    assert 0 == (await writer.submit([b"entry"])).first_index
    await writer.close()
    book.close()


class Defective(Files):
    """A file system with a bug in it."""

    broken = False

    def sync_content(self, descriptor: int) -> None:
        """Fails as a bug does."""
        if self.broken:
            raise RuntimeError
        super().sync_content(descriptor)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_nobody_waits_for_a_writer_that_is_gone(tmp_path: Path) -> None:
    """If a bug ends the writer's thread, the waiting calls fail, later ones are refused, and the process ends."""
    files, ended = Defective(), threading.Event()
    book = open_book(tmp_path, files=files)
    writer = BookWriter(book, on_failure=ended.set)
    writer.start()
    files.broken = True
    answers = [writer.submit([b"a"]), writer.submit([b"b"])]
    failures = await asyncio.gather(*answers, return_exceptions=True)

    assert [BookFailedError] * 2 == [type(failure) for failure in failures]
    assert await asyncio.to_thread(ended.wait, 10)
    with pytest.raises(GatebookError):
        writer.submit([b"late"])
    await asyncio.to_thread(writer._thread.join)
    book.close()


async def test_a_writer_that_never_began_closes(tmp_path: Path) -> None:
    """Closing is safe at any time, also twice."""
    book = open_book(tmp_path)
    await BookWriter(book).close()
    writer = BookWriter(book)
    writer.start()
    await writer.close()
    await writer.close()
    book.close()
