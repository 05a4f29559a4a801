"""The kernel fails, or the process is killed, at each file call of a book: new, recovered, published, rotated.

Needs strace. SQLite's own calls are among those that fail, of the book's process and of its clerk's. All calls in turn
take an hour (`make test-long`); `make test-system` takes each kind of call once, at a place that a seed chooses.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.books import check_log, key_of
from tests.books import publisher as publisher_of
from tests.serving import gatebook
from tests.system.book_life import (
    FORGETTING,
    FORGOTTEN,
    LIMITS,
    ORIGIN,
    ROTATING,
    SUCCESSOR,
    WRITING,
    forget,
    read_told,
    rotate,
)
from tests.system.lives import BOOK, CLERK, SERVICE, Lives

from gatebook.audit.book import Book
from gatebook.audit.chain import control_links, find_end
from gatebook.audit.clerk import sole_writer
from gatebook.audit.control_state import control_state
from gatebook.audit.entry import Stamp, encode_system
from gatebook.audit.hold import require_released
from gatebook.audit.lost_book import LostBook
from gatebook.audit.people import People
from gatebook.audit.verify import verify_book
from gatebook.audit.verify_chain import verify_chain
from gatebook.audit.verify_copy import Copy
from gatebook.errors import GatebookError
from gatebook.tlog.keys import VerifierKey
from gatebook.tlog.receipt import Receipt, verify_receipt
from gatebook.tlog.tiles import ENTRIES, TILE_WIDTH, Tile
from gatebook.v1 import entry_pb2

SEED = 20261121
TRACED = ("-e", "trace=%file,%desc")
BY_ITSELF = {0, 3, 74}
KILLED = -9
FAULTS = {"EIO": "error=EIO", "ENOSPC": "error=ENOSPC", "SIGKILL": "signal=SIGKILL"}
NEW, OLD, ROTATED, KEPT = "new", "old", "rotated", "kept"
DOES = {NEW: WRITING, OLD: WRITING, ROTATED: ROTATING, KEPT: FORGETTING}
LIVES = [(NEW, BOOK), (OLD, BOOK), (OLD, CLERK), (ROTATED, BOOK), (KEPT, SERVICE)]
"""A book is made; one that was killed is recovered and goes on; its clerk writes tiles and index; it is closed;
somebody in it is erased, and it is pruned."""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder in memory where there is one: these tests sync thousands of times."""
    memory = Path("/dev/shm")  # noqa: S108 - only to choose the file system; the folder's name is random
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as path:
        yield Path(path)


@pytest.fixture(scope="module")
def lives() -> Iterator[Lives]:
    """The program that forks lives."""
    with Lives() as program:
        yield program


@pytest.fixture(scope="module")
def killed(folder: Path, lives: Lives) -> Path:
    """A book that was killed in the middle of a group and of a publication: what a recovery has most to do with."""
    data = folder / "killed"
    dry = lives.live(folder / "dry", CLERK, *TRACED)
    renames = dry.calls()["rename"]
    ended = lives.live(data, CLERK, *TRACED, "-e", f"inject=rename:error=EIO:when={renames - 1}")
    assert 74 == ended.code, ended
    book = Book.open(data, origin=ORIGIN, limits=LIMITS)
    segment = max((data / "wal").glob("*.wal"))
    end = book.wal._segments[-1].end
    book.close()
    content = bytearray(segment.read_bytes())
    content[end : end + 40] = b"\x01" * 40  # some of a group that was begun
    segment.write_bytes(content)
    assert book.signed.checkpoint.size < book.size
    return data


def test_lives_are_traced_whole(folder: Path, lives: Lives) -> None:
    """What is swept below is what is meant: writes, syncs, renames and removals of log, tiles and databases."""
    book = lives.live(folder / "whole-book", BOOK, *TRACED)
    clerk = lives.live(folder / "whole-clerk", CLERK, *TRACED)

    assert (0, 0) == (book.code, clerk.code), (book.error, clerk.error)
    everywhere = {
        "openat",
        "pwrite64",
        "fdatasync",
        "fsync",
        "rename",
        "unlink",
        "mkdir",
        "ftruncate",
        "flock",
        "write",
    }
    assert everywhere <= book.calls().keys()
    assert everywhere <= clerk.calls().keys()
    assert {"link", "fallocate", "chmod"} <= book.calls().keys()
    assert {"rmdir", "getdents64"} <= clerk.calls().keys()


