"""The clerk: writes the tiles and the index of a book, in a process of its own.

Owns `<data>/index.db` and the tiles in `<data>/book/` while it is there, and nothing else: it reads the
write-ahead log and the people, holds no signing key, and signs nothing. Rules:

1. it does what it is told, one thing after the other; tiles go before the index, which grows in between;
2. it is one: whoever writes tiles holds a lock on the folder of files that have no name yet, so that the
   clerk of a service that was killed is gone before another begins;
3. it ends when who told it to begin is gone, in whatever way. What it had begun is written again by the next.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, SimpleQueue

from gatebook.audit.clerk_words import (
    Answer,
    Begin,
    Begun,
    Cover,
    Covered,
    Order,
    Tiled,
    Told,
    Working,
    decode_order,
    encode,
    hang_up,
    tell,
)
from gatebook.audit.files import Files
from gatebook.audit.index import COMMIT_ENTRIES_MAX, Index
from gatebook.audit.opening import Layout
from gatebook.audit.people import People
from gatebook.audit.tile_folder import TileFolder
from gatebook.audit.tiling import Tiling, write_tiles
from gatebook.errors import BookUnavailableError, GatebookError

LOCK_SECONDS_MAX = 30.0
"""How long the clerk of a service that was killed may take to end."""
LOCK_EVERY_SECONDS = 0.02
WORKING_EVERY_SECONDS = 1.0
END_SECONDS = 5.0
"""How long the work at hand may go on once nobody is there any more."""
FAILED = 1
BEHIND = 5
"""How far it stands back behind who decides where both want a processor (nice(2)): it still gets a quarter of it."""
PEOPLE_CACHED_MAX = 1_024
"""It opens what is sealed for strangers, and so needs next to nobody's key."""


class Published:
    """The published entries of a book, for the index."""

    def __init__(self, tiles: TileFolder, size: int) -> None:
        """Takes the tiles, and how many entries are published."""
        self._tiles = tiles
        self.size = size

    def read(self, start: int, end: int) -> list[bytes]:
        """Returns the bytes of entries, each checked."""
        return self._tiles.entries(start, end, self.size)

    def read_hashed(self, start: int, end: int) -> list[tuple[bytes, bytes]]:
        """Returns the bytes of entries behind their leaf hashes, each checked against it."""
        return self._tiles.hashed_entries(start, end, self.size)


