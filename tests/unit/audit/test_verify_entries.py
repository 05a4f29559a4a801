"""A book whose bytes are as signed may still break the rules of entries; each broken rule is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from tests.audit_samples import NOW, ORIGIN, POLICY_REVISION, decided, entry

from gatebook.audit.entry import PolicyEvent, Stamp, encode_policy, encode_system
from gatebook.audit.people import People
from gatebook.audit.verify_entries import EntryJoin, EntryReport, EntryVerifier, verify_entries
from gatebook.errors import VerificationError
from gatebook.v1 import entry_pb2

ACTIVATED = PolicyEvent(step=entry_pb2.POLICY_STEP_ACTIVATED, revision=POLICY_REVISION)


class Listed:
    """Entries in a list."""

    def __init__(self, entries: list[bytes]) -> None:
        """Takes the entries."""
        self.entries = entries

    @property
    def size(self) -> int:
        """Returns how many there are."""
        return len(self.entries)

    def read(self, start: int, end: int) -> list[bytes]:
        """Returns the bytes of [start, end)."""
        return self.entries[start:end]


@pytest.fixture
def people(tmp_path: Path) -> Iterator[People]:
    """Provides a store of its own."""
    store = People.open(tmp_path)
    yield store
    store.close()


@pytest.fixture
def book(people: People) -> Listed:
    """Provides a start, a policy step and 600 decisions about one person."""
    first = encode_system(entry_pb2.SYSTEM_EVENT_BOOK_OPENED, Stamp.of(NOW, "gatebook", 0), version="1")
    second = encode_policy(ACTIVATED, Stamp.of(NOW, "local", 0))
    return Listed([first, second, *(entry(people, decided(number=i), control_link=2) for i in range(600))])


@pytest.mark.parametrize("with_people", [True, False])
def test_an_honest_book(book: Listed, people: People, *, with_people: bool) -> None:
    """A book that keeps the rules is counted by kind, with or without the store of people."""
    told: list[tuple[int, int]] = []
    report = verify_entries(
        book, ORIGIN, people=people if with_people else None, progress=lambda done, all_: told.append((done, all_))
    )

    assert (report.kinds, report.people) == ({"system": 1, "policy": 1, "decision": 600}, 1)
    assert told == [(256, 602), (512, 602), (602, 602)]


def changed(change: Callable[[entry_pb2.AuditEntry], object]) -> Callable[[bytes], bytes]:
    """Returns what changes the bytes of an entry in this way."""

    def apply(raw: bytes) -> bytes:
        parsed = entry_pb2.AuditEntry.FromString(raw)
        change(parsed)
        return parsed.SerializeToString()

    return apply


@pytest.mark.parametrize(
    ("index", "change", "message"),
    [
        (300, changed(lambda e: e.entry_time.FromDatetime(NOW - timedelta(microseconds=1))), "earlier"),
        (300, changed(lambda e: setattr(e, "control_link", 0)), "newest control entry"),
        (2, changed(lambda e: setattr(e, "control_link", 1)), "newest control entry"),
        (601, changed(lambda e: setattr(e, "salt", b"")), "lacks its salt"),
        (300, changed(lambda e: e.ClearField("decision")), "lacks its salt, time or body"),
        (300, changed(lambda e: setattr(e, "kind", 77)), "kind 77"),
        (300, changed(lambda e: setattr(e, "kind", 0)), "kind 0"),
        (300, lambda raw: raw[:-1], "not an AuditEntry"),
        (300, changed(lambda e: setattr(e.sealed[0], "ciphertext", bytes(40))), "does not open"),
        (300, changed(lambda e: e.sealed[0].pseudonyms.append(bytes(16))), "missing from the store"),
    ],
)
def test_a_broken_rule_is_named(
    book: Listed, people: People, index: int, change: Callable[[bytes], bytes], message: str
) -> None:
    """The first entry that breaks a rule is named, with the rule."""
    book.entries[index] = change(book.entries[index])

    with pytest.raises(VerificationError, match=message) as caught:
        verify_entries(book, ORIGIN, people=people)
    assert caught.value.index == index


def test_a_deleted_key_is_noticed(book: Listed, people: People) -> None:
    """Whoever hides a reader by deleting the key is noticed at the first entry of that reader."""
    people._connection.execute("DELETE FROM people WHERE blind = ?", (people.blind("farah"),))
    people._by_pseudonym._young.clear()

    with pytest.raises(VerificationError, match="missing from the store") as caught:
        verify_entries(book, ORIGIN, people=people)
    assert caught.value.index == 2


def joined(book: Listed, people: People, cuts: Sequence[int]) -> EntryReport:
    """Verifies in parts that know nothing of each other."""
    join, ends = EntryJoin(), [0, *cuts, book.size]
    for start, end in pairwise(ends):
        verifier = EntryVerifier(ORIGIN, people, start)
        verifier.add(book.read(start, end))
        join.add(verifier.part())
    return join.report()


CUTS = [[300], [301], [299, 300], [1], [2], [1, 2, 3], [600, 601]]


@pytest.mark.parametrize("cuts", CUTS, ids=str)
def test_parts_say_what_the_whole_says(book: Listed, people: People, cuts: list[int]) -> None:
    """Parts that were verified apart are joined to the same report, wherever the cuts are."""
    assert verify_entries(book, ORIGIN, people=people) == joined(book, people, cuts)


@pytest.mark.parametrize("cuts", CUTS, ids=str)
@pytest.mark.parametrize(
    "changes",
    [
        {300: changed(lambda e: e.entry_time.FromDatetime(NOW - timedelta(microseconds=1)))},
        {300: changed(lambda e: setattr(e, "control_link", 0))},
        {2: changed(lambda e: setattr(e, "control_link", 1))},
        {
            300: changed(lambda e: setattr(e, "kind", 77)),
            299: changed(lambda e: e.sealed[0].pseudonyms.append(bytes(16))),
        },
        {300: changed(lambda e: setattr(e, "control_link", 0)), 301: changed(lambda e: setattr(e, "salt", b""))},
        {1: changed(lambda e: setattr(e, "kind", entry_pb2.ENTRY_KIND_READ))},
    ],
)
def test_parts_find_the_fault_that_the_whole_finds(
    book: Listed, people: People, cuts: list[int], changes: dict[int, Callable[[bytes], bytes]]
) -> None:
    """A broken rule has the same index and the same words, also where it lies between two parts."""
    for index, change in changes.items():
        book.entries[index] = change(book.entries[index])
    with pytest.raises(VerificationError) as whole:
        verify_entries(book, ORIGIN, people=people)
    with pytest.raises(VerificationError) as parts:
        joined(book, people, cuts)

    assert (whole.value.index, whole.value.message) == (parts.value.index, parts.value.message)