def test_lives_do_what_they_are_for(folder: Path, lives: Lives, killed: Path) -> None:
    """One that nothing disturbs erases somebody, and prunes a whole bundle; one gives the book a successor."""
    data = folder / "undisturbed"
    shutil.copytree(killed, data)
    ended = lives.live(data, SERVICE, *TRACED, kind=FORGETTING)
    assert 0 == ended.code, ended.error
    book = Book.open(data, origin=ORIGIN, limits=LIMITS)
    state = control_state(control_links(book))
    book.close()
    assert (TILE_WIDTH, [True]) == (state.first_index, [erasure.completed for erasure in state.erasures])
    remove(data)

    shutil.copytree(killed, data)
    assert 0 == lives.live(data, BOOK, *TRACED, kind=ROTATING).code
    assert is_successor(data)
    remove(data)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("kind", "role"), LIVES)
def test_some_calls_fail(folder: Path, lives: Lives, killed: Path, kind: str, role: str, fault: str) -> None:
    """Each kind of call fails once: nothing false is answered, the process ends as it should, and starts again."""
    dice = random.Random(f"{SEED} {kind} {role} {fault}")
    calls = sorted(begin(folder, lives, killed, kind, role).items())
    cases = [(call, dice.randint(1, count), fault) for call, count in calls]

    assert [] == [found for case in cases if (found := fail(folder, lives, killed, (kind, role), case))]


@pytest.mark.long
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("kind", "role"), LIVES)
def test_each_call_fails_in_turn(folder: Path, lives: Lives, killed: Path, kind: str, role: str, fault: str) -> None:
    """The same, with each single call of each life."""
    calls = sorted(begin(folder, lives, killed, kind, role).items())
    cases = [(call, at, fault) for call, count in calls for at in range(1, count + 1)]

    assert [] == [found for case in cases if (found := fail(folder, lives, killed, (kind, role), case))]


def begin(folder: Path, lives: Lives, killed: Path, kind: str, role: str) -> dict[str, int]:
    """Returns how often each call is made in such a life."""
    data = folder / "counted"
    if kind != NEW:
        shutil.copytree(killed, data)
    counted = lives.live(data, role, *TRACED, kind=DOES[kind])
    assert 0 == counted.code, counted.error
    remove(data)
    return counted.calls()


def fail(folder: Path, lives: Lives, killed: Path, life: tuple[str, str], what: tuple[str, int, str]) -> str:
    """Lets one call of one life fail, and checks what is left; returns what is wrong with it."""
    (kind, role), (call, at, fault) = life, what
    data = folder / "failing"
    before: list[bytes] = []
    if kind != NEW:
        shutil.copytree(killed, data)
        before = entries_of(killed)
    inject = f"inject={call}:{FAULTS[fault]}:when={at}"
    ended = lives.live(data, role, *TRACED, "-e", inject, kind=DOES[kind])
    wrong = []
    allowed = BY_ITSELF if fault != "SIGKILL" else {KILLED} if role == BOOK else BY_ITSELF | {KILLED}
    if ended.code not in allowed:
        wrong.append(f"ended with {ended.code}: {ended.error}")
    # A clerk indexes in one transaction or in two, as orders come, so that its last calls are not in each life.
    if role == BOOK and not ("(INJECTED)" in ended.trace or "SIGKILL" in ended.trace):
        wrong.append("the call was not reached")
    try:
        {ROTATED: require_succeeded, KEPT: require_forgotten}.get(kind, require_nothing_lost)(data, before)
    except (AssertionError, GatebookError, OSError) as err:
        wrong.append(repr(err)[:500])
    remove(data)
    return f"{kind} {role}, {call} {at}, {fault}: {'; '.join(wrong)}" if wrong else ""


def remove(data: Path) -> None:
    """Removes what a life left."""
    shutil.rmtree(data)
    for suffix in (".told", ".clerk", ".go", ".wait", ".error", ".trace"):
        data.with_suffix(suffix).unlink(missing_ok=True)


def entries_of(data: Path) -> list[bytes]:
    """Returns the entries of a book that is not open, without changing it."""
    copy = data.with_suffix(".copy")
    shutil.copytree(data, copy)
    book = Book.open(copy, origin=ORIGIN, limits=LIMITS)
    entries = book.read(0, book.size)
    book.close()
    shutil.rmtree(copy)
    return entries


