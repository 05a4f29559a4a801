"""The publisher: turns what is durable into what is provable, about once a second.

Owns the way from the write-ahead log to a signed checkpoint, in this order and no other:

1. have the new entries, and those of the unfinished bundle, read back from disk, leaves and root recomputed and
   compared with the writer's root;
2. have bundles and tiles written, durably;
3. compare the root again, and sign. It signs no size that a completed sync does not cover;
4. store the checkpoint by compare-and-swap: from here on it is the newest, whatever happens;
5. replace the published checkpoint;
6. tell the listeners, and let go of segments that it covers.

The first two steps are done here or by the book's clerk (`clerking`). Where space, memory or file
descriptors are short, clerks end one after the other, or nobody has signed for a minute, the book stops being
written until publishing works again, which is tried each second: every file is then written and synced anew.
After a failed sync, or where disk and memory differ, it stops for good; that is logged, and the process ends
or waits to be ended.
"""

from __future__ import annotations

import contextlib
import errno
import sqlite3
import threading
import time
from collections.abc import Callable

import structlog

from gatebook.audit.book import Book, Head
from gatebook.audit.checkpoints import Signed
from gatebook.audit.opening import sign
from gatebook.audit.tiling import Tiling, WriteTiles, write_tiles
from gatebook.audit.writer import end_process, tell_failure
from gatebook.errors import (
    BookCorruptError,
    BookFailedError,
    BookRefusedError,
    BookUnavailableError,
    ClerkAwayError,
    ClerkSilentError,
    GatebookError,
    SignerAwayError,
)

Listener = Callable[[int, int], None]
"""Is told the old and the new published size, in the thread that published. Must be quick and not raise."""

_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ENOSPC, errno.EDQUOT})
_SHORT_IN_SQLITE = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY})
_PRIMARY = 0xFF
"""The part of an SQLite error code that is its kind; the rest is its detail."""
HASTENED_SECONDS = 0.1
"""How soon after a publication the next one begins that somebody waits for."""
UNSIGNED_SECONDS_MAX = 60.0
"""How long entries are written though nobody signs for them."""
AWAY_MAX = 5
"""How often in a row who writes the tiles may be away before nothing more is written that nobody publishes."""


