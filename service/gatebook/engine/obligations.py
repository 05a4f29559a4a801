"""What an allow obliges its enforcer to do: masks per column, and the minimum group.

Owns step 5 of a request, `oblige` (design section 5, points 2, 4, 8 and 9). It takes what the rules say
of each column and only ever narrows it:

1. a column with a denial keeps it;
2. the masks of a column are ordered the strictest first, and end with the first that always applies, so
   that the first whose condition is true or unknown is the strictest of all that apply to the row;
3. two masks of which neither is the stricter, and a mask that the column's type cannot hold, deny;
4. a column whose tag demands a mask needs one that always applies, be it an explicit `none`;
5. a `none` that depends on the row never clears anything: unknown would mean clear;
6. the minimum group is the largest of all returned columns, whether its condition holds or is unknown;
7. what the enforcer did not declare denies the column that needs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cmp_to_key
from itertools import combinations

import msgspec

from gatebook.engine.verdict import Applicable, ColumnVerdict
from gatebook.expression.tree import Expression, Literal
from gatebook.policy.catalogue import Dataset
from gatebook.policy.masks import (
    MaskError,
    MaskSpec,
    at_least_as_strict,
    castable,
    parse_group,
    parse_mask,
)
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

MASKS_OF_COLUMN_MAX = 32
"""Distinct masks that one column of one decision may meet; beyond it the column is denied."""

_PARAMETER_FIELD = 5
"""Where `mask` of a p2 line and `k` of a p3 line stand: after sub, obj, act, purpose and cond."""

_TYPED = frozenset({MaskKind.DEFAULT, MaskKind.CONSTANT})


class Obliged(msgspec.Struct, frozen=True):
    """The outcome of every column and what the enforcer must do.

    `failed` is the reason of a denial, or None; `rules` are the mask and group rules that shaped an
    allow, each once. In a denial the outcomes still say which columns alone would be allowed.
    """

    columns: tuple[ColumnOutcome, ...]
    must_apply: tuple[ObligationKind, ...] = ()
    minimum_group: MinimumGroup | None = None
    rules: tuple[Rule, ...] = ()
    failed: Reason | None = None
    message: str = ""


class _Denied(msgspec.Struct, frozen=True):
    """Why a column is denied here."""

    reason: Reason
    message: str


class _Meant(msgspec.Struct, frozen=True):
    """A mask that a rule means for a column, where its condition is true or unknown."""

    spec: MaskSpec
    condition: Expression | None
    rule: Rule


class _Settled(msgspec.Struct, frozen=True):
    """What one column comes to: `k` is 0 without a minimum group."""

    outcome: ColumnOutcome
    k: int = 0
    rules: tuple[Rule, ...] = ()
    message: str = ""


def oblige(
    dataset: Dataset,
    verdicts: Sequence[ColumnVerdict],
    enforcer: Enforcer,
    *,
    key_id: str,
    mask_tags: frozenset[str] = frozenset(),
    allow_partial: bool = False,
) -> Obliged:
    """Returns the obligations of an allow of these columns, or why there is none.

    Args:
        dataset: The dataset that the columns belong to.
        verdicts: What the rules say of each column, in the order of the request.
        enforcer: Who will apply the decision.
        key_id: The key of `hash` for this policy set and purpose; empty when there is none.
        mask_tags: The tags that demand a mask, `tag:x`; each speaks for `tag:x.y` too.
        allow_partial: Whether denied columns are withheld instead of denying all.
    """
    settled = [_settle(dataset, verdict, enforcer, key_id, mask_tags) for verdict in verdicts]
    outcomes = tuple(column.outcome for column in settled)
    returned = [column for column in settled if column.outcome.effect is Effect.ALLOW]
    if not returned or (len(returned) < len(settled) and not allow_partial):
        return _denial(settled)
    k = max(column.k for column in returned)
    must_apply = []
    if any(mask.kind is not MaskKind.NONE for column in returned for mask in column.outcome.masks):
        must_apply.append(ObligationKind.MASKS)
    if k:
        must_apply.append(ObligationKind.MINIMUM_GROUP)
    return Obliged(
        columns=outcomes,
        must_apply=tuple(must_apply),
        minimum_group=MinimumGroup(k, dataset.subject_keys) if k else None,
        rules=tuple(dict.fromkeys(rule for column in returned for rule in column.rules)),
    )


def order_masks(meant: Iterable[_Meant]) -> tuple[_Meant, ...] | _Denied:
    """Orders masks so that the first that applies to a row is the strictest that applies to it."""
    distinct = tuple({(mask.spec, mask.condition): mask for mask in meant}.values())
    if len(distinct) > MASKS_OF_COLUMN_MAX:
        return _Denied(Reason.MASK_NOT_APPLICABLE, f"more than {MASKS_OF_COLUMN_MAX} masks meet")
    always = [mask for mask in distinct if mask.condition is None]
    reached = [mask for mask in distinct if not any(_covers(other, mask) for other in always)]
    for one, other in combinations(reached, 2):
        if not at_least_as_strict(one.spec, other.spec) and not at_least_as_strict(other.spec, one.spec):
            message = f"masks `{one.spec}` and `{other.spec}` contradict each other"
            return _Denied(Reason.MASK_NOT_APPLICABLE, message)
    # INVARIANT: at most one mask of `reached` always applies, it is the least strict of them, and so the last.
    return tuple(sorted(reached, key=cmp_to_key(_strictest_first)))


def _covers(other: _Meant, mask: _Meant) -> bool:
    """Tells whether a mask that always applies leaves nothing for `mask` to do."""
    return other is not mask and at_least_as_strict(other.spec, mask.spec)


def _strictest_first(one: _Meant, other: _Meant) -> int:
    if one.spec == other.spec:
        return 0
    return -1 if at_least_as_strict(one.spec, other.spec) else 1


def _settle(
    dataset: Dataset,
    verdict: ColumnVerdict,
    enforcer: Enforcer,
    key_id: str,
    mask_tags: frozenset[str],
) -> _Settled:
    """Settles one column, or denies it with the first of its steps that fails."""
    name = verdict.column.removeprefix(f"{dataset.id}.")
    if verdict.effect is not Effect.ALLOW:
        return _refused(name, _Denied(verdict.reason, _in_words(verdict.reason)))
    column = dataset.columns.get(name)
    if column is None:
        return _refused(name, _Denied(Reason.UNKNOWN_COLUMN, f"dataset `{dataset.id}` has no such column"))
    masks = _masks(verdict.masks, column.type)
    if isinstance(masks, _Denied):
        return _refused(name, masks)
    if _demands_mask(column.tags, mask_tags) and not (masks and masks[-1].condition is None):
        return _refused(name, _Denied(Reason.MASK_REQUIRED, "a tag demands a mask and none always applies"))
    k = _largest_group(verdict.groups, dataset)
    if isinstance(k, _Denied):
        return _refused(name, k)
    unsupported = _unsupported(masks, k, enforcer, key_id)
    if unsupported is not None:
        return _refused(name, unsupported)
    return _Settled(
        ColumnOutcome(name, Effect.ALLOW, Reason.ALLOWED, tuple(_mask(mask, column.type, key_id) for mask in masks)),
        k,
        (*(mask.rule for mask in masks), *(group.rule for group in verdict.groups)),
    )


def _refused(column: str, denied: _Denied) -> _Settled:
    return _Settled(ColumnOutcome(column, Effect.DENY, denied.reason), message=f"column `{column}`: {denied.message}")


def _masks(applicable: Sequence[Applicable], column_type: str) -> tuple[_Meant, ...] | _Denied:
    """Reads and orders the masks of a column, each castable to its type."""
    try:
        meant = [meaning for each in applicable if (meaning := _meaning(each)) is not None]
    except MaskError as err:
        return _Denied(Reason.MASK_NOT_APPLICABLE, err.message)
    masks = order_masks(meant)
    if isinstance(masks, _Denied):
        return masks
    for mask in masks:
        if not castable(mask.spec, column_type):
            message = f"mask `{mask.spec}` cannot be cast to type `{column_type}`"
            return _Denied(Reason.MASK_NOT_APPLICABLE, message)
    return masks


def _meaning(applicable: Applicable) -> _Meant | None:
    """Reads a mask rule; None for a `none` that is not certain, since it would clear where it is unknown.

    Raises:
        MaskError: The rule names no mask.
    """
    spec, condition = parse_mask(_parameter(applicable.rule)), applicable.condition
    if spec.kind is MaskKind.NONE:
        return _Meant(spec, None, applicable.rule) if condition is None else None
    if isinstance(condition, Literal) and condition.value is not False:
        condition = None
    return _Meant(spec, condition, applicable.rule)


def _largest_group(applicable: Sequence[Applicable], dataset: Dataset) -> int | _Denied:
    """Returns the largest minimum group that is left to the enforcer, or 0.

    A dataset without subject keys has no people to count: each of its rows is an aggregate already, over
    at least `group_minimum` of them.
    """
    try:
        k = max((parse_group(_parameter(each.rule)) for each in applicable), default=0)
    except MaskError as err:
        return _Denied(Reason.EVALUATION_ERROR, err.message)
    if dataset.subject_keys or not k:
        return k
    if k <= dataset.group_minimum:
        return 0
    message = f"rows of `{dataset.id}` stand for {dataset.group_minimum} people at least, and a rule demands {k}"
    return _Denied(Reason.OBLIGATION_NOT_SUPPORTED, message)


def _parameter(rule: Rule) -> str:
    """Returns the mask of a p2 rule or the k of a p3 rule; a rule without one has none that parses."""
    return rule.fields[_PARAMETER_FIELD] if len(rule.fields) > _PARAMETER_FIELD else ""


def _demands_mask(tags: Iterable[str], mask_tags: frozenset[str]) -> bool:
    """Tells whether a tag, or a dotted parent of it, demands a mask."""
    for tag in tags if mask_tags else ():
        parts = tag.split(".")
        if any(".".join(parts[:length]) in mask_tags for length in range(1, len(parts) + 1)):
            return True
    return False


def _unsupported(masks: Sequence[_Meant], k: int, enforcer: Enforcer, key_id: str) -> _Denied | None:
    """Says which obligation of the column nobody has promised to fulfil."""
    kinds = {mask.spec.kind for mask in masks} - {MaskKind.NONE}
    needed = {ObligationKind.MASKS} if kinds else set()
    if k:
        needed.add(ObligationKind.MINIMUM_GROUP)
    if missing := needed - enforcer.supported_obligations:
        names = _names(missing)
        return _Denied(Reason.OBLIGATION_NOT_SUPPORTED, f"the enforcer did not declare obligation {names}")
    if undeclared := kinds - enforcer.supported_masks:
        return _Denied(Reason.OBLIGATION_NOT_SUPPORTED, f"the enforcer did not declare mask {_names(undeclared)}")
    if MaskKind.HASH in kinds and not key_id:
        return _Denied(Reason.MASK_NOT_APPLICABLE, "mask `hash` has no key")
    return None


def _names(kinds: Iterable[MaskKind] | Iterable[ObligationKind]) -> str:
    return ", ".join(f"`{kind.name.lower()}`" for kind in sorted(kinds))


def _mask(mask: _Meant, column_type: str, key_id: str) -> Mask:
    """Returns the mask as the decision carries it."""
    parameters = mask.spec.parameters()
    if mask.spec.kind in _TYPED:
        parameters["type"] = column_type
    key = key_id if mask.spec.kind is MaskKind.HASH else ""
    return Mask(mask.spec.kind, parameters, mask.condition, key)


def _denial(settled: Sequence[_Settled]) -> Obliged:
    """Returns the denial of all columns: their common reason, or that they differ."""
    outcomes = tuple(column.outcome for column in settled)
    reasons = {outcome.reason for outcome in outcomes}
    failed = reasons.pop() if len(reasons) == 1 else Reason.COLUMN_DENIED
    messages = [column.message for column in settled if column.message]
    if not messages:
        return Obliged(outcomes, failed=Reason.NO_MATCHING_RULE, message="no column was asked for")
    more = f" (and {len(messages) - 1} more)" if len(messages) > 1 else ""
    return Obliged(outcomes, failed=failed, message=messages[0] + more)


def _in_words(reason: Reason) -> str:
    return reason.name.lower().replace("_", " ")
