"""A change of a policy set as a report: what is gained and lost, counted, with names and examples, and of bounded size.

Owns the order and the limits: what is gained comes before what is only lost, what concerns most people first, own rows
last. Whatever is left out is counted. People count once each; services are counted apart.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from gatebook.governance import loosening
from gatebook.governance.change import Change as SetChange
from gatebook.governance.difference import Aspect
from gatebook.governance.gained import Confirm, Example, example_of
from gatebook.governance.impact import Change, Impact, Shown, impact_digest
from gatebook.governance.people import NOBODY, Bits, places
from gatebook.policy.bundle import rule_files

CHANGES_MAX = 1_000
EXAMPLES_MAX = 200
"""Changes that are shown with somebody by name and a request."""
NAMES_MAX = 10
"""Subjects of one change that are named."""
TALLIES_MAX = 2_000
SET_CHANGES_MAX = 500


class Count(msgspec.Struct, frozen=True):
    """How many subjects: people of whom it is certain, or not decided, or about own rows alone, and services."""

    certain: int = 0
    possible: int = 0
    own: int = 0
    services: int = 0

    @property
    def people(self) -> int:
        """Returns how many people, each once."""
        return self.certain + self.possible + self.own


class Changed(msgspec.Struct, frozen=True):
    """One change with those whom it concerns; `names` are the first of them."""

    dataset: str
    action: str
    columns: tuple[str, ...]
    purposes: tuple[str, ...]
    gained: tuple[Aspect, ...]
    lost: tuple[Aspect, ...]
    before: Shown
    after: Shown
    count: Count
    names: tuple[str, ...]
    names_left_out: int
    roles: tuple[tuple[str, int], ...]
    """How many of the people have which role in the directory, the most first."""
    example: Example | None = None


class Tally(msgspec.Struct, frozen=True):
    """How many people of a role (empty: of any) gain and lose something of a dataset, each once."""

    dataset: str
    role: str
    gaining: Count
    losing: Count


class Summary(msgspec.Struct, frozen=True):
    """What a change comes to. `gaining` and `losing` count each person once, whatever they gain or lose."""

    policy_set: str
    old_digest: str
    new_digest: str
    directory_digest: str
    digest: str
    people: int
    gaining: Count
    losing: Count
    changes: tuple[Changed, ...]
    changes_left_out: int
    tallies: tuple[Tally, ...]
    set_changes: tuple[SetChange, ...] = ()
    """What else the files say otherwise: everything but rules and links."""

    @property
    def gains(self) -> bool:
        """Tells whether anybody gains anything, or might."""
        return bool(self.gaining.people or self.gaining.services)


def summarise(impact: Impact, confirm: Confirm, changes_max: int = CHANGES_MAX) -> Summary:
    """Returns the report of an impact, of at most so many changes."""
    people = impact.after.people
    ordered = sorted(impact.changes, key=lambda change: _order(impact, change))
    kept = ordered[: min(changes_max, CHANGES_MAX)]
    return Summary(
        policy_set=impact.after.policy_set.name,
        old_digest=impact.old_digest,
        new_digest=impact.new_digest,
        directory_digest=impact.directory_digest,
        digest=impact_digest(impact),
        people=(people.everybody & ~people.services).bit_count(),
        gaining=count_of(impact, impact.gains),
        losing=count_of(impact, impact.losses),
        changes=tuple(
            _changed(impact, change, example_of(impact, change, confirm) if place < EXAMPLES_MAX else None)
            for place, change in enumerate(kept)
        ),
        changes_left_out=len(ordered) - len(kept),
        tallies=tuple(_tallies(impact))[:TALLIES_MAX],
        set_changes=tuple(_said_otherwise(impact))[:SET_CHANGES_MAX],
    )


def _said_otherwise(impact: Impact) -> Iterable[SetChange]:
    """Yields what the files say otherwise beside rules and links, of which the changes of access tell."""
    old, new = impact.before.policy_set, impact.after.policy_set
    rules = frozenset((*rule_files(old.files), *rule_files(new.files)))
    return (change for change in loosening.changes(old, new) if change.file not in rules)


def count_of(impact: Impact, changes: Iterable[Change], among: Bits = -1) -> Count:
    """Counts the subjects of changes, each once, by the surest of what concerns them."""
    certain = possible = own = NOBODY
    for change in changes:
        certain |= change.certain & ~change.own
        possible |= change.subjects & ~change.certain & ~change.own
        own |= change.own
    possible &= ~certain
    own &= ~certain & ~possible
    people = among & ~impact.after.people.services
    services = (certain | possible | own) & among & impact.after.people.services
    sure, open_, alone = ((some & people).bit_count() for some in (certain, possible, own))
    return Count(sure, open_, alone, services.bit_count())


def _order(impact: Impact, change: Change) -> tuple[object, ...]:
    count = count_of(impact, (change,))
    about_others = count.certain + count.possible + count.services
    return (not change.gained, not about_others, -count.people, change.dataset, change.action, change.columns)


def _changed(impact: Impact, change: Change, example: Example | None) -> Changed:
    people = impact.after.people
    first = change.certain & ~change.own or change.subjects
    ordered = [*places(first), *places(change.subjects & ~first)]
    names = tuple(people.subjects[place].id for place in ordered[:NAMES_MAX])
    return Changed(
        dataset=change.dataset,
        action=change.action,
        columns=change.columns,
        purposes=change.purposes,
        gained=tuple(sorted(change.gained)),
        lost=tuple(sorted(change.lost)),
        before=change.before,
        after=change.after,
        count=count_of(impact, (change,)),
        names=names,
        names_left_out=len(ordered) - len(names),
        roles=_roles(impact, change.subjects),
        example=example,
    )


def _roles(impact: Impact, bits: Bits) -> tuple[tuple[str, int], ...]:
    """Returns how many people of a set have which role in the directory."""
    people = impact.after.people
    counts = ((role, (people.given(role) & bits & ~people.services).bit_count()) for role in people.given_roles)
    return tuple(sorted(((role, count) for role, count in counts if count), key=lambda pair: (-pair[1], pair[0])))


def _tallies(impact: Impact) -> Iterable[Tally]:
    """Yields who gains and loses what, by dataset and role."""
    people = impact.after.people
    of: dict[str, list[Change]] = {}
    for change in impact.changes:
        of.setdefault(change.dataset, []).append(change)
    for dataset, changes in of.items():
        gains = [change for change in changes if change.gained]
        losses = [change for change in changes if change.lost]
        yield Tally(dataset, "", count_of(impact, gains), count_of(impact, losses))
        for role in people.given_roles:
            bits = people.given(role)
            gaining, losing = count_of(impact, gains, bits), count_of(impact, losses, bits)
            if gaining.people or losing.people:
                yield Tally(dataset, role, gaining, losing)
