"""The masks of one column for all rows: in which order they are tried, and which rows they leave without an answer.

Owns what `mask_order` says of one row, said of every row at once. For each row, with the masks that apply to it:

1. the first of `masks` whose condition is true or unknown is the one that `order_masks` leaves;
2. one of `clauses` is not True exactly where `order_masks` says that they contradict each other, or cannot be applied;
   such a row is not shown;
3. `meets` is True exactly where there is a mask at all; None stands for every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import msgspec

from gatebook.engine.judged import Said
from gatebook.engine.mask_order import MASKS_OF_COLUMN_MAX, TYPED, Contradiction
from gatebook.expression.junction import any_of
from gatebook.expression.tree import Call, Expression, Literal
from gatebook.policy.masks import MaskError, MaskSpec, at_least_as_strict, castable, parse_mask
from gatebook.values import Mask, MaskKind, Rule

NOT_FALSE = "not_false"
"""The operator that is True where its operand is True or UNKNOWN, and else False; only row filters have it."""


class RowMasks(msgspec.Struct, frozen=True):
    """The masks of a column, in order, and what must be True of a row that is shown."""

    masks: tuple[Mask, ...] = ()
    clauses: tuple[Expression, ...] = ()
    rules: tuple[Rule, ...] = ()
    meets: Expression | None = Literal(value=False)

    @property
    def kinds(self) -> frozenset[MaskKind]:
        """Returns the kinds that an enforcer must know."""
        return frozenset(mask.kind for mask in self.masks) - {MaskKind.NONE}


class _Meant(msgspec.Struct, frozen=True):
    """A mask that some rows meet: all of them where `condition` is None."""

    spec: MaskSpec
    condition: Expression | None

    @property
    def applies(self) -> Expression | None:
        """Returns what is True where the mask applies, and False elsewhere; None where it always does."""
        if self.condition is None or self.spec.kind is MaskKind.NONE:
            return self.condition  # what is unknown permits nothing
        return Call(NOT_FALSE, (self.condition,))


def mask_rows(said: Sequence[tuple[str, Said]], column_type: str, key_id: str) -> RowMasks | Contradiction:
    """Orders the masks that rules mean for a column of this type; `key_id` is that of hashes.

    Each is the mask as its rule writes it, and what the rule says.
    """
    try:
        meant = _meant([(parse_mask(text), each) for text, each in said])
    except MaskError as err:
        return Contradiction(err.message)
    if len(meant) > MASKS_OF_COLUMN_MAX:
        return Contradiction(f"more than {MASKS_OF_COLUMN_MAX} masks meet")
    always = [each for each in meant if each.condition is None]
    ordered = _strictest_first([each for each in meant if not any(_covers(other, each) for other in always)])
    clauses: list[Expression] = []
    for troubled, why in _troubles(ordered, column_type, key_id):
        clause = _unless_reached(troubled, ordered)
        if clause is None:
            return Contradiction(why)
        clauses.append(clause)
    # A `none` that depends on the row comes last, and what comes last is shown in clear anyway.
    shown = [each for each in ordered if each.spec.kind is not MaskKind.NONE or each.condition is None]
    return RowMasks(
        tuple([_mask(each, column_type, key_id) for each in shown]),
        tuple(clauses),
        tuple(dict.fromkeys(each.rule for _, each in said)),
        _met([each.applies for each in meant]),
    )


def _meant(said: Sequence[tuple[MaskSpec, Said]]) -> list[_Meant]:
    """Returns each mask once, with the condition under which any rule means it."""
    conditions: dict[MaskSpec, list[Expression] | None] = {}
    for spec, each in said:
        is_always = each.always or (each.unknown and spec.kind is not MaskKind.NONE)
        if is_always:
            conditions[spec] = None
        elif not each.unknown and each.condition is not None:
            known = conditions.setdefault(spec, [])
            if known is not None:
                known.append(each.condition)
    return [_Meant(spec, None if known is None else any_of(known)) for spec, known in conditions.items()]


def _met(applies: Sequence[Expression | None]) -> Expression | None:
    """Returns what is True where one of them applies; None stands for every row."""
    parts = [one for one in applies if one is not None]
    if len(parts) < len(applies):
        return None
    return any_of(parts) if parts else Literal(value=False)


def _covers(other: _Meant, each: _Meant) -> bool:
    """Tells whether nothing is left for a mask to do where the other applies too."""
    return other is not each and at_least_as_strict(other.spec, each.spec)


def _strictest_first(meant: Sequence[_Meant]) -> list[_Meant]:
    """Returns the masks so that none comes before one that is stricter."""
    left, ordered = list(meant), []
    while left:
        first = next((each for each in left if not any(_covers(other, each) for other in left)), left[0])
        left.remove(first)
        ordered.append(first)
    return ordered


def _troubles(ordered: Sequence[_Meant], column_type: str, key_id: str) -> list[tuple[tuple[_Meant, ...], str]]:
    """Returns the masks that must not be reached, together or alone, and why."""
    troubles: list[tuple[tuple[_Meant, ...], str]] = [
        ((one, other), f"masks `{one.spec}` and `{other.spec}` contradict each other")
        for one, other in combinations(ordered, 2)
        if not _covers(one, other) and not _covers(other, one)
    ]
    alone = [((each,), _inapplicable(each.spec, column_type, key_id)) for each in ordered]
    return troubles + [trouble for trouble in alone if trouble[1]]


def _inapplicable(spec: MaskSpec, column_type: str, key_id: str) -> str:
    """Says why a mask cannot be applied to a column at all; nothing where it can."""
    if not castable(spec, column_type):
        return f"mask `{spec}` cannot be cast to type `{column_type}`"
    return "mask `hash` has no key" if spec.kind is MaskKind.HASH and not key_id else ""


def _unless_reached(troubled: Sequence[_Meant], ordered: Sequence[_Meant]) -> Expression | None:
    """Returns what is True where one of the masks does not apply, or is covered by one that does; None if nowhere."""
    fails = [Call("not", (each.condition,)) for each in troubled if each.condition is not None]
    covers = [
        other.applies
        for other in ordered
        if other.applies is not None and any(_covers(other, each) for each in troubled)
    ]
    parts = [*fails, *covers]
    return any_of(parts) if parts else None


def _mask(meant: _Meant, column_type: str, key_id: str) -> Mask:
    """Returns a mask as a decision carries it; one that cannot be applied hides all, on rows that are not shown."""
    spec = meant.spec
    if _inapplicable(spec, column_type, key_id):
        return Mask(MaskKind.NULLIFY, {}, meant.condition)
    parameters = spec.parameters()
    if spec.kind in TYPED:
        parameters["type"] = column_type
    return Mask(spec.kind, parameters, meant.condition, key_id if spec.kind is MaskKind.HASH else "")
