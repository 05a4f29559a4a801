"""What is known of where tables come from: derivations, and the tags that people took off again.

Owns the values. Names are those that jobs report: what they stand for in a policy set, `descent` finds out. Promises:

1. a lineage only grows: what was derived once stays derived, until the book ends;
2. whoever reports the same again, by another run, adds nothing: `key` says what a derivation is, without its run;
3. its size is bounded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime

import msgspec

DERIVATIONS_MAX = 10_000
SOURCES_MAX = 200_000
"""Sources of all columns together."""


class Name(msgspec.Struct, frozen=True, order=True):
    """What a job calls a dataset."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """Returns it in words."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Source(msgspec.Struct, frozen=True, order=True):
    """What flows into a column: a column of a dataset, or (with an empty name) all of them.

    `masked` where every step of the job masks it; `direct` where it makes the value, and does not only choose or order
    rows.
    """

    dataset: Name
    column: str = ""
    masked: bool = False
    direct: bool = True


class Made(msgspec.Struct, frozen=True, order=True):
    """A column that was made: its type as the job tells it, and what flowed in."""

    name: str
    type: str
    sources: tuple[Source, ...] = ()


class Derivation(msgspec.Struct, frozen=True):
    """How one dataset was made by one run of a job; `index` and `entry_time` are those of its entry in the book.

    `every` flows into all columns, and `rest` into all that `columns` does not name.
    """

    output: Name
    columns: tuple[Made, ...]
    every: tuple[Source, ...] = ()
    rest: tuple[Source, ...] = ()
    job: Name = Name("", "")
    run_id: str = ""
    index: int = 0
    entry_time: datetime | None = None

    @property
    def key(self) -> bytes:
        """Returns what it says, whoever said it: SHA-256 over output and sources."""
        said = (self.output, self.columns, self.every, self.rest)
        return hashlib.sha256(msgspec.json.encode(said)).digest()

    @property
    def size(self) -> int:
        """Returns of how many sources it speaks."""
        return len(self.every) + len(self.rest) + sum(len(column.sources) for column in self.columns)

    @property
    def inputs(self) -> tuple[Name, ...]:
        """Returns the datasets that it speaks of as sources, by name."""
        named = {source.dataset for column in self.columns for source in column.sources}
        return tuple(sorted(named | {source.dataset for source in (*self.every, *self.rest)}))


class Reclassification(msgspec.Struct, frozen=True):
    """A tag that people took off a column of a set, and by which descent (`basis`) it had it then."""

    policy_set: str
    dataset: str
    column: str
    tag: str
    basis: bytes
    index: int = 0
    entry_time: datetime | None = None


class Lineage(msgspec.Struct, frozen=True):
    """All that is known, the oldest first."""

    derivations: tuple[Derivation, ...] = ()
    reclassifications: tuple[Reclassification, ...] = ()

    def __len__(self) -> int:
        """Returns how many entries it is folded from."""
        return len(self.derivations) + len(self.reclassifications)

    def times(self) -> tuple[datetime, ...]:
        """Returns when it grew."""
        each: tuple[Derivation | Reclassification, ...] = (*self.derivations, *self.reclassifications)
        return tuple(sorted(one.entry_time for one in each if one.entry_time is not None))

    def until(self, time: datetime | None) -> Lineage:
        """Returns what was known at a time; nothing without one."""

        def known(one: Derivation | Reclassification) -> bool:
            return time is not None and one.entry_time is not None and one.entry_time <= time

        return Lineage(tuple(filter(known, self.derivations)), tuple(filter(known, self.reclassifications)))

    def new(self, derivations: Iterable[Derivation]) -> tuple[Derivation, ...]:
        """Returns those that are not known yet, each once."""
        known = {derivation.key for derivation in self.derivations}
        found = []
        for derivation in derivations:
            key = derivation.key
            if key not in known:
                known.add(key)
                found.append(derivation)
        return tuple(found)

    def find(self, derivation: Derivation) -> Derivation | None:
        """Returns the derivation that says the same, if there is one."""
        key = derivation.key
        return next((known for known in self.derivations if known.key == key), None)

    def fits(self, more: Iterable[Derivation]) -> bool:
        """Tells whether there is room for more."""
        together = (*self.derivations, *more)
        return len(together) <= DERIVATIONS_MAX and sum(one.size for one in together) <= SOURCES_MAX


NO_LINEAGE = Lineage()
