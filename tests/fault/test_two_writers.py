"""One book, one writer: whatever is done to the lock file, and whatever copies of the folder there are."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.books import check_log, open_book, publisher, some_entries

from gatebook.errors import BookRefusedError

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
