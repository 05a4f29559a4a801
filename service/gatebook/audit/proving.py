"""The prover: gives the proof of an entry as soon as a published checkpoint covers it.

Owns who waits for a proof, on one event loop, and one thread that computes them. Rules:

1. whoever waits has the next publication hastened (`Publisher.hasten`), and many who wait share it;
2. proofs of entries that one checkpoint covers are computed together, away from the event loop;
3. a proof is that of the newest checkpoint, or of the newest that enough witnesses cosigned, where that is asked for;
4. nobody waits beyond the time that they name. Who goes away is forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from gatebook.audit.book import Book
from gatebook.audit.checkpoints import Signed
from gatebook.audit.cosigning import Collector
from gatebook.audit.publish import Publisher
from gatebook.errors import BookUnavailableError, GatebookError

TOGETHER_MAX = 4_096
"""How many entries are proved in one go; who waits behind is proved after."""


class Proof(msgspec.Struct, frozen=True):
    """The inclusion proof of an entry in the tree of a signed checkpoint."""

    hashes: Sequence[bytes]
    checkpoint: bytes
    """The signed note, verbatim."""


class _Waiter(msgspec.Struct, eq=False):
    """Who waits for the proofs of entries."""

    indexes: Sequence[int]
    witnessed: bool
    proofs: asyncio.Future[list[Proof]]


class Prover:
    """Proves entries. Methods are called on the event loop that made it."""

    def __init__(self, book: Book, publisher: Publisher, collector: Collector | None = None) -> None:
        """Takes the open book, what publishes it, and who asks witnesses, if anybody does."""
        self._book = book
        self._publisher = publisher
        self._collector = collector
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[_Waiter, None] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="book-proofs")
        self._proving: asyncio.Task[None] | None = None
        publisher.add_listener(lambda _old_size, _new_size: self._tell())
        if collector is not None:
            collector.add_listener(self._tell)

    @property
    def asks_witnesses(self) -> bool:
        """Tells whether anybody is asked to cosign."""
        return self._collector is not None

    @property
    def waiting(self) -> int:
        """Returns how many wait for a proof."""
        return len(self._waiting)

    async def prove(self, indexes: Sequence[int], wait_seconds: float, *, witnessed: bool = False) -> list[Proof]:
        """Returns the proofs of durable entries, once one checkpoint covers all of them.

        Raises:
            TimeoutError: none does so in time.
            BookCorruptError, BookUnavailableError: a tile is not what was written, or cannot be read.
        """
        waiter = _Waiter(indexes, witnessed, self._loop.create_future())
        self._waiting[waiter] = None
        try:
            if self._covered_now(max(indexes), witnessed=witnessed):
                self._wake()
            elif self._book.signed.checkpoint.size <= max(indexes):
                self._publisher.hasten()
            async with asyncio.timeout(wait_seconds):
                return await waiter.proofs
        finally:
            self._waiting.pop(waiter, None)

    def _covered_now(self, index: int, *, witnessed: bool) -> bool:
        """Tells whether an entry can be proved now; else a later checkpoint wakes who waits, once for all of them."""
        if not witnessed:
            return index < self._book.signed.checkpoint.size
        cosigned = None if self._collector is None else self._collector.witnessed
        return cosigned is not None and index < cosigned.checkpoint.size

    def close(self) -> None:
        """Ends the thread. Nobody waits any more."""
        self._thread.shutdown()

    def _tell(self) -> None:
        """Is told, on whatever thread, that a checkpoint is published or cosigned."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._waiting and self._proving is None:
            self._proving = self._loop.create_task(self._prove_all())

    async def _prove_all(self) -> None:
        """Proves to all who wait what is covered by now."""
        try:
            while (found := self._next()) is not None:
                await self._prove(*found)
        finally:
            self._proving = None

    def _next(self) -> tuple[list[_Waiter], Signed] | None:
        """Returns some who wait for what is covered by now, and the checkpoint that covers it."""
        cosigned = None if self._collector is None else self._collector.witnessed
        for signed, witnessed in ((self._book.signed, False), (cosigned, True)):
            if signed is not None and (some := self._covered(signed, witnessed=witnessed)):
                return some, signed
        return None

    def _covered(self, signed: Signed, *, witnessed: bool) -> list[_Waiter]:
        """Returns who waits for what a checkpoint covers, as many as are proved together."""
        covered: list[_Waiter] = []
        count = 0
        for waiter in self._waiting:
            if waiter.witnessed != witnessed or waiter.proofs.done() or max(waiter.indexes) >= signed.checkpoint.size:
                continue
            count += len(waiter.indexes)
            if covered and count > TOGETHER_MAX:
                break
            covered.append(waiter)
        return covered

    async def _prove(self, waiters: Sequence[_Waiter], signed: Signed) -> None:
        indexes = [index for waiter in waiters for index in waiter.indexes]
        try:
            proofs = await self._loop.run_in_executor(
                self._thread, self._book.inclusion_proofs, indexes, signed.checkpoint.size
            )
        except (GatebookError, OSError) as err:
            error = BookUnavailableError("a tile cannot be read") if isinstance(err, OSError) else err
            for waiter in waiters:
                if not waiter.proofs.done():
                    waiter.proofs.set_exception(error)
            return
        at = 0
        for waiter in waiters:
            end = at + len(waiter.indexes)
            if not waiter.proofs.done():
                waiter.proofs.set_result([Proof(hashes, signed.note) for hashes in proofs[at:end]])
            at = end
