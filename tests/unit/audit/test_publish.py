"""The publisher: it signs what is durable, shows it, and is never quietly stuck."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog.testing
from tests.books import LIMITS, ORIGIN, UnsyncedFiles, check_log, open_book, publisher, some_entries, unending
from tests.receipts import sign_receipt

from gatebook.audit.book import Book
from gatebook.audit.files import Files
from gatebook.audit.publish import Publisher
from gatebook.errors import BookCorruptError, BookFailedError, BookRefusedError, BookUnavailableError
from gatebook.tlog.merkle import leaf_hash
from gatebook.tlog.proof import Proof, open_checkpoint, verify_proof
from gatebook.tlog.receipt import verify_receipt
from gatebook.tlog.tiles import new_tiles

SIZES = [1, 2, 255, 256, 257, 511, 512, 513]


def grow(book: Book, size: int) -> None:
    """Appends tiny entries up to a size."""
    while book.size < size:
        book.append_group([b"%d" % at for at in range(book.size, min(book.size + 64, size))])


def test_each_size_has_its_tiles(tmp_path: Path) -> None:
    """At each size around a full tile the directory holds the tiles of that size, and verifies."""
    book = open_book(tmp_path, files=UnsyncedFiles())
    publish = publisher(book)
    for size in SIZES:
        grow(book, size)
        signed = publish.publish_now()

        assert size == signed.checkpoint.size
        assert all((tmp_path / "book" / tile.path).is_file() for tile in new_tiles(0, size))
        check_log(tmp_path, book.read(0, size), size)
    book.close()


def test_partial_tiles_of_signed_sizes_stay_until_the_full_one(tmp_path: Path) -> None:
    """Partial tiles of published sizes are kept while their tile grows, and go when it is full."""
    book = open_book(tmp_path, files=UnsyncedFiles())
    publish = publisher(book)
    found = []
    for size in (3, 10, 200, 256):
        grow(book, size)
        publish.publish_now()
        folder = tmp_path / "book" / "tile" / "entries" / "000.p"
        found.append(sorted(int(path.name) for path in folder.iterdir()) if folder.exists() else [])

    assert [[3], [3, 10], [3, 10, 200], []] == found
    book.close()


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537])
def test_the_second_level(tmp_path: Path, size: int) -> None:
    """Around 65,536 entries the second level of tiles comes into being, and a restart goes on from it."""
    book = Book.open(tmp_path, origin=ORIGIN, files=UnsyncedFiles())
    while book.size < size - 2:
        book.append_group([b"%d" % at for at in range(book.size, min(book.size + 4_000, size - 2))])
    publisher(book).publish_now()
    book.close()
    book = Book.open(tmp_path, origin=ORIGIN, files=UnsyncedFiles())
    grow(book, size)
    publisher(book).publish_now()
    entries = book.read(0, 65_535) + book.read(65_535, size)
    book.close()

    assert [b"%d" % at for at in range(size)] == entries
    check_log(tmp_path, entries, size)


def test_nothing_new_signs_nothing(tmp_path: Path) -> None:
    """Publishing again without new entries gives the same checkpoint, byte for byte."""
    book = open_book(tmp_path)
    grow(book, 3)
    publish = publisher(book)

    assert publish.publish_now() is publish.publish_now()
    book.close()


def test_listeners_hear_each_publication_once(tmp_path: Path) -> None:
    """A listener is told the old and the new size after the book shows the new one."""
    book = open_book(tmp_path)
    publish = publisher(book)
    heard: list[tuple[int, int, int]] = []
    publish.add_listener(lambda old, new: heard.append((old, new, book.signed.checkpoint.size)))
    for size in (2, 2, 5):
        grow(book, size)
        publish.publish_now()

    assert [(0, 2, 2), (2, 5, 5)] == heard
    book.close()


def test_it_publishes_by_itself(tmp_path: Path) -> None:
    """The thread publishes what comes, and `close` publishes the rest."""
    book = open_book(tmp_path)
    publish = Publisher(book, interval_seconds=0.001, on_failure=unending)
    published = threading.Event()
    publish.add_listener(lambda _old, _new: published.set())
    publish.start()
    grow(book, 1)
    assert published.wait(10)
    grow(book, 2)
    publish.close()

    assert 2 == book.signed.checkpoint.size
    book.close()


def test_receipts_and_proofs_of_the_book_verify(tmp_path: Path) -> None:
    """What the book gives out verifies with its public key alone."""
    book = open_book(tmp_path)
    grow(book, 300)
    note = publisher(book).publish_now().note
    key = book.key.verifier
    leaf = leaf_hash(b"77")

    verify_receipt(sign_receipt(book.key, 77, leaf, 1, b"77"), key)
    proof = Proof(77, tuple(book.inclusion_proof(77)), note).format()
    assert open_checkpoint(note, key) == verify_proof(proof, leaf, key)
    book.close()


class Failing(Files):
    """A file system on which whatever the test chooses fails."""

    def __init__(self) -> None:
        """Begins as a good one."""
        self.fails: Callable[[Path], bool] = lambda _target: False
        self.code = errno.ENOSPC
        self.heard: Callable[[Path], None] = lambda _synced: None

    def sync_directory(self, path: Path) -> None:
        """Syncs, and says so."""
        super().sync_directory(path)
        self.heard(path)

    def rename(self, source: Path, target: Path) -> None:
        """Renames, or fails."""
        if self.fails(target):
            raise OSError(self.code, os.strerror(self.code))
        super().rename(source, target)


@pytest.mark.parametrize("part", ["tile", "checkpoint"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
def test_a_shortage_is_trouble_until_it_is_over(tmp_path: Path, part: str, code: int) -> None:
    """Short of space, files or memory the book is unavailable, at whatever step; then every size is signed once."""
    files = Failing()
    files.code = code
    book = open_book(tmp_path, files=files)
    publish = publisher(book)
    grow(book, 3)
    files.fails = lambda target: part in target.parts
    with pytest.raises(BookUnavailableError, match=os.strerror(code)):
        publish.publish_now()
    assert os.strerror(code) in book.trouble
    assert not book.failure
    with pytest.raises(BookUnavailableError):
        book.append_group([b"a"])
    files.fails = lambda _target: False
    publish.publish_now()

    assert not book.trouble
    grow(book, 5)
    publish.publish_now()
    entries = book.read(0, 5)
    book.close()
    check_log(tmp_path, entries, 5)


def test_a_checkpoint_store_that_cannot_be_opened_is_trouble(tmp_path: Path) -> None:
    """While the database of checkpoints cannot be opened, nothing is written; then it goes on."""
    book = open_book(tmp_path)
    publish = publisher(book)
    grow(book, 3)
    path = tmp_path / "checkpoints.db"
    path.rename(tmp_path / "away")
    path.mkdir()
    with pytest.raises(BookUnavailableError, match="unable to open"):
        publish.publish_now()
    assert not book.failure
    path.rmdir()
    (tmp_path / "away").rename(path)

    assert 3 == publish.publish_now().checkpoint.size
    assert not book.trouble
    book.close()


def test_a_folder_whose_name_was_not_synced_is_synced_later(tmp_path: Path) -> None:
    """A directory made by an attempt that failed before its sync is durable before the next attempt signs."""
    synced: list[Path] = []
    files = Failing()
    book = open_book(tmp_path, files=files)
    publish = publisher(book)
    grow(book, 1)
    files.fails, files.code = (lambda target: "tile" in target.parts), errno.EMFILE
    with pytest.raises(BookUnavailableError):
        publish.publish_now()
    assert (tmp_path / "book" / "tile" / "0").is_dir()
    files.fails = lambda _target: False
    files.heard = synced.append
    publish.publish_now()

    tile = tmp_path / "book" / "tile"
    assert {tile.parent, tile, tile / "0", tile / "entries"} <= set(synced)
    book.close()


def test_any_other_error_is_the_end(tmp_path: Path) -> None:
    """After an input or output error nothing more is written or signed, and the process is told to end."""
    files = Failing()
    book = open_book(tmp_path, files=files)
    ended: list[bool] = []
    publish = publisher(book, on_failure=lambda: ended.append(True))
    grow(book, 3)
    files.fails, files.code = (lambda target: "tile" in target.parts), errno.EIO
    with structlog.testing.capture_logs() as told, pytest.raises(BookFailedError):
        publish.publish_now()
    files.fails = lambda _target: False

    failure = "cannot publish the book: Input/output error"
    assert [{"event": "book failed", "error": failure, "log_level": "error"}] == told
    assert [True] == ended
    with pytest.raises(BookFailedError):
        publish.publish_now()
    with pytest.raises(BookFailedError):
        book.append_group([b"a"])
    assert 0 == book.signed.checkpoint.size
    book.close()


def test_what_disk_and_memory_disagree_on_is_not_signed(tmp_path: Path) -> None:
    """An entry that changed on disk between write and publication stops the book, with its index."""
    book = open_book(tmp_path)
    book.append_group([b"first", b"second", b"third"])
    [path] = [each.path for each in book.wal._segments]
    content = path.read_bytes()
    path.write_bytes(content.replace(b"second", b"secund"))

    with pytest.raises(BookCorruptError) as caught:
        publisher(book).publish_now()
    assert 1 == caught.value.index
    assert "entry 1" in book.failure
    book.close()


@pytest.mark.parametrize("size", [4, 300])
def test_a_published_entry_that_rots_is_not_published_again(tmp_path: Path, size: int) -> None:
    """Entries of an unfinished bundle are written once more with what follows: one that changed stops the book."""
    book = open_book(tmp_path, files=UnsyncedFiles())
    grow(book, 3)
    publisher(book).publish_now()
    bundle = tmp_path / "book" / "tile" / "entries" / "000.p" / "3"
    content = bytearray(bundle.read_bytes())
    content[-1] ^= 1
    bundle.write_bytes(content)
    grow(book, size)

    with pytest.raises(BookCorruptError) as caught:
        publisher(book).publish_now()
    assert 2 == caught.value.index
    assert "entry 2" in book.failure
    assert 3 == book.signed.checkpoint.size
    assert bundle.read_bytes() == content
    book.close()


def test_another_writer_of_checkpoints_is_noticed(tmp_path: Path) -> None:
    """If the newest checkpoint is not the one that was replaced, nothing is shown and the book stops."""
    book = open_book(tmp_path)
    grow(book, 3)
    with sqlite3.connect(tmp_path / "checkpoints.db") as database:
        database.execute("UPDATE checkpoint SET size = 7")
    database.close()
    before = (tmp_path / "book" / "checkpoint").read_bytes()

    with pytest.raises(BookRefusedError, match="another writer"):
        publisher(book).publish_now()
    assert before == (tmp_path / "book" / "checkpoint").read_bytes()
    assert book.failure
    book.close()


def test_the_thread_does_not_stop_unseen(tmp_path: Path) -> None:
    """A publisher that fails for good is known to the book, and so to whoever asks for its health."""
    files = Failing()
    book = open_book(tmp_path, files=files, limits=LIMITS)
    files.fails, files.code = (lambda target: "tile" in target.parts), errno.EIO
    ended = threading.Event()
    publish = Publisher(book, interval_seconds=0.001, on_failure=ended.set)
    book.append_group(some_entries(1, 3))
    publish.start()

    assert ended.wait(10)
    assert "Input/output error" in book.trouble
    with pytest.raises(BookFailedError):
        publish.close()
    book.close()


def test_the_next_segment_is_there_before_it_is_needed(tmp_path: Path) -> None:
    """When a segment comes into use the publisher makes the next at once, and does not wait for its turn."""
    book = open_book(tmp_path)
    publish = Publisher(book, interval_seconds=3_600, on_failure=unending)
    publish.start()
    while len(list((tmp_path / "wal").glob("*.wal"))) < 2:
        book.append_group(some_entries(book.size, 40))
    end = time.monotonic() + 30
    while len(list((tmp_path / "wal").glob("*.wal"))) < 3:
        assert time.monotonic() < end, "no segment was made"
        time.sleep(0.005)

    assert 0 == book.signed.checkpoint.size
    publish.close()
    entries = book.read(0, book.size)
    book.close()
    check_log(tmp_path, entries, len(entries))
