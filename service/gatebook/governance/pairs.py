"""What speaks of the same columns, action and purposes in two revisions, side by side.

Owns the pairs that are compared, and what besides rules decides about each side.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from gatebook.governance.audience import Audiences
from gatebook.governance.conditions import Conditions
from gatebook.governance.difference import Terms
from gatebook.governance.people import NOBODY, Bits
from gatebook.governance.request import SHARE
from gatebook.governance.rules import CONDITION, SUBJECT, Cell
from gatebook.policy.dataset import Dataset
from gatebook.policy.policy_set import PolicySet
from gatebook.policy.purposes import ConsentMode
from gatebook.values import Rule

RuleKey = tuple[str, ...]


class Pair(msgspec.Struct, frozen=True):
    """What speaks of the same columns and purposes in both revisions."""

    old: Cell | None
    was: Terms | None
    new: Cell | None
    now: Terms | None
    columns: tuple[str, ...]
    purposes: tuple[str, ...]


def rules_of(audiences: Audiences, cell: Cell) -> dict[RuleKey, Rule]:
    """Returns what speaks of a cell by what it says: its type, whom it is about, its condition, and what it does."""
    rules = cell.rules
    spoken = (*rules.allows, *audiences.denies(cell), *rules.masks, *rules.groups)
    denying = frozenset(map(id, audiences.denies(cell)))
    keys: dict[RuleKey, Rule] = {}
    for rule in spoken:
        does = "deny" if id(rule) in denying and rule.ptype == "p" else "refuse" if id(rule) in denying else ""
        keys[(rule.ptype, rule.fields[SUBJECT], rule.fields[CONDITION], rule.fields[5], does)] = rule
    return keys


def allowed(audiences: Audiences, cell: Cell | None) -> Bits:
    """Returns whom some allow of a cell could let in."""
    allowed = NOBODY
    for rule in () if cell is None else cell.rules.allows:
        applied = audiences.applied(rule)
        allowed |= applied.always | applied.unsure
    return allowed


def columns_read(conditions: Conditions, cell: Cell | None) -> Iterable[str]:
    """Returns the columns of the row that conditions of a cell read."""
    if cell is None:
        return ()
    rules = (*cell.rules.allows, *cell.rules.denies, *cell.rules.masks, *cell.rules.groups)
    return {column for text in {rule.fields[CONDITION] for rule in rules} for column in conditions.columns(text)}


def terms_of(audiences: Audiences, cell: Cell, columns: tuple[str, ...], purpose: str, read: Iterable[str]) -> Terms:
    """Returns what besides rules decides about a cell, of these columns and this purpose."""
    dataset, policy_set = cell.dataset, audiences.policy_set
    assert policy_set.catalogue is not None  # noqa: S101  # a cell is of a dataset of the catalogue
    notice = policy_set.catalogue.notice_of(dataset)
    types = tuple(sorted({dataset.columns[name].type for name in columns})) if cell.rules.masks else ()
    return Terms(
        dataset,
        cell.masked,
        types,
        (audiences.judge.shape(dataset, sorted(read)), types, cell.own),
        (notice.effective_time, notice.end_time or datetime.max.replace(tzinfo=notice.effective_time.tzinfo)),
        consent_of(audiences, purpose),
        frozenset(dataset.ceiling.of("read").roles) if cell.action == SHARE else None,
    )


def same_terms(was: Terms, now: Terms) -> bool:
    """Tells whether everything but rules is the same, so that who has the same rules has the same."""
    return (was.masked, was.types, was.shape, was.period, was.consent, was.shared_with) == (
        now.masked,
        now.types,
        now.shape,
        now.period,
        now.consent,
        now.shared_with,
    )


def consent_of(audiences: Audiences, purpose: str) -> ConsentMode:
    """Returns what a purpose needs of data subjects."""
    purposes = audiences.policy_set.purposes
    return ConsentMode.OPT_IN if purposes is None else purposes.consent_mode(purpose)


def role_links(policy_set: PolicySet) -> frozenset[tuple[str, str]]:
    """Returns the links between roles."""
    return frozenset((edge.child, edge.parent) for edge in policy_set.edges if edge.gtype == "g")


def same_notice(before: Audiences, after: Audiences, dataset: Dataset) -> bool:
    """Tells whether the notice of a dataset is the same in both revisions."""
    old, new = before.policy_set.catalogue, after.policy_set.catalogue
    return old is not None and new is not None and old.notices[dataset.notice] == new.notices.get(dataset.notice)


def by_id(audiences: Audiences) -> Mapping[str, Dataset]:
    """Returns the datasets of a revision by their ids."""
    return {dataset.id: dataset for dataset in audiences.datasets()}


def cells_of(audiences: Audiences, dataset: Dataset | None, action: str) -> dict[tuple[str, str], Cell]:
    """Returns the cell of each column and purpose of a dataset by one action."""
    if dataset is None:
        return {}
    return {
        (column, purpose): cell
        for cell in audiences.rules.cells(dataset, (action,))
        for column in cell.columns
        for purpose in cell.purposes
    }
