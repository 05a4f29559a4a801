"""What an allow of all rows obliges its enforcer to do: masks per column, the rows to keep, the minimum group.

Owns the step `oblige` of a plan. It says of every row at once what `obligations` says of one:

1. a column is shown on the rows on which the rules allow it, none denies it, and its masks can be applied;
2. without `allow_partial` a row is kept where every column is shown on it; with it, where any is, and a column
   is null on the kept rows that do not show it;
3. a column that no row shows is denied, and so is one that needs what the enforcer did not declare, or what
   `refuse` says cannot be said in SQL;
4. the minimum group is the largest of all returned columns, whether its condition holds or is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from gatebook.engine.judged import Judged, Said
from gatebook.engine.mask_order import Contradiction
from gatebook.engine.obligations import (
    Denied,
    Obliged,
    demands_mask,
    demands_own,
    denial_of,
    is_inherited,
    largest_group,
    parameter_of,
    undeclared,
)
from gatebook.engine.row_masks import RowMasks, mask_rows
from gatebook.engine.verdict import Applicable
from gatebook.expression.junction import all_of, any_of, distinct, size
from gatebook.expression.tree import Call, Expression, Literal
from gatebook.policy.dataset import Column, Dataset
from gatebook.values import (
    ColumnOutcome,
    Effect,
    Enforcer,
    Mask,
    MaskKind,
    MinimumGroup,
    ObligationKind,
    Reason,
    Rule,
)

NODES_MAX = 4_000
"""Nodes of all conditions of one plan; beyond it the plan is denied."""

Refuse = Callable[[Mask, Column], str]
"""Says why a mask of a column cannot be said; nothing where it can."""


class ForRows(msgspec.Struct, frozen=True):
    """The obligations of an allow of some rows: those for which `filter` is True, or all (None)."""

    obliged: Obliged
    filter: Expression | None = None


class _Shown(msgspec.Struct, frozen=True):
    """A column that some rows show: where each of `clauses` is True."""

    name: str
    clauses: tuple[Expression, ...]
    masks: RowMasks
    k: int
    rules: tuple[Rule, ...]

    def outcome(self) -> ColumnOutcome:
        """Returns its outcome on the rows that show it."""
        return ColumnOutcome(self.name, Effect.ALLOW, Reason.ALLOWED, self.masks.masks)

    def outcome_or_null(self, kept: Expression | None) -> ColumnOutcome:
        """Returns its outcome on the rows for which `kept` is True: null on those that do not show it."""
        if not self.clauses or repr(all_of(self.clauses)) == repr(kept):
            return self.outcome()
        hides = Mask(MaskKind.NULLIFY, {}, Call("not", (all_of(self.clauses),)))
        return ColumnOutcome(self.name, Effect.ALLOW, Reason.ALLOWED, (hides, *self.masks.masks))


class _Hidden(msgspec.Struct, frozen=True):
    """A column that no row shows, and why."""

    name: str
    reason: Reason
    message: str
    rules: tuple[Rule, ...] = ()


def oblige_rows(
    dataset: Dataset,
    judged: Sequence[Judged],
    enforcer: Enforcer,
    *,
    key_id: str,
    mask_tags: frozenset[str],
    allow_partial: bool,
    refuse: Refuse,
) -> ForRows:
    """Returns the obligations of an allow of these columns, and which rows it is about, or why there is none.

    The arguments are those of `oblige`, but for what the rules say of each column (`judged`), and what cannot be said
    (`refuse`). A denial has `obliged.failed`.
    """
    settled = [_settle(dataset, each, enforcer, key_id, mask_tags, refuse) for each in judged]
    if allow_partial and len({repr(each.clauses) for each in settled if isinstance(each, _Shown)}) > 1:
        settled = [_nullable(each, enforcer) for each in settled]
    shown = [each for each in settled if isinstance(each, _Shown)]
    if not shown or (len(shown) < len(settled) and not allow_partial):
        return ForRows(_denial(settled))
    kept = _kept(shown, allow_partial=allow_partial)
    outcomes = [
        _refused(each) if isinstance(each, _Hidden) else each.outcome_or_null(kept) if allow_partial else each.outcome()
        for each in settled
    ]
    if _size(kept, outcomes) > NODES_MAX:
        message = f"its conditions have more than {NODES_MAX} parts: ask for fewer columns"
        return ForRows(_denial([_Hidden(each.name, Reason.EVALUATION_ERROR, message) for each in settled]))
    k = max([each.k for each in shown])
    must_apply = []
    if any(mask.kind is not MaskKind.NONE for outcome in outcomes for mask in outcome.masks):
        must_apply.append(ObligationKind.MASKS)
    if kept is not None:
        must_apply.append(ObligationKind.ROW_FILTER)
    if k:
        must_apply.append(ObligationKind.MINIMUM_GROUP)
    obliged = Obliged(
        columns=tuple(outcomes),
        must_apply=tuple(must_apply),
        minimum_group=MinimumGroup(k, dataset.subject_keys) if k else None,
        rules=tuple(dict.fromkeys([rule for each in shown for rule in each.rules])),
    )
    return ForRows(obliged, kept)


def _settle(
    dataset: Dataset,
    judged: Judged,
    enforcer: Enforcer,
    key_id: str,
    mask_tags: frozenset[str],
    refuse: Refuse,
) -> _Shown | _Hidden:
    """Settles one column: where it is shown, or the first step that fails for every row."""
    name = judged.column.removeprefix(dataset.id + ".")
    permitted = _permitted(name, judged)
    if isinstance(permitted, _Hidden):
        return permitted
    column = dataset.columns.get(name)
    if column is None:
        return _Hidden(name, Reason.UNKNOWN_COLUMN, f"dataset `{dataset.id}` has no such column")
    masks = mask_rows([(parameter_of(each.rule), each) for each in judged.masks], column.type, key_id)
    if isinstance(masks, Contradiction):
        return _Hidden(name, Reason.MASK_NOT_APPLICABLE, masks.message)
    demanded = _demanded(column, judged, masks, key_id, mask_tags)
    if demanded is None:
        return _Hidden(name, Reason.MASK_REQUIRED, "a tag demands a mask and none applies to any row")
    grouped = _grouped(name, judged.groups, dataset)
    if isinstance(grouped, _Hidden):
        return grouped
    k, small_enough = grouped
    clauses = distinct([*permitted, *masks.clauses, *demanded, *small_enough])
    for mask in masks.masks:
        if why := refuse(mask, column):
            return _Hidden(name, Reason.MASK_NOT_APPLICABLE, why)
    said = (*judged.allows, *judged.denies, *judged.masks, *judged.groups)
    shown = _Shown(name, clauses, masks, k, tuple([each.rule for each in said]))
    return _declared(shown, enforcer, masks.kinds)


def _demanded(
    column: Column, judged: Judged, masks: RowMasks, key_id: str, mask_tags: frozenset[str]
) -> tuple[Expression, ...] | None:
    """Returns what must be True of a row for a mask to be there where a tag demands one; None: it is of no row."""
    demanded: tuple[Expression, ...] = ()
    if masks.meets is not None and mask_tags and demands_mask(column.tags, mask_tags):
        if isinstance(masks.meets, Literal):
            return None
        demanded = (masks.meets,)
    if column.inherits and demands_own(column, mask_tags):
        answers = [(parameter_of(each.rule), each) for each in judged.masks if not is_inherited(each.rule)]
        own = mask_rows(answers, column.type, key_id)
        if isinstance(own, Contradiction) or isinstance(own.meets, Literal):
            return None
        demanded = demanded if own.meets is None else (*demanded, own.meets)
    return demanded


def _permitted(name: str, judged: Judged) -> tuple[Expression, ...] | _Hidden:
    """Returns what must be True of a row for the rules to allow the column on it."""
    if ruling := judged.ruling:
        in_error = all(each.unknown for each in ruling)
        reason = Reason.EVALUATION_ERROR if in_error else Reason.DENIED_BY_RULE
        return _Hidden(name, reason, reason.name.lower().replace("_", " "), tuple([each.rule for each in ruling]))
    allows = [each for each in judged.allows if not each.unknown]
    if not allows:
        return _Hidden(name, judged.no_rule, judged.no_rule.name.lower().replace("_", " "))
    clauses: list[Expression] = []
    if not any(each.always for each in allows):
        clauses.append(any_of([each.condition for each in allows if each.condition is not None]))
    clauses += [Call("not", (each.condition,)) for each in judged.denies if each.condition is not None]
    return tuple(clauses)


def _grouped(name: str, groups: Sequence[Said], dataset: Dataset) -> tuple[int, tuple[Expression, ...]] | _Hidden:
    """Returns the largest minimum group, or 0, and what must be True of a row whose k the dataset cannot reach."""
    if not groups:
        return 0, ()
    if dataset.subject_keys:
        largest = largest_group([Applicable(each.rule, each.condition) for each in groups], dataset)
        return _Hidden(name, largest.reason, largest.message) if isinstance(largest, Denied) else (largest, ())
    clauses: list[Expression] = []
    for each in groups:
        largest = largest_group([Applicable(each.rule, each.condition)], dataset)
        if not isinstance(largest, Denied):
            continue
        if each.condition is None or each.unknown:
            return _Hidden(name, largest.reason, largest.message)
        clauses.append(Call("not", (each.condition,)))
    return 0, tuple(clauses)


def _declared(shown: _Shown, enforcer: Enforcer, kinds: frozenset[MaskKind]) -> _Shown | _Hidden:
    """Returns the column, if the enforcer declared all that it needs."""
    needed = {ObligationKind.MASKS} if kinds else set()
    if shown.k:
        needed.add(ObligationKind.MINIMUM_GROUP)
    if shown.clauses:
        needed.add(ObligationKind.ROW_FILTER)
    lacking = undeclared(kinds, needed, enforcer)
    return shown if lacking is None else _Hidden(shown.name, lacking.reason, lacking.message)


def _nullable(settled: _Shown | _Hidden, enforcer: Enforcer) -> _Shown | _Hidden:
    """Returns a column that is null on kept rows which do not show it, if the enforcer can make it so."""
    if isinstance(settled, _Hidden) or not settled.clauses:
        return settled
    return _declared(settled, enforcer, settled.masks.kinds | {MaskKind.NULLIFY})


def _kept(shown: Sequence[_Shown], *, allow_partial: bool) -> Expression | None:
    """Returns what is True of the rows that are kept; None where all are."""
    if not allow_partial:
        clauses = [clause for each in shown for clause in each.clauses]
        return all_of(clauses) if clauses else None
    if not all(each.clauses for each in shown):
        return None
    return any_of([all_of(each.clauses) for each in shown])


def _size(kept: Expression | None, outcomes: Sequence[ColumnOutcome]) -> int:
    conditions = [mask.condition for outcome in outcomes for mask in outcome.masks if mask.condition is not None]
    return sum([size(condition) for condition in conditions]) + (0 if kept is None else size(kept))


def _refused(hidden: _Hidden) -> ColumnOutcome:
    return ColumnOutcome(hidden.name, Effect.DENY, hidden.reason)


def _denial(settled: Sequence[_Shown | _Hidden]) -> Obliged:
    """Returns the denial of all columns; those that some row shows are named as what they are alone."""
    outcomes = tuple([_refused(each) if isinstance(each, _Hidden) else each.outcome() for each in settled])
    hidden = [each for each in settled if isinstance(each, _Hidden)]
    return denial_of(outcomes, [f"column `{each.name}`: {each.message}" for each in hidden])
