"""The writer: many calls, one thread, one sync for all that wait.

Owns the way from the event loop to the book and back, and promises:

1. The entries of one call stand together, in order. A call is answered when all are durable.
2. All calls that wait share one group and one `fdatasync`; a call that comes alone waits for nobody.
3. What waits is bounded by count and bytes. More is refused at once, and nothing of it is written.
4. The calls of a group are answered with one wake-up of the event loop, and those of one turn of the event
   loop wake the thread once, at its end.
5. Where there is no space, the calls fail and the writer goes on. After a failed write or sync all
   waiting calls fail, and then the process ends with `EXIT_BOOK_FAILED`: what the page cache shows
   after that is not what the disk holds, and only a new start finds out.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import structlog

from gatebook.audit.book import Appended, Book
from gatebook.audit.segment import RECORD_BYTES, TRAILER_BYTES
from gatebook.errors import (
    BookFailedError,
    BookUnavailableError,
    DrainingError,
    GatebookError,
    LimitExceededError,
    OverloadedError,
)
from gatebook.log import flush_log
from gatebook.tlog.tiles import ENTRY_BYTES_MAX

EXIT_BOOK_FAILED = 74
"""The exit code after a failed write or sync of the book (EX_IOERR of sysexits)."""

_ANSWER_SECONDS_MAX = 2.0
_FLUSH_SECONDS = 0.2


@dataclass(slots=True, eq=False)
class _Call:
    """Entries that wait for the writer, and who waits for them."""

    entries: Sequence[bytes]
    size_bytes: int
    future: asyncio.Future[Appended]


def tell_failure(failure: str) -> None:
    """Logs why the book is not written any more, and waits for a moment until the line is out."""
    structlog.get_logger("gatebook.audit").error("book failed", error=failure)
    flush_log()


def end_process() -> None:
    """Ends the process at once: nothing that runs afterwards may touch the book."""
    os._exit(EXIT_BOOK_FAILED)


class BookWriter:
    """Appends to a book for one event loop."""

    def __init__(self, book: Book, *, on_failure: Callable[[], None] = end_process) -> None:
        """Takes an open book, and what ends the process."""
        self._book = book
        self._limits = book.limits
        self._on_failure = on_failure
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._submitted: list[_Call] = []  # in this turn of the event loop
        self._held: _Call | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="book-writer", daemon=True)
        self._closing = False
        self._waiting_entries = 0  # these two belong to the event loop
        self._waiting_bytes = 0
        self._moved_time = 0.0  # when something was answered, or began to wait where nothing did

    def start(self) -> None:
        """Begins to write, for the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def waiting_entries(self) -> int:
        """Entries handed in and not yet answered."""
        return self._waiting_entries

    @property
    def stuck_seconds(self) -> float:
        """How long nothing was answered though something waits; 0 where nothing does."""
        return time.monotonic() - self._moved_time if self._waiting_entries else 0.0

    def submit(self, entries: Sequence[bytes]) -> asyncio.Future[Appended]:
        """Hands in entries that belong together, and returns the future of their places.

        Entries that fit one group are durable all or none. The future raises BookUnavailableError
        where they are not, or not all, in the book, and BookFailedError where nobody knows.
        Cancelling it does not take them back.

        Raises:
            LimitExceededError: an entry is empty or too large, or there are too many.
            OverloadedError: too many wait already.
            DrainingError: the writer is closing.
            BookUnavailableError: the book cannot be written now.
        """
        if self._loop is None:
            raise RuntimeError
        size_bytes = self._measure(entries)
        if self._closing:
            raise DrainingError("the book is closing")
        if trouble := self._book.trouble:
            raise BookUnavailableError(trouble)
        limits = self._limits
        if (
            self._waiting_entries + len(entries) > limits.waiting_entries_max
            or self._waiting_bytes + size_bytes > limits.waiting_bytes_max
        ):
            raise OverloadedError("too many entries wait for the book")
        if not self._waiting_entries:
            self._moved_time = time.monotonic()
        self._waiting_entries += len(entries)
        self._waiting_bytes += size_bytes
        call = _Call(entries, size_bytes, self._loop.create_future())
        if not self._submitted:
            self._loop.call_soon(self._hand_over)
        self._submitted.append(call)
        return call.future

    def _hand_over(self) -> None:
        calls, self._submitted = self._submitted, []
        for call in calls:
            self._queue.put(call)

    def _measure(self, entries: Sequence[bytes]) -> int:
        """Returns how many bytes the records of the entries take."""
        limits = self._limits
        if not 0 < len(entries) <= limits.waiting_entries_max:
            raise LimitExceededError(f"a call appends 1 to {limits.waiting_entries_max} entries, not {len(entries)}")
        lengths = [len(entry) for entry in entries]
        if min(lengths) == 0 or max(lengths) > ENTRY_BYTES_MAX:
            raise LimitExceededError(f"an entry has 1 to {ENTRY_BYTES_MAX} bytes")
        size_bytes = sum(lengths) + RECORD_BYTES * len(lengths)
        if size_bytes > limits.waiting_bytes_max:
            raise LimitExceededError(f"a call appends at most {limits.waiting_bytes_max} bytes, not {size_bytes}")
        return size_bytes

    async def close(self) -> None:
        """Writes what waits, answers it, and ends the thread. More is refused from now on."""
        if not self._closing:
            self._closing = True
            self._hand_over()
            self._queue.put(None)
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join)
        # The last answers were put into the loop before the thread ended, so they come before this.
        await asyncio.sleep(0)

    def _run(self) -> None:
        calls: list[_Call] = []
        ended = False
        try:
            while not ended:
                calls, last = self._take()
                ended = last
                if calls and not self._write(calls):
                    ended = True
        finally:
            # INVARIANT: nobody waits for a writer that is gone, even if a bug has ended it.
            if not ended:
                error = BookFailedError("the writer has ended")
                self._book.mark_failed(error.message)
                self._fail(calls, error)

    def _take(self) -> tuple[list[_Call], bool]:
        """Waits for a call and returns it with all that wait behind it, as far as a group reaches."""
        limits = self._limits
        calls: list[_Call] = []
        entries, size_bytes = 0, TRAILER_BYTES
        call, self._held = self._held or self._queue.get(), None
        while call is not None:
            entries += len(call.entries)
            size_bytes += call.size_bytes
            if calls and (entries > limits.group_entries_max or size_bytes > limits.group_bytes_max):
                self._held = call
                return calls, False
            calls.append(call)
            try:
                call = self._queue.get_nowait()
            except Empty:
                return calls, False
        return calls, True

    def _write(self, calls: list[_Call]) -> bool:
        """Writes one group and answers its calls; returns whether the writer goes on."""
        entries = calls[0].entries if len(calls) == 1 else [entry for call in calls for entry in call.entries]
        try:
            appended = self._append(entries)
        except BookFailedError as err:
            self._fail(calls, err)
            return False
        except GatebookError as err:
            self._wake(self._reject, calls, err)
        else:
            self._wake(self._answer, calls, appended)
        return True

    def _append(self, entries: Sequence[bytes]) -> Appended:
        """Appends entries: one group, except for a single call that does not fit one."""
        groups = [self._book.append_group(group) for group in self._groups(entries)]
        if len(groups) == 1:
            return groups[0]
        return Appended(groups[0].first_index, [leaf for group in groups for leaf in group.leaf_hashes])

    def _groups(self, entries: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
        limits = self._limits
        start, size_bytes = 0, TRAILER_BYTES
        for at, entry in enumerate(entries):
            size_bytes += RECORD_BYTES + len(entry)
            if at > start and (size_bytes > limits.group_bytes_max or at - start == limits.group_entries_max):
                yield entries[start:at]
                start, size_bytes = at, TRAILER_BYTES + RECORD_BYTES + len(entry)
        yield entries[start:] if start else entries

    def _answer(self, calls: list[_Call], appended: Appended) -> None:
        offset = 0
        for call in calls:
            end = offset + len(call.entries)
            if not call.future.done():
                leaves = appended.leaf_hashes if len(calls) == 1 else appended.leaf_hashes[offset:end]
                call.future.set_result(Appended(appended.first_index + offset, leaves))
            offset = end
        self._let_go(calls)

    def _reject(self, calls: list[_Call], error: GatebookError) -> None:
        for call in calls:
            if not call.future.done():
                call.future.set_exception(error)
        self._let_go(calls)

    def _let_go(self, calls: list[_Call]) -> None:
        self._moved_time = time.monotonic()
        for call in calls:
            self._waiting_entries -= len(call.entries)
            self._waiting_bytes -= call.size_bytes

    def _fail(self, calls: list[_Call], error: BookFailedError) -> None:
        answered = threading.Event()
        self._wake(self._reject_all, calls, error, answered)
        tell_failure(error.message)
        answered.wait(_ANSWER_SECONDS_MAX)
        self._on_failure()

    def _reject_all(self, calls: list[_Call], error: BookFailedError, answered: threading.Event) -> None:
        """Fails what waits, on the event loop, so that no call slips in behind."""
        self._closing = True
        if self._held is not None:
            calls.append(self._held)
        self._hand_over()
        while not self._queue.empty():
            call = self._queue.get_nowait()
            if call is not None:
                calls.append(call)
        self._reject(calls, error)
        # The calls that wait for these futures get a moment to send their answers.
        asyncio.get_running_loop().call_later(_FLUSH_SECONDS, answered.set)

    def _wake(self, answer: Callable[..., None], *args: object) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(answer, *args)
