"""Verification of an answer: that a list of entries is what a look at every entry finds.

Trusts neither the index nor whoever answered. Rules:

1. the entries come from a stream whose leaves lead to a signed checkpoint, and continue what is remembered;
2. each of them is held against the filter by `matching`, and against what was answered;
3. nothing is said before the stream has led to the root.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from gatebook.audit.copied import Rooted
from gatebook.audit.entry import decode
from gatebook.audit.matching import About, matches
from gatebook.errors import VerificationError
from gatebook.tlog.merkle import leaf_hash
from gatebook.v1 import audit_service_pb2

NAMED_MAX = 100
"""Rows that are named, of each kind of difference; all are counted."""


class Difference(msgspec.Struct):
    """Rows that differ in one way: how many, and the indexes of the first."""

    count: int = 0
    indexes: list[int] = msgspec.field(default_factory=list)

    def add(self, index: int) -> None:
        """Adds a row."""
        self.count += 1
        if len(self.indexes) < NAMED_MAX:
            self.indexes.append(index)


class Row(msgspec.Struct, frozen=True):
    """A row of an answer; `altered` tells whether it says anything that an entry, with its leaf hash, does not."""

    index: int
    altered: Callable[[audit_service_pb2.EntryRecord, bytes], bool]


class QueryReport(msgspec.Struct):
    """What was found."""

    size: int
    """How many entries the checkpoint has: all of them were looked at, but for those before `first_index`."""
    whole: bool
    """Whether it could be told which rows are missing; not by subject, for who does not know whom it means."""
    first_index: int = 0
    """Where the book begins: what is before is pruned."""
    gone: int = 0
    """Rows of the answer that name pruned entries, and cannot be compared with anything."""
    rows: int = 0
    """Rows of the answer before the checkpoint."""
    beyond: int = 0
    """Rows of the answer that the checkpoint does not cover, and that are not verified."""
    missing: Difference = msgspec.field(default_factory=Difference)
    """Entries that match and were not told."""
    added: Difference = msgspec.field(default_factory=Difference)
    """Rows that were told and do not match, or were told twice, or not in order."""
    altered: Difference = msgspec.field(default_factory=Difference)
    """Rows that are told otherwise than they stand in the book."""

    @property
    def holds(self) -> bool:
        """Tells whether the answer is what it should be, so far as it could be told."""
        return not (self.missing.count or self.added.count or self.altered.count)


def verify_query(
    wanted: audit_service_pb2.EntryFilter,
    answer: Iterable[Row],
    entries: Iterable[Sequence[audit_service_pb2.EntryRecord]],
    rooted: Rooted,
    about: About | None,
    pruned: Iterable[Sequence[bytes]] = (),
) -> QueryReport:
    """Compares an answer, the oldest entry first, with the entries of the book.

    Those come from 0 on, or from where the book was pruned: then `pruned` are the leaves of what is gone, or `rooted`
    began there.

    Raises:
        VerificationError: the entries are not those that were signed.
    """
    report = QueryReport(rooted.size, whole=about is not None or not wanted.subject_id)
    told = _Told(answer, report)
    for gone in pruned:
        rooted.add(gone)
    at = report.first_index = rooted.reached
    told.pass_over(at)
    for batch in entries:
        leaves = []
        for entry in batch:
            if entry.index != at:
                raise VerificationError(f"entry {at} did not come: to verify, one must see every entry", at)
            leaves.append(leaf := leaf_hash(entry.entry_bytes))
            told.compare(entry, leaf, wanted, about)
            at += 1
        rooted.add(leaves)
    rooted.require_root()
    told.finish()
    return report


class _Told:
    """An answer, read beside the entries."""

    def __init__(self, answer: Iterable[Row], report: QueryReport) -> None:
        """Takes the rows, in whatever order they are."""
        self._rows: Iterator[Row] = iter(answer)
        self._report = report
        self._next = next(self._rows, None)

    def pass_over(self, first_index: int) -> None:
        """Counts what is told of entries that are pruned."""
        while self._next is not None and self._next.index < first_index:
            self._next = next(self._rows, None)
            self._report.gone += 1

    def compare(
        self,
        entry: audit_service_pb2.EntryRecord,
        leaf: bytes,
        wanted: audit_service_pb2.EntryFilter,
        about: About | None,
    ) -> None:
        """Compares what was told up to an entry with it."""
        report = self._report
        parsed = decode(entry.entry_bytes, entry.index)
        matching = matches(entry.index, parsed, wanted, about)
        found = False
        while self._next is not None and self._next.index <= entry.index:
            row, self._next = self._next, next(self._rows, None)
            report.rows += 1
            if row.index < entry.index or found or not matching:
                report.added.add(row.index)
                continue
            found = True
            if row.altered(entry, leaf):
                report.altered.add(row.index)
        if matching and not found and report.whole:
            report.missing.add(entry.index)

    def finish(self) -> None:
        """Counts what lies beyond the last entry."""
        while self._next is not None:
            row, self._next = self._next, next(self._rows, None)
            if row.index < self._report.size:
                self._report.rows += 1
                self._report.added.add(row.index)
            else:
                self._report.beyond += 1


def rows_of(records: Iterable[audit_service_pb2.EntryRecord]) -> Iterator[Row]:
    """Yields records as rows.

    What a record leaves out, such as its exact bytes, is not compared. Entries may have been opened, and then what is
    told of the sealed parts is compared, too.
    """
    for record in records:
        yield Row(record.index, functools.partial(_is_altered, record))


def _is_altered(row: audit_service_pb2.EntryRecord, entry: audit_service_pb2.EntryRecord, leaf: bytes) -> bool:
    """Tells whether a row says anything that its entry does not."""
    if row.leaf_hash != leaf or (row.entry_bytes and row.entry_bytes != entry.entry_bytes):
        return True
    if row.HasField("entry") and row.entry != decode(entry.entry_bytes, entry.index):
        return True
    if not entry.origin:  # not opened here
        return False
    return (
        (row.HasField("request") and row.request != entry.request)
        or (bool(row.row_json) and row.row_json != entry.row_json)
        or (bool(row.filter_json) and row.filter_json != entry.filter_json)
    )
