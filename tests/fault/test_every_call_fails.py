"""Each file call of a book's life fails in turn: nothing that was acknowledged is lost or changed."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest
from tests.books import check_log, open_book, publisher, some_entries
from tests.faulty_files import FailingFiles, PowerCutError, VolatileFiles

from gatebook.audit.book import Book
from gatebook.audit.files import Files
from gatebook.errors import BookUnavailableError

GROUPS = [some_entries(seed, 1 + seed * 7 % 40, 400) for seed in range(9)]


def live(data: Path, files: Files, acknowledged: list[bytes]) -> None:
    """Opens a book, appends and publishes, and closes it; files fall as the file system wills."""
    book = open_book(data, files=files)
    try:
        publish = publisher(book)
        for number, group in enumerate(GROUPS):
            book.append_group(group)
            acknowledged += group
            if number % 3 == 1:
                publish.publish_now()
        publish.close()
    finally:
        book.close()


def require_nothing_lost(data: Path, acknowledged: list[bytes]) -> None:
    """Opens the book as after a restart, and checks, extends and checks it."""
    book = open_book(data)
    found = book.read(0, book.size)
    assert acknowledged == found[: len(acknowledged)]
    attempted = [entry for group in GROUPS for entry in group]
    assert found == attempted[: len(found)]
    last = b"one more"
    book.append_group([last])
    publisher(book).publish_now()
    signed = book.signed.checkpoint.size
    book.close()
    check_log(data, [*found, last], signed)


def count_calls(data: Path) -> int:
    """How many file calls the life of a book makes."""
    files = FailingFiles()
    live(data, files, [])
    return files.calls


def inherit(data: Path) -> None:
    """Gives the book a past, so that it is opened and not made."""
    book: Book = open_book(data)
    book.close()


@pytest.mark.parametrize("done", [False, True], ids=["not-done", "done"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
def test_an_error_at_each_call(memory_path: Path, code: int, done: bool) -> None:
    """Whatever call fails, and whether or not its work was done, the next start finds all that was acknowledged."""
    calls = count_calls(memory_path / "dry")
    assert calls > 100
    for at in range(1, calls + 1):
        data = memory_path / f"{at}"
        acknowledged: list[bytes] = []
        with suppress(BookUnavailableError):
            live(data, FailingFiles(at, OSError(code, os.strerror(code)), done=done), acknowledged)
        require_nothing_lost(data, acknowledged)


@pytest.mark.parametrize("seed", range(3))
def test_a_power_cut_at_each_call(memory_path: Path, seed: int) -> None:
    """Wherever the power goes, and whatever the disk's cache loses, all that was acknowledged is there."""
    dry = VolatileFiles()
    live(memory_path / "dry", dry, [])
    for at in range(1 + seed, dry.calls + 1, 3):
        data = memory_path / f"{at}"
        acknowledged: list[bytes] = []
        with suppress(PowerCutError):
            live(data, VolatileFiles(at, seed=1_000 * seed + at), acknowledged)
        require_nothing_lost(data, acknowledged)
