"""The clerk of a book: what it writes is what would be written without it, and it may end at any time."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import structlog.testing
from tests.books import ORIGIN, check_log, open_book, some_entries, unending

from gatebook.audit import clerk as clerk_module
from gatebook.audit import clerking as clerking_module
from gatebook.audit.book import Book
from gatebook.audit.clerk import BEHIND, Attending, sole_writer
from gatebook.audit.clerk_words import Begin, Begun, Cover, Covered, decode_answer, decode_order, encode, hang_up
from gatebook.audit.clerking import Clerking, ClerkProcess
from gatebook.audit.entry import Stamp, encode_system
from gatebook.audit.files import Files
from gatebook.audit.people import People
from gatebook.audit.publish import AWAY_MAX, Publisher
from gatebook.audit.recorder import SERVICE_CALLER
from gatebook.audit.tile_folder import TileFolder
from gatebook.audit.tiling import Tiling, write_tiles
from gatebook.errors import (
    BookCorruptError,
    BookFailedError,
    BookRefusedError,
    BookUnavailableError,
    ClerkAwayError,
)
from gatebook.v1 import entry_pb2

SECONDS = 30.0


class ClerkThread:
    """The same clerk, on a thread of this process."""

    def __init__(self, theirs: socket.socket) -> None:
        """Starts it."""
        self._connection = Connection(os.dup(theirs.fileno()))
        self._thread = threading.Thread(target=Attending(self._connection).run, args=(SECONDS,))
        self._thread.start()

    def end(self, seconds: float) -> int:
        """Waits until it has ended."""
        hang_up(self._connection)
        self._thread.join(seconds)
        self._connection.close()
        return 0


class Clerks:
    """Processes of clerks, as they were started."""

    def __init__(self) -> None:
        """Begins without one."""
        self.started: list[subprocess.Popen[bytes]] = []
        self.fails = False

    def start(self, theirs: socket.socket) -> ClerkProcess:
        """Starts one, or fails to."""
        if self.fails:
            raise OSError("no process can be had")
        process = ClerkProcess(theirs)
        self.started.append(process._process)
        return process

    def kill(self) -> None:
        """Kills the newest."""
        self.started[-1].send_signal(signal.SIGKILL)


@contextmanager
def employed(
    data: Path, start: Callable[[socket.socket], clerking_module.Process] = ClerkThread
) -> Iterator[tuple[Book, Publisher, Clerking]]:
    """Opens a book with a clerk, who indexes what is published."""
    book = open_book(data)
    people = People.open(data)
    clerking = Clerking(lambda: Begin(str(data), ORIGIN, book.signed.checkpoint.size), start=start)
    clerking.open()
    publisher = Publisher(book, on_failure=unending, write_tiles=clerking.write_tiles)
    publisher.add_listener(lambda _old, new: clerking.follow(new))
    try:
        yield book, publisher, clerking
    finally:
        clerking.close()
        people.close()
        book.close()


def grow(book: Book, count: int) -> None:
    """Appends entries that can be indexed."""
    stamp = Stamp.of(datetime(2026, 11, 21, tzinfo=UTC), SERVICE_CALLER, 0)
    for at in range(0, count, 40):
        numbers = range(at, min(at + 40, count))
        book.append_group([encode_system(entry_pb2.SYSTEM_EVENT_STARTED, stamp, version=f"{n}") for n in numbers])


def tiles_of(data: Path) -> dict[str, bytes]:
    """The published files of a book, without its signatures."""
    tiles = data / "book" / "tile"
    return {str(path.relative_to(tiles)): path.read_bytes() for path in tiles.rglob("*") if path.is_file()}


def wait_until(true: Callable[[], bool]) -> None:
    """Waits until something is true, and fails if it does not become so."""
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end, "it did not become true"
        time.sleep(0.005)


@pytest.mark.parametrize("start", [ClerkThread, ClerkProcess], ids=["thread", "process"])
def test_it_writes_what_would_be_written_without_it(
    tmp_path: Path, start: Callable[[socket.socket], clerking_module.Process]
) -> None:
    """Tiles, roots and index are byte for byte those of a publisher and an index of one process, over many segments."""
    with employed(tmp_path / "with", start) as (book, publish, clerking):
        for count in (1, 300, 7, 900):
            grow(book, count)
            publish.publish_now()
        clerking.cover(book.size)
        entries = book.read(0, book.size)
        root = book.signed.checkpoint.root
        assert 1_208 == clerking.indexed_size == book.signed.checkpoint.size
    alone = open_book(tmp_path / "alone")
    here = Publisher(alone, on_failure=unending)
    for end in (1, 301, 308, 1_208):
        while alone.size < end:
            alone.append_group(entries[alone.size : min(alone.size + 40, end)])
        here.publish_now()
    alone.close()

    check_log(tmp_path / "with", entries, 1_208)
    assert root == alone.signed.checkpoint.root
    assert tiles_of(tmp_path / "alone") == tiles_of(tmp_path / "with")


def test_it_stands_back_behind_who_decides(tmp_path: Path) -> None:
    """The process of a clerk has a lower priority than the one that answers, whose own stays as it was."""
    clerks, before = Clerks(), os.getpriority(os.PRIO_PROCESS, 0)
    with employed(tmp_path, clerks.start):
        behind = os.getpriority(os.PRIO_PROCESS, clerks.started[0].pid)

    assert (min(before + BEHIND, 19), before) == (behind, os.getpriority(os.PRIO_PROCESS, 0))


def test_one_that_is_killed_is_followed_by_another(tmp_path: Path) -> None:
    """Killed while idle and killed in the midst of its work: the next one does it, and nothing is lost or doubled."""
    clerks = Clerks()
    with employed(tmp_path, clerks.start) as (book, publish, clerking), structlog.testing.capture_logs() as told:
        grow(book, 50)
        publish.publish_now()
        clerks.kill()
        grow(book, 50)
        assert 100 == publish.publish_now().checkpoint.size
        clerks.started[-1].send_signal(signal.SIGSTOP)
        grow(book, 50)
        publishing = threading.Thread(target=publish.publish_now)
        publishing.start()
        clerks.kill()
        publishing.join(SECONDS)
        clerking.cover(150)
        assert 150 == book.signed.checkpoint.size == clerking.indexed_size
        assert 3 == len(clerks.started) == clerking.begun
        entries = book.read(0, 150)
    check_log(tmp_path, entries, 150)
    assert [("clerk ended", -signal.SIGKILL)] * 2 == [(line["event"], line["code"]) for line in told]


def test_without_clerks_writing_goes_on_for_a_while_and_then_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no clerk can be had, entries are still taken, for a few attempts; then none, until one is there again."""
    monkeypatch.setattr(clerking_module, "UP_SECONDS_MAX", 0.01)
    monkeypatch.setattr(clerking_module, "AGAIN_SECONDS", (0.01,))
    clerks = Clerks()
    with employed(tmp_path, clerks.start) as (book, publish, clerking):
        clerks.fails = True
        clerks.kill()
        wait_until(lambda: clerking._connection is None)
        for _ in range(AWAY_MAX):
            grow(book, 1)
            with pytest.raises(BookUnavailableError):
                publish.publish_now()
        assert "clerk" in book.trouble
        assert not book.failure
        with pytest.raises(BookUnavailableError):
            grow(book, 1)
        clerks.fails = False
        wait_until(lambda: clerking._connection is not None)
        publish.publish_now()
        assert not book.trouble
        grow(book, 1)
        publish.publish_now()
        entries = book.read(0, AWAY_MAX + 1)
    check_log(tmp_path, entries, AWAY_MAX + 1)


