"""The chain of control entries, and where the book ends.

Every entry carries in `control_link` one more than the index of the newest policy or control
entry before it. So the last entry leads to all entries that the state of the service is folded
from, however many decisions lie between. The recorder keeps the links exact: while a policy entry is
being written no other entry is.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Protocol

import msgspec

from gatebook.audit.entry import EPOCH, decode, from_timestamp, is_control
from gatebook.errors import BookCorruptError
from gatebook.v1 import entry_pb2


class Entries(Protocol):
    """What is read here: the live book, or a copied one."""

    @property
    def size(self) -> int: ...  # noqa: D102  # the number of entries

    def read(self, start: int, end: int) -> list[bytes]: ...  # noqa: D102  # the bytes of [start, end)


class BookEnd(msgspec.Struct, frozen=True):
    """What the next entry of a book must continue."""

    size: int
    last_entry_time: datetime
    control_link: int
    clean: bool
    """Whether the book is empty or ends with a stop of the service, or as it began in place of another."""
    closed: bool = False
    """Whether the book is closed: nothing may follow its last entry."""


def find_end(book: Entries) -> BookEnd:
    """Returns where the book ends, from its last entry.

    Raises:
        BookCorruptError: the last entry is malformed.
    """
    size = book.size
    if size == 0:
        return BookEnd(0, EPOCH, 0, clean=True)
    index = size - 1
    last = decode(book.read(index, size)[0], index)
    link = size if is_control(last) else _checked_link(last, index)
    clean = last.system.event == entry_pb2.SYSTEM_EVENT_STOPPED or begins_only(last)
    closed = last.system.event == entry_pb2.SYSTEM_EVENT_CLOSED
    return BookEnd(size, from_timestamp(last.entry_time), link, clean, closed)


def begins_only(last: entry_pb2.AuditEntry) -> bool:
    """Tells whether the last entry is one of those with which a successor begins, before it is first served."""
    return last.system.event == entry_pb2.SYSTEM_EVENT_SUCCEEDED or bool(last.carried.origin)


def control_chain(book: Entries) -> Iterator[tuple[int, entry_pb2.AuditEntry]]:
    """Yields the policy and control entries with their indexes, the newest first; of what is restated, what it says.

    Raises:
        BookCorruptError: a link leads to an entry of another kind, or not backwards.
    """
    for index, entry in control_links(book):
        yield index, decode(entry.carried.entry_bytes, index) if entry.HasField("carried") else entry


def control_links(book: Entries) -> Iterator[tuple[int, entry_pb2.AuditEntry]]:
    """Yields the policy and control entries with their indexes, the newest first, as they stand there.

    Raises:
        BookCorruptError: a link leads to an entry of another kind, or not backwards.
    """
    link = find_end(book).control_link
    while link:
        index = link - 1
        entry = decode(book.read(index, link)[0], index)
        if not is_control(entry):
            raise BookCorruptError(f"a control link leads to entry {index}, which is no control entry", index)
        # INVARIANT: each link is smaller than the one before, so that the chain ends.
        link = _checked_link(entry, index)
        yield index, entry


def _checked_link(entry: entry_pb2.AuditEntry, index: int) -> int:
    link = int(entry.control_link)
    if link > index:
        raise BookCorruptError(f"the control link of entry {index} leads forward, to entry {link - 1}", index)
    return link
