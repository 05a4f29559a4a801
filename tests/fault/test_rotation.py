"""A rotation that is broken off at each of its file calls comes to the same end when it is begun again."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.audit_samples import POLICY_REVISION
from tests.books import LIMITS, ORIGIN, key_of, open_book, publisher
from tests.faulty_files import FailingFiles, PowerCutError

from gatebook.audit.book import Book
from gatebook.audit.chain import control_chain, find_end
from gatebook.audit.entry import PolicyEvent, Stamp, encode_policy, encode_system
from gatebook.audit.files import Files
from gatebook.audit.hold import require_released
from gatebook.audit.rotation import Rotated, Rotation
from gatebook.audit.succession import predecessor_of
from gatebook.audit.verify import verify_book
from gatebook.audit.verify_chain import verify_chain
from gatebook.audit.verify_copy import Copy
from gatebook.errors import BookRefusedError, BookUnavailableError
from gatebook.tlog.keys import VerifierKey
from gatebook.v1 import entry_pb2
from gatebook.values import Revision

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SUCCESSOR = f"{ORIGIN}/2"
SETS = ("one", "two", "one")


class KilledError(BaseException):
    """The process is killed: nothing of ours catches it."""


def begin(data: Path) -> list[bytes]:
    """Makes a book with three activations, and some entries between, of which the last are not published."""
    book = open_book(data)
    entries = [encode_system(entry_pb2.SYSTEM_EVENT_BOOK_OPENED, Stamp.of(NOW, "gatebook", 0), version="1")]
    link = 0
    for number, name in enumerate(SETS, start=1):
        event = PolicyEvent(
            step=entry_pb2.POLICY_STEP_ACTIVATED,
            policy_set=name,
            revision=Revision(POLICY_REVISION.digest, number),
        )
        entries.append(encode_policy(event, Stamp.of(NOW, "local", link)))
        link = len(entries)
        entries.append(encode_system(entry_pb2.SYSTEM_EVENT_STARTED, Stamp.of(NOW, "gatebook", link), version="1"))
    book.append_group(entries[:5])
    publisher(book).publish_now()
    book.append_group(entries[5:])
    book.close()
    return entries


def rotate(data: Path, files: Files) -> Rotated:
    """Rotates as the command does."""
    rotation = Rotation(data, files=files, limits=LIMITS, clock=lambda: NOW)
    rotation.require_possible(SUCCESSOR, "test")
    return rotation.finish(rotation.begin(SUCCESSOR, "test"))


def require_succeeded(data: Path, entries: list[bytes], rotated: Rotated) -> None:
    """Requires a closed book with all its entries, and a successor that is bound to it and can be served."""
    require_released(data)
    old, new = VerifierKey.parse(rotated.old), VerifierKey.parse(rotated.new)
    assert new == key_of(data)
    report = verify_book(data / "book", new)
    chain = verify_chain(Copy.at(data), new, report, (), 1)
    assert [(ORIGIN, len(entries) + 1, True)] == [
        (each.origin, each.size, each.book is not None) for each in chain.predecessors
    ]
    assert verify_book(rotated.folder / "book", old).size == len(entries) + 1
    book = Book.open(data, origin=SUCCESSOR, create=False, limits=LIMITS)
    try:
        birth = predecessor_of(book)
        assert birth is not None
        assert (str(old), 1 + len(SETS)) == (birth.verifier_key, book.size)
        told = [(entry.policy.policy_set, entry.policy.revision.number) for _, entry in control_chain(book)]
        assert [("one", 3), ("two", 2), ("one", 1)] == told
        assert find_end(book).clean
    finally:
        book.close()
    assert not list(data.glob("**/book.next*"))
    assert ["book.key"] == [path.name for path in (data / "keys").iterdir()]
    assert [] == list((rotated.folder / "keys").iterdir())


@pytest.mark.parametrize(
    ("kind", "done"),
    [
        ("killed", True),
        ("EIO", False),
        pytest.param("killed", False, marks=pytest.mark.long),
        pytest.param("EIO", True, marks=pytest.mark.long),
    ],
)
def test_broken_off_at_each_call(memory_path: Path, kind: str, done: bool) -> None:
    """Wherever it breaks off, nothing can be served until it is begun again, which comes to the one end."""
    dry = memory_path / "dry"
    begin(dry)
    counted = FailingFiles()
    rotate(dry, counted)
    error = KilledError() if kind == "killed" else OSError(getattr(errno, kind), os.strerror(getattr(errno, kind)))
    marked = 0
    for at in range(1, counted.calls + 1):
        data = memory_path / f"{at}"
        entries = begin(data)
        with suppress(KilledError, OSError, BookUnavailableError, PowerCutError):
            rotate(data, FailingFiles(at, error, done=done))
        if (data / "rotation.json").exists():
            marked += 1
            with pytest.raises(BookRefusedError, match="did not end"):
                require_released(data)
        if key_of_served(data) != SUCCESSOR or (data / "rotation.json").exists():
            require_succeeded(data, entries, rotate(data, Files()))
    assert marked > counted.calls / 2


def key_of_served(data: Path) -> str:
    """Returns the origin of the book in a directory."""
    path = data / "book" / "vkey"
    return VerifierKey.parse(path.read_text("utf-8")).name if path.exists() else ""


def test_a_closed_book_is_not_written_again(memory_path: Path) -> None:
    """A closed book with its key put back is known as closed, and a rotation refuses it."""
    data = memory_path / "data"
    begin(data)
    key = (data / "keys" / "book.key").read_bytes()
    rotated = rotate(data, Files())
    path = rotated.folder / "keys" / "book.key"
    path.write_bytes(key)
    path.chmod(0o600)
    book = Book.open(rotated.folder, origin=ORIGIN, create=False, limits=LIMITS)
    try:
        assert find_end(book).closed
    finally:
        book.close()
    with pytest.raises(BookRefusedError, match="closed already"):
        Rotation(rotated.folder, limits=LIMITS).require_possible(f"{ORIGIN}/9", "")


def test_a_lost_key(memory_path: Path) -> None:
    """A book without its key gets a successor that says how far it was signed, and carries what came after, too."""
    data = memory_path / "data"
    entries = begin(data)
    (data / "keys" / "book.key").unlink()
    rotation = Rotation(data, limits=LIMITS, clock=lambda: NOW)
    with pytest.raises(BookRefusedError, match="lost"):
        rotation.require_possible(SUCCESSOR, "")
    rotation.require_possible(SUCCESSOR, "the disk died", key_lost=True)
    rotated = rotation.finish(rotation.begin(SUCCESSOR, "the disk died", key_lost=True))
    new = VerifierKey.parse(rotated.new)
    report = verify_book(data / "book", new)
    [link] = verify_chain(Copy.at(data), new, report, (), 1).predecessors
    book = Book.open(data, origin=SUCCESSOR, create=False, limits=LIMITS)
    birth = predecessor_of(book)
    told = [entry.policy.revision.number for _, entry in control_chain(book)]
    book.close()

    assert birth is not None
    assert (True, 5, len(entries), "the disk died") == (birth.key_lost, birth.size, birth.unsigned_size, birth.reason)
    assert (5, True) == (link.size, link.key_lost)
    assert [3, 2, 1] == told
