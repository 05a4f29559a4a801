"""What a draft changes of the catalogue and the purposes, and which way each change goes.

Owns the judgement of each key, whoever is in the directory. A lower ceiling, a shorter retention, a purpose or a column
that goes, a stricter consent let nobody do more; neither does a tag that comes, where no rule allows or masks by it.
Everything else may.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from gatebook.compiler.roles import reach
from gatebook.governance.change import Change, Direction
from gatebook.governance.rules import OBJECT
from gatebook.policy import names
from gatebook.policy.bundle import CATALOGUE_FILE, PURPOSES_FILE
from gatebook.policy.catalogue import Catalogue
from gatebook.policy.dataset import Ceiling, Column, Dataset, Notice
from gatebook.policy.policy_set import PolicySet
from gatebook.policy.purposes import ConsentMode, Purposes

LOOSENS, TIGHTENS, NEITHER = Direction.LOOSENS, Direction.TIGHTENS, Direction.NEITHER
STRICTNESS = (ConsentMode.NONE, ConsentMode.OPT_OUT, ConsentMode.OPT_IN)
_FOREVER = datetime.max.replace(tzinfo=UTC)


def catalogue_changes(base: PolicySet, draft: PolicySet) -> Iterator[Change]:
    """Yields a change for each thing that the catalogue says otherwise."""
    before, after = base.catalogue, draft.catalogue
    if before is None or after is None:
        if before is not after:
            yield Change(CATALOGUE_FILE, 0, "CATALOGUE_CHANGED", "the catalogue came or went", LOOSENS)
        return
    yield from _tags(before, after)
    yield from _notices(before, after)
    telling = _telling(base) | _telling(draft)
    above = _above(draft)
    for id_, old in before.datasets.items():
        if id_ not in after.datasets:
            message = f"`{id_}` is catalogued no more, and denied"
            yield _of(old, "DATASET_REMOVED", message, TIGHTENS, old.line, in_base=True)
    for id_, new in after.datasets.items():
        known = before.datasets.get(id_)
        if known is None:
            yield _of(new, "DATASET_ADDED", f"`{id_}` is catalogued", LOOSENS, new.line)
        else:
            yield from _dataset(known, new)
            yield from _columns(known, new, telling, above)


def purpose_changes(base: PolicySet, draft: PolicySet) -> Iterator[Change]:
    """Yields a change for each purpose that came, went, or needs another consent."""
    before, after = base.purposes or Purposes({}), draft.purposes or Purposes({})
    for name, new in after.purposes.items():
        old = before.purposes.get(name)
        if old is None:
            yield Change(PURPOSES_FILE, new.line, "PURPOSE_ADDED", f"`{name}` can be named", LOOSENS)
        elif old.consent is not new.consent:
            stricter = STRICTNESS.index(new.consent) > STRICTNESS.index(old.consent)
            what, direction = ("CONSENT_STRICTER", TIGHTENS) if stricter else ("CONSENT_LOWERED", LOOSENS)
            message = f"`{name}` needs the consent `{new.consent}`, not `{old.consent}`"
            yield Change(PURPOSES_FILE, new.line, what, message, direction)
    for name, old in before.purposes.items():
        if name not in after.purposes:
            message = f"`{name}` can be named no more"
            yield Change(PURPOSES_FILE, old.line, "PURPOSE_REMOVED", message, TIGHTENS, in_base=True)


def _tags(before: Catalogue, after: Catalogue) -> Iterator[Change]:
    for name, new in after.tags.items():
        old = before.tags.get(name)
        node = names.tag_node(name)
        if old is None or old.requires_mask == new.requires_mask:
            continue
        what, told = ("MASK_DEMANDED", "demands a mask") if new.requires_mask else ("MASK_NOT_DEMANDED", "demands none")
        direction = TIGHTENS if new.requires_mask else LOOSENS
        yield Change(CATALOGUE_FILE, new.line, what, f"the tag `{name}` {told}", direction, node=node)
    for name, old in before.tags.items():
        if name not in after.tags and old.requires_mask:
            message = f"the tag `{name}`, which demands a mask, is gone"
            node = names.tag_node(name)
            yield Change(CATALOGUE_FILE, old.line, "MASK_NOT_DEMANDED", message, LOOSENS, node=node, in_base=True)


def _notices(before: Catalogue, after: Catalogue) -> Iterator[Change]:
    for id_, new in after.notices.items():
        old = before.notices.get(id_)
        if old is not None:
            yield from _notice(old, new)
        else:
            message = f"the notice `{id_}` is new, and permits what its datasets say"
            yield Change(CATALOGUE_FILE, new.line, "NOTICE_ADDED", message, NEITHER)
    for id_, old in before.notices.items():
        if id_ not in after.notices:
            message = f"the notice `{id_}` is gone"
            yield Change(CATALOGUE_FILE, old.line, "NOTICE_REMOVED", message, NEITHER, in_base=True)


def _notice(old: Notice, new: Notice) -> Iterator[Change]:
    where = f"the notice `{new.id}`"
    yield from _purposes(old.purposes, new.purposes, where, new.line, "")
    if new.effective_time != old.effective_time:
        sooner = new.effective_time < old.effective_time
        what, told = ("NOTICE_LEAD_SHORTENED", "sooner") if sooner else ("NOTICE_LEAD_LENGTHENED", "later")
        message = f"{where} is in force {told}, from {new.effective_time:%Y-%m-%d %H:%M} UTC on"
        yield Change(CATALOGUE_FILE, new.line, what, message, LOOSENS if sooner else TIGHTENS)
    if new.end_time != old.end_time:
        longer = (new.end_time or _FOREVER) > (old.end_time or _FOREVER)
        what, told = ("NOTICE_LENGTHENED", "longer") if longer else ("NOTICE_SHORTENED", "less long")
        yield Change(CATALOGUE_FILE, new.line, what, f"{where} is in force {told}", LOOSENS if longer else TIGHTENS)


def _purposes(old: tuple[str, ...], new: tuple[str, ...], where: str, line: int, dataset: str) -> Iterator[Change]:
    for name in sorted(frozenset(new) - frozenset(old)):
        message = f"{where} permits `{name}`"
        yield Change(CATALOGUE_FILE, line, "PURPOSE_PERMITTED", message, LOOSENS, node=dataset, dataset=dataset)
    for name in sorted(frozenset(old) - frozenset(new)):
        # A purpose that is named beside its parent is permitted by the parent all the same.
        message = f"{where} permits `{name}` no more"
        yield Change(CATALOGUE_FILE, line, "PURPOSE_WITHDRAWN", message, TIGHTENS, node=dataset, dataset=dataset)


def _dataset(old: Dataset, new: Dataset) -> Iterator[Change]:
    where = f"`{new.id}`"
    yield from _ceilings(old, new)
    if new.notice != old.notice:
        yield _of(new, "NOTICE_CHANGED", f"{where} is under the notice `{new.notice}`, not `{old.notice}`", LOOSENS)
    yield from _purposes(old.purposes, new.purposes, where, new.line, new.id)
    if new.retention_days != old.retention_days:
        longer = new.retention_days > old.retention_days
        what = "RETENTION_LENGTHENED" if longer else "RETENTION_SHORTENED"
        message = f"{where} is kept for {new.retention_days} days, not {old.retention_days}"
        yield _of(new, what, message, LOOSENS if longer else TIGHTENS)
    if new.sensitivity != old.sensitivity:
        lower = new.sensitivity < old.sensitivity
        told = f"{where} is `{new.sensitivity.name.lower()}`, not `{old.sensitivity.name.lower()}`"
        what = "SENSITIVITY_LOWERED" if lower else "SENSITIVITY_RAISED"
        yield _of(new, what, told, LOOSENS if lower else TIGHTENS)
    if new.subject_keys != old.subject_keys:
        told = ", ".join(new.subject_keys) or "nobody"
        yield _of(new, "SUBJECT_KEYS_CHANGED", f"{where} is about whom other columns name: {told}", LOOSENS)
    if new.group_minimum != old.group_minimum:
        message = f"rows of {where} are over {new.group_minimum} people at least, not {old.group_minimum}"
        yield _of(new, "GROUP_MINIMUM_CHANGED", message, LOOSENS)


def _ceilings(old: Dataset, new: Dataset) -> Iterator[Change]:
    actions = ("", *sorted({*old.ceiling.actions, *new.ceiling.actions}))
    for action in actions:
        was, now = (dataset.ceiling.of(action) for dataset in (old, new))
        if (frozenset(was.roles), was.people_max) == (frozenset(now.roles), now.people_max):
            continue
        where = f"the ceiling of `{new.id}`{f' for `{action}`' if action else ''}"
        narrower = frozenset(now.roles) <= frozenset(was.roles) and _most(now) <= _most(was)
        what, direction = ("CEILING_LOWERED", TIGHTENS) if narrower else ("CEILING_RAISED", LOOSENS)
        yield _of(new, what, f"{where} is {_told(now)}, not {_told(was)}", direction)


def _most(ceiling: Ceiling) -> float:
    return math.inf if ceiling.people_max is None else ceiling.people_max


def _told(ceiling: Ceiling) -> str:
    people = "any number of people" if ceiling.people_max is None else f"{ceiling.people_max} people"
    return f"{people} of {', '.join(ceiling.roles) or 'no role'}"


def _columns(old: Dataset, new: Dataset, telling: frozenset[str], above: Mapping[str, list[str]]) -> Iterator[Change]:
    for name, column in new.columns.items():
        known = old.columns.get(name)
        if known is None:
            yield _at(new, column, "COLUMN_ADDED", f"`{column.node}` is catalogued", LOOSENS)
            continue
        if known.type != column.type:
            message = f"`{column.node}` is `{column.type}`, not `{known.type}`"
            yield _at(new, column, "COLUMN_TYPE_CHANGED", message, LOOSENS)
        for tag in sorted(frozenset(known.tags) - frozenset(column.tags)):
            yield _at(new, column, "TAG_DROPPED", f"`{column.node}` has `{tag}` no more", LOOSENS)
        for tag in sorted(frozenset(column.tags) - frozenset(known.tags)):
            tells = not telling.isdisjoint(reach(above, tag))
            yield _at(new, column, "TAG_ADDED", f"`{column.node}` has `{tag}`", LOOSENS if tells else TIGHTENS)
    for name, column in old.columns.items():
        if name not in new.columns:
            # It is denied where it is asked for by name; who asks for the whole dataset is not asked about it any more.
            message = f"`{column.node}` is catalogued no more: a request for all columns is not denied for it"
            yield _at(new, column, "COLUMN_REMOVED", message, LOOSENS, in_base=True)


def _telling(policy_set: PolicySet) -> frozenset[str]:
    """Returns the objects of rules by which a column may be shown that was not: allows, and masks."""
    allowing = (rule for rule in policy_set.rules if rule.ptype == "p2" or rule.fields[5:6] == ("allow",))
    return frozenset(rule.fields[OBJECT] for rule in allowing)


def _above(policy_set: PolicySet) -> dict[str, list[str]]:
    above: dict[str, list[str]] = {}
    for edge in policy_set.edges:
        if edge.gtype == "g2":
            above.setdefault(edge.child, []).append(edge.parent)
    return above


def _of(
    dataset: Dataset, what: str, message: str, direction: Direction, line: int = 0, *, in_base: bool = False
) -> Change:
    line = line or dataset.line
    return Change(CATALOGUE_FILE, line, what, message, direction, node=dataset.id, dataset=dataset.id, in_base=in_base)


def _at(
    dataset: Dataset, column: Column, what: str, message: str, direction: Direction, *, in_base: bool = False
) -> Change:
    return Change(
        CATALOGUE_FILE, column.line, what, message, direction, node=column.node, dataset=dataset.id, in_base=in_base
    )
