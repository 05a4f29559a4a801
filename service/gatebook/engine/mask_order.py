"""The masks of one column, in the order in which an enforcer tries them.

Owns what several masks on one column mean together (design section 5.4):

1. they are ordered the strictest first, and end with the first that always applies, so that the first
   whose condition is true or unknown is the strictest of all that apply to the row;
2. a mask that one which always applies covers is never reached, and left out;
3. two masks that are reached and of which neither is the stricter deny, and so does one that the
   column's type cannot hold, or that does not parse;
4. a `none` counts only where it certainly applies: it is a permission, and what is unknown permits nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from functools import cmp_to_key, lru_cache
from itertools import combinations

import msgspec
from msgspec import structs

from gatebook.expression.tree import Expression, Literal
from gatebook.policy.masks import MaskError, MaskSpec, at_least_as_strict, castable, parse_mask
from gatebook.values import Mask, MaskKind

MASKS_OF_COLUMN_MAX = 32
"""Masks that one column of one decision may meet; beyond it the column is denied."""

TYPED = frozenset({MaskKind.DEFAULT, MaskKind.CONSTANT})


class Applies(enum.Enum):
    """When a mask applies to a row."""

    ALWAYS = enum.auto()
    UNKNOWN = enum.auto()
    """Its condition is unknown for every row."""
    BY_ROW = enum.auto()


class Ordered(msgspec.Struct, frozen=True):
    """Masks in order. `origins` are their positions among those that were meant.

    `always` tells whether one of them applies to every row, and `kinds` which an enforcer must know.
    """

    masks: tuple[Mask, ...] = ()
    origins: tuple[int, ...] = ()
    kinds: frozenset[MaskKind] = frozenset()
    always: bool = False


class Contradiction(msgspec.Struct, frozen=True):
    """Why masks cannot be applied, in words."""

    message: str


class _Reading(msgspec.Struct, frozen=True):
    """A mask that was meant, read; `always` where it applies to every row."""

    spec: MaskSpec
    always: bool
    origin: int


def order_masks(
    meant: Sequence[tuple[str, Expression | None]], column_type: str, key_id: str
) -> Ordered | Contradiction:
    """Orders the masks that rules mean for a column of this type; `key_id` is that of hashes.

    Each is the mask as its rule writes it, and the condition on the row under which it applies (None: always).
    """
    ordered = _order(tuple([(text, _applies(condition)) for text, condition in meant]), column_type, key_id)
    if isinstance(ordered, Contradiction) or len(ordered.masks) <= ordered.always:
        return ordered
    last = len(ordered.masks) - 1
    masks = [
        mask if ordered.always and place == last else structs.replace(mask, condition=meant[origin][1])
        for place, (mask, origin) in enumerate(zip(ordered.masks, ordered.origins, strict=True))
    ]
    return structs.replace(ordered, masks=tuple(masks))


def _applies(condition: Expression | None) -> Applies:
    if condition is None:
        return Applies.ALWAYS
    if isinstance(condition, Literal) and condition.value is not False:
        return Applies.UNKNOWN
    return Applies.BY_ROW


# The order does not depend on what the conditions say, so a policy set has few orders, and no constant of a
# request stays in the cache.
@lru_cache(maxsize=8192)
def _order(meant: tuple[tuple[str, Applies], ...], column_type: str, key_id: str) -> Ordered | Contradiction:
    try:
        readings = _read(meant)
    except MaskError as err:
        return Contradiction(err.message)
    if len(readings) > MASKS_OF_COLUMN_MAX:
        return Contradiction(f"more than {MASKS_OF_COLUMN_MAX} masks meet")
    always = [each for each in readings if each.always]
    reached = [each for each in readings if not any(_covers(other, each) for other in always)]
    reason = _contradiction(reached, column_type, key_id)
    if reason:
        return Contradiction(reason)
    # INVARIANT: at most one mask of `reached` always applies, it is the least strict of them, and so the last.
    ordered = sorted(reached, key=cmp_to_key(_strictest_first))
    return Ordered(
        masks=tuple(_mask(each.spec, column_type, key_id) for each in ordered),
        origins=tuple(each.origin for each in ordered),
        kinds=frozenset(each.spec.kind for each in ordered) - {MaskKind.NONE},
        always=bool(ordered) and ordered[-1].always,
    )


def _read(meant: Sequence[tuple[str, Applies]]) -> list[_Reading]:
    """Reads masks: those that always apply once each, and no `none` that might not apply.

    Raises:
        MaskError: One of them is no mask.
    """
    found = []
    always = set()
    for origin, (text, applies) in enumerate(meant):
        spec = parse_mask(text)
        if spec.kind is MaskKind.NONE and applies is not Applies.ALWAYS:
            continue
        if applies is not Applies.BY_ROW:
            if spec in always:
                continue
            always.add(spec)
        found.append(_Reading(spec, applies is not Applies.BY_ROW, origin))
    return found


def _covers(other: _Reading, each: _Reading) -> bool:
    """Tells whether a mask that always applies leaves nothing for another to do."""
    return other is not each and at_least_as_strict(other.spec, each.spec)


def _contradiction(reached: Sequence[_Reading], column_type: str, key_id: str) -> str:
    """Says why these masks cannot be applied to the column; empty when they can."""
    for one, other in combinations(reached, 2):
        if not at_least_as_strict(one.spec, other.spec) and not at_least_as_strict(other.spec, one.spec):
            return f"masks `{one.spec}` and `{other.spec}` contradict each other"
    for each in reached:
        if not castable(each.spec, column_type):
            return f"mask `{each.spec}` cannot be cast to type `{column_type}`"
        if each.spec.kind is MaskKind.HASH and not key_id:
            return "mask `hash` has no key"
    return ""


def _strictest_first(one: _Reading, other: _Reading) -> int:
    if one.spec == other.spec:
        return 0
    return -1 if at_least_as_strict(one.spec, other.spec) else 1


def _mask(spec: MaskSpec, column_type: str, key_id: str) -> Mask:
    """Returns the mask as a decision carries it, without its condition."""
    parameters = spec.parameters()
    if spec.kind in TYPED:
        parameters["type"] = column_type
    return Mask(spec.kind, parameters, None, key_id if spec.kind is MaskKind.HASH else "")
