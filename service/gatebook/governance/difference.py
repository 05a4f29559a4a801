"""What differs between what one part of the subjects got of a cell and what it gets.

Owns the comparison of two accesses. Promises:

1. whatever could be allowed now and was not before, or be shown less masked, or in a smaller group, is a gain: an
   aspect is left out only where it is shown that nothing is gained in it (`weaker`);
2. a CERTAIN gain has a request that shows it for everybody of the part;
3. a gain of OWN rows is about rows of the subject alone, at most.

The same is promised of losses, but for their certainty.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from itertools import combinations

import msgspec

from gatebook.engine.mask_order import Contradiction, order_masks
from gatebook.expression.junction import all_of, any_of
from gatebook.expression.tree import Call, Expression, Path
from gatebook.governance.access import TRUE, Access, Grouping, Masking
from gatebook.governance.audience import ANY_KEY, Audiences
from gatebook.governance.conditions import NOW_PATH
from gatebook.governance.judge import Judged, Left, Level
from gatebook.governance.weaker import implies
from gatebook.policy.dataset import Dataset
from gatebook.policy.masks import at_least_as_strict
from gatebook.policy.model import walk
from gatebook.policy.purposes import ConsentMode
from gatebook.policy.settings import Settings

_OPENNESS = {ConsentMode.OPT_IN: 0, ConsentMode.OPT_OUT: 1, ConsentMode.NONE: 2}


class Aspect(enum.IntEnum):
    """In what access differs."""

    ACCESS = 1
    """Nothing before, or nothing any more."""
    ROWS = 2
    """More rows, or under other circumstances."""
    MASKS = 3
    MINIMUM_GROUP = 4
    TIME = 5
    """The notice is in force at other times."""
    CONSENT = 6
    SHARING = 7
    """It may be shared with other roles."""
    CALLERS = 8
    """Other callers may state what conditions read."""
    TYPES = 9
    """What conditions or masks read has another type, or another column names the data subjects."""


class Terms(msgspec.Struct, frozen=True):
    """What besides rules decides about a cell, in one revision. `shape` are types of columns that count."""

    dataset: Dataset
    masked: bool
    types: tuple[str, ...]
    shape: tuple[object, ...]
    period: tuple[datetime, datetime]
    consent: ConsentMode
    shared_with: frozenset[str] | None = None
    """The roles that something may be shared with; None where nothing is shared."""


class Difference(msgspec.Struct, frozen=True):
    """What is gained and lost. `certain` and `own` speak of the gain, or of the loss where nothing is gained.

    `shown` says how a request shows the gain, where one is known.
    """

    gained: frozenset[Aspect]
    lost: frozenset[Aspect]
    before: Level
    after: Level
    certain: bool
    own: bool
    shown: Judged | None = None


class Comparison:
    """Compares, and remembers, for two revisions. Immutable but for memos that change no answer."""

    def __init__(self, before: Audiences, after: Audiences, now: datetime) -> None:
        """Takes both, each beside the other, and the time from which on differences count."""
        self._before, self._after, self._now = before, after, now
        self._same_sources = _sources(before.policy_set.settings) == _sources(after.policy_set.settings)
        self._known: dict[tuple[object, ...], Difference | None] = {}

    def difference(self, old: Access, was: Terms | None, new: Access, now: Terms | None) -> Difference | None:
        """Returns the difference between two accesses under their terms; None where there is none."""
        key = (old.key, _key(was), new.key, _key(now))
        if key not in self._known:
            self._known[key] = self._difference(old, was, new, now)
        return self._known[key]

    def _difference(self, old: Access, was: Terms | None, new: Access, now: Terms | None) -> Difference | None:
        before, _ = _judged(self._before, old, was)
        after, shown = _judged(self._after, new, now)
        if after is Level.NOBODY or now is None:
            if before is Level.NOBODY:
                return None
            lost = frozenset({Aspect.ACCESS})
            return Difference(frozenset(), lost, before, after, before is Level.CERTAIN, before is Level.OWN)
        if before is Level.NOBODY or was is None:
            gained = frozenset({Aspect.ACCESS})
            certain = _is_witnessed(shown) and after is not Level.POSSIBLE and self._is_available(now)
            return Difference(gained, frozenset(), before, after, certain, after is Level.OWN, shown)
        gained, lost = self._aspects(old, was, new, now)
        if not gained and not lost:
            return None
        if not gained:
            return Difference(gained, lost, before, after, certain=False, own=before is Level.OWN)
        proof = self._proof(old, was, new, now, gained)
        own = after is Level.OWN or (gained == {Aspect.ROWS} and self._is_own(old, was, new, now))
        return Difference(gained, lost, before, after, proof is not None, own, proof or shown)

    def _aspects(self, old: Access, was: Terms, new: Access, now: Terms) -> tuple[frozenset[Aspect], frozenset[Aspect]]:
        gained = self._gained(old, was, new, now)
        lost = self._gained(new, now, old, was)
        if was.shape != now.shape:
            return gained | {Aspect.TYPES}, lost | {Aspect.TYPES}
        if not self._same_sources:
            before, after = self._before.policy_set.settings, self._after.policy_set.settings
            paths = _stated_paths(old) | _stated_paths(new)
            if any(_callers(after, path) - _callers(before, path) for path in paths):
                gained |= {Aspect.CALLERS}
            if any(_callers(before, path) - _callers(after, path) for path in paths):
                lost |= {Aspect.CALLERS}
        return gained, lost

    def _gained(self, old: Access, was: Terms, new: Access, now: Terms) -> frozenset[Aspect]:
        more = now.shared_with is not None and was.shared_with is not None and now.shared_with - was.shared_with
        found = {
            Aspect.ROWS: _is_wider(old, was, new, now),
            Aspect.MASKS: not _mask_at_least(new.masks, old.masks),
            Aspect.MINIMUM_GROUP: not _group_at_least(new.groups, old.groups),
            Aspect.TIME: self._lasts(now.period, was.period),
            Aspect.CONSENT: _OPENNESS[now.consent] > _OPENNESS[was.consent],
            Aspect.SHARING: bool(more),
        }
        return frozenset(aspect for aspect, is_gained in found.items() if is_gained)

    def _lasts(self, period: tuple[datetime, datetime], other: tuple[datetime, datetime]) -> bool:
        """Tells whether a period reaches beyond another, from now on."""
        start, end = max(period[0], self._now), period[1]
        return start < end and (start < other[0] or end > other[1])

    def _is_available(self, terms: Terms) -> bool:
        """Tells whether what the rules allow is allowed now."""
        in_force = terms.period[0] <= self._now < terms.period[1]
        return in_force and terms.consent is ConsentMode.NONE and terms.shared_with != frozenset()

    def _proof(self, old: Access, was: Terms, new: Access, now: Terms, gained: frozenset[Aspect]) -> Judged | None:
        """Returns how a request shows that something is gained, where one is known."""
        judged = self._after.judge.judge(new.left, now.dataset)
        if not self._is_available(now) or was.shape != now.shape or not self._same_sources:
            return None
        if _is_troubled(new.masks, now.types):
            return None
        if _is_witnessed(judged) and judged.level is not Level.POSSIBLE:
            masks, groups = (*old.masks, *new.masks), (*old.groups, *new.groups)
            closed = all(mask.when.always for mask in masks) and all(group.when.always for group in groups)
            plain = closed and gained & {Aspect.MASKS, Aspect.MINIMUM_GROUP}
            consented = Aspect.CONSENT in gained
            begun = Aspect.TIME in gained and not was.period[0] <= self._now < was.period[1]
            if plain or consented or begun:
                return judged
        if Aspect.ROWS not in gained:
            return None
        beyond = self._after.judge.beyond(new.left, old.left, now.dataset)
        return beyond if beyond is not None and _is_witnessed(beyond) else None

    def _is_own(self, old: Access, was: Terms, new: Access, now: Terms) -> bool:
        """Tells whether the rows that are gained are about the subject alone: so is what each further allow lets in."""
        if _demand_is_weaker(old, was, new, now) or _masks_of(old) != _masks_of(new):
            return False
        further = [
            part
            for part, allow in zip(new.left.allows, new.allows, strict=True)
            if not implies(_permitted([allow.left], [it.left for it in new.denies]), _condition(old))
        ]
        left = Left(tuple(further), new.left.denies, new.left.masks, new.left.id)
        return bool(further) and self._after.judge.judge(left, now.dataset).level <= Level.OWN


def _key(terms: Terms | None) -> tuple[object, ...]:
    if terms is None:
        return ()
    known = (terms.masked, terms.types, terms.shape, terms.period, terms.consent, terms.shared_with)
    return (*known, terms.dataset.subject_keys)


def _judged(audiences: Audiences, access: Access, terms: Terms | None) -> tuple[Level, Judged | None]:
    if access.nothing or terms is None:
        return Level.NOBODY, None
    judged = audiences.judge.judge(access.left, terms.dataset)
    if judged.level is Level.CERTAIN and _is_troubled(access.masks, terms.types):
        return Level.POSSIBLE, judged
    return judged.level, judged


def _is_witnessed(judged: Judged | None) -> bool:
    """Tells whether a request is known that does not have to wait for its time."""
    return judged is not None and judged.witness is not None and NOW_PATH not in judged.witness.values


def _is_wider(old: Access, was: Terms, new: Access, now: Terms) -> bool:
    """Tells whether something may be allowed that was not, of rows and circumstances."""
    if not implies(_condition(new), _condition(old)) or _demand_is_weaker(old, was, new, now):
        return True
    # Masks that cannot be put in order deny, and another one can put them in order.
    return _masks_of(old) != _masks_of(new) and _is_troubled(old.masks, was.types)


def _demand_is_weaker(old: Access, was: Terms, new: Access, now: Terms) -> bool:
    """Tells whether the mask that a tag demanded may have been missing where now there is one, or none is demanded."""
    answering = [mask for mask in old.masks if mask.answers]
    if not was.masked or any(mask.when.always for mask in answering):
        return False
    if not now.masked:
        return True
    return not all(
        any((other.hides or not mask.hides) and implies(mask.when.left, other.when.left) for other in answering)
        for mask in new.masks
        if mask.answers
    )


def _condition(access: Access) -> Expression:
    """Returns what must be True for the rules to allow."""
    return _permitted([it.left for it in access.allows], [it.left for it in access.denies])


def _permitted(allows: Sequence[Expression], denies: Sequence[Expression]) -> Expression:
    if not denies:
        return any_of(allows)
    return all_of([any_of(allows), Call("not", (any_of(denies),))])


def _masks_of(access: Access) -> frozenset[tuple[str, str]]:
    return frozenset((str(mask.spec), mask.when.key) for mask in access.masks)


def _mask_at_least(masks: Sequence[Masking], others: Sequence[Masking]) -> bool:
    """Tells whether masks show no more than others, wherever these can be applied."""
    return all(
        any(
            mask.hides and at_least_as_strict(mask.spec, other.spec) and implies(other.when.left, mask.when.left)
            for mask in masks
        )
        for other in others
        if other.hides
    )


def _group_at_least(groups: Sequence[Grouping], others: Sequence[Grouping]) -> bool:
    return all(
        any(group.k >= other.k and implies(other.when.left, group.when.left) for group in groups) for other in others
    )


def _is_troubled(masks: Sequence[Masking], types: tuple[str, ...]) -> bool:
    """Tells whether masks may contradict each other, or the type of a column; that denies."""
    return _clash(tuple(sorted({str(mask.spec) for mask in masks})), types)


@lru_cache(maxsize=4_096)
def _clash(texts: tuple[str, ...], types: tuple[str, ...]) -> bool:
    chosen = [*((text,) for text in texts), *combinations(texts, 2)]
    return any(
        isinstance(order_masks([(text, None) for text in some], type_, ANY_KEY), Contradiction)
        for some in chosen
        for type_ in types
    )


def _sources(settings: Settings) -> object:
    return {caller: (source.context, source.subject) for caller, source in settings.attribute_sources.items()}


def _callers(settings: Settings, path: tuple[str, ...]) -> frozenset[str]:
    """Returns who may state what a path reads."""
    of_context = path[1] == "ctx"
    return frozenset(
        caller
        for caller, source in settings.attribute_sources.items()
        if path[2] in (source.context if of_context else source.subject)
    )


def _stated_paths(access: Access) -> frozenset[tuple[str, ...]]:
    """Returns what conditions read that a caller states."""
    whens = (*access.allows, *access.denies, *(it.when for it in access.masks), *(it.when for it in access.groups))
    nodes = (node for when in whens if when.left is not TRUE for node in walk(when.left))
    return frozenset(node.names for node in nodes if isinstance(node, Path) and node.names[1] in ("ctx", "sub"))
