"""Looks whether a key vanished without an erasure.

Whoever deletes the key of a reader hides who read. Owns the look that a start takes, beside the calls: every person in
the index must be in the store of people or be erased by an entry of the book. What it finds is told in the log and
by a metric; `gatebook audit verify` says the same of a copy, entry by entry.
"""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from gatebook.audit.reader import BookReader
from gatebook.errors import GatebookError

WAIT_SECONDS = 5.0


class KeyWatch:
    """One look at the people of a book. Used on the event loop only."""

    def __init__(self, reader: BookReader) -> None:
        """Takes what reads the book."""
        self._reader = reader
        self._task: asyncio.Task[None] | None = None
        self._going_on = True
        self.missing: int | None = None
        """How many people have neither a key nor an erasure; None until it is known."""
        self.first_index: int | None = None
        """The first entry that concerns one of them."""

    def start(self, size: int) -> None:
        """Begins to look at all entries before a size."""
        self._task = asyncio.create_task(self._look(size))

    async def settled(self) -> None:
        """Waits until the look is over."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def stop(self) -> None:
        """Ends the look."""
        self._going_on = False
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _look(self, size: int) -> None:
        log = structlog.get_logger("gatebook.audit")
        try:
            while self._reader.indexed_size < size:
                await self._reader.published_beyond(self._reader.indexed_size, WAIT_SECONDS)
            missing, self.first_index = await self._reader.without_key(size, lambda: self._going_on)
            self.missing = missing
        except GatebookError as error:
            log.warning("people not checked", error=error.message)
            return
        if self.missing:
            log.error("keys missing", people=self.missing, index=self.first_index)
