"""What an analysis of audiences takes over from one before it, so that a change costs what it changes.

Owns the comparison of two directories, and of who holds which role under them. Whether a subject could be allowed a
cell depends on nobody else: on the rules that speak of the cell, on its dataset, and on what the directory and the
links say of the subject. So where the rules and the dataset are the same by content, everybody of whom the same is
known keeps their place, and the others are worked on again. Promises:

1. whatever is not seen to be the same is worked on again: a new kind of difference costs time, never an answer;
2. what is remembered has a limit in bytes, and holds on to nothing that came before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from gatebook.governance.people import NOBODY, Bits, People, bits_of
from gatebook.governance.rules import SUBJECT, Cell
from gatebook.policy.directory import Subject

CHANGED_MAX = 256
"""People changed up to which the others are taken over."""
MOVED_MAX = 16
"""People who came or left up to which the others are taken over: each of them moves whoever stands behind."""
BYTES_MAX = 64 << 20
"""What is remembered of one analysis at most; of cells beyond it, nothing is."""
BYTES_EACH = 400
"""What one cell takes beside its subjects."""


Three = tuple[Bits, Bits, Bits]
"""Who could be allowed: certainly, possibly, and rows about themselves alone."""


class Remembered(msgspec.Struct, frozen=True):
    """What is kept of an analysis: who could be allowed cells, by their content.

    `alone` are the subjects whose ids a condition or an attribute names.
    """

    people: People
    alone: Bits
    known: Mapping[bytes, Three]
    size: int = 0
    """About the bytes that this takes."""


def remembered(people: People, alone: Bits, reached: Iterable[tuple[bytes, Three]]) -> Remembered:
    """Returns what is kept of an analysis, within its limit."""
    known: dict[bytes, Three] = {}
    size = 0
    for content, three in reached:
        more = BYTES_EACH + sum(bits.bit_length() // 8 for bits in three)
        if size + more > BYTES_MAX:
            break
        size += more
        known[content] = three
    return Remembered(people, alone, known, size)


class Carried:
    """What stays of an analysis under other people, or other links."""

    def __init__(self, before: Remembered, people: People, alone: Bits) -> None:
        """Compares what was known of everybody with what is."""
        self._before = before
        self._people = people
        self._left, self._came = _moves(before.people, people)
        self._too_many = len(self._left) + len(self._came) > MOVED_MAX
        changed = NOBODY if self._too_many else self._changed() | (alone ^ self._moved(before.alone))
        self._too_many = self._too_many or changed.bit_count() > CHANGED_MAX
        self._changed_people = changed
        self._shifted: dict[str, Bits] = {}

    def take(self, cell: Cell, content: bytes) -> tuple[Three, Bits] | None:
        """Returns who is still in a cell, and on whom it is to be worked again; None where that is everybody."""
        known = None if self._too_many else self._before.known.get(content)
        if known is None:
            return None
        again = NOBODY
        rules = cell.rules
        spoken = (*rules.allows, *rules.denies, *rules.masks, *rules.groups)
        for role in {rule.fields[SUBJECT] for rule in spoken}:
            again |= self._shift(role)
        kept = ~(again | self._changed_people)
        certain, possible, own = (self._moved(bits) & kept for bits in known)
        return (certain, possible, own), again

    def _shift(self, role: str) -> Bits:
        """Returns who holds a role and did not, or did and does not, and the changed of those who hold it."""
        found = self._shifted.get(role)
        if found is None:
            holders = self._people.holders(role)
            other = holders ^ self._moved(self._before.people.holders(role))
            found = self._shifted[role] = other | (holders & self._changed_people)
        return found

    def _changed(self) -> Bits:
        """Returns who came, and of whom something else is known."""
        was = self._before.people
        changed = (
            place
            for place, subject in enumerate(self._people.subjects)
            if (old := was.place.get(subject.id)) is None or not _is_same(was.subjects[old], subject)
        )
        return bits_of(changed, len(self._people.subjects))

    def _moved(self, bits: Bits) -> Bits:
        """Returns a set of those before as a set of those now."""
        if bits:
            for place in self._left:
                bits = bits >> (place + 1) << place | bits & ((1 << place) - 1)
            for place in self._came:
                bits = bits >> place << (place + 1) | bits & ((1 << place) - 1)
        return bits


def _moves(before: People, after: People) -> tuple[list[int], list[int]]:
    """Returns the places of who left, the last first, and of who came, the first first."""
    left = sorted((before.place[id_] for id_ in before.place.keys() - after.place.keys()), reverse=True)
    return left, sorted(after.place[id_] for id_ in after.place.keys() - before.place.keys())


def _is_same(one: Subject, other: Subject) -> bool:
    """Tells whether the same is known of a subject: as it is written, since to Python 1 equals True."""
    return one is other or (
        (one.type, one.groups) == (other.type, other.groups) and repr(one.attributes) == repr(other.attributes)
    )
