"""The life of a book, in a process that waits until somebody traces it.

Is run as a program, with a Python path that finds `gatebook` and `tests`. Reads lines `<kind of life>:<data dir>` and
forks a child for each, whose number it prints. The child waits for a line `go` and then lives: it opens the book and
its people, appends groups of which each names a new person, has a clerk in another process publish and index them, and
closes all (`WRITING`); or it closes the book for ever and begins its successor (`ROTATING`); or it erases a person and
prunes, in a year, what is older than that, with the threads that a service has (`FORGETTING`). But for the last all of
that is done by its first thread, so that its file calls can be counted. What it would have answered it writes
to the memory of `<data dir>.told`, which outlives it and is no call. The clerk writes its number to `<data dir>.clerk`
and waits until `<data dir>.go` is there, if `<data dir>.wait` is. At last the program prints how the child ended: 0
done, 3 the book said that it is unavailable, 74 a write or sync failed, negative: by a signal.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import io
import mmap
import os
import select
import signal
import socket
import struct
import sys
import time
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from tests.audit_samples import decided, found_people, request

from gatebook.audit import reader
from gatebook.audit.book import Book
from gatebook.audit.chain import control_links, find_end
from gatebook.audit.clerk import main as attend
from gatebook.audit.clerk_words import Begin
from gatebook.audit.clerking import Clerking
from gatebook.audit.control_state import control_state
from gatebook.audit.decision_entry import encode_decision
from gatebook.audit.entry import Stamp, encode_system, nanoseconds
from gatebook.audit.erasing import Order
from gatebook.audit.keeping import keeping_of
from gatebook.audit.limits import BookLimits
from gatebook.audit.people import People
from gatebook.audit.pruning import PruneOrder
from gatebook.audit.publish import Publisher
from gatebook.audit.recorder import Recorder
from gatebook.audit.rotation import Rotated, Rotation
from gatebook.audit.writer import EXIT_BOOK_FAILED, BookWriter
from gatebook.errors import BookFailedError, BookUnavailableError, GatebookError
from gatebook.v1 import entry_pb2
from gatebook.values import Entity

ORIGIN = "gatebook.test/book"
SUCCESSOR = f"{ORIGIN}/2"
WRITING, ROTATING, FORGETTING = "writing", "rotating", "forgetting"
FORGOTTEN = "somebody-0"
YEAR = timedelta(days=365)
TWO = {"requested_by": "dana", "approved_by": "kai", "reason": "T-7"}
LIMITS = BookLimits(segment_bytes=12_288, group_entries_max=64, group_bytes_max=6_000)
GROUPS, GROUP_ENTRIES, PUBLISH_EVERY = 7, 45, 3
"""More than 256 entries, so that full tiles take the place of partial ones, and more than two segments."""
UNAVAILABLE = 3
WAIT_SECONDS = 30.0
TELLING = struct.Struct(">Q32sQ64s")
COUNT = struct.Struct(">Q")
NUMBER = struct.Struct(">i")
TOLD_BYTES = COUNT.size + 2_000 * TELLING.size
MARK = "/told/"
"""Where a life looks for a file after each answer, if `<data dir>.mark` is there, so that a trace shows when it was."""
SET_PTRACER, ANY = 0x59616D61, -1


class Told:
    """What was answered, in memory that a kill leaves."""

    def __init__(self, path: Path) -> None:
        """Takes a file of the right size."""
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), TOLD_BYTES)
        self._count = 0
        self._marks = path.with_suffix(".mark").exists()

    def tell(self, index: int, leaf: bytes, time_ns: int, signature: bytes) -> None:
        """Answers: from here on the entry must be in the book."""
        at = COUNT.size + self._count * TELLING.size
        self._memory[at : at + TELLING.size] = TELLING.pack(index, leaf, time_ns, signature)
        self._count += 1
        self._memory[: COUNT.size] = COUNT.pack(self._count)
        if self._marks:
            os.access(f"{MARK}{self._count}", os.F_OK)


def read_told(path: Path) -> list[tuple[int, bytes, int, bytes]]:
    """Returns index, leaf hash, time and signature of each answer."""
    content = path.read_bytes()
    [count] = COUNT.unpack(content[: COUNT.size])
    return list(TELLING.iter_unpack(content[COUNT.size : COUNT.size + count * TELLING.size]))


class Nursery:
    """A process that forks clerks, begun before anything is open that must not be shared: SQLite forbids it."""

    def __init__(self, data: Path) -> None:
        """Begins it."""
        self.line, theirs = socket.socketpair()
        if os.fork() == 0:
            self.line.close()
            try:
                self._raise_clerks(theirs, data)
            finally:
                os._exit(70)
        theirs.close()

    def _raise_clerks(self, line: socket.socket, data: Path) -> None:
        while True:
            asked, [number], _, _ = socket.recv_fds(line, 1, 1)
            if not asked:
                os._exit(0)
            pid = os.fork()
            if pid == 0:
                line.close()
                wait_for_tracer(data)
                attend(number)
            os.close(number)
            line.sendall(NUMBER.pack(pid))
            line.sendall(NUMBER.pack(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))

    def clerk(self, theirs: socket.socket) -> BornClerk:
        """Has a clerk begin at this end of a pair of sockets."""
        socket.send_fds(self.line, [b"!"], [theirs.fileno()])
        return BornClerk(self.line)


class BornClerk:
    """A clerk at work."""

    def __init__(self, line: socket.socket) -> None:
        """Takes the line to its nursery."""
        self._line = line
        self._line.settimeout(None)
        [self._pid] = NUMBER.unpack(line.recv(NUMBER.size))

    def end(self, seconds: float) -> int:
        """Waits for its end, and ends it when the time is over."""
        self._line.settimeout(max(seconds, 0.01))
        try:
            return int(NUMBER.unpack(self._line.recv(NUMBER.size))[0])
        except TimeoutError:
            os.kill(self._pid, signal.SIGKILL)
            self._line.settimeout(None)
            return int(NUMBER.unpack(self._line.recv(NUMBER.size))[0])


def wait_for_tracer(data: Path) -> None:
    """Waits until the first clerk of a life is traced, where it is to be."""
    wanted = data.with_suffix(".wait")
    if not wanted.exists():
        return
    wanted.unlink()
    may_be_traced()
    data.with_suffix(".clerk").write_text(str(os.getpid()))
    until = time.monotonic() + WAIT_SECONDS
    while not data.with_suffix(".go").exists() and time.monotonic() < until:
        time.sleep(0.002)


def may_be_traced() -> None:
    """Lets whoever may signal this process trace it, where that is not so anyway (Linux, Yama)."""
    ctypes.CDLL(None).prctl(SET_PTRACER, ANY, 0, 0, 0)


def live(data: Path, told: Told, nursery: Nursery) -> None:
    """Opens a book, writes and publishes, and closes it."""
    with contextlib.ExitStack() as stack:
        book = Book.open(data, origin=ORIGIN, limits=LIMITS)
        stack.callback(book.close)
        people = People.open(data, create=book.size == 0)
        stack.callback(people.close)
        clerking = Clerking(lambda: Begin(str(data), ORIGIN, book.signed.checkpoint.size), start=nursery.clerk)
        publisher = Publisher(book, write_tiles=clerking.write_tiles)
        publisher.add_listener(lambda _old, new: clerking.follow(new))
        clerking.open()
        stack.callback(clerking.close)
        for number in range(GROUPS):
            write_group(book, people, told, number)
            if number % PUBLISH_EVERY == 0:
                publisher.publish_now()
                book.wal.make_space()
        publisher.close()
        clerking.cover(book.size)


def rotate(data: Path) -> Rotated:
    """Closes the book and begins its successor, or goes on with that, as the command does."""
    rotation = Rotation(data, limits=LIMITS)
    try:
        rotation.require_possible(SUCCESSOR, "a test")
        return rotation.finish(rotation.begin(SUCCESSOR, "a test"))
    except OSError as err:
        raise BookUnavailableError(f"cannot rotate: {err.strerror}") from err


async def forget(data: Path, *, anew: bool = True) -> None:
    """Opens the book as a service does, which completes what was begun; then erases a person and prunes if told."""
    with contextlib.ExitStack() as stack:
        book = Book.open(data, origin=ORIGIN, limits=LIMITS)
        stack.callback(book.close)
        people = People.open(data)
        stack.callback(people.close)
        state = control_state(control_links(book))
        book.mark_first(state.first_index)
        opened = stack.enter_context(reader.open_reader(data, book, people))
        writer = BookWriter(book)
        writer.start()
        try:
            pen = Recorder(writer, people, find_end(book), origin=ORIGIN, clock=lambda: datetime.now(UTC) + YEAR)
            keeping = keeping_of(book, opened, pen, people)
            async with keeping.open(state, book.size):
                if anew:
                    await keeping.erasing.erase(Order(subject_id=FORGOTTEN, **TWO), "a test")
                    order = PruneOrder(before=None, keep_days=90, policy=b"keep_days = 30\n", **TWO)
                    await keeping.pruning.prune(order, "a test")
        finally:
            await writer.close()


def write_group(book: Book, people: People, told: Told, number: int) -> None:
    """Writes a decision about somebody who is new, and steps of the service behind it; then answers."""
    end = find_end(book)
    stamp = Stamp.of(max(datetime.now(UTC), end.last_entry_time), "gatebook", end.control_link)
    one = decided(request(subject=Entity("user", f"somebody-{end.size}")), number=end.size)
    entries = [encode_decision(one, stamp, found_people(people, one), ORIGIN)]
    entries += [
        encode_system(entry_pb2.SYSTEM_EVENT_STARTED, stamp, version="0") for _ in range(GROUP_ENTRIES + number)
    ]
    appended = book.append_group(entries)
    time_ns = nanoseconds(entry_pb2.AuditEntry.FromString(entries[0]).entry_time)
    for index, leaf in enumerate(appended.leaf_hashes, appended.first_index):
        text = f"gatebook/receipt/v1\n{ORIGIN}\n{index}\n{leaf.hex()}\n{time_ns}\n"
        told.tell(index, leaf, time_ns, book.key.sign(text.encode()))


def be_born(kind: str, data: Path, gate: int, born: int) -> None:
    """Is the child: says that it is there, waits for the word, lives, and ends."""
    may_be_traced()
    told, nursery = Told(data.with_suffix(".told")), Nursery(data)
    os.write(born, b"!")  # a tracer is let in only now: no call that comes before is of a life
    os.close(born)
    select.select([gate], [], [])  # is not swept, so that it does not matter whether the tracer is there already
    code = 70
    try:
        if kind == ROTATING:
            rotate(data)
        elif kind == FORGETTING:
            setattr(reader, "Clerking", functools.partial(Clerking, start=nursery.clerk))  # noqa: B010  # mypy
            asyncio.run(forget(data))
        else:
            live(data, told, nursery)
        code = 0
    except BookFailedError:
        code = EXIT_BOOK_FAILED
    except GatebookError:
        code = UNAVAILABLE
    except BaseException:  # noqa: BLE001  # is looked at by whoever asked
        data.with_suffix(".error").write_text(traceback.format_exc())
    finally:
        os._exit(code)


def main() -> None:
    """Forks a life for each line."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(io.StringIO()))
    for line in sys.stdin:
        kind, name = line.strip().split(":", 1)
        data = Path(name)
        data.with_suffix(".told").write_bytes(bytes(TOLD_BYTES))
        gate, opened = os.pipe()
        waiting, born = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(opened)
            os.close(waiting)
            be_born(kind, data, gate, born)
        os.close(gate)
        os.close(born)
        os.read(waiting, 1)
        os.close(waiting)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        sys.stdin.readline()
        with contextlib.suppress(BrokenPipeError):
            os.write(opened, b"!")
        os.close(opened)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
