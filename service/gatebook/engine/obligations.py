"""What an allow obliges its enforcer to do: masks per column, and the minimum group.

Owns step 5 of a request, `oblige` (design section 5, points 2, 4, 8 and 9). It takes what the rules say
of each column and only ever narrows it:

1. a column with a denial keeps it;
2. the masks of a column are ordered (`mask_order`); where that cannot be done the column is denied;
3. a column whose tag demands a mask needs one that always applies, be it an explicit `none`;
4. the minimum group is the largest of all returned columns, whether its condition holds or is unknown;
5. what the enforcer did not declare denies the column that needs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import msgspec

from gatebook.engine.mask_order import Contradiction, Ordered, order_masks
from gatebook.engine.verdict import Applicable, ColumnVerdict
from gatebook.policy import names
from gatebook.policy.dataset import Column, Dataset
from gatebook.policy.masks import MaskError, parse_group
from gatebook.values import (
    ColumnOutcome,
    Effect,
    Enforcer,
    MaskKind,
    MinimumGroup,
    ObligationKind,
    Reason,
    Rule,
)

_PARAMETER_FIELD = 5
"""Where `mask` of a p2 line and `k` of a p3 line stand: after sub, obj, act, purpose and cond."""

_OBJECT_FIELD = 1

_UNMASKED = Ordered()


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


class Denied(msgspec.Struct, frozen=True):
    """Why a column is denied here."""

    reason: Reason
    message: str


class _Settled(msgspec.Struct, frozen=True):
    """What one column comes to: `k` is 0 without a minimum group."""

    outcome: ColumnOutcome
    k: int = 0
    masked: bool = False
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
    returned = [column for column in settled if column.outcome.effect is Effect.ALLOW]
    if not returned or (len(returned) < len(settled) and not allow_partial):
        return _denial(settled)
    k = max([column.k for column in returned])
    must_apply = []
    if any(column.masked for column in returned):
        must_apply.append(ObligationKind.MASKS)
    if k:
        must_apply.append(ObligationKind.MINIMUM_GROUP)
    return Obliged(
        columns=tuple([column.outcome for column in settled]),
        must_apply=tuple(must_apply),
        minimum_group=MinimumGroup(k, dataset.subject_keys) if k else None,
        rules=tuple(dict.fromkeys([rule for column in returned for rule in column.rules])),
    )


def _settle(
    dataset: Dataset, verdict: ColumnVerdict, enforcer: Enforcer, key_id: str, mask_tags: frozenset[str]
) -> _Settled:
    """Settles one column: what the rules allow, or the denial of the first step that fails."""
    name = verdict.column.removeprefix(dataset.id + ".")
    if verdict.effect is not Effect.ALLOW:
        return _refused(name, Denied(verdict.reason, verdict.reason.name.lower().replace("_", " ")))
    column = dataset.columns.get(name)
    if column is None:
        return _refused(name, Denied(Reason.UNKNOWN_COLUMN, f"dataset `{dataset.id}` has no such column"))
    masks = _masks(verdict.masks, column, key_id, mask_tags)
    if isinstance(masks, Denied):
        return _refused(name, masks)
    k = largest_group(verdict.groups, dataset) if verdict.groups else 0
    if isinstance(k, Denied):
        return _refused(name, k)
    unsupported = _unsupported(masks, k, enforcer) if masks.kinds or k else None
    if unsupported is not None:
        return _refused(name, unsupported)
    return _Settled(
        ColumnOutcome(name, Effect.ALLOW, Reason.ALLOWED, masks.masks),
        k,
        bool(masks.kinds),
        (*[verdict.masks[origin].rule for origin in masks.origins], *[group.rule for group in verdict.groups]),
    )


def _refused(column: str, denied: Denied) -> _Settled:
    outcome = ColumnOutcome(column, Effect.DENY, denied.reason)
    return _Settled(outcome, message=f"column `{column}`: {denied.message}")


def _masks(
    applicable: Sequence[Applicable], column: Column, key_id: str, mask_tags: frozenset[str]
) -> Ordered | Denied:
    """Orders the masks of a column, and sees to it that there is one where a tag demands it."""
    masks: Ordered | Contradiction = _UNMASKED
    if applicable:
        meant = [(parameter_of(each.rule), each.condition) for each in applicable]
        masks = order_masks(meant, column.type, key_id)
    if isinstance(masks, Contradiction):
        return Denied(Reason.MASK_NOT_APPLICABLE, masks.message)
    if not masks.always and mask_tags and demands_mask(column.tags, mask_tags):
        return Denied(Reason.MASK_REQUIRED, "a tag demands a mask and none always applies")
    if column.inherits and demands_own(column, mask_tags):
        own = [(parameter_of(each.rule), each.condition) for each in applicable if not is_inherited(each.rule)]
        answer = order_masks(own, column.type, key_id)
        if isinstance(answer, Contradiction) or not answer.always:
            return Denied(Reason.MASK_REQUIRED, "a tag of its own demands a mask and none of its own always applies")
    return masks


def largest_group(applicable: Sequence[Applicable], dataset: Dataset) -> int | Denied:
    """Returns the largest minimum group that is left to the enforcer, or 0.

    A dataset without subject keys has no people to count: each of its rows is an aggregate already, over
    at least `group_minimum` of them.
    """
    try:
        k = max([parse_group(parameter_of(each.rule)) for each in applicable])
    except MaskError as err:
        return Denied(Reason.EVALUATION_ERROR, err.message)
    if dataset.subject_keys:
        return k
    if k <= dataset.group_minimum:
        return 0
    message = f"rows of `{dataset.id}` stand for {dataset.group_minimum} people at least, and a rule demands {k}"
    return Denied(Reason.OBLIGATION_NOT_SUPPORTED, message)


def parameter_of(rule: Rule) -> str:
    """Returns the mask of a p2 rule or the k of a p3 rule; a rule without one has none that parses."""
    return rule.fields[_PARAMETER_FIELD] if len(rule.fields) > _PARAMETER_FIELD else ""


def is_inherited(rule: Rule) -> bool:
    """Tells whether a rule speaks of a tag as it is inherited by lineage."""
    return names.is_inherited(rule.fields[_OBJECT_FIELD])


def demands_own(column: Column, mask_tags: frozenset[str]) -> bool:
    """Tells whether a tag that a column has by itself demands a mask, which none that came by lineage answers."""
    own = tuple(tag for tag in column.tags if not names.is_inherited(tag))
    return demands_mask(own, mask_tags)


@lru_cache(maxsize=8192)
def demands_mask(tags: tuple[str, ...], mask_tags: frozenset[str]) -> bool:
    """Tells whether a tag, or a dotted parent of it, demands a mask."""
    for tag in tags:
        parts = tag.split(".")
        if any(".".join(parts[:length]) in mask_tags for length in range(1, len(parts) + 1)):
            return True
    return False


def undeclared(kinds: frozenset[MaskKind], obligations: set[ObligationKind], enforcer: Enforcer) -> Denied | None:
    """Says which masks or obligations the enforcer has not promised to fulfil; nothing where it has."""
    if missing := obligations - enforcer.supported_obligations:
        message = f"the enforcer did not declare obligation {_names(missing)}"
        return Denied(Reason.OBLIGATION_NOT_SUPPORTED, message)
    if unknown := kinds - enforcer.supported_masks:
        message = f"the enforcer did not declare mask {_names(unknown)}"
        return Denied(Reason.OBLIGATION_NOT_SUPPORTED, message)
    return None


def _unsupported(masks: Ordered, k: int, enforcer: Enforcer) -> Denied | None:
    """Says which obligation of the column the enforcer has not promised to fulfil."""
    needed = {ObligationKind.MASKS} if masks.kinds else set()
    if k:
        needed.add(ObligationKind.MINIMUM_GROUP)
    return undeclared(masks.kinds, needed, enforcer)


def _names(kinds: Iterable[MaskKind] | Iterable[ObligationKind]) -> str:
    return ", ".join(f"`{kind.name.lower()}`" for kind in sorted(kinds))


def _denial(settled: Sequence[_Settled]) -> Obliged:
    outcomes = tuple([column.outcome for column in settled])
    return denial_of(outcomes, [column.message for column in settled if column.message])


def denial_of(outcomes: tuple[ColumnOutcome, ...], messages: Sequence[str]) -> Obliged:
    """Returns the denial of all columns: their common reason, or that they differ. `messages` are of those denied."""
    if not messages:
        return Obliged(outcomes, failed=Reason.NO_MATCHING_RULE, message="no column was asked for")
    reasons = {outcome.reason for outcome in outcomes}
    failed = reasons.pop() if len(reasons) == 1 else Reason.COLUMN_DENIED
    more = f" (and {len(messages) - 1} more)" if len(messages) > 1 else ""
    return Obliged(outcomes, failed=failed, message=messages[0] + more)
