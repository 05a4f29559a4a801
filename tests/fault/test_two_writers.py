"""One book, one writer: whatever is done to the lock file, and whatever copies of the folder there are."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.books import check_log, open_book, publisher, some_entries
from tests.witnesses import submission

from gatebook.audit.book import Book
from gatebook.audit.verify import verify_book
from gatebook.errors import BookRefusedError, VerificationError
from gatebook.witness.cosigner import Cosigner
from gatebook.witness.state import create_witness
from gatebook.witness.submission import InconsistentError, SplitViewError

PARTS = (["checkpoints.db"], ["book"], ["wal"], ["book", "wal"], ["checkpoints.db", "wal"])
FIRST, SECOND, THIRD = (some_entries(seed, 20) for seed in range(3))


def let_be(_data: Path) -> None:
    """Does nothing."""


def remove_lock(data: Path) -> None:
    """Does what is done about "stale" lock files."""
    (data / "book.lock").unlink()


def replace_lock(data: Path) -> None:
    """Puts another file in place of the lock, as a copy tool does."""
    (data / "book.lock.new").write_bytes(b"")
    (data / "book.lock.new").replace(data / "book.lock")


@pytest.mark.parametrize("done", [let_be, remove_lock, replace_lock])
def test_a_book_in_use_is_refused(memory_path: Path, done: Callable[[Path], None]) -> None:
    """A second writer is refused, also where somebody took the lock file away, and the first loses nothing."""
    book = open_book(memory_path)
    book.append_group(FIRST)
    done(memory_path)

    with pytest.raises(BookRefusedError, match="another process has"):
        open_book(memory_path)

    book.append_group(SECOND)
    publisher(book).publish_now()
    book.close()
    check_log(memory_path, [*FIRST, *SECOND], 40)


def test_a_book_in_use_is_refused_by_other_names(memory_path: Path) -> None:
    """Neither a symbolic link, nor a copy of hard links, nor the folder under a new name gets round the lock."""
    data = memory_path / "data"
    book = open_book(data)
    book.append_group(FIRST)
    (memory_path / "link").symlink_to(data)
    shutil.copytree(data, memory_path / "hard", copy_function=lambda old, new: Path(new).hardlink_to(old))
    for other in (memory_path / "link", memory_path / "hard"):
        with pytest.raises(BookRefusedError, match="another process has"):
            open_book(other)
    data.rename(memory_path / "moved")
    with pytest.raises(BookRefusedError, match="another process has"):
        open_book(memory_path / "moved")
    (memory_path / "moved").rename(data)
    publisher(book).publish_now()
    book.close()
    check_log(data, FIRST, 20)


def test_a_copy_of_hard_links_served_later_spoils_neither(memory_path: Path) -> None:
    """A `cp -al` that goes on by itself makes the original refuse to start, with nothing of it changed."""
    data, hard = memory_path / "data", memory_path / "hard"
    book = open_book(data)
    book.append_group(FIRST)
    publisher(book).publish_now()
    book.append_group(SECOND)
    book.close()
    shutil.copytree(data, hard, copy_function=lambda old, new: Path(new).hardlink_to(old))

    book = open_book(hard)
    book.append_group(THIRD)
    publisher(book).publish_now()
    book.close()

    check_log(hard, [*FIRST, *SECOND, *THIRD], 60)
    with pytest.raises(BookRefusedError):
        open_book(data)
    assert FIRST == [entry for entry in FIRST if any(entry in path.read_bytes() for path in entry_files(data))]
    assert SECOND == [entry for entry in SECOND if any(entry in path.read_bytes() for path in wal_files(data))]


def entry_files(data: Path) -> list[Path]:
    """The bundles of a book."""
    return [path for path in (data / "book" / "tile" / "entries").rglob("*") if path.is_file()]


def wal_files(data: Path) -> list[Path]:
    """The segments of a book."""
    return list((data / "wal").glob("*.wal"))


def test_a_copy_that_is_served_beside_the_original(memory_path: Path) -> None:
    """No file says that there is a copy elsewhere. A witness cosigns one of the two histories, and keeps the proof."""
    data, clone = memory_path / "data", memory_path / "clone"
    book = open_book(data)
    book.append_group(FIRST)
    publisher(book).publish_now()
    key = book.key.verifier
    create_witness(memory_path / "witness", "witness.test/w1")
    witness = Cosigner(memory_path / "witness", {key.name: [key]})
    cosign(witness, book, 0)
    shutil.copytree(data, clone)

    copy = open_book(clone)
    book.append_group(SECOND)
    copy.append_group(THIRD)
    publisher(book).publish_now()
    publisher(copy).publish_now()

    cosign(witness, book, 20)
    with pytest.raises(SplitViewError):
        cosign(witness, copy, 40)
    copy.append_group(SECOND)
    publisher(copy).publish_now()
    with pytest.raises(InconsistentError):
        cosign(witness, copy, 40)
    remembered = book.signed.note
    for each, entries in ((book, [*FIRST, *SECOND]), (copy, [*FIRST, *THIRD, *SECOND])):
        each.close()
        check_log(each.layout.data, entries, len(entries))
    witness.close()
    verify_book(data / "book", key, remembered=[remembered])
    with pytest.raises(VerificationError):
        verify_book(clone / "book", key, remembered=[remembered])


def cosign(witness: Cosigner, book: Book, old_size: int) -> None:
    """Has the newest checkpoint of a book cosigned, which continues what the witness knows."""
    proof = book.consistency_proof(old_size) if 0 < old_size else []
    witness.add_checkpoint(submission(old_size, proof, book.signed.note), 1_800_000_000)


def test_an_older_copy_of_the_whole_directory(memory_path: Path) -> None:
    """Put back whole it starts, since nothing in it says otherwise; who remembers a checkpoint finds out.

    Put back in part, with or without its checkpoint database, it is refused; but where the log still has all that is
    newer, nothing is lost, and the same is published again.
    """
    data, old = memory_path / "data", memory_path / "old"
    book = open_book(data)
    book.append_group(FIRST)
    publisher(book).publish_now()
    book.close()
    shutil.copytree(data, old)
    book = open_book(data)
    book.append_group(SECOND)
    publisher(book).publish_now()
    remembered, key = book.signed.note, book.key.verifier
    book.close()

    for parts in PARTS:
        mixed = memory_path / "-".join(parts)
        shutil.copytree(data, mixed)
        for part in parts:
            remove(mixed / part)
            copy(old / part, mixed / part)
        with pytest.raises(BookRefusedError):
            open_book(mixed)
    for part in ("checkpoints.db", "book"):
        remove(data / part)
        copy(old / part, data / part)
    book = open_book(data)
    assert remembered.split(b"\n\n")[0] == publisher(book).publish_now().note.split(b"\n\n")[0]
    book.close()
    check_log(data, [*FIRST, *SECOND], 40)
    book = open_book(old)
    book.append_group(THIRD)
    publisher(book).publish_now()
    book.close()
    with pytest.raises(VerificationError):
        verify_book(old / "book", key, remembered=[remembered])


def remove(path: Path) -> None:
    """Removes a file or a folder."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def copy(source: Path, target: Path) -> None:
    """Copies a file or a folder."""
    shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target)
