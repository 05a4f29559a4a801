"""Verification of the tiles of a copied book, from its leaves to its root.

Trusts nothing in the directory. Has ranges of entries verified, by several processes at once where that is
worth it, takes what they find in order and recomputes every tile above them. Memory holds one row of hashes
for each level and what a few ranges found, whatever the size of the book.

A verification may begin late: at a size whose root somebody vouches for. What lies before it is then not
read; the hashes at its right edge are, and count once they lead to that root.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path

from gatebook.audit.verify_entries import EntryJoin, EntryReport
from gatebook.audit.verify_range import (
    RANGE_ENTRIES,
    Asked,
    Failed,
    Found,
    Meaning,
    RangeVerifier,
    check_row,
    read_tile,
)
from gatebook.errors import BookUnavailableError, VerificationError
from gatebook.tlog.merkle import EMPTY_ROOT, fold, maximal_subtrees
from gatebook.tlog.tiles import ENTRIES, TILE_WIDTH, Tile, hashes_root, levels, split_tile, subtree_in_tile, tile_count

_FIRST_LEVEL = 2
"""The rows from here on are made here; those below belong to ranges."""
_WAITING_PER_JOB = 2


class TileVerifier:
    """One verification of one directory."""

    def __init__(
        self,
        book: Path,
        size: int,
        sizes: Iterable[int],
        promised: Mapping[int, bytes],
        *,
        meaning: Meaning | None = None,
        vouched_size: int = 0,
    ) -> None:
        """Takes the signed size, sizes at which roots are wanted, and leaf hashes promised at indexes.

        Where somebody vouches for a size, what lies before it is not read, but for the rest of its last bundle.
        """
        self._book = book
        self._size = size
        self.first_index = max(vouched_size - 1, 0) // TILE_WIDTH * TILE_WIDTH
        """The first entry that is read: at least one that is vouched for, which the first new one must continue."""
        self._wanted = sorted({each for each in sizes if self.first_index < each <= size} | {size})
        self._promised: dict[int, dict[int, bytes]] = {}  # by the range that the index is in
        for index, leaf in promised.items():
            self._promised.setdefault(index // RANGE_ENTRIES, {})[index] = leaf
        self._meaning = meaning
        self._rows: list[list[bytes]] = []
        erased = frozenset[bytes]() if meaning is None else meaning.erased
        self._entries = EntryJoin(whole=not self.first_index, erased=erased)
        self.roots = {0: EMPTY_ROOT}
        """The root at each wanted size that is reached by what was read."""
        self.entry_bytes = 0
        self.begins = self.first_index
        """The first entry that is there: the bundles before it are missing, and an entry must say why."""

    def verify(self, progress: Callable[[int, int], None], jobs: int = 1) -> None:
        """Checks every bundle and tile that the size needs, in so many processes.

        Raises:
            VerificationError: one is missing or wrong; `index` is the first entry concerned.
            BookRefusedError: the store of people cannot be opened.
            BookUnavailableError: a process ended before it was done.
        """
        self._rows = self._vouched_rows()
        with closing(self._verified(list(self._ranges()), jobs)) as found_ranges:
            for asked, found in found_ranges:
                if isinstance(found, Failed):
                    raise VerificationError(found.message, found.index)
                self._take(asked, found)
                progress(asked.end, self._size)
        for level, row in enumerate(self._rows, _FIRST_LEVEL):
            if row:
                check_row(self._book, level, self._number(level, self._size), row)

    def entry_report(self) -> EntryReport:
        """Returns what the entries say.

        Raises:
            VerificationError: one breaks a rule; `index` is the first that does.
        """
        return self._entries.report(self.begins if self.begins > self.first_index else 0)

    def _ranges(self) -> Iterator[Asked]:
        start = self.first_index
        while start < self._size:
            end = min((start // RANGE_ENTRIES + 1) * RANGE_ENTRIES, self._size)
            sizes = tuple(size for size in self._wanted if start < size <= end and size % RANGE_ENTRIES)
            promised = self._promised.get(start // RANGE_ENTRIES, {})
            yield Asked(start, end, sizes, {at: leaf for at, leaf in promised.items() if start <= at < end})
            start = end

    def _verified(self, ranges: list[Asked], jobs: int) -> Generator[tuple[Asked, Found | Failed], None, None]:
        """Yields what is found in each range, in order."""
        jobs = min(jobs, len(ranges))
        if jobs > 1:
            yield from self._verified_apart(ranges, jobs)
            return
        with closing(RangeVerifier(self._book, self._meaning)) as verifier:
            for asked in ranges:
                yield asked, verifier.verify(asked)

    def _verified_apart(self, ranges: list[Asked], jobs: int) -> Generator[tuple[Asked, Found | Failed], None, None]:
        with closing(RangeVerifier(self._book, self._meaning)):
            pass  # what cannot be opened is said here, and not by a process that ends
        spawn = multiprocessing.get_context("spawn")
        arguments = (self._book, self._meaning)
        pool = ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_begin, initargs=arguments)
        waiting: deque[tuple[Asked, Future[Found | Failed]]] = deque()
        try:
            for asked in ranges:
                waiting.append((asked, pool.submit(_verify, asked)))
                if len(waiting) > jobs * _WAITING_PER_JOB:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        except BrokenProcessPool as err:
            raise BookUnavailableError("a process that verified entries ended: verify again with one job") from err
        finally:
            pool.shutdown(cancel_futures=True)

    def _take(self, asked: Asked, found: Found) -> None:
        self.entry_bytes += found.entry_bytes
        if found.begins > asked.start:
            if self.begins != asked.start:
                path = Tile(ENTRIES, asked.start // TILE_WIDTH).path
                raise VerificationError(f"`{path}` is missing", asked.start)
            self.begins = found.begins
        if found.part is not None:
            self._entries.add(found.part)
        for size in asked.sizes:
            self.roots[size] = fold([*self._edge(), *found.edges[size]])
        if asked.end % RANGE_ENTRIES == 0:
            self._add(found.root, asked.end)
            if asked.end in self._wanted:
                self.roots[asked.end] = fold(self._edge())

    def _add(self, value: bytes, size: int) -> None:
        """Adds the hash of a full range, and checks the tiles that are full with it."""
        level = _FIRST_LEVEL
        while True:
            if level - _FIRST_LEVEL == len(self._rows):
                self._rows.append([])
            row = self._rows[level - _FIRST_LEVEL]
            row.append(value)
            if len(row) < TILE_WIDTH:
                return
            check_row(self._book, level, self._number(level, size) - 1, row)
            value = hashes_root(row)
            self._rows[level - _FIRST_LEVEL] = []
            level += 1

    def _edge(self) -> list[bytes]:
        """Returns the maximal complete subtrees over the ranges taken so far, the largest first."""
        return [
            subtree_in_tile(row, level, number)
            for row in reversed(self._rows)
            for level, number in maximal_subtrees(len(row))
        ]

    def _vouched_rows(self) -> list[list[bytes]]:
        """Returns the hashes over ranges that are not read; the root of the vouched size shows whether they hold."""
        start = self.first_index // RANGE_ENTRIES * RANGE_ENTRIES
        return [self._vouched_row(level, start) for level in range(_FIRST_LEVEL, levels(start))]

    def _vouched_row(self, level: int, start: int) -> list[bytes]:
        number = self._number(level, start)
        width = tile_count(level, start) - number * TILE_WIDTH
        if not width:
            return []
        now = min(tile_count(level, self._size) - number * TILE_WIDTH, TILE_WIDTH)
        tile, content = read_tile(self._book, Tile(level, number, now))
        return split_tile(content, tile)[:width]

    @staticmethod
    def _number(level: int, size: int) -> int:
        """Returns the number of the tile of a level that the entry after a size belongs to."""
        return tile_count(level, size) // TILE_WIDTH


_verifier: RangeVerifier | None = None  # of this process; set once, by `_begin`


def _begin(book: Path, meaning: Meaning | None) -> None:
    global _verifier  # noqa: PLW0603  # a process of a pool has nowhere else to keep it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    _verifier = RangeVerifier(book, meaning)


def _verify(asked: Asked) -> Found | Failed:
    if _verifier is None:
        raise RuntimeError("a process of the pool was not begun")
    return _verifier.verify(asked)