def require_nothing_lost(data: Path, before: list[bytes]) -> None:
    """Starts the book again: all that was there or acknowledged is, everything verifies, and it goes on."""
    told = read_told(data.with_suffix(".told"))
    entries, verifier = require_goes_on(data, ORIGIN, before)
    for index, leaf, time_ns, signature in told:
        verify_receipt(Receipt(ORIGIN, index, leaf, time_ns, entries[index], signature), verifier)


def require_goes_on(data: Path, origin: str, before: list[bytes]) -> tuple[list[bytes], VerifierKey]:
    """Starts the book, which takes another entry, and checks all; returns its entries and its key."""
    with ExitStack() as stack:
        if (data / "book.new").is_dir():
            stack.enter_context(sole_writer(data / "book.new"))
        book = Book.open(data, origin=origin, limits=LIMITS)
        stack.callback(book.close)
        People.open(data, create=book.size == 0).close()
        entries = book.read(0, book.size)
        assert before == entries[: len(before)]
        end = find_end(book)
        event = entry_pb2.SYSTEM_EVENT_STARTED
        entries.append(encode_system(event, Stamp.of(end.last_entry_time, "gatebook", end.control_link), version="0"))
        book.append_group(entries[-1:])
        publisher_of(book).publish_now()
    check_log(data, entries, len(entries), meaning=True)
    return entries, book.key.verifier


def require_succeeded(data: Path, before: list[bytes]) -> None:
    """Begins the rotation again where it did not end: the old book is whole and closed, and the new one goes on."""
    if (data / "rotation.json").exists() or not is_successor(data):
        rotate(data)
    assert is_successor(data)
    require_released(data)
    [closed] = (data / "closed").iterdir()
    entries = LostBook.at(closed, key_of(closed), tail=False)
    assert (before, len(before) + 1) == (entries.read(0, len(before)), entries.size)
    assert verify_book(closed / "book", key_of(closed)).size == entries.size
    assert [] == list((closed / "keys").iterdir())
    assert {"book.key", "people.key"} == {path.name for path in (data / "keys").iterdir()}
    report = verify_book(data / "book", key_of(data))
    [link] = verify_chain(Copy.at(data), key_of(data), report, (), 1).predecessors
    assert (ORIGIN, entries.size) == (link.origin, link.size)
    require_goes_on(data, SUCCESSOR, [])


def require_forgotten(data: Path, before: list[bytes]) -> None:
    """Starts the book as a service does: what an entry says was begun is done then, and nothing else is changed."""
    asyncio.run(forget(data, anew=False))
    book = Book.open(data, origin=ORIGIN, limits=LIMITS)
    state = control_state(control_links(book))
    book.mark_first(state.first_index)
    entries = before[: state.first_index] + book.read(state.first_index, book.size)
    book.close()
    assert before == entries[: len(before)]
    check_log(data, entries, len(entries), meaning=True)
    assert state.pruning_completed
    assert all(erasure.completed for erasure in state.erasures)
    assert state.erasures or not state.first_index
    bundle = data / "book" / Tile(ENTRIES, 0).path
    assert bundle.exists() == (not state.first_index)
    people = People.open(data)
    found, suppressed = people.find(FORGOTTEN), people.forgotten.is_suppressed(FORGOTTEN)
    people.close()
    assert (bool(state.erasures), not state.erasures) == (suppressed, bool(found))


def is_successor(data: Path) -> bool:
    """Tells whether the book in a directory is that which a rotation begins."""
    path = data / "book" / "vkey"
    return path.exists() and VerifierKey.parse(path.read_text("utf-8")).name == SUCCESSOR


def test_the_command_verifies_what_was_recovered(folder: Path, lives: Lives, killed: Path) -> None:
    """`gatebook audit verify` on a copy of the directory says so too."""
    data = folder / "commanded"
    shutil.copytree(killed, data)
    ended = lives.live(data, BOOK, *TRACED, "-e", "inject=fdatasync:error=EIO:when=1")
    assert ended.code in BY_ITSELF - {0}
    require_nothing_lost(data, entries_of(killed))
    verified = gatebook("audit", "verify", str(data), "--vkey", str(key_of(data)))

    assert 0 == verified.returncode, verified.stdout + verified.stderr
    remove(data)