def test_what_it_finds_corrupt_is_not_signed(tmp_path: Path) -> None:
    """An entry that changed on disk is found by the clerk, and stops the book with its index."""
    with employed(tmp_path, ClerkProcess) as (book, publish, _):
        book.append_group([b"first", b"second", b"third"])
        [path] = [each.path for each in book.wal._segments]
        path.write_bytes(path.read_bytes().replace(b"second", b"secund"))
        with pytest.raises(BookCorruptError) as caught:
            publish.publish_now()
        assert 1 == caught.value.index
        assert "entry 1" in book.failure
        assert 0 == book.signed.checkpoint.size


def test_a_root_of_somebody_else_is_not_signed(tmp_path: Path) -> None:
    """Whatever root the clerk tells, only the one that the book itself came to is signed."""
    book = open_book(tmp_path)
    publish = Publisher(book, on_failure=unending, write_tiles=lambda _tiling: bytes(32))
    grow(book, 3)
    with pytest.raises(BookCorruptError):
        publish.publish_now()

    assert 0 == book.signed.checkpoint.size
    assert book.failure
    book.close()


def test_an_error_of_the_disk_there_ends_the_book_here(tmp_path: Path) -> None:
    """What the clerk could not make durable is an error here as if it had been done here, and nothing is signed."""
    ended: list[bool] = []
    with employed(tmp_path, ClerkProcess) as (book, _, clerking):
        publish = Publisher(book, on_failure=lambda: ended.append(True), write_tiles=clerking.write_tiles)
        (tmp_path / "book" / "tile").write_bytes(b"in the way")
        grow(book, 3)
        with pytest.raises(BookFailedError):
            publish.publish_now()
        assert [True] == ended
        assert 0 == book.signed.checkpoint.size


