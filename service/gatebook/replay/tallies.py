"""What differs, counted: by kind, and of whom, of what and by whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec

from gatebook.replay.asked_then import AskedThen
from gatebook.replay.difference import Difference, DifferenceKind
from gatebook.replay.judging import Judged

EXAMPLES_MAX = 10
NAMES_MAX = 20
NAMES_COUNTED_MAX = 10_000
"""Names that are counted of one kind; of more, those that come later are not."""


class Place(msgspec.Struct, frozen=True):
    """Where a decision stands."""

    decision_id: str
    origin: str
    index: int


class Differing(msgspec.Struct, frozen=True):
    """A decision that differs, and how."""

    place: Place
    asked: AskedThen
    difference: Difference


class Tally:
    """What differs in one way."""

    def __init__(self) -> None:
        """Begins with nothing."""
        self.count = 0
        self.subjects: Counter[str] = Counter()
        self.resources: Counter[str] = Counter()
        self.callers: Counter[str] = Counter()
        self.examples: list[Differing] = []

    def add(self, one: Differing) -> None:
        """Counts one."""
        self.count += 1
        request = one.asked.request
        for names, name in (
            (self.subjects, request.subject.id),
            (self.resources, request.resource),
            (self.callers, one.asked.caller),
        ):
            if name in names or len(names) < NAMES_COUNTED_MAX:
                names[name] += 1
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(one)


class Tallies:
    """How far it has come, and what differs."""

    def __init__(self) -> None:
        """Begins with nothing."""
        self.seen = self.decided = self.differing = self.distinct = 0
        self.left_out: Counter[str] = Counter()
        self._by_kind: dict[DifferenceKind, Tally] = {}

    def add(self, place: Place, asked: AskedThen, judged: Judged) -> Differing | None:
        """Counts one that was judged; returns it where it differs."""
        if judged.failed:
            self.left_out[judged.failed] += 1
            return None
        self.decided += 1
        self.distinct += not judged.again
        if not judged.difference.kinds:
            return None
        self.differing += 1
        one = Differing(place, asked, judged.difference)
        for kind in judged.difference.kinds:
            self._by_kind.setdefault(kind, Tally()).add(one)
        return one

    def __iter__(self) -> Iterator[tuple[DifferenceKind, Tally]]:
        """Yields what differs by kind, in the order of the kinds."""
        return iter(sorted(self._by_kind.items()))
