"""What each subject gets of a cell: which rows, behind which masks, in groups of which size at least.

Owns the partition of some subjects by that. Of everybody in one part the same is left of every rule that speaks of
the cell, so that two revisions are compared part by part and not person by person. Rules:

1. whom an allow lets in without condition, conditions of other allows do not concern;
2. whom a deny denies without condition has nothing, and so has whom no allow lets in;
3. what is unknown whatever happens does not allow, but denies, hides and groups as if it were true.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from gatebook.engine.obligations import parameter_of
from gatebook.expression.tree import Expression, Literal
from gatebook.governance.audience import Audiences
from gatebook.governance.conditions import Part
from gatebook.governance.judge import Left
from gatebook.governance.people import NOBODY, Bits, first_of
from gatebook.governance.rules import CONDITION, SUBJECT, Cell
from gatebook.policy.masks import MaskSpec, parse_group, parse_mask
from gatebook.values import MaskKind, Rule

TRUE = Literal(value=True)


class Open(msgspec.Struct, frozen=True):
    """What is left of a rule's condition; `key` tells it apart."""

    left: Expression
    key: str
    rule: Rule

    @property
    def always(self) -> bool:
        """Tells whether it holds whatever happens."""
        return isinstance(self.left, Literal)


class Masking(msgspec.Struct, frozen=True):
    """A mask and when it applies; `answers` tells whether it is one that a tag which demands a mask asks for."""

    spec: MaskSpec
    when: Open
    answers: bool = True

    @property
    def hides(self) -> bool:
        """Tells whether it changes what is shown; a `none` permits."""
        return self.spec.kind is not MaskKind.NONE


class Grouping(msgspec.Struct, frozen=True):
    """A minimum group and when it applies."""

    k: int
    when: Open


class Access(msgspec.Struct, frozen=True):
    """What the rules leave to one part of the subjects. Without an allow it is nothing.

    `left` is the same as the search for a witness takes it. `allow_rules` are in the order of its allows.
    """

    allows: tuple[Open, ...] = ()
    denies: tuple[Open, ...] = ()
    masks: tuple[Masking, ...] = ()
    groups: tuple[Grouping, ...] = ()
    left: Left = Left((), (), None, "")
    key: tuple[object, ...] = ()

    @property
    def nothing(self) -> bool:
        """Tells whether nobody of the part could be allowed."""
        return not self.allows


NOTHING = Access()


def parted(audiences: Audiences, cell: Cell | None, bits: Bits) -> list[tuple[Bits, Access]]:
    """Returns parts of some subjects, together all of them, each with what it gets of a cell (None: nothing)."""
    if cell is None:
        return [(bits, NOTHING)]
    always = may = NOBODY
    for rule in cell.rules.allows:
        applied = audiences.applied(rule)
        always |= applied.always
        may |= applied.always | applied.unsure
    denies = audiences.denies(cell)
    for rule in denies:
        applied = audiences.applied(rule)
        may &= ~(applied.holders & ~applied.never & ~applied.unsure)
    may &= bits
    parts = [(bits & ~may, NOTHING)] if bits & ~may else []
    obliging = (*cell.rules.masks, *cell.rules.groups)
    for some, allows in ((may & always, ()), (may & ~always, cell.rules.allows)):
        groups = _alike(audiences, some, (*allows, *denies), obliging)
        parts += [(group, access_of(audiences, cell, first_of(group))) for group in groups]
    return parts


def access_of(audiences: Audiences, cell: Cell, place: int) -> Access:
    """Returns what the subject at a place gets of a cell.

    Raises:
        MaskError: a mask or minimum group is none; a set with such a rule is never loaded.
    """
    held = audiences.people.roles(place)

    def among(rules: Sequence[Rule]) -> Iterator[tuple[Rule, Part]]:
        for rule in rules:
            if rule.fields[SUBJECT] in held:
                part = audiences.conditions.part_at(rule.fields[CONDITION], place)
                if part.left is not False:
                    yield rule, part

    allows = [(rule, part) for rule, part in among(cell.rules.allows) if part.left is not None]
    allows = [(rule, part) for rule, part in allows if part.left is True][:1] or allows
    denies = list(among(audiences.denies(cell)))
    if not allows or any(part.left is True or part.left is None for _, part in denies):
        return NOTHING
    answering = frozenset(map(id, cell.answers))
    found = ((part, _masking(rule, part, answers=id(rule) in answering)) for rule, part in among(cell.rules.masks))
    masks = [(part, mask) for part, mask in found if mask is not None]
    masking = tuple(mask for _, mask in masks)
    groups = tuple(_groupings(cell, among(cell.rules.groups)))
    left = Left(
        tuple(part for _, part in allows),
        tuple(part for _, part in denies),
        tuple(part for part, mask in masks if mask.answers) if cell.masked else None,
        audiences.conditions.id_of(place, read=audiences.reads_id(cell)),
    )
    opened = tuple(_open(rule, part) for rule, part in allows)
    denying = tuple(_open(rule, part) for rule, part in denies)
    key = (
        tuple(it.key for it in opened),
        tuple(it.key for it in denying),
        tuple((str(mask.spec), mask.when.key, mask.answers) for mask in masking),
        tuple((group.k, group.when.key) for group in groups),
        left.id,
    )
    return Access(opened, denying, masking, groups, left, key)


def _alike(audiences: Audiences, bits: Bits, ruling: Sequence[Rule], obliging: Sequence[Rule]) -> Iterator[Bits]:
    """Yields subjects together of whom the same is left of rules."""
    if not bits:
        return
    telling: dict[tuple[str, str], None] = {}
    for rule in ruling:
        if audiences.applied(rule).unsure & bits:
            telling[(rule.fields[CONDITION], rule.fields[SUBJECT])] = None
    for rule in obliging:
        applied = audiences.applied(rule)
        if applied.holders & ~applied.never & bits:
            telling[(rule.fields[CONDITION], rule.fields[SUBJECT])] = None
    groups = [bits]
    for condition, role in telling:
        holders = audiences.people.holders(role)
        groups = [part for group in groups for part in audiences.split(group, holders, condition)]
    # A rule that is read only where nobody is concerned tells nobody apart, but the id stands for itself all the same.
    read = any(audiences.conditions.reads_id(rule.fields[CONDITION]) for rule in (*ruling, *obliging))
    for group in groups:
        yield from audiences.conditions.by_id(group, read=read)


def _open(rule: Rule, part: Part) -> Open:
    """Returns what is left of a rule that applies: unknown counts as true, since it denies and hides."""
    if isinstance(part.left, bool | None):
        return Open(TRUE, "True", rule)
    return Open(part.left, part.key, rule)


def _masking(rule: Rule, part: Part, *, answers: bool) -> Masking | None:
    """Returns a mask that may apply; a `none` whose condition is unknown permits nothing."""
    spec = parse_mask(parameter_of(rule))
    return None if spec.kind is MaskKind.NONE and part.left is None else Masking(spec, _open(rule, part), answers)


def _groupings(cell: Cell, groups: Iterator[tuple[Rule, Part]]) -> Iterator[Grouping]:
    """Yields the minimum groups that are left to the enforcer; of figures there is none, they deny."""
    for rule, part in groups if cell.dataset.subject_keys else ():
        yield Grouping(parse_group(parameter_of(rule)), _open(rule, part))
