"""The book: dense indexes, durable entries, and every reason to refuse a start."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from tests.books import LIMITS, ORIGIN, check_log, open_book, publisher, some_entries
from tests.faulty_files import FailingFiles

import gatebook
from gatebook.audit.book import Book
from gatebook.audit.files import Files
from gatebook.audit.limits import BookLimits
from gatebook.errors import (
    BookCorruptError,
    BookFailedError,
    BookRefusedError,
    BookUnavailableError,
    EntryNotFoundError,
    LimitExceededError,
    OverloadedError,
)
from gatebook.tlog.keys import SigningKey
from gatebook.tlog.merkle import leaf_hash, root_of, verify_consistency, verify_inclusion


def test_entries_get_dense_indexes(tmp_path: Path) -> None:
    """Groups follow each other without a gap, and the root grows with them."""
    book = open_book(tmp_path)
    first, second = book.append_group([b"a", b"b"]), book.append_group([b"c"])

    assert (0, [leaf_hash(b"a"), leaf_hash(b"b")]) == (first.first_index, first.leaf_hashes)
    assert (2, [leaf_hash(b"c")]) == (second.first_index, second.leaf_hashes)
    assert (3, root_of(map(leaf_hash, [b"a", b"b", b"c"]))) == (book.size, book.root)
    book.close()


def test_a_book_goes_on_after_each_start(tmp_path: Path) -> None:
    """Across starts, publications and segments, every step leaves a book that holds everything and verifies."""
    entries: list[bytes] = []
    for step in range(25):
        book = open_book(tmp_path)
        assert entries == book.read(0, book.size)
        new = some_entries(step, 1 + step * 13 % 64, 120)
        book.append_group(new)
        entries += new
        if step % 3:
            publisher(book).publish_now()
        signed = book.signed.checkpoint.size
        book.close()
        check_log(tmp_path, entries, signed)


def test_reading_spans_tiles_and_log(tmp_path: Path) -> None:
    """A read gives the same bytes whether they are published, only logged, or both."""
    book = open_book(tmp_path)
    entries = [f"{number}".encode() for number in range(600)]
    for start in range(0, 600, 50):
        book.append_group(entries[start : start + 50])
        if start == 300:
            publisher(book).publish_now()

    for start, end in [(0, 600), (0, 0), (349, 351), (255, 257), (599, 600), (350, 350), (123, 456)]:
        assert entries[start:end] == book.read(start, end)
    book.close()


@pytest.mark.parametrize(("start", "end"), [(0, 4), (-1, 2), (2, 1), (3, 4), (4, 4)])
def test_there_is_nothing_beyond_the_end(tmp_path: Path, start: int, end: int) -> None:
    """Entries that do not exist are not found, rather than left out."""
    book = open_book(tmp_path)
    book.append_group([b"a", b"b", b"c"])

    with pytest.raises(EntryNotFoundError):
        book.read(start, end)
    book.close()


def test_proofs_from_tiles(tmp_path: Path) -> None:
    """The book proves inclusion and consistency for every published size, and for no other."""
    book = open_book(tmp_path)
    entries = [f"{number}".encode() for number in range(700)]
    roots = {0: root_of([])}
    for start in range(0, 700, 50):
        book.append_group(entries[start : start + 50])
        publisher(book).publish_now()
        roots[book.size] = book.root

    for size, root in roots.items():
        for index in {0, 1, size // 2, size - 1} & set(range(size)):
            verify_inclusion(index, size, leaf_hash(entries[index]), book.inclusion_proof(index, size), root)
        verify_consistency(size, 700, root, roots[700], book.consistency_proof(size))
    book.append_group([b"unpublished"])
    for index, size in [(700, 701), (700, 0), (5, 5), (-1, 0)]:
        with pytest.raises(EntryNotFoundError):
            book.inclusion_proof(index, size)
    for old, new in [(0, 701), (9, 8), (-1, 0)]:
        with pytest.raises(EntryNotFoundError):
            book.consistency_proof(old, new)
    book.close()


@pytest.mark.parametrize(
    "entries",
    [[], [b""], [b"a", b""], [b"a" * 65_536], [b"a"] * 65, [b"a" * 4_096] * 2],
    ids=["none", "empty", "one-empty", "too-large", "too-many", "too-many-bytes"],
)
def test_what_does_not_fit_changes_nothing(tmp_path: Path, entries: list[bytes]) -> None:
    """A group beyond a limit is refused whole, and the book goes on."""
    book = open_book(tmp_path)

    with pytest.raises(LimitExceededError):
        book.append_group(entries)
    assert 0 == book.append_group([b"a"]).first_index
    book.close()


def test_the_largest_entry_fits(tmp_path: Path) -> None:
    """An entry of 65,535 bytes goes the whole way: log, tiles, verification."""
    book = open_book(tmp_path, limits=BookLimits(segment_bytes=1 << 18))
    entry = os.urandom(65_535)
    book.append_group([entry])
    publisher(book).publish_now()

    assert [entry] == book.read(0, 1)
    book.close()
    check_log(tmp_path, [entry], 1)


def test_memory_does_not_grow_with_the_book(tmp_path: Path) -> None:
    """What is published is not kept in memory, and its segments are reused or gone."""
    book = open_book(tmp_path)
    publish = publisher(book)
    for step in range(40):
        book.append_group(some_entries(step, 60, 120))
        publish.publish_now()

    assert len(book.wal._places) < 8
    assert len(list((tmp_path / "wal").iterdir())) <= 4
    book.close()


def test_publishing_that_cannot_keep_up_stops_the_writing(tmp_path: Path) -> None:
    """The log does not grow without bound: writing stops, and goes on after publishing."""
    book = open_book(tmp_path, limits=BookLimits(segment_bytes=16_384, unpublished_bytes_max=40_000))
    with pytest.raises(OverloadedError):
        append_until_refused(book)
    size = book.size
    publisher(book).publish_now()

    assert size == book.append_group([b"after"]).first_index
    book.close()


def test_one_writer(tmp_path: Path) -> None:
    """A second opening is refused, in this process and in another, until the first is closed."""
    book = open_book(tmp_path)
    program = (
        "import sys; from pathlib import Path; from gatebook.audit.book import Book\n"
        "from gatebook.errors import BookRefusedError\n"
        f"try: Book.open(Path(sys.argv[1]), origin={ORIGIN!r})\n"
        "except BookRefusedError as err: print(err)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(gatebook.__file__).parents[1])}
    other = subprocess.run(
        [sys.executable, "-c", program, tmp_path], env=environment, capture_output=True, text=True, check=True
    )

    assert "another process has" in other.stdout
    with pytest.raises(BookRefusedError, match="another process has"):
        open_book(tmp_path)
    book.close()
    open_book(tmp_path).close()


def aged(data: Path) -> Path:
    """A book with a past; returns a copy of it, as of then, and lets it live on."""
    book = open_book(data)
    book.append_group([b"a", b"b", b"c"])
    publisher(book).publish_now()
    book.append_group([b"d"])
    book.close()
    copy = data.with_name("copy")
    shutil.copytree(data, copy)
    book = open_book(data)
    book.append_group([b"e", b"f"])
    publisher(book).publish_now()
    book.close()
    return copy


@pytest.mark.parametrize(
    ("part", "error", "words"),
    [
        ("checkpoints.db", BookRefusedError, "put back from an older copy"),
        ("book", BookCorruptError, "missing"),
        ("wal", BookCorruptError, "entry 4"),
        ("keys", None, ""),
    ],
)
def test_a_part_from_an_older_backup(
    tmp_path: Path, part: str, error: type[BookRefusedError] | None, words: str
) -> None:
    """Putting back an older copy of one part is refused; that of the whole goes unseen without a witness."""
    data = tmp_path / "data"
    copy = aged(data)
    if (data / part).is_dir():
        shutil.rmtree(data / part)
        shutil.copytree(copy / part, data / part)
    else:
        shutil.copy(copy / part, data / part)

    if error is None:
        open_book(data).close()
        return
    with pytest.raises(error, match=words):
        open_book(data)


@pytest.mark.parametrize("part", ["checkpoints.db", "wal", "keys/book.key"])
def test_a_missing_part_is_no_new_book(tmp_path: Path, part: str) -> None:
    """A book that lacks a part is refused; nothing is made in its place."""
    data = tmp_path / "data"
    aged(data)
    before = sorted(path for path in data.rglob("*") if part not in str(path))
    if (data / part).is_dir():
        shutil.rmtree(data / part)
    else:
        (data / part).unlink()

    with pytest.raises(BookRefusedError):
        open_book(data)
    assert before == sorted(path for path in data.rglob("*") if part not in str(path))


def test_a_lost_checkpoint_file_is_restored(tmp_path: Path) -> None:
    """The published checkpoint and key are copies: lost, they are put back, byte for byte."""
    aged(tmp_path / "data")
    published = tmp_path / "data" / "book"
    before = {name: (published / name).read_bytes() for name in ("checkpoint", "vkey")}
    for name in before:
        (published / name).unlink()
    open_book(tmp_path / "data").close()

    assert before == {name: (published / name).read_bytes() for name in before}


def test_another_root_for_the_same_size(tmp_path: Path) -> None:
    """A checkpoint of this key for the same size with another root is refused."""
    data = tmp_path / "data"
    aged(data)
    key = SigningKey.parse((data / "keys" / "book.key").read_text("utf-8"))
    text = (data / "book" / "checkpoint").read_text("utf-8").partition("\n\n")[0]
    origin, size, _ = text.split("\n")
    forged = key.sign_note(f"{origin}\n{size}\nNDNTdcEDWhNXqGn6dl7Bu1Tb7uytDPlf2BVUMMUcmMk=\n")
    (data / "book" / "checkpoint").write_bytes(forged.format())

    with pytest.raises(BookRefusedError, match="two roots are signed for size 6"):
        open_book(data)


def test_another_origin(tmp_path: Path) -> None:
    """A book is opened under its own name only."""
    aged(tmp_path / "data")

    with pytest.raises(BookRefusedError, match="the book is"):
        Book.open(tmp_path / "data", origin="gatebook.test/other", limits=LIMITS)


def test_another_key(tmp_path: Path) -> None:
    """A key that did not sign the checkpoint is refused, though it has the right name."""
    data = tmp_path / "data"
    aged(data)
    key = data / "keys" / "book.key"
    key.write_text(SigningKey.generate(ORIGIN).serialize(), "utf-8")

    with pytest.raises(BookRefusedError, match="not one of this book"):
        open_book(data)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_may_read(tmp_path: Path, mode: int) -> None:
    """A signing key with loose permissions is refused, and the message says how to mend it."""
    open_book(tmp_path).close()
    key = tmp_path / "keys" / "book.key"
    assert 0o600 == key.stat().st_mode & 0o777
    key.chmod(mode)

    with pytest.raises(BookRefusedError, match="chmod 600"):
        open_book(tmp_path)


def test_a_clock_that_went_back(tmp_path: Path) -> None:
    """A clock behind the last checkpoint by more than the tolerance is refused, a little is not."""
    aged(tmp_path / "data")
    now = time.time_ns()
    for behind_seconds, refused in [(5, False), (100, True), (-(10**6), False)]:
        clock_ns = partial(int, now - behind_seconds * 10**9)
        if refused:
            with pytest.raises(BookRefusedError, match="behind the last checkpoint"):
                Book.open(tmp_path / "data", origin=ORIGIN, clock_ns=clock_ns, limits=LIMITS)
        else:
            Book.open(tmp_path / "data", origin=ORIGIN, clock_ns=clock_ns, limits=LIMITS).close()


@pytest.mark.parametrize("origin", ["", "two words", "a+b", "line\nbreak", "x" * 300])
def test_no_book_has_such_an_origin(tmp_path: Path, origin: str) -> None:
    """A name that cannot stand in a signed note is refused, and no book is made."""
    with pytest.raises(BookRefusedError, match="cannot be the origin"):
        Book.open(tmp_path, origin=origin, limits=LIMITS)
    assert not (tmp_path / "keys" / "book.key").exists()


def test_no_book_is_made_unasked(tmp_path: Path) -> None:
    """With `create=False` an empty directory stays empty."""
    with pytest.raises(BookRefusedError, match="there is no book"):
        open_book(tmp_path / "nowhere", create=False)
    assert not (tmp_path / "nowhere").exists()


def test_a_full_disk_shows_before_anything_is_written(tmp_path: Path) -> None:
    """Where no further segment can be made nothing is written; when there is space again the book goes on."""
    disk = Disk()
    book = open_book(tmp_path, files=disk)
    disk.full = True
    with pytest.raises(BookUnavailableError, match="No space"):
        append_until_refused(book)
    size = book.size
    assert not book.failure
    disk.full = False
    assert size == book.append_group([b"after"]).first_index
    publisher(book).publish_now()
    entries = book.read(0, book.size)
    book.close()
    check_log(tmp_path, entries, size + 1)


class Disk(Files):
    """A disk that is full at times."""

    full = False

    def allocate(self, descriptor: int, size: int) -> None:
        """Finds space, or none."""
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().allocate(descriptor, size)


def append_until_refused(book: Book) -> None:
    """Appends what never fits."""
    for step in range(100):
        book.append_group(some_entries(step, 50, 120))


def test_nothing_is_written_after_a_failed_sync(tmp_path: Path) -> None:
    """After a failed sync every append fails, nothing more is signed, and the next start decides."""
    files = FailingFiles()
    book = open_book(tmp_path, files=files)
    book.append_group([b"a"])
    files.fail_at = files.calls + 2
    with pytest.raises(BookFailedError, match="Input/output error"):
        book.append_group([b"b"])
    with pytest.raises(BookFailedError):
        book.append_group([b"c"])
    with pytest.raises(BookFailedError):
        publisher(book).publish_now()
    book.close()

    book = open_book(tmp_path)
    assert [b"a"] == book.read(0, 1)
    assert book.size in (1, 2)
    book.close()


def test_a_disk_that_cannot_be_read_is_no_fault_of_the_book(tmp_path: Path) -> None:
    """An error under a read or a proof is passed on as unavailable, which may be asked again, and it may pass."""
    book = open_book(tmp_path)
    book.append_group([b"a", b"b"])
    publisher(book).publish_now()
    tile = tmp_path / "book" / "tile" / "0" / "000.p" / "2"
    kept = tile.rename(tmp_path / "kept")
    tile.symlink_to(tile)  # opened, it says that it leads round in circles

    for read in (partial(book.read, 0, 2), partial(book.inclusion_proof, 0), partial(book.consistency_proof, 1)):
        with pytest.raises(BookUnavailableError, match="cannot be read"):
            read()

    kept.replace(tile)
    assert [b"a", b"b"] == book.read(0, 2)
    book.close()
