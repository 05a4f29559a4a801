"""Keeps the clerk of a book: starts it, hands it work, and starts it again when it ends.

Owns the process of the clerk and what is known of it. What it promises:

1. `write_tiles` returns or raises as if it had been done here, and is never done by two at once;
2. a clerk that ends by itself is started again, ever later as long as none gets anything done;
3. what is to be indexed is not forgotten with a clerk: the next one is told of it;
4. a clerk that has something to do and is not heard of is killed and followed by another, as if it had ended: what
   it had begun is written again. Where that one is silent too, who waits is told, and the book knows its trouble.

Any thread may call; answers come in on a thread of its own.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Protocol

import msgspec
import structlog

from gatebook.audit.catching_up import CatchingUp
from gatebook.audit.clerk_words import (
    Answer,
    Begin,
    Begun,
    Cover,
    Covered,
    Tiled,
    Told,
    Working,
    decode_answer,
    encode,
    hang_up,
)
from gatebook.audit.tiling import Tiling
from gatebook.errors import BookUnavailableError, ClerkAwayError, ClerkSilentError

UP_SECONDS_MAX = 10.0
"""How long work waits for a clerk that is being started."""
BEGIN_SECONDS_MAX = 60.0
"""How long the first clerk may take to begin, who may have to wait for one of a service that was killed."""
SILENT_SECONDS_MAX = 30.0
"""How long a clerk with something to do may say nothing: far more than one file, or one transaction, takes."""
LOOK_SECONDS = 1.0
PART_SECONDS_MAX = 10
"""How long the rest of a message that has begun may take, in either direction: it is short, and sent at once."""
ANSWER_BYTES_MAX = 1 << 16
COVER_SECONDS_MAX = 60.0
"""How long a read waits for the index."""
AGAIN_SECONDS = (0.0, 0.2, 1.0, 5.0, 15.0)
"""Until a clerk is started again, by how many have ended since one got something done."""
END_SECONDS = 10.0
PROGRAM = "import sys; sys.path[:] = sys.argv[3:]; from gatebook.audit.clerk import main; main(int(sys.argv[2]))"


class Process(Protocol):
    """A clerk at work, as `subprocess` and `threading` know it."""

    def end(self, seconds: float) -> int: ...  # noqa: D102  # waits for its end, and ends it when the time is over


class ClerkProcess:
    """A clerk in a process of its own."""

    def __init__(self, theirs: socket.socket) -> None:
        """Starts it, at this end of a pair of sockets.

        Raises:
            OSError: no process can be had.
        """
        number = theirs.fileno()
        command = [sys.executable, "-P", "-c", PROGRAM, "gatebook-clerk", str(number), *sys.path]
        self._process = subprocess.Popen(  # noqa: S603  # this program, and nothing from elsewhere
            command, pass_fds=(number,), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )

    def end(self, seconds: float) -> int:
        """Waits until it has ended, and kills it when the time is over; returns its exit code."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