class Publisher:
    """Publishes a book, in a thread of its own and on demand."""

    def __init__(
        self,
        book: Book,
        *,
        interval_seconds: float = 1.0,
        clock_ns: Callable[[], int] = time.time_ns,
        on_failure: Callable[[], None] = end_process,
        write_tiles: WriteTiles | None = None,
    ) -> None:
        """Takes an open book, what ends the process after a failed sync, and who writes tiles if not this thread."""
        self._book = book
        self._interval_seconds = interval_seconds
        self._clock_ns = clock_ns
        self._on_failure = on_failure
        self._write_tiles = write_tiles or self._write_here
        self._away = 0
        self._unsigned_since = 0.0
        self._listeners: list[Listener] = []
        self._turn = threading.Lock()
        self._newest = book.signed  # as stored; ahead of the book's own until it is announced
        self._stopping = threading.Event()
        self._hastened = False
        self._thread = threading.Thread(target=self._run, name="book-publisher", daemon=True)

    def add_listener(self, listener: Listener) -> None:
        """Has a listener told of each publication from now on."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Begins to publish."""
        self._thread.start()

    def hasten(self) -> None:
        """Has what is durable published soon, since somebody waits for it. Any thread may call it, however often."""
        self._hastened = True
        self._book.wal.space_taken.set()

    def close(self) -> None:
        """Ends the thread and publishes what is left, once the writer has stopped.

        Raises:
            BookUnavailableError: not everything is published; the next start does it.
        """
        self._stopping.set()
        self._book.wal.space_taken.set()
        if self._thread.is_alive():
            self._thread.join()
        self.publish_now()

    def publish_now(self) -> Signed:
        """Publishes all that is durable by now, and returns the newest checkpoint. Any thread may call it.

        Raises:
            BookUnavailableError: it could not be published.
            BookCorruptError: what is on disk is not what was written.
        """
        with self._turn:
            if failure := self._book.failure:
                raise BookFailedError(failure)
            try:
                self._publish()
            except (BookCorruptError, BookRefusedError) as err:
                self._fail(err.message)
                raise
            except SignerAwayError as err:
                self._note_unsigned(err)
                raise
            except ClerkAwayError as err:
                self._away += AWAY_MAX if isinstance(err, ClerkSilentError) else 1  # which took long enough
                if self._away >= AWAY_MAX:
                    raise self._trouble(err.message, passing=True) from err
                raise
            except OSError as err:
                raise self._trouble(err.strerror or str(err), passing=err.errno in _SHORT) from err
            except sqlite3.Error as err:
                code = getattr(err, "sqlite_errorcode", 0)
                raise self._trouble(str(err), passing=code & _PRIMARY in _SHORT_IN_SQLITE) from err
            self._away = 0
            self._note_signed()
            return self._newest

    def _note_unsigned(self, error: SignerAwayError) -> None:
        """Lets entries be written while nothing is signed, for a while."""
        if not self._unsigned_since:
            self._unsigned_since = time.monotonic()
            structlog.get_logger("gatebook.audit").warning("signer away", error=error.message)
        if time.monotonic() - self._unsigned_since > UNSIGNED_SECONDS_MAX:
            raise self._trouble(error.message, passing=True) from error

    def _note_signed(self) -> None:
        if self._unsigned_since:
            self._unsigned_since = 0.0
            structlog.get_logger("gatebook.audit").info("signer back")

    def show_cosigned(self, signed: Signed) -> None:
        """Shows the newest checkpoint with the cosignatures of witnesses; an older one is let be.

        Raises:
            BookUnavailableError: it cannot be written; the checkpoint stands without.
        """
        book, files = self._book, self._book.files
        with self._turn:
            if (
                book.failure
                or book.signed.checkpoint != signed.checkpoint
                or self._newest.checkpoint != signed.checkpoint
            ):
                return
            try:
                files.replace_content(book.layout.checkpoint, signed.note, book.layout.temporary / "checkpoint")
                files.sync_directory(book.layout.book)
            except OSError as err:
                raise BookUnavailableError(f"cannot show cosignatures: {err.strerror}") from err
            self._newest = signed
            book.mark_published(signed)

    def _publish(self) -> None:
        book = self._book
        old = max(self._newest, book.signed, key=lambda signed: signed.checkpoint.size)
        # INVARIANT: the head is set after the sync of its last group, so its size is durable.
        head = book.head
        if head.size > old.checkpoint.size:
            self._require_written(old.checkpoint.size, head)
            signed = sign(book.key, head.size, head.root, max(self._clock_ns(), old.time_ns))
            book.checkpoints.advance(old.checkpoint, signed)  # the commit point of the checkpoint
            old = signed
        self._newest = old
        self._announce()

    def _announce(self) -> None:
        """Shows the newest checkpoint; what failed here the last time is done now."""
        book, newest = self._book, self._newest
        old_size, new_size = book.signed.checkpoint.size, newest.checkpoint.size
        if new_size > old_size:
            layout, files = book.layout, book.files
            files.replace_content(layout.checkpoint, newest.note, layout.temporary / "checkpoint")
            files.sync_directory(layout.book)
            book.mark_published(newest)
            for listener in self._listeners:
                listener(old_size, new_size)
            book.wal.retire(new_size)
        book.mark_publish_trouble("")

    def _require_written(self, old_size: int, head: Head) -> None:
        """Has the tiles written, and compares the root of what is on disk with that of what was written."""
        runs = self._book.wal.runs(old_size, head.size)
        if self._write_tiles(Tiling(old_size, head.size, head.root, runs)) != head.root:
            raise BookCorruptError(f"the tiles from {old_size} on were written for another root", old_size)

    def _write_here(self, tiling: Tiling) -> bytes:
        book = self._book
        return write_tiles(tiling, book.tiles, book.files, book.layout.temporary)

    def _trouble(self, message: str, *, passing: bool) -> BookUnavailableError:
        """Stops writing: until publishing works again, or for good."""
        trouble = f"cannot publish the book: {message}"
        if passing:
            self._book.mark_publish_trouble(trouble)
            return BookUnavailableError(trouble)
        self._fail(trouble)
        self._on_failure()
        return BookFailedError(trouble)

    def _fail(self, failure: str) -> None:
        self._book.mark_failed(failure)
        tell_failure(failure)

    def _run(self) -> None:
        try:
            while not self._stopped_within(self._interval_seconds) and not self._book.failure:
                self._cycle()
        finally:
            if not self._stopping.is_set() and not self._book.failure:
                self._fail("the publisher has ended")

    def _stopped_within(self, seconds: float) -> bool:
        """Waits, and meanwhile makes space as soon as some was taken; returns whether this is the end."""
        taken = self._book.wal.space_taken
        began = time.monotonic()
        while not self._stopping.is_set():
            until = began + (min(seconds, HASTENED_SECONDS) if self._hastened else seconds)
            if (left := until - time.monotonic()) <= 0:
                break
            if taken.wait(left):
                taken.clear()
                if not self._stopping.is_set() and not self._book.trouble:
                    self._make_space()
        self._hastened = False  # before the head is read: who hastens from here on is covered, or wakes the next turn
        return self._stopping.is_set()

    def _make_space(self) -> None:
        # Not lost: what cannot be made is asked for again, and refused, before the next group.
        with contextlib.suppress(GatebookError):
            self._book.wal.make_space()

    def _cycle(self) -> None:
        try:
            self.publish_now()
        except GatebookError:
            return  # not lost: the book knows its trouble, so that nothing is written and health shows it
        self._make_space()