def test_it_ends_with_who_employs_it(tmp_path: Path) -> None:
    """A clerk whose employer is gone ends by itself, though signals for its process group do not end it."""
    book, people = open_book(tmp_path), People.open(tmp_path)
    ours, theirs = socket.socketpair()
    process = ClerkProcess(theirs)
    theirs.close()
    connection = Connection(ours.detach())
    connection.send_bytes(encode(Begin(str(tmp_path), ORIGIN, 0)))
    decode_answer(connection.recv_bytes())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        process._process.send_signal(number)
    connection.send_bytes(encode(Cover(0)))
    assert Covered(0, None) == decode_answer(connection.recv_bytes())
    connection.close()

    assert 0 == process._process.wait(SECONDS)
    people.close()
    book.close()


def test_there_is_one_at_a_time(tmp_path: Path) -> None:
    """A clerk touches nothing as long as another one, say of a service that was killed, has not ended."""
    book, people = open_book(tmp_path), People.open(tmp_path)
    clerking = Clerking(lambda: Begin(str(tmp_path), ORIGIN, 0))
    with sole_writer(book.layout.temporary):
        opening = threading.Thread(target=clerking.open)
        opening.start()
        opening.join(0.5)
        assert not (tmp_path / "index.db").exists()
    opening.join(SECONDS)
    assert 1 == clerking.begun
    clerking.close()
    descriptor = os.open(book.layout.temporary, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)
    people.close()
    book.close()


def test_an_index_that_cannot_be_kept_is_told_at_the_start(tmp_path: Path) -> None:
    """Where no index can be kept, there is no service without one."""
    book, people = open_book(tmp_path), People.open(tmp_path)
    (tmp_path / "index.db").mkdir()
    clerking = Clerking(lambda: Begin(str(tmp_path), ORIGIN, 0))
    with pytest.raises(BookUnavailableError, match="no index can be kept"):
        clerking.open()
    people.close()
    book.close()


def test_an_entry_that_cannot_be_indexed_is_told_to_who_waits(tmp_path: Path) -> None:
    """Who waits for the index is told why it does not come, and tiles are written all the same."""
    with employed(tmp_path, ClerkProcess) as (book, publish, clerking):
        book.append_group(some_entries(1, 3))
        publish.publish_now()
        with pytest.raises(BookRefusedError):
            clerking.cover(3)
        book.append_group(some_entries(2, 3))
        assert 6 == publish.publish_now().checkpoint.size
        assert 0 == clerking.indexed_size


def test_who_waits_for_nobody_is_told(tmp_path: Path) -> None:
    """After the end of a clerk that is not to be followed by another, nobody waits."""
    with employed(tmp_path) as (book, publish, clerking):
        grow(book, 1)
        publish.publish_now()
        clerking.cover(1)
        clerking.close()
        grow(book, 1)
        with pytest.raises(ClerkAwayError):
            publish.publish_now()
        with pytest.raises(BookUnavailableError, match="covers 1 entries and not yet 2"):
            clerking.cover(2)


class Babbler(ClerkThread):
    """Says what no clerk says, and goes."""

    def __init__(self, theirs: socket.socket, said: bytes) -> None:
        """Says it, as it goes over the line."""
        self._connection = Connection(os.dup(theirs.fileno()))
        os.write(self._connection.fileno(), said)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                self._connection.recv_bytes()


@pytest.mark.parametrize(
    "said",
    [b"\0\0\0\1\xc1", b"\0\0", b"\0\0\0\x09\xc1", b"\x7f\xff\xff\xff"],
    ids=["no-answer", "part-of-a-length", "part-of-an-answer", "huge"],
)
def test_one_that_babbles_is_sent_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    """A clerk whose answer is none, or does not end, is followed by another one."""
    monkeypatch.setattr(clerking_module, "PART_SECONDS_MAX", 1)
    count = itertools.count()

    def start(theirs: socket.socket) -> clerking_module.Process:
        return Babbler(theirs, said) if next(count) == 1 else ClerkThread(theirs)

    with employed(tmp_path, start) as (book, publish, clerking), structlog.testing.capture_logs() as told:
        assert clerking._line is not None
        hang_up(clerking._line)
        grow(book, 10)
        assert 10 == publish.publish_now().checkpoint.size
        assert 2 == clerking.begun
    assert ["clerk ended"] * 2 == [line["event"] for line in told]