class Clerk:
    """Does what it is told, in one thread."""

    def __init__(self, begin: Begin, connection: Connection, orders: SimpleQueue[Order | None]) -> None:
        """Takes whose clerk it is, where answers go, and the orders; None is the last one."""
        self._begin = begin
        self._connection = connection
        self._orders = orders
        self._layout = Layout(Path(begin.data))
        self._tiles = TileFolder(self._layout.book)
        self._published = Published(self._tiles, begin.published_size)
        self._index: Index | None = None
        self._people: People | None = None
        self._wanted = 0
        self._first = begin.first_index
        self._answered = time.monotonic()

    def work(self) -> None:
        """Works until the last order.

        Raises:
            OSError: nobody is there any more; or its folder cannot be had.
        """
        with sole_writer(self._layout.temporary):
            try:
                trouble = self._open()
                self._answer(Begun(self._size, trouble, self._indexed_first))
                while (order := self._next()) is not None:
                    self._do(order)
            finally:
                if self._index is not None:
                    self._index.close()
                if self._people is not None:
                    self._people.close()

    @property
    def _size(self) -> int:
        return self._index.size if self._index is not None else 0

    @property
    def _indexed_first(self) -> int:
        return self._index.first if self._index is not None else 0

    @property
    def _has_work(self) -> bool:
        return self._wanted > self._size or (self._index is not None and self._index.first < self._first)

    def _next(self) -> Order | None:
        """Returns the next order, and indexes until there is one."""
        while self._has_work:
            try:
                return self._orders.get_nowait()
            except Empty:
                self._cover()
        return self._orders.get()

    def _do(self, order: Order) -> None:
        if isinstance(order, Tiling):
            try:
                root = write_tiles(order, self._tiles, Files(), self._layout.temporary, self._tell_working)
            except (OSError, GatebookError) as err:
                self._answer(Tiled(b"", tell(err)))
            else:
                self._answer(Tiled(root, None))
        elif isinstance(order, Cover):
            self._published.size = max(self._published.size, order.size)
            self._wanted = order.size
            self._first = max(self._first, order.first_index)
            if not self._has_work:
                self._answer(Covered(self._size, None, self._indexed_first))

    def _cover(self) -> None:
        """Indexes as much as one transaction takes; where that fails, nothing more until it is asked for again."""
        trouble = self._open()
        if trouble is None and self._index is not None:
            try:
                self._index.forget_some(self._first)
                self._index.catch_up(
                    self._published, min(max(self._wanted, self._size), self._size + COMMIT_ENTRIES_MAX)
                )
            except OSError as err:
                trouble = Told(f"the book cannot be read to index it: {err.strerror}")
            except GatebookError as err:
                trouble = tell(err)
        if trouble is not None:
            self._wanted = self._first = 0
        self._answer(Covered(self._size, trouble, self._indexed_first))

    def _open(self) -> Told | None:
        """Opens the people and the index if they are not open; returns why not."""
        if self._index is None:
            data = self._layout.data
            try:
                if self._people is None:
                    self._people = People.open(data, read_only=True, cached_max=PEOPLE_CACHED_MAX)
                self._index = Index.open(
                    data / "index.db", self._published, self._people, self._begin.origin, self._begin.first_index
                )
            except GatebookError as err:
                return tell(err)
        return None

    def _tell_working(self) -> None:
        if time.monotonic() >= self._answered + WORKING_EVERY_SECONDS:
            self._answer(Working())

    def _answer(self, answer: Answer) -> None:
        self._answered = time.monotonic()
        self._connection.send_bytes(encode(answer))


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Holds the lock of whoever writes tiles, within the block.

    Raises:
        BookUnavailableError: somebody else does, and goes on with it.
        OSError: there is no such folder.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        until = time.monotonic() + LOCK_SECONDS_MAX
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise BookUnavailableError(f"another clerk writes tiles by way of `{folder}`: end it") from None
                time.sleep(LOCK_EVERY_SECONDS)
        yield
    finally:
        os.close(descriptor)


class Attending:
    """Takes orders from a connection, and has a clerk do them on a thread."""

    def __init__(self, connection: Connection) -> None:
        """Takes the connection to who gives orders."""
        self._connection = connection
        self._orders: SimpleQueue[Order | None] = SimpleQueue()
        self._failed = True

    def run(self, end_seconds: float) -> bool:
        """Works until nobody is there who gives orders; returns whether all work came to an end."""
        try:
            begin = decode_order(self._connection.recv_bytes())
        except (EOFError, OSError):
            return True  # they have gone before they said anything
        if not isinstance(begin, Begin):
            raise TypeError(begin)
        working = threading.Thread(target=self._work, args=(begin,), name="book-clerk-work", daemon=True)
        working.start()
        with contextlib.suppress(EOFError, OSError):
            while True:
                self._orders.put(decode_order(self._connection.recv_bytes()))
        self._orders.put(None)
        working.join(end_seconds)
        return not self._failed

    def _work(self, begin: Begin) -> None:
        try:
            # Who is not there any more is not answered.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                Clerk(begin, self._connection, self._orders).work()
            self._failed = False
        finally:
            # INVARIANT: a clerk whose work has ended is seen to be gone, even if a bug has ended it.
            hang_up(self._connection)


def main(descriptor: int) -> None:
    """Is the clerk at the other end of a socket: what a clerk's process does from its start."""
    with contextlib.suppress(OSError):  # where a sandbox does not allow it, it works on an equal footing
        os.nice(BEHIND)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with its service, which may still need it
    ended = Attending(Connection(descriptor)).run(END_SECONDS)
    # What still goes on then is written again by the next clerk.
    os._exit(0 if ended else FAILED)
