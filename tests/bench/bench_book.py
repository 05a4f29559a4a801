"""Measures the book: entries per second through the writer, group sizes, sync, publishing, verification.

Prints a table for a disk and one for a memory file system where there is one. Entries have 300
bytes. The machine's speed swings: compare rows of one run.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import uvloop
from tests.bench.measure import places, show

from gatebook.audit.book import Book
from gatebook.audit.files import Files
from gatebook.audit.publish import Publisher
from gatebook.audit.verify import verify_book
from gatebook.audit.writer import BookWriter
from gatebook.tlog.keys import VerifierKey

ORIGIN = "gatebook.test/book"
ENTRY_BYTES = 300
ENTRIES = 50_000
SECONDS = 1.0
LOADS = [(1, 1), (16, 1), (64, 1), (256, 1), (4, 50), (16, 50), (4, 1_000)]
"""Calls in flight, and entries in each."""


class TimedFiles(Files):
    """The file system, with a clock on each content sync."""

    def __init__(self) -> None:
        """Begins with no measurement."""
        self.sync_seconds: list[float] = []

    def sync_content(self, descriptor: int) -> None:
        """Syncs, and takes the time."""
        start = time.perf_counter()
        super().sync_content(descriptor)
        self.sync_seconds.append(time.perf_counter() - start)


async def load(data: Path, calls: int, entries_in_call: int, *, publish: bool) -> tuple[float, float, float, float]:
    """Returns entries per second, entries per sync, median sync and p99 of a call, in microseconds."""
    files = TimedFiles()
    book = Book.open(data, origin=ORIGIN, files=files)
    writer, publisher = BookWriter(book), Publisher(book)
    writer.start()
    if publish:
        publisher.start()
    entries = [os.urandom(ENTRY_BYTES) for _ in range(entries_in_call)]
    latencies: list[float] = []
    end = time.perf_counter() + SECONDS

    async def call() -> None:
        while (begun := time.perf_counter()) < end:
            await writer.submit(entries)
            latencies.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(calls)))
    seconds = time.perf_counter() - begun
    await writer.close()
    if publish:
        publisher.close()
    size, syncs = book.size, len(files.sync_seconds)
    book.close()
    p99 = statistics.quantiles(latencies, n=100)[-1]
    return size / seconds, size / syncs, statistics.median(files.sync_seconds) * 1e6, p99 * 1e6


def rows(folder: Path) -> Iterator[tuple[str, ...]]:
    """Measures one file system."""
    for publish in (False, True):
        for calls, entries in LOADS:
            with tempfile.TemporaryDirectory(dir=folder) as data:
                rate, grouped, sync, p99 = uvloop.run(load(Path(data), calls, entries, publish=publish))
            name = f"{calls} calls of {entries}" + (", publishing" if publish else "")
            yield name, f"{rate:,.0f}", f"{grouped:,.1f}", f"{sync:,.0f}", f"{p99:,.0f}"
    with tempfile.TemporaryDirectory(dir=folder) as data:
        yield from life(Path(data))


def life(data: Path) -> Iterator[tuple[str, ...]]:
    """Measures publishing, verification and start of one book."""
    book = Book.open(data, origin=ORIGIN)
    for _ in range(ENTRIES // 1_000):
        book.append_group([os.urandom(ENTRY_BYTES) for _ in range(1_000)])
    times = [time.perf_counter()]
    Publisher(book).publish_now()
    times.append(time.perf_counter())
    book.append_group([b"one more"])
    times.append(time.perf_counter())
    Publisher(book).publish_now()
    times.append(time.perf_counter())
    book.close()
    key = VerifierKey.parse((data / "book" / "vkey").read_text("utf-8"))
    times.append(time.perf_counter())
    verify_book(data / "book", key)
    times.append(time.perf_counter())
    Book.open(data, origin=ORIGIN).close()
    times.append(time.perf_counter())
    spent = [after - before for before, after in pairwise(times)]
    yield f"publish {ENTRIES:,} entries", f"{ENTRIES / spent[0]:,.0f}", "", "", ""
    yield "publish one entry", "", "", "", f"{spent[2] * 1e6:,.0f}"
    yield f"verify {ENTRIES:,} entries", f"{ENTRIES / spent[4]:,.0f}", "", "", ""
    yield "start", "", "", "", f"{spent[5] * 1e6:,.0f}"


def main() -> None:
    """Prints a table for each file system."""
    with places() as found:
        for name, folder in found.items():
            header = ("what", "entries/s", "entries/sync", "sync us", "p99 us")
            show(f"The book on {name}", header, list(rows(folder)), "bench_book")


if __name__ == "__main__":
    main()
