"""Who could be allowed what: the audience of everything that a catalogue knows.

Owns the analysis. A subject could be allowed an action on a column for a purpose, if some context that a caller may
state, some row and some time from now on make a rule allow it, no rule deny it, and its masks and minimum groups
applicable; for a purpose that the dataset's notice permits. Promises:

1. nobody who could be allowed is missing: what cannot be decided counts, as POSSIBLE;
2. a CERTAIN one has a witness, a request that the rules allow. Whether data subjects consent, whether a notice is in
   force yet, and what an enforcer can apply, is another matter, and narrows;
3. who could be allowed rows about themselves alone stands apart, as OWN.

Subjects are worked on as bits (`people`), requests as cells (`rules`), and conditions by what they leave
(`conditions`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import combinations

import msgspec

from gatebook.engine.mask_order import Contradiction, order_masks
from gatebook.engine.obligations import parameter_of
from gatebook.governance.carried import Carried, Remembered, remembered
from gatebook.governance.conditions import Conditions, Part
from gatebook.governance.judge import Judge, Judged, Left, Level
from gatebook.governance.people import NOBODY, Bits, People, bits_of, first_of, places
from gatebook.governance.rules import CONDITION, SUBJECT, Cell, Rules
from gatebook.pace import Pause, no_pause, paced
from gatebook.policy.dataset import Dataset
from gatebook.policy.directory import Directory, Subject
from gatebook.policy.masks import MaskError, parse_group, parse_mask
from gatebook.policy.policy_set import PolicySet
from gatebook.values import MaskKind, Rule

FEW_PARTS = 32
"""Parts of a condition up to which sets are split part by part, beyond it subject by subject."""

ANY_KEY = "key"
"""Stands for the key of hashes, which every purpose has."""


class Reach(msgspec.Struct, frozen=True):
    """Who could be allowed; each subject stands in one set at most."""

    certain: Bits = NOBODY
    possible: Bits = NOBODY
    own: Bits = NOBODY

    @property
    def beyond_own(self) -> Bits:
        """Returns who could be allowed rows about others."""
        return self.certain | self.possible

    @property
    def anybody(self) -> Bits:
        """Returns everybody."""
        return self.certain | self.possible | self.own

    def __or__(self, other: Reach) -> Reach:
        """Returns who could be allowed one or the other."""
        certain = self.certain | other.certain
        possible = (self.possible | other.possible) & ~certain
        return Reach(certain, possible, (self.own | other.own) & ~certain & ~possible)

    def level(self, place: int) -> Level:
        """Returns how far the subject at a place could be allowed."""
        bit = 1 << place
        if self.certain & bit:
            return Level.CERTAIN
        return Level.POSSIBLE if self.possible & bit else Level.OWN if self.own & bit else Level.NOBODY


class Grant(msgspec.Struct, frozen=True):
    """How one subject could be allowed a cell: the rule, and what it takes."""

    subject: Subject
    cell: Cell
    rule: Rule
    judged: Judged


class Applied(msgspec.Struct, frozen=True):
    """Who holds the role of a rule, and for whom it applies `always`, `never`, or depends (`unsure`)."""

    holders: Bits
    always: Bits
    never: Bits
    unsure: Bits


class Audiences:
    """The audiences of one policy set under one directory. Immutable but for memos that change no answer."""

    def __init__(
        self,
        policy_set: PolicySet,
        directory: Directory,
        now: str = "",
        pause: Pause = no_pause,
        beside: PolicySet | None = None,
        before: Remembered | None = None,
    ) -> None:
        """Takes a governed set; `now` is the earliest time that counts, as a `Moment` is written (empty: any).

        What is left of conditions can be compared with what is left of those of another set, if each stood `beside`
        the other: the same then stands for the id of each subject. What is remembered of an analysis `before`, of
        whatever set and directory, is taken over where it is the same; that changes no answer.
        """
        self.policy_set = policy_set
        self.people = People(directory, policy_set.edges)
        self.rules = Rules(policy_set)
        self.conditions = Conditions(policy_set, self.people, beside)
        self.judge = Judge(policy_set.settings, now)
        self._now = now
        self._reached: dict[bytes, Reach] = {}
        self._contents: dict[object, bytes] = {}
        self._basis = repr((policy_set.model, policy_set.settings.attribute_sources, self.conditions.id_is_alike))
        links = sorted((edge.gtype, edge.child, edge.parent) for edge in policy_set.edges)
        self._links = sha256(repr(links).encode()).hexdigest()
        self._carried = None if before is None else Carried(before, self.people, self.conditions.alone)
        self._by_condition: dict[tuple[str, object], Reach] = {}
        self._applied: dict[tuple[str, str], Applied] = {}
        self._pause = pause

    def datasets(self, node: str = "") -> tuple[Dataset, ...]:
        """Returns the datasets with a column under a node of the catalogue; all without one."""
        catalogue = self.policy_set.catalogue
        known = () if catalogue is None else tuple(catalogue.datasets.values())
        if not node:
            return known
        return tuple(it for it in known if any(node in self.rules.nodes_of(column) for column in it.columns.values()))

    def cells(self, dataset: Dataset, actions: Sequence[str] = (), node: str = "") -> Iterator[tuple[Cell, Reach]]:
        """Yields what can be asked of a dataset (under a node), and who could be allowed it."""
        for cell in paced(self.rules.cells(dataset, actions or self.rules.actions, node), self._pause):
            reach = self.reach(cell)
            if reach.anybody:
                yield cell, reach

    def of_dataset(self, dataset: Dataset, action: str) -> Reach:
        """Returns who could be allowed an action on any column of a dataset, for any purpose."""
        whole = Reach()
        for _, reach in self.cells(dataset, (action,)):
            whole |= reach
        return whole

    def reach(self, cell: Cell) -> Reach:
        """Returns who could be allowed a cell."""
        types = tuple(sorted({cell.dataset.columns[name].type for name in cell.columns})) if cell.rules.masks else ()
        content = self._content(cell, types)
        reach = self._reached.get(content)
        if reach is None:
            taken = None if self._carried is None else self._carried.take(cell, content)
            if taken is None:
                reach = self._reach(cell, types, self.people.everybody)
            else:
                kept, again = taken
                reach = Reach(*kept) | (self._reach(cell, types, again) if again else Reach())
            self._reached[content] = reach
        return reach

    def remembered(self) -> Remembered:
        """Returns what an analysis after this one can take over, of what was asked for."""
        reached = ((content, (it.certain, it.possible, it.own)) for content, it in self._reached.items())
        return remembered(self.people, self.conditions.alone, reached)

    def _content(self, cell: Cell, types: tuple[str, ...]) -> bytes:
        """Tells apart, between analyses too, on what it depends for one subject whether it could be allowed a cell."""
        rules = cell.rules
        digest = sha256(self._content_of_dataset(cell.dataset))
        every = (rules.allows, rules.denies, rules.masks, rules.groups)
        texts = {rule.fields[CONDITION] for spoken in every for rule in spoken}
        now = "" if texts.isdisjoint(self.conditions.reading_time) else self._now
        links = "" if texts.isdisjoint(self.conditions.reading_links) else self._links
        digest.update(repr((cell.masked, cell.own, types, now, links)).encode())
        for spoken in every:
            digest.update(len(spoken).to_bytes(8, "big"))
            digest.update(b"".join(map(self._content_of_rule, spoken)))
        return digest.digest()

    def _content_of_rule(self, rule: Rule) -> bytes:
        found = self._contents.get(id(rule))
        if found is None:
            found = self._contents[id(rule)] = sha256(repr((rule.ptype, rule.fields)).encode()).digest()
        return found

    def _content_of_dataset(self, dataset: Dataset) -> bytes:
        found = self._contents.get(dataset.id)
        if found is None:
            columns = sorted((name, column.type) for name, column in dataset.columns.items())
            told = (self._basis, columns, dataset.subject_keys, dataset.group_minimum)
            found = self._contents[dataset.id] = sha256(repr(told).encode()).digest()
        return found

    def grant(self, subject: Subject, cell: Cell) -> Grant | None:
        """Returns how a subject could be allowed a cell; None where it could not."""
        bit = 1 << self.people.place[subject.id]
        if not self.reach(cell).anybody & bit:
            return None
        rules, left = self._left_of(subject, cell)
        judged = self.judge.judge(left, cell.dataset)
        return Grant(subject, cell, rules[judged.allow], judged)

    def _left_of(self, subject: Subject, cell: Cell) -> tuple[list[Rule], Left]:
        place = self.people.place[subject.id]
        held = self.people.roles(place)

        def among(rules: Sequence[Rule]) -> Iterator[tuple[Rule, Part]]:
            for rule in rules:
                if rule.fields[SUBJECT] in held:
                    yield rule, self.conditions.part_at(rule.fields[CONDITION], place)

        allows = [(rule, part) for rule, part in among(cell.rules.allows) if _may(part)]
        denies = [part for _, part in among(self.denies(cell)) if part.left is not False]
        masks = [part for rule, part in among(cell.answers) if _may_mask(rule, part)] if cell.masked else []
        left = Left(
            tuple(part for _, part in allows),
            tuple(denies),
            tuple(masks) if cell.masked else None,
            self.conditions.id_of(place, read=self.reads_id(cell)),
        )
        return [rule for rule, _ in allows], left

    def applied(self, rule: Rule) -> Applied:
        """Returns for whom a rule applies."""
        key = (rule.fields[SUBJECT], rule.fields[CONDITION])
        applied = self._applied.get(key)
        if applied is None:
            holders = self.people.holders(rule.fields[SUBJECT])
            always = never = NOBODY
            unsure = NOBODY
            for part in self.conditions.parts(rule.fields[CONDITION]):
                held = part.bits & holders
                if part.left is True:
                    always |= held
                elif part.left is False:
                    never |= held
                elif part.left is not None:
                    unsure |= held
            applied = self._applied[key] = Applied(holders, always, never, unsure)
        return applied

    def denies(self, cell: Cell) -> tuple[Rule, ...]:
        """Returns what denies a cell: its denies, and minimum groups that figures cannot promise."""
        if cell.dataset.subject_keys:
            return cell.rules.denies
        return (*cell.rules.denies, *(rule for rule in cell.rules.groups if _is_beyond(rule, cell.dataset)))

    def _reach(self, cell: Cell, types: tuple[str, ...], within: Bits) -> Reach:
        """Works on some subjects."""
        certain = may = NOBODY
        for rule in cell.rules.allows:
            applied = self.applied(rule)
            certain |= applied.always
            may |= applied.always | applied.unsure
        may &= within
        unsure = NOBODY
        for rule in self.denies(cell):
            applied = self.applied(rule)
            unsure |= applied.unsure
            may &= ~(applied.holders & ~applied.never & ~applied.unsure)
        if cell.masked:
            masked = maybe_masked = NOBODY
            for rule in cell.answers:
                applied = self.applied(rule)
                masked |= applied.always
                maybe_masked |= applied.holders & ~applied.never
            may &= maybe_masked
            certain &= masked
            unsure |= ~masked
        certain &= may & ~unsure
        if not may:
            return Reach()
        reach = Reach(certain)
        for rule in cell.rules.allows:
            # Where nothing else is open, each allow speaks for itself.
            alone = may & ~unsure & self.people.holders(rule.fields[SUBJECT])
            if alone & ~certain:
                found = self._alone(rule.fields[CONDITION], cell.dataset)
                reach |= Reach(found.certain & alone, found.possible & alone, found.own & alone)
        for bits, left in self._alike(may & unsure, cell):
            level = self.judge.judge(left, cell.dataset).level
            reach |= _at(level, bits)
        troubled = self._troubled(cell, types) & reach.certain
        if troubled:
            reach = Reach(reach.certain & ~troubled, reach.possible | troubled, reach.own)
        return reach

    def _alone(self, condition: str, dataset: Dataset) -> Reach:
        """Returns whom a condition lets in, would they hold the role, and were there no other rule."""
        key = (condition, self.judge.shape(dataset, self.conditions.columns(condition)))
        found = self._by_condition.get(key)
        if found is None:
            found = Reach()
            read = self.conditions.reads_id(condition)
            for part in self.conditions.parts(condition):
                for bits in self.conditions.by_id(part.bits, read=read) if _may(part) else ():
                    own = self.conditions.id_of(first_of(bits), read=read)
                    found |= _at(self.judge.judge(Left((part,), (), None, own), dataset).level, bits)
            self._by_condition[key] = found
        return found

    def _alike(self, bits: Bits, cell: Cell) -> Iterator[tuple[Bits, Left]]:
        """Yields subjects together of whom the same is left."""
        always = NOBODY
        for rule in cell.rules.allows:
            always |= self.applied(rule).always
        read = self.reads_id(cell)
        # Whom a rule allows without condition, the conditions of other allows do not concern.
        for some, allows in ((bits & always, ()), (bits & ~always, cell.rules.allows)):
            groups = [some] if some else []
            for condition, role in self._open(some, (*allows, *self.denies(cell)), cell.answers if cell.masked else ()):
                holders = self.people.holders(role)
                groups = [part for group in groups for part in self.split(group, holders, condition)]
            for group in groups:
                for members in self.conditions.by_id(group, read=read):
                    _, left = self._left_of(self.people.subjects[first_of(members)], cell)
                    yield members, left

    def _open(self, bits: Bits, rules: Sequence[Rule], masks: Sequence[Rule]) -> dict[tuple[str, str], None]:
        """Returns the conditions, each with a role, that tell some subjects apart."""
        applied = [(rule, self.applied(rule)) for rule in rules]
        telling = [rule for rule, it in applied if it.unsure & bits]
        telling += [rule for rule in masks if (it := self.applied(rule)).holders & ~it.never & bits]
        return dict.fromkeys((rule.fields[CONDITION], rule.fields[SUBJECT]) for rule in telling)

    def _speaking(self, cell: Cell) -> set[str]:
        """Returns the conditions on which it depends who could be allowed a cell."""
        rules = (*cell.rules.allows, *self.denies(cell), *(cell.answers if cell.masked else ()))
        return {rule.fields[CONDITION] for rule in rules}

    def reads_id(self, cell: Cell) -> bool:
        """Tells whether it depends on the id of a subject whether it could be allowed a cell."""
        return any(map(self.conditions.reads_id, self._speaking(cell)))

    def split(self, group: Bits, holders: Bits, condition: str) -> Iterator[Bits]:
        """Yields the parts of a group by who holds the role, and of these by what is left of the condition."""
        if without := group & ~holders:
            yield without
        held = group & holders
        parts = self.conditions.parts(condition)
        if len(parts) <= FEW_PARTS:
            yield from (inside for part in parts if (inside := held & part.bits))
            return
        part_of = self.conditions.part_of(condition)
        alike: dict[int, list[int]] = {}
        for place in places(held):
            alike.setdefault(part_of[place], []).append(place)
        yield from (bits_of(members, len(self.people.subjects)) for members in alike.values())

    def _troubled(self, cell: Cell, types: tuple[str, ...]) -> Bits:
        """Returns for whom masks may contradict each other, or a column's type; that denies."""
        texts = sorted({parameter_of(rule) for rule in cell.rules.masks})
        chosen = [*((text,) for text in texts), *combinations(texts, 2)]
        if not any(
            isinstance(order_masks([(text, None) for text in some], type_, ANY_KEY), Contradiction)
            for some in chosen
            for type_ in types
        ):
            return NOBODY
        troubled = NOBODY
        for rule in cell.rules.masks:
            applied = self.applied(rule)
            troubled |= applied.holders & ~applied.never
        return troubled


def _at(level: Level, bits: Bits) -> Reach:
    return Reach(*(bits if level is of else NOBODY for of in (Level.CERTAIN, Level.POSSIBLE, Level.OWN)))


def _may(part: Part) -> bool:
    return part.left is not False and part.left is not None


def _may_mask(rule: Rule, part: Part) -> bool:
    """Tells whether a mask may apply: where it hides also if that is unknown, where it shows not."""
    if part.left is None:
        try:
            return parse_mask(parameter_of(rule)).kind is not MaskKind.NONE
        except MaskError:
            return True
    return part.left is not False


def _is_beyond(rule: Rule, dataset: Dataset) -> bool:
    try:
        return parse_group(parameter_of(rule)) > dataset.group_minimum
    except MaskError:
        return True
