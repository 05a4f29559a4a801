"""Each write fails in two ways: it reached the disk all the same, or it did not. Who is told of an error knows neither.

After each, the book is opened anew, verified by the oracle and by its own command's code, and goes on.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import time
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest
from tests.audit_samples import ORIGIN, decided, found_people, request
from tests.books import LIMITS, check_log, open_book, publisher
from tests.faulty_files import FailingFiles
from tests.faulty_sqlite import failing_sqlite, sqlite_calls
from tests.witnesses import MemoryBook, witnessing

from gatebook.audit import cosigning
from gatebook.audit.book import Book
from gatebook.audit.chain import find_end
from gatebook.audit.clerk import Published
from gatebook.audit.cosigning import Collector
from gatebook.audit.decision_entry import encode_decision
from gatebook.audit.entry import Stamp
from gatebook.audit.files import Files
from gatebook.audit.hold import Hold, read_hold, remove_hold, require_released, write_hold
from gatebook.audit.index import Index
from gatebook.audit.keyfile import KEY_BYTES, open_key
from gatebook.audit.people import People
from gatebook.audit.tile_folder import TileFolder
from gatebook.errors import BookRefusedError, BookUnavailableError, GatebookError
from gatebook.tlog.keys import SigningKey
from gatebook.tlog.note import parse_note
from gatebook.tlog.policy import WitnessPolicy, any_of
from gatebook.tlog.proof import open_checkpoint
from gatebook.values import Entity
from gatebook.witness.cosigner import Cosigner
from gatebook.witness.state import create_witness

GROUPS, GROUP_ENTRIES = 5, 3
OUTCOMES = pytest.mark.parametrize("done", [False, True], ids=["not-persisted", "persisted"])
CODES = [sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL]


def live(data: Path, files: Files, acknowledged: list[bytes]) -> None:
    """Writes decisions about new people, publishes and indexes them; what is acknowledged is told at once."""
    with ExitStack() as stack:
        book = open_book(data, files=files, limits=LIMITS)
        stack.callback(book.close)
        people = People.open(data, create=book.size == 0, files=files)
        stack.callback(people.close)
        publish = publisher(book)
        for number in range(GROUPS):
            group = decisions(book, people)
            book.append_group(group)
            acknowledged += group
            if number % 2:
                publish.publish_now()
                book.wal.make_space()
        publish.publish_now()
        published = Published(book.tiles, book.size)
        index = Index.open(data / "index.db", published, people, ORIGIN)
        stack.callback(index.close)
        index.catch_up(published, book.size)


def decisions(book: Book, people: People) -> list[bytes]:
    """Returns entries that name people who are new, each durable by now."""
    end = find_end(book)
    entries = []
    for number in range(end.size, end.size + GROUP_ENTRIES):
        one = decided(request(subject=Entity("user", f"somebody-{number}")), number=number)
        stamp = Stamp.of(max(end.last_entry_time, one.decision.decide_time), "svc-training", end.control_link)
        entries.append(encode_decision(one, stamp, found_people(people, one), ORIGIN))
    return entries


def require_kept(data: Path, acknowledged: list[bytes]) -> None:
    """Opens what is left as after a restart: nothing acknowledged is lost, nobody is missing, and it goes on."""
    book = open_book(data)
    found = book.read(0, book.size)
    assert acknowledged == found[: len(acknowledged)]
    people = People.open(data, create=book.size == 0)
    new = decisions(book, people)
    book.append_group(new)
    publisher(book).publish_now()
    published = Published(TileFolder(data / "book"), book.size)
    index = Index.open(data / "index.db", published, people, ORIGIN)
    index.catch_up(published, book.size)
    assert book.size == index.size
    index.close()
    people.close()
    book.close()
    check_log(data, [*found, *new], len(found) + len(new), meaning=True)


@OUTCOMES
def test_each_file_call_of_log_tiles_and_keys(memory_path: Path, done: bool) -> None:
    """Of log, tiles, checkpoint, signing key and keys of people."""
    dry = FailingFiles()
    live(memory_path / "dry", dry, [])
    assert dry.calls > 100
    for at in range(1, dry.calls + 1):
        data, acknowledged = memory_path / f"{at}", list[bytes]()
        with suppress(GatebookError):
            live(data, FailingFiles(at, OSError(errno.EIO, os.strerror(errno.EIO)), done=done), acknowledged)
        require_kept(data, acknowledged)
        shutil.rmtree(data)


@OUTCOMES
@pytest.mark.parametrize("code", CODES, ids=["io", "full"])
def test_each_statement_of_the_databases(memory_path: Path, code: int, done: bool) -> None:
    """Of the database of checkpoints, that of people, and the index."""
    with failing_sqlite():
        live(memory_path / "dry", Files(), [])
        calls = sqlite_calls()
    assert calls > 30
    for at in range(1, calls + 1):
        data, acknowledged = memory_path / f"{at}", list[bytes]()
        with failing_sqlite(at, done=done, code=code), suppress(GatebookError):
            live(data, Files(), acknowledged)
        require_kept(data, acknowledged)
        shutil.rmtree(data)


@OUTCOMES
def test_each_file_call_of_a_hold(memory_path: Path, done: bool) -> None:
    """A mark that could not be set or taken away is there or not, and never half: what is refused stays refused."""
    hold = Hold(complete=True, origin=ORIGIN, size=7, backup_time="2026-11-21T09:30:00Z")
    for work in (partial(write_hold, hold=hold), remove_hold):
        for at in range(1, 7):
            data = memory_path / f"{work}-{at}"[-12:].replace("/", "")
            data.mkdir()
            if work is remove_hold:
                write_hold(data, hold, Files())
            failing = FailingFiles(at, done=done)
            with suppress(OSError):
                work(data, files=failing)
            assert read_hold(data) in {hold, None}
            if read_hold(data) == hold:
                with pytest.raises(BookRefusedError):
                    require_released(data)
            write_hold(data, hold, Files())
            remove_hold(data, Files())
            require_released(data)
            shutil.rmtree(data)


@OUTCOMES
def test_each_file_call_of_a_key(memory_path: Path, done: bool) -> None:
    """A key that could not be made is whole or absent, and is never made anew over one that is there."""
    for at in range(1, 6):
        path = memory_path / f"{at}" / "some.key"
        with suppress(OSError):
            open_key(path, create=True, files=FailingFiles(at, done=done))
        before = path.read_bytes() if path.exists() else b""
        key = open_key(path, create=True)
        assert KEY_BYTES == len(key)
        assert before in {b"", key}
        assert ["some.key"] == [each.name for each in path.parent.iterdir()]


@OUTCOMES
@pytest.mark.parametrize("code", CODES, ids=["io", "full"])
def test_each_statement_of_a_witness(memory_path: Path, code: int, done: bool) -> None:
    """A witness answers only what it keeps: whatever fails, it never cosigns a second history."""
    key = SigningKey.generate("gatebook.test/witnessed")
    one = MemoryBook(key, [b"%d" % number for number in range(9)])
    other = MemoryBook(key, [b"other %d" % number for number in range(9)])
    create_witness(memory_path / "made", "witness.test/w1")
    at, failed = 0, True
    while failed:
        at += 1
        data = memory_path / f"{at}"
        shutil.copytree(memory_path / "made", data)
        answered: list[bytes] = []
        failed = False
        with failing_sqlite(at, done=done, code=code):
            witness = Cosigner(data, {key.name: [key.verifier]})
            for old, size in ((0, 3), (3, 9)):
                try:
                    witness.add_checkpoint(one.submission(old, size), 1_800_000_000)
                except BookUnavailableError:
                    failed = True
                    break
                answered.append(one.note(size).format())
            witness.close()
        again = Cosigner(data, {key.name: [key.verifier]})
        kept = again._state.last(key.name)
        size = 0 if kept is None else kept.checkpoint.size
        assert [open_checkpoint(note, key.verifier).size for note in answered] <= [3, 9][: [0, 3, 9].index(size)]
        if size:
            with pytest.raises(GatebookError):
                again.add_checkpoint(other.submission(size, 9), 1_800_000_000)
        again.add_checkpoint(one.submission(size, 9), 1_800_000_000)
        again.close()
    assert at > 5


@OUTCOMES
def test_each_file_call_of_cosignatures(memory_path: Path, monkeypatch: pytest.MonkeyPatch, done: bool) -> None:
    """Cosignatures that cannot be kept are asked for again; the checkpoint stands, and a start trusts what is there."""
    monkeypatch.setattr(cosigning, "PAUSE_SECONDS", 0.01)
    made = memory_path / "made"
    book = open_book(made)
    book.append_group([b"a", b"b"])
    publisher(book).publish_now()
    key = book.key
    book.close()
    with witnessing(memory_path / "witness", "--origin", str(key.verifier)) as witness:
        policy = any_of([witness.key], 1, [f"http://{witness.address}"])
        at, failed = 0, True
        while failed:
            at += 1
            data = memory_path / f"{at}"
            shutil.copytree(made, data)
            failed = cosign(data, policy, FailingFiles(at, done=done))
            key.verifier.open_note((data / "book" / "checkpoint").read_bytes())
            check_log(data, [b"a", b"b"], 2)
            assert not cosign(data, policy, FailingFiles())
            for name in ("checkpoint", "witnessed"):
                policy.require(parse_note((data / "book" / name).read_bytes()))
            check_log(data, [b"a", b"b"], 2)
    assert at == 11


def cosign(data: Path, policy: WitnessPolicy, files: FailingFiles) -> bool:
    """Has the newest checkpoint cosigned and kept; returns whether a call failed meanwhile."""
    book = open_book(data)
    book.files = files
    collector = Collector(book, publisher(book), policy)
    collector.start()
    until = time.monotonic() + 30
    name = policy.witnesses[0].name
    while collector.witnessed is None or collector.troubles.get(name) != "":
        assert time.monotonic() < until, collector.troubles
        time.sleep(0.002)
    collector.close()
    book.close()
    return 0 < files.fail_at <= files.calls
