"""How two decisions of one question differ, in ways that matter to whoever changes rules.

Owns the comparison. What it calls weaker or stronger is so for every row; where that depends on the row, or is not
decided here, masks are called different.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from gatebook.expression.tree import Expression
from gatebook.values import Decision, Effect, Mask, MaskKind


class DifferenceKind(enum.IntEnum):
    """How decisions differ. See `DifferenceKind` in replay.proto."""

    UNSPECIFIED = 0
    DENY_TO_ALLOW = 1
    ALLOW_TO_DENY = 2
    COLUMNS_GAINED = 3
    COLUMNS_LOST = 4
    MASKS_WEAKER = 5
    MASKS_STRONGER = 6
    MASKS_DIFFERENT = 7
    ROWS_DIFFERENT = 8
    GROUP_SMALLER = 9
    GROUP_LARGER = 10
    REASON = 11


class Difference(msgspec.Struct, frozen=True):
    """In which ways two decisions differ (none: not at all), in which columns, and both in words."""

    kinds: tuple[DifferenceKind, ...] = ()
    columns: tuple[str, ...] = ()
    before: str = ""
    after: str = ""


Decided = tuple[Decision, Expression | None]
"""A decision, and what a plan leaves to each row."""


def difference(before: Decided, after: Decided) -> Difference:
    """Returns how the second decision differs from the first."""
    old, new = before[0], after[0]
    kinds: dict[DifferenceKind, None] = {}
    columns: dict[str, None] = {}
    if old.allowed != new.allowed:
        kinds[DifferenceKind.DENY_TO_ALLOW if new.allowed else DifferenceKind.ALLOW_TO_DENY] = None
    elif not old.allowed:
        kinds |= {DifferenceKind.REASON: None} if old.reason is not new.reason else {}
    else:
        for kind, names in _of_columns(_masks(old), _masks(new)):
            kinds[kind] = None
            columns |= dict.fromkeys(names)
        if before[1] != after[1]:
            kinds[DifferenceKind.ROWS_DIFFERENT] = None
        was, will = _k(old), _k(new)
        if was != will:
            kinds[DifferenceKind.GROUP_SMALLER if will < was else DifferenceKind.GROUP_LARGER] = None
    if not kinds:
        return Difference()
    return Difference(tuple(sorted(kinds)), tuple(columns), words(old, columns), words(new, columns))


def _of_columns(
    had: Mapping[str, tuple[Mask, ...]], has: Mapping[str, tuple[Mask, ...]]
) -> Iterator[tuple[DifferenceKind, Sequence[str]]]:
    """Yields how the columns of two allows differ, and which."""
    for kind, names in (
        (DifferenceKind.COLUMNS_GAINED, [name for name in has if name not in had]),
        (DifferenceKind.COLUMNS_LOST, [name for name in had if name not in has]),
    ):
        if names:
            yield kind, names
    for name in [name for name in had if name in has]:
        compared = _compare(had[name], has[name])
        if compared is not None:
            yield compared, (name,)


def words(decision: Decision, columns: Mapping[str, None]) -> str:
    """Returns a decision in words, as far as some columns are concerned."""
    if not decision.allowed:
        return f"DENY {decision.reason.name}"
    masks = _masks(decision)
    told = ["ALLOW"]
    for name in columns:
        kinds = [mask.kind.name.lower() for mask in masks.get(name, ())] or ["in clear"]
        told.append(f"{name}: {', '.join(kinds) if name in masks else 'withheld'}")
    if decision.minimum_group is not None:
        told.append(f"groups of {decision.minimum_group.k}")
    return "; ".join(told)


def _masks(decision: Decision) -> dict[str, tuple[Mask, ...]]:
    """Returns the masks of each column that is allowed; whose key a hash is of does not matter."""
    return {
        it.column: tuple(msgspec.structs.replace(mask, key_id="") for mask in it.masks)
        for it in decision.columns
        if it.effect is Effect.ALLOW
    }


def _compare(old: tuple[Mask, ...], new: tuple[Mask, ...]) -> DifferenceKind | None:
    if old == new:
        return None
    if any(mask.condition is not None for mask in (*old, *new)) or max(len(old), len(new)) > 1:
        return DifferenceKind.MASKS_DIFFERENT
    was, will = (masks[0].kind if masks else MaskKind.NONE for masks in (old, new))
    if was is will:
        return None if was is MaskKind.NONE else DifferenceKind.MASKS_DIFFERENT
    if MaskKind.CUSTOM in (was, will):
        return DifferenceKind.MASKS_DIFFERENT if MaskKind.NONE not in (was, will) else _order(was, will)
    return _order(was, will)


def _order(was: MaskKind, will: MaskKind) -> DifferenceKind:
    # Kinds are numbered from the strictest on (semantics: the order of masks).
    return DifferenceKind.MASKS_WEAKER if will > was else DifferenceKind.MASKS_STRONGER


def _k(decision: Decision) -> int:
    return 0 if decision.minimum_group is None else decision.minimum_group.k