class Clerking:
    """The clerk of one book, whoever it is at the time."""

    def __init__(
        self,
        begin: Callable[[], Begin],
        *,
        start: Callable[[socket.socket], Process] = ClerkProcess,
        on_begun: Callable[[], None] = lambda: None,
        on_grown: Callable[[], None] = lambda: None,
    ) -> None:
        """Takes what a new clerk is told first, and who is told when one has begun and when the index has grown."""
        self._begin = begin
        self._start = start
        self._on_begun = on_begun
        self._on_grown = on_grown
        self._turn = threading.Lock()  # of who has tiles written
        self._changed = threading.Condition()  # INVARIANT: held around each use of what follows
        self._line: Connection | None = None  # to the clerk, from its start on
        self._connection: Connection | None = None  # the same, once it has begun
        self._number = 0  # of clerks that have begun
        self._idle_ends = 0  # of clerks that ended since one got something done
        self._tiled: list[Tiled] = []  # the answer that is waited for, once it is there
        self._indexed = 0
        self._wanted = 0
        self._first = 0  # where the book begins, as far as the clerk is to be told
        self._indexed_first = 0  # where the index begins
        self._asked = 0  # of the clerk at work, so that no orders pile up before it
        self._misses = 0
        self._catching_up = CatchingUp()
        self._trouble: Told | None = None  # the last reason why nothing could be indexed
        self._heard = 0.0  # when something was last heard of the clerk, or it was given something to do
        self._tiling = False  # whether tiles are waited for
        self._silent = False  # whether the last clerk that ended was ended for its silence
        self._hasty = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="book-clerk", daemon=True)

    @property
    def indexed_size(self) -> int:
        """Returns how many entries the index covers, from entry 0 on."""
        return self._indexed

    @property
    def begun(self) -> int:
        """Returns how many clerks have begun: one, and one more for each that has ended by itself."""
        return self._number

    def open(self) -> None:
        """Starts the first clerk, and waits until it has begun.

        Raises:
            BookUnavailableError: none can be had, or it can keep no index.
        """
        self._thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self._number or self._idle_ends, BEGIN_SECONDS_MAX)
            trouble, begun = self._trouble, self._number
        if trouble is not None or not begun:
            self.close()
            raise BookUnavailableError(trouble.message if trouble is not None else "no clerk of the book begins")

    def hasten(self) -> None:
        """Has less patience from now on: the service is about to end."""
        self._hasty = True

    def close(self) -> None:
        """Ends the clerk."""
        with self._changed:
            self._closing = True
            if self._line is not None:
                hang_up(self._line)
            self._changed.notify_all()
        # Who waits for a disk that hangs ends once the disk answers, and does nothing more.
        self._thread.join(2 * END_SECONDS)

    def write_tiles(self, tiling: Tiling) -> bytes:
        """Has the tiles of a growth written, durably; returns the root that is on disk.

        Raises:
            ClerkAwayError: one clerk after the other ended meanwhile, or there is none; or was silent.
            BookCorruptError: an entry or a tile is not what was written.
            OSError: not everything is durable.
        """
        with self._turn:
            try:
                tiled = self._write_tiles(tiling)
            except ClerkAwayError:
                tiled = self._write_tiles(tiling)
        if tiled.trouble is not None:
            raise tiled.trouble.error()
        return tiled.root

    def _write_tiles(self, tiling: Tiling) -> Tiled:
        with self._changed:
            self._changed.wait_for(lambda: self._connection is not None or self._closing, UP_SECONDS_MAX)
            self._tiled.clear()
            number = self._number
            self._send(tiling)
            self._tiling = True
            self._changed.wait_for(lambda: self._tiled or self._connection is None or self._number > number)
            self._tiling = False
            if not self._tiled and self._silent:
                raise ClerkSilentError("the clerk of the book was silent and has been ended; another one is started")
            if not self._tiled:
                raise ClerkAwayError("the clerk of the book has ended; another one is started")
            return self._tiled.pop()

    def follow(self, size: int) -> None:
        """Has all entries before a size, which must be published, indexed; waits for nobody."""
        with self._changed:
            self._wanted = max(self._wanted, size)
            if self._wanted > self._asked or self._trouble is not None:
                self._ask()

    def cover(self, size: int) -> None:
        """Has all entries before a size, which must be published, indexed, and waits for it.

        Raises:
            BookUnavailableError: they are not.
            BookCorruptError: one of them is malformed.
        """
        if self._indexed >= size:
            return
        with self._changed:
            misses = self._misses
        self.follow(size)
        with self._changed:
            self._catching_up.require_near(self._indexed, size)
        with self._changed:
            self._changed.wait_for(
                lambda: self._indexed >= size or self._misses > misses or self._closing, COVER_SECONDS_MAX
            )
            if self._indexed >= size:
                return
            trouble = self._trouble if self._misses > misses else None
        if trouble is not None:
            raise trouble.error()
        raise BookUnavailableError(f"the index covers {self._indexed} entries and not yet {size}: ask again")

    def forget_before(self, first_index: int) -> None:
        """Has the index forget what is before an index, which is pruned, and waits for it.

        Raises:
            BookUnavailableError: it has not; the next clerk does it.
        """
        with self._changed:
            misses, self._first = self._misses, max(self._first, first_index)
            self._ask()
            self._changed.wait_for(
                lambda: self._indexed_first >= first_index or self._misses > misses or self._closing, COVER_SECONDS_MAX
            )
            if self._indexed_first < first_index:
                raise BookUnavailableError("the index has not yet forgotten what is pruned: it goes on")

    def _ask(self) -> None:
        """Has the clerk index all that is wanted; where there is none, the next one is told."""
        with contextlib.suppress(ClerkAwayError):
            self._send(Cover(self._wanted, self._first))
            self._asked = self._wanted

    def _send(self, order: Tiling | Cover) -> None:
        if self._connection is None:
            raise ClerkAwayError("the clerk of the book is away")
        if not self._busy:
            self._heard = time.monotonic()
        # Whoever reads it does so at once, and it is short, so that this does not wait.
        try:
            self._connection.send_bytes(encode(order))
        except OSError as err:
            hang_up(self._connection)  # whatever it was, so that its end is heard of soon
            self._connection = None
            raise ClerkAwayError("the clerk of the book has ended; another one is started") from err

    def _run(self) -> None:
        log = structlog.get_logger("gatebook.audit")
        while True:
            code: int | str
            try:
                code = self._employ()
            except ClerkSilentError as err:
                code = err.message
            except (OSError, msgspec.DecodeError) as err:
                code = str(err)
            if self._closing:
                return
            with self._changed:
                pause = AGAIN_SECONDS[min(self._idle_ends, len(AGAIN_SECONDS) - 1)]
                self._idle_ends += 1
                self._changed.notify_all()
            log.error("clerk ended", code=code, again_seconds=pause)
            with self._changed:
                self._changed.wait_for(lambda: self._closing, pause)

    def _employ(self) -> int:
        """Starts a clerk, and hears it until it ends; returns how it ended.

        Raises:
            ClerkSilentError: it had something to do, and nothing was heard of it.
        """
        ours, theirs = socket.socketpair()
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", PART_SECONDS_MAX, 0))
        connection = Connection(ours.detach())
        with connection:
            with theirs:
                process = self._start(theirs)
            with self._changed:
                self._line = connection
                self._heard = time.monotonic()
                if self._closing:
                    hang_up(connection)
            silent, end_seconds = False, END_SECONDS
            try:
                with contextlib.suppress(EOFError, OSError):
                    connection.send_bytes(encode(self._begin()))
                    while True:
                        while not connection.poll(LOOK_SECONDS):
                            self._require_heard()
                        self._hear(decode_answer(connection.recv_bytes(ANSWER_BYTES_MAX)), connection)
            except ClerkSilentError:
                silent, end_seconds = True, 0.0
                raise
            finally:
                with self._changed:
                    self._silent = silent
                    self._line = self._connection = None
                    self._changed.notify_all()
                hang_up(connection)
                # INVARIANT: one clerk at a time: the next one is not started before this one is gone.
                code = process.end(end_seconds)
        return code

    @property
    def _busy(self) -> bool:
        """Whether something should be heard of the clerk."""
        indexes = self._asked > self._indexed and self._trouble is None
        return self._connection is None or self._tiling or indexes

    def _require_heard(self) -> None:
        """Requires that the clerk has nothing to do, or said something not long ago.

        Raises:
            ClerkSilentError: it did not.
        """
        with self._changed:
            patience = BEGIN_SECONDS_MAX if self._connection is None else SILENT_SECONDS_MAX
            silence = time.monotonic() - self._heard
            if self._busy and silence > (min(patience, END_SECONDS) if self._hasty else patience):
                raise ClerkSilentError(f"nothing was heard of it for {silence:.0f} s")

    def _hear(self, answer: Answer, connection: Connection) -> None:
        if isinstance(answer, Begun):
            self._on_begun()  # before anybody can be told that the index is there
        with self._changed:
            grown = False
            self._heard = time.monotonic()
            if isinstance(answer, Tiled):
                self._tiled.append(answer)
                self._idle_ends = 0
            elif not isinstance(answer, Working):
                grown = self._note(answer)
            if isinstance(answer, Begun):
                self._connection = connection
                self._number += 1
                self._asked = 0
                if self._wanted > self._indexed:
                    self._ask()
            self._changed.notify_all()
        if grown:
            self._on_grown()

    def _note(self, answer: Begun | Covered) -> bool:
        """Takes note of how far the index is; returns whether it has grown."""
        size = answer.indexed_size if isinstance(answer, Begun) else answer.size
        before, self._indexed = self._indexed, size
        self._indexed_first = answer.first_index
        self._trouble = answer.trouble
        self._misses += answer.trouble is not None
        self._catching_up.note(size, self._wanted)
        return size > before
