"""The end of a book is copied while it is written: what the copy may and may not show."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.books import open_book, publisher

from gatebook.audit.opening import Layout
from gatebook.backup import tail
from gatebook.backup.take import take_backup
from gatebook.errors import BookUnavailableError

PAGE = tail._PAGE
PAGES = 6


@pytest.mark.parametrize("moment", range(1, PAGES + 1))
def test_whoever_sees_a_group_also_sees_those_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """At whichever page of the copy two groups are written, one after the other, the second is never seen alone."""
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(b"o" * PAGE * PAGES)
    copied, write = 0, os.pwrite

    def copied_one(descriptor: int, page: bytes, offset: int) -> int:
        nonlocal copied
        copied += 1
        if copied == moment:
            with source.open("r+b") as file:
                for number, group in ((1, b"A"), (4, b"B")):
                    file.seek(number * PAGE)
                    file.write(group * PAGE)
                    file.flush()
        return write(descriptor, page, offset)

    monkeypatch.setattr(os, "pwrite", copied_one)
    with source.open("rb") as original, copy.open("wb") as target:
        tail._copy_backwards(original.fileno(), target.fileno(), PAGE * PAGES)

    found = copy.read_bytes()
    assert PAGES == copied
    assert found[4 * PAGE : 4 * PAGE + 1] == b"o" or found[PAGE : PAGE + 1] == b"A"


def test_a_copy_across_a_publication_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is copied while a checkpoint is published is not used: segments may have gone meanwhile."""
    book = open_book(tmp_path / "data")
    book.append_group([b"first"])
    publish, copy, copies = publisher(book), tail._copy_segments, 0

    def copy_and_publish(source: Path, target: Path) -> None:
        nonlocal copies
        copies += 1
        copy(source, target)
        if copies <= 3:
            book.append_group([b"entry %d" % copies])
            publish.publish_now()

    monkeypatch.setattr(tail, "_copy_segments", copy_and_publish)
    monkeypatch.setattr(tail, "_PAUSE_SECONDS", 0)
    taken = take_backup(tmp_path / "data", tmp_path / "b", keys=False, progress=lambda _: lambda _done, _total: None)
    book.close()

    assert (4, 4, 4) == (copies, taken.size, taken.published_size)


def test_a_book_that_is_never_still_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a bounded number of attempts the command gives up and says so, and leaves nothing."""
    book = open_book(tmp_path / "data")
    publish, copy = publisher(book), tail._copy_segments

    def copy_and_publish(source: Path, target: Path) -> None:
        copy(source, target)
        book.append_group([b"more"])
        publish.publish_now()

    monkeypatch.setattr(tail, "_copy_segments", copy_and_publish)
    monkeypatch.setattr(tail, "_PAUSE_SECONDS", 0)
    with pytest.raises(BookUnavailableError, match="try again"):
        take_backup(tmp_path / "data", tmp_path / "b", keys=False, progress=lambda _: lambda _done, _total: None)
    assert tail.newest_checkpoint(Layout(tmp_path / "data"), book.key.verifier).checkpoint.size == tail.ATTEMPTS_MAX
    book.close()
    assert ["data"] == [path.name for path in tmp_path.iterdir()]
