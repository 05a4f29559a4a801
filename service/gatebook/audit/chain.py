"""The chain of control entries, and where the book ends.

Every entry carries in `control_link` one more than the index of the newest policy or control
entry before it. So the last entry leads to all entries that the state of the service is folded
from, however many decisions lie between. The recorder keeps the links exact: while a policy entry is
being written no other entry is.

A book that was pruned begins later, as its newest retention entry says. Control entries from before were
carried forward: each is restated by a later one, which is followed in the place of what it restates.
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
    return ((index, entry) for index, entry, _ in control_entries(book))


def control_entries(book: Entries) -> Iterator[tuple[int, entry_pb2.AuditEntry, bytes]]:
    """Yields the policy and control entries with their indexes and exact bytes, the newest first.

    Raises:
        BookCorruptError: a link leads to an entry of another kind, or not backwards.
    """
    link, first = find_end(book).control_link, 0
    carried: dict[int, bytes] = {}
    while link > first:
        index = link - 1
        raw = book.read(index, link)[0]
        entry = decode(raw, index)
        if not is_control(entry):
            raise BookCorruptError(f"a control link leads to entry {index}, which is no control entry", index)
        # INVARIANT: each link is smaller than the one before, so that the chain ends.
        link = _checked_link(entry, index)
        if entry.HasField("carried") and not entry.carried.origin:
            carried.setdefault(entry.carried.index, entry.carried.entry_bytes)
            continue
        if entry.retention.step == entry_pb2.RETENTION_STEP_BEGUN:
            first = max(first, entry.retention.first_index)
        yield index, entry, raw
    # What was carried forward comes from before the book's first entry, so it is older than all of these.
    for index in sorted((i for i in carried if i < first), reverse=True):
        yield index, decode(carried[index], index), carried[index]


def _checked_link(entry: entry_pb2.AuditEntry, index: int) -> int:
    link = int(entry.control_link)
    if link > index:
        raise BookCorruptError(f"the control link of entry {index} leads forward, to entry {link - 1}", index)
    return link
