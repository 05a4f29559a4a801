"""Books for the tests: small limits, file calls with hooks, and the checker that re-reads everything."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

from tests import rfc6962

from gatebook.audit.book import Book
from gatebook.audit.files import Files
from gatebook.audit.limits import BookLimits
from gatebook.audit.publish import Publisher
from gatebook.audit.verify import Report, verify_book
from gatebook.audit.verify_copy import Copy
from gatebook.tlog.keys import VerifierKey
from gatebook.tlog.merkle import Frontier

ORIGIN = "gatebook.test/book"
LIMITS = BookLimits(segment_bytes=16_384, group_entries_max=64, group_bytes_max=8_192)
"""Segments so small that a test goes through many."""


class UnsyncedFiles(Files):
    """A file system that forgets to sync, for tests of what is written and not of when."""

    def sync_content(self, descriptor: int) -> None:
        """Does nothing."""

    def sync(self, descriptor: int) -> None:
        """Does nothing."""


def open_book(data: Path, *, files: Files | None = None, limits: BookLimits = LIMITS, create: bool = True) -> Book:
    """Opens a book with small limits."""
    return Book.open(data, origin=ORIGIN, files=files, limits=limits, create=create)


def unending() -> None:
    """Ends no process."""


def publisher(book: Book, on_failure: Callable[[], None] = unending) -> Publisher:
    """A publisher that works on demand only."""
    return Publisher(book, on_failure=on_failure)


def some_entries(seed: int, count: int, bytes_max: int = 60) -> list[bytes]:
    """Entries that differ."""
    dice = random.Random(seed)
    return [dice.randbytes(dice.randrange(1, bytes_max)) for _ in range(count)]


def key_of(data: Path) -> VerifierKey:
    """The verifier key of a book."""
    return VerifierKey.parse((data / "book" / "vkey").read_text("utf-8"))


def check_log(data: Path, entries: Sequence[bytes], published: int, *, meaning: bool = False) -> Report:
    """Re-reads a whole data directory from disk and checks that it holds these entries, so many of them signed.

    Roots and leaves are computed here apart from the code under test. With `meaning` they are entries of a service,
    which say of each other and of people what is true.
    """
    key = key_of(data)
    said = Copy.at(data).meaning(key.name) if meaning else None
    report = verify_book(data / "book", key, wal=data / "wal", meaning=said)
    frontier = Frontier()
    for entry in entries[:published]:
        frontier.append(sha256(b"\x00" + entry).digest())
    assert (published, frontier.root()) == (report.size, report.root)
    assert rfc6962.mth(entries[:published]) == report.root
    assert len(entries) == report.size + report.unsigned_entries
    return report