class Idler(ClerkThread):
    """Says that it has begun, listens, and says and does nothing any more."""

    def __init__(self, theirs: socket.socket) -> None:
        """Says it."""
        self._connection = Connection(os.dup(theirs.fileno()))
        self._thread = threading.Thread(target=self._idle)
        self._thread.start()

    def _idle(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            assert isinstance(decode_order(self._connection.recv_bytes()), Begin)
            self._connection.send_bytes(encode(Begun(0, None)))
            while True:
                self._connection.recv_bytes()


def test_a_clerk_that_is_stopped_is_killed_and_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGSTOP ends nothing and answers nothing: what it was to do is done by the next one, which can be waited for."""
    monkeypatch.setattr(clerking_module, "SILENT_SECONDS_MAX", 2.0)
    monkeypatch.setattr(clerking_module, "LOOK_SECONDS", 0.05)
    clerks = Clerks()
    with employed(tmp_path, clerks.start) as (book, publish, clerking), structlog.testing.capture_logs() as told:
        grow(book, 50)
        publish.publish_now()
        clerks.started[-1].send_signal(signal.SIGSTOP)
        grow(book, 50)
        assert 100 == publish.publish_now().checkpoint.size
        clerking.cover(100)
        clerks.started[-1].send_signal(signal.SIGSTOP)
        clerking.follow(100)  # nothing to do: nobody is ended for that
        assert -signal.SIGKILL == clerks.started[0].wait(SECONDS)
        assert 2 == clerking.begun
        clerks.started[-1].send_signal(signal.SIGCONT)
        assert not book.trouble
        entries = book.read(0, 100)
    check_log(tmp_path, entries, 100)
    [line] = told
    assert "nothing was heard" in line["code"]


def test_clerks_that_are_all_silent_stop_the_book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one after the other says nothing, who waits is told, nothing is signed, and nothing more is written."""
    monkeypatch.setattr(clerking_module, "SILENT_SECONDS_MAX", 0.05)
    monkeypatch.setattr(clerking_module, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(clerking_module, "AGAIN_SECONDS", (0.01,))
    silent = True

    def start(theirs: socket.socket) -> ClerkThread:
        return Idler(theirs) if silent else ClerkThread(theirs)

    with employed(tmp_path, start) as (book, publish, _):
        grow(book, 3)
        with pytest.raises(BookUnavailableError, match="silent"):
            publish.publish_now()
        assert "silent" in book.trouble
        assert not book.failure
        assert 0 == book.signed.checkpoint.size
        with pytest.raises(BookUnavailableError):
            grow(book, 1)
        monkeypatch.setattr(clerking_module, "SILENT_SECONDS_MAX", SECONDS)
        silent = False
        wait_until(lambda: published(publish))
        assert not book.trouble
        assert 3 == book.signed.checkpoint.size


def published(publish: Publisher) -> bool:
    """Tells whether the book can be published."""
    try:
        publish.publish_now()
    except BookUnavailableError:
        return False
    return True


def test_a_clerk_at_long_work_is_not_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that takes longer than anybody may be silent is done by one clerk, which says that it goes on."""
    monkeypatch.setattr(clerking_module, "SILENT_SECONDS_MAX", 0.5)
    monkeypatch.setattr(clerking_module, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(clerk_module, "WORKING_EVERY_SECONDS", 0.0)
    began = time.monotonic()

    def slowly(tiling: Tiling, tiles: TileFolder, files: Files, temporary: Path, on_group: Callable[[], None]) -> bytes:
        while time.monotonic() < began + 1.5:
            on_group()
        return write_tiles(tiling, tiles, files, temporary, on_group)

    monkeypatch.setattr(clerk_module, "write_tiles", slowly)
    with employed(tmp_path) as (book, publish, clerking):
        grow(book, 3)
        assert 3 == publish.publish_now().checkpoint.size
        assert 1 == clerking.begun


def test_a_tile_that_cannot_be_read_does_not_end_the_clerk(tmp_path: Path) -> None:
    """An error of the disk while it indexes is told to who waits; the clerk stays, and indexes once it has passed."""
    clerks = Clerks()
    with employed(tmp_path, clerks.start) as (book, publish, clerking):
        publish._listeners.clear()  # nobody has it indexed yet
        grow(book, 3)
        publish.publish_now()
        [bundle] = (tmp_path / "book" / "tile" / "entries").rglob("3")
        bundle.rename(bundle.with_name("away"))
        bundle.mkdir()
        with pytest.raises(BookUnavailableError, match="cannot be read to index it"):
            clerking.cover(3)
        bundle.rmdir()
        bundle.with_name("away").rename(bundle)
        clerking.cover(3)
        assert 1 == len(clerks.started) == clerking.begun
