"""What may change a book that is otherwise only added to: erasure and pruning, and the look for missing keys.

Owns the three together, and what a start does before anybody is answered: it completes what a kill left unfinished.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from gatebook.audit.book import Book
from gatebook.audit.control_state import ControlState
from gatebook.audit.erasing import Erasing
from gatebook.audit.key_watch import KeyWatch
from gatebook.audit.people import People
from gatebook.audit.pruning import Pruning
from gatebook.audit.reader import BookReader
from gatebook.audit.recorder import Recorder


class Keeping(msgspec.Struct, frozen=True):
    """What keeps a book."""

    erasing: Erasing
    pruning: Pruning
    watch: KeyWatch

    @asynccontextmanager
    async def open(self, state: ControlState, size: int) -> AsyncIterator[None]:
        """Completes what the entries before a size began, and looks for missing keys within the block.

        Raises:
            BookRefusedError: an erasure was not written with the key of the store of people.
            BookUnavailableError: something could not be completed.
        """
        await self.erasing.apply_again(state.erasures)
        await self.pruning.complete(state)
        self.watch.start(size)
        try:
            yield
        finally:
            await self.watch.stop()


def keeping_of(book: Book, reader: BookReader, recorder: Recorder, people: People) -> Keeping:
    """Returns what keeps a book."""
    turn = asyncio.Lock()
    return Keeping(
        Erasing(reader, recorder, people, book.origin, turn),
        Pruning(book, reader, recorder, people, turn),
        KeyWatch(reader),
    )
