"""What a change of a policy set gains and loses, in people, columns, masks and row filters.

Owns the walk over everything that could be asked of either revision under one directory. Promises:

1. whoever could be allowed something now, or shown more of it, and was not before, stands in a gain: no gain is proof
   that nobody gains anything. What is not decided counts as a gain;
2. what nobody gains or loses anything by is no change, however the rules are written;
3. subjects for whom the rules changed in the same way are one change.

Ceilings count as they do in a decision: whom the old revision denies for being beyond one, and the new one does
not, gains what the rules allow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

import msgspec

from gatebook.expression.moments import Moment
from gatebook.governance.access import Access, parted
from gatebook.governance.audience import Audiences
from gatebook.governance.ceilings import exceeded
from gatebook.governance.difference import Aspect, Comparison, Difference
from gatebook.governance.judge import Level
from gatebook.governance.pairs import (
    Pair,
    RuleKey,
    allowed,
    by_id,
    cells_of,
    columns_read,
    consent_of,
    role_links,
    rules_of,
    same_notice,
    same_terms,
    terms_of,
)
from gatebook.governance.people import NOBODY, Bits
from gatebook.governance.rules import CONDITION, Cell
from gatebook.pace import Pause, no_pause, paced
from gatebook.policy.dataset import Dataset
from gatebook.policy.directory import Directory
from gatebook.policy.policy_set import PolicySet
from gatebook.values import Rule


class Shown(msgspec.Struct, frozen=True):
    """What somebody gets, in words of the rules: `rows` is empty where they get nothing, `True` where all rows."""

    rows: str = ""
    masks: tuple[str, ...] = ()
    minimum_group: int = 0


class Change(msgspec.Struct, frozen=True):
    """What some subjects gain or lose of one dataset by one action.

    Of `subjects` those gain it for certain, or in rows about themselves alone, who are in these sets too. `pair` is
    what speaks of some of it.
    """

    dataset: str
    action: str
    columns: tuple[str, ...]
    purposes: tuple[str, ...]
    gained: frozenset[Aspect]
    lost: frozenset[Aspect]
    before: Shown
    after: Shown
    subjects: Bits
    certain: Bits
    own: Bits
    pair: Pair


class Impact(msgspec.Struct, frozen=True):
    """Everything that a change gains and loses. The rest says more of it, of whom and how.

    `released` are, by dataset and action, whom the old revision denies for being beyond a ceiling, and the new one not.
    """

    old_digest: str
    new_digest: str
    directory_digest: str
    changes: tuple[Change, ...]
    before: Audiences
    after: Audiences
    comparison: Comparison
    released: Mapping[tuple[str, str], Bits]

    @property
    def gains(self) -> tuple[Change, ...]:
        """Returns what somebody gains, or might: empty, it is proof that nobody gains anything."""
        return tuple(change for change in self.changes if change.gained)

    @property
    def losses(self) -> tuple[Change, ...]:
        """Returns what somebody loses, or might."""
        return tuple(change for change in self.changes if change.lost)


def impact_digest(impact: Impact) -> str:
    """Returns what names this very change: SHA-256 over what it leads from, to, and the directory, in hexadecimal."""
    parts = ("gatebook impact v1", impact.old_digest, impact.new_digest, impact.directory_digest)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def impact_of(old: PolicySet, new: PolicySet, directory: Directory, now: datetime, pause: Pause = no_pause) -> Impact:
    """Compares two revisions of a governed set under one directory, from now on."""
    before = Audiences(old, directory, Moment(now), pause, beside=new)
    after = Audiences(new, directory, Moment(now), pause, beside=old)
    walk = _Walk(before, after, now)
    changes = tuple(walk.changes(pause))
    return Impact(old.digest, new.digest, directory.digest, changes, before, after, walk.comparison, walk.released)


class _Walk:
    """One comparison. Lives for one call."""

    def __init__(self, before: Audiences, after: Audiences, now: datetime) -> None:
        self._before, self._after = before, after
        self.comparison = Comparison(before, after, now)
        same = before.policy_set.settings.attribute_sources == after.policy_set.settings.attribute_sources
        self._same_sources = same
        self.released = _released(before, after)
        self._links_changed = role_links(before.policy_set) != role_links(after.policy_set)
        self._parts: dict[tuple[object, ...], list[tuple[Bits, Access]]] = {}
        self._said: dict[int, tuple[Cell, dict[RuleKey, Rule]]] = {}
        self._same_datasets = frozenset(
            id_ for id_, it in by_id(before).items() if by_id(after).get(id_) == it and same_notice(before, after, it)
        )

    def changes(self, pause: Pause) -> Iterator[Change]:
        """Yields all changes, by dataset and action."""
        old, new = by_id(self._before), by_id(self._after)
        actions = tuple(dict.fromkeys((*self._before.rules.actions, *self._after.rules.actions)))
        for id_ in paced(sorted({*old, *new}), pause):
            for action in actions:
                found: dict[tuple[object, ...], Change] = {}
                for pair in paced(self._pairs(old.get(id_), new.get(id_), action), pause):
                    for change in self._of_pair(id_, action, pair):
                        _merge(found, change)
                yield from _joined(found.values())

    def _pairs(self, old: Dataset | None, new: Dataset | None, action: str) -> Iterator[Pair]:
        """Yields what can be asked of a dataset in either revision, each column and purpose once."""
        before = cells_of(self._before, old, action)
        after = cells_of(self._after, new, action)
        if not before and not after:
            return
        by_column: dict[tuple[object, ...], dict[str, list[str]]] = {}
        for column, purpose in dict.fromkeys((*before, *after)):
            one, other = before.get((column, purpose)), after.get((column, purpose))
            consents = (consent_of(self._before, purpose), consent_of(self._after, purpose))
            by_column.setdefault((id(one), id(other), consents), {}).setdefault(column, []).append(purpose)
        for columns in by_column.values():
            alike: dict[tuple[str, ...], list[str]] = {}
            for column, those in columns.items():
                alike.setdefault(tuple(those), []).append(column)
            for purposes, names in alike.items():
                one, other = before.get((names[0], purposes[0])), after.get((names[0], purposes[0]))
                if not self._is_same(one, other, purposes[0]):
                    yield self._pair(one, other, tuple(names), purposes)

    def _is_same(self, old: Cell | None, new: Cell | None, purpose: str) -> bool:
        """Tells whether all that decides about a cell is plainly the same: its rules, links, dataset and notice."""
        if old is None or new is None or self._links_changed or not self._same_sources:
            return False
        if old.dataset.id not in self._same_datasets or (old.dataset.id, old.action) in self.released:
            return False
        same_consent = consent_of(self._before, purpose) is consent_of(self._after, purpose)
        same_rules = self._rules(self._before, old).keys() == self._rules(self._after, new).keys()
        return same_consent and same_rules and (old.masked, old.own) == (new.masked, new.own)

    def _rules(self, audiences: Audiences, cell: Cell) -> dict[RuleKey, Rule]:
        found = self._said.get(id(cell))
        if found is None:
            found = self._said[id(cell)] = (cell, rules_of(audiences, cell))  # the cell lives as long as its id
        return found[1]

    def _pair(self, old: Cell | None, new: Cell | None, columns: tuple[str, ...], purposes: tuple[str, ...]) -> Pair:
        read = frozenset[str]().union(
            columns_read(self._before.conditions, old), columns_read(self._after.conditions, new)
        )
        was = None if old is None else terms_of(self._before, old, columns, purposes[0], read)
        now = None if new is None else terms_of(self._after, new, columns, purposes[0], read)
        return Pair(old, was, new, now, columns, purposes)

    def _of_pair(self, dataset: str, action: str, pair: Pair) -> Iterator[Change]:
        released = self.released.get((dataset, action), NOBODY)
        concerned = self._concerned(pair) | released
        if not concerned:
            return
        before = self._parted(self._before, pair.old, concerned & ~released)
        if released:
            before = [*before, *parted(self._before, None, released)]
        for bits, new in self._parted(self._after, pair.new, concerned):
            for others, old in before:
                both = bits & others
                if both:
                    difference = self.comparison.difference(old, pair.was, new, pair.now)
                    if difference is not None:
                        yield _change(dataset, action, pair, both, (old, new), difference)

    def _parted(self, audiences: Audiences, cell: Cell | None, bits: Bits) -> list[tuple[Bits, Access]]:
        if cell is None or not bits:
            return parted(audiences, None, bits) if bits else []
        rules = cell.rules
        spoken = (*rules.allows, *audiences.denies(cell), *rules.masks, *rules.groups)
        keyed = bool(cell.dataset.subject_keys)
        key = (id(audiences), tuple(map(id, spoken)), len(rules.allows), cell.masked, cell.own, keyed, bits)
        found = self._parts.get(key)
        if found is None:
            found = self._parts[key] = parted(audiences, cell, bits)
        return found

    def _concerned(self, pair: Pair) -> Bits:
        """Returns for whom something may be another than it was: for all others the same rules apply alike."""
        if pair.old is None or pair.new is None or pair.was is None or pair.now is None:
            return allowed(self._before, pair.old) | allowed(self._after, pair.new)
        if not same_terms(pair.was, pair.now):
            return allowed(self._before, pair.old) | allowed(self._after, pair.new)
        old, new = self._rules(self._before, pair.old), self._rules(self._after, pair.new)
        concerned = NOBODY
        for audiences, rules, others in ((self._before, old, new), (self._after, new, old)):
            for key, rule in rules.items():
                if key not in others:
                    applied = audiences.applied(rule)
                    concerned |= applied.holders & ~applied.never
        if self._links_changed or not self._same_sources:
            for key in old.keys() & new.keys():
                one, other = self._before.people.holders(key[1]), self._after.people.holders(key[1])
                concerned |= one ^ other if self._same_sources else one | other
        return concerned


def _released(before: Audiences, after: Audiences) -> dict[tuple[str, str], Bits]:
    """Returns, by dataset and action, whom the old revision denies for a ceiling, and the new one does not."""
    held = {(one.dataset.id, one.action): one.not_proved for one in exceeded(before)}
    if not held:
        return {}
    concerned = {dataset for dataset, _ in held}
    still = {(one.dataset.id, one.action): one.not_proved for one in exceeded(after, concerned)}
    released = {key: bits & ~still.get(key, NOBODY) for key, bits in held.items()}
    return {key: bits for key, bits in released.items() if bits}


def _change(
    dataset: str, action: str, pair: Pair, bits: Bits, accesses: tuple[Access, Access], difference: Difference
) -> Change:
    old, new = accesses
    return Change(
        dataset,
        action,
        pair.columns,
        pair.purposes,
        difference.gained,
        difference.lost,
        Shown() if difference.before is Level.NOBODY else shown(old),
        Shown() if difference.after is Level.NOBODY else shown(new),
        bits,
        bits if difference.certain else NOBODY,
        bits if difference.own else NOBODY,
        pair,
    )


def _merge(found: dict[tuple[object, ...], Change], change: Change) -> None:
    """Adds a change to those of the same columns, of what other subjects gain and lose in the same way."""
    key = (change.columns, change.purposes, change.gained, change.lost, change.before, change.after)
    known = found.get(key)
    if known is None:
        found[key] = change
        return
    first = change if change.certain and not known.certain else known
    found[key] = msgspec.structs.replace(
        first,
        subjects=known.subjects | change.subjects,
        certain=known.certain | change.certain,
        own=known.own | change.own,
    )


def _joined(changes: Iterable[Change]) -> Iterator[Change]:
    """Yields changes of the same subjects in the same way as one, of all their columns, then of all their purposes."""
    for names in ("columns", "purposes"):
        other = "purposes" if names == "columns" else "columns"
        joined: dict[tuple[object, ...], Change] = {}
        for change in changes:
            key = (
                getattr(change, other),
                *(change.gained, change.lost, change.before, change.after),
                *(change.subjects, change.certain, change.own),
            )
            known = joined.setdefault(key, change)
            if known is not change:
                names_of = tuple(dict.fromkeys((*getattr(known, names), *getattr(change, names))))
                joined[key] = msgspec.structs.replace(known, **{names: names_of})
        changes = joined.values()
    yield from changes


def shown(access: Access) -> Shown:
    """Says what an access is in words of the rules."""
    if access.nothing:
        return Shown()
    conditions = dict.fromkeys(it.rule.fields[CONDITION] for it in access.allows)
    rows = "True" if any(it.always for it in access.allows) else " || ".join(conditions)
    denied = dict.fromkeys(it.rule.fields[CONDITION] for it in access.denies)
    if denied:
        kept = [f"!({condition})" for condition in denied]
        rows = " && ".join([*([] if rows == "True" else [f"({rows})"]), *kept])
    masks = dict.fromkeys(
        str(it.spec) if it.when.always else f"{it.spec} where {it.when.rule.fields[CONDITION]}"
        for it in sorted(access.masks, key=lambda it: it.spec.kind)
    )
    return Shown(rows, tuple(masks), max((it.k for it in access.groups), default=0))
