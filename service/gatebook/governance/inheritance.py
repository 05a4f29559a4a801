"""A policy set with all that its tables inherit: declared catalogue and derivations, as one.

Owns `effective`, the one way in which lineage comes to count: snapshots, audiences, ceilings and findings are made of
what it returns. Rules:

1. a table inherits from everything it descends from, over any number of steps: the ceiling is what all ceilings leave,
   for each action; retention the shortest; purposes those that all permit; sensitivity the highest; the notices hold
   all together; and its columns the tags of the columns that flowed in (`descent`);
2. a declared table keeps its declaration, narrowed by that. One that is not declared comes to be, with the columns
   that were reported; a rule may name it once it is declared;
3. an inherited tag denies, demands masks, masks and groups as the tag does, but grants nothing, and what it masks does
   not answer the demand of a tag that a column has by itself. So a derivation never allows what was denied;
4. what descends from something unknown is sealed: no purpose is left. What descends from nothing that is declared
   does not exist.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from functools import reduce

import msgspec
from msgspec.structs import replace

from gatebook.governance.column_types import column_type
from gatebook.governance.descent import Descent
from gatebook.governance.lineage import Lineage
from gatebook.policy import names
from gatebook.policy.catalogue import DATASETS_MAX, Catalogue
from gatebook.policy.dataset import SUBJECT_KEY_TYPES, Ceiling, Column, Dataset, Notice, Origin, Sensitivity, Tag
from gatebook.policy.dataset_file import COLUMNS_MAX
from gatebook.policy.policy_set import PolicySet
from gatebook.values import Rule

_OBJECT, _EFFECT = 1, 5
_ALLOW = "allow"


def effective(policy_set: PolicySet, lineage: Lineage) -> PolicySet:
    """Returns a policy set as it decides: as declared, and narrowed by what its tables inherit."""
    if policy_set.catalogue is None or not lineage.derivations:
        return policy_set
    descent = Descent(policy_set, lineage)
    if not descent.derivations:
        return policy_set
    catalogue = _catalogue(policy_set.catalogue, descent)
    edges = tuple(edge for edge in policy_set.edges if edge.gtype != "g2")
    return replace(
        policy_set,
        catalogue=catalogue,
        edges=(*edges, *catalogue.edges()),
        rules=tuple(_rules(policy_set.rules, catalogue)),
    )


class _Inherited(msgspec.Struct, frozen=True):
    """What several datasets leave together."""

    ceiling: Ceiling
    purposes: tuple[str, ...]
    retention_days: int
    sensitivity: Sensitivity
    notices: tuple[str, ...]


def _catalogue(declared: Catalogue, descent: Descent) -> Catalogue:
    notices = dict(declared.notices)
    datasets = dict(declared.datasets)
    people = descent.keys_of_people()
    room = _Room(declared, descent)
    leave = functools.cache(lambda ids: _inherited([declared.datasets[id_] for id_ in ids]))
    for key in sorted(descent.derivations):
        known = descent.ancestry.declared_above(key)
        own = descent.declared(key)
        # One that is declared is narrowed in any case; only what is not has to find room.
        if not known or (own is None and not room.take(key)):
            continue
        made = own or _made(key, descent, people)
        inherited = leave(known)
        sealed_by = descent.ancestry.unknown_above(key) or _unfit(made)
        notice = _notice(inherited.notices, notices)
        notices[notice.id] = notice
        datasets[key] = replace(
            made,
            columns={column.name: _tagged(column, key, descent) for column in made.columns.values()},
            ceiling=inherited.ceiling,
            purposes=() if sealed_by else inherited.purposes,
            retention_days=inherited.retention_days,
            sensitivity=inherited.sensitivity,
            notice=notice.id,
            origins=_origins(key, descent),
            sealed_by=sealed_by,
        )
    tags, mask_tags = _tags(declared, datasets.values())
    return Catalogue(datasets, notices, tags, mask_tags, declared.file)


class _Room:
    """Which tables that are not declared may come to be: no name of one stands for something else already."""

    def __init__(self, declared: Catalogue, descent: Descent) -> None:
        self._descent = descent
        self._nodes = {column.node for dataset in declared.datasets.values() for column in dataset.columns.values()}
        self._datasets = {*declared.datasets, *descent.derivations, *descent.made}
        self._left = DATASETS_MAX - len(declared.datasets)

    def take(self, key: str) -> bool:
        """Tells whether a table may come to be, which then takes its names."""
        columns = {f"{key}.{column}" for column in self._descent.columns(key)}
        fits = (
            self._left > 0
            and names.DATASET.fullmatch(key) is not None
            and bool(columns)
            and key not in self._nodes
            and columns.isdisjoint(self._datasets)
        )
        if fits:
            self._left -= 1
            self._nodes |= columns
        return fits


def _made(key: str, descent: Descent, people: frozenset[tuple[str, str]]) -> Dataset:
    """Returns a table as jobs report it, before anything is inherited."""
    columns = {name: Column(name, f"{key}.{name}", _type(key, name, descent)) for name in sorted(descent.columns(key))}
    subjects = tuple(
        name for name, column in columns.items() if (key, name) in people and column.type in SUBJECT_KEY_TYPES
    )
    nobody = Ceiling((), 0)  # what is inherited stands in its place
    return Dataset(
        key, columns, subjects, Sensitivity.SEALED, 0, nobody, "", (), description="derived, and not declared"
    )


def _type(key: str, name: str, descent: Descent) -> str:
    told = descent.made[key][name].type
    flows = [flow for flow in descent.sources((key, name)) if flow.direct]
    source = descent.declared(flows[0].source[0]) if len(flows) == 1 else None
    column = None if source is None else source.columns.get(flows[0].source[1])
    return column_type(told) if told or column is None else column.type


def _unfit(dataset: Dataset) -> str:
    """Returns the column that no catalogue could name, or that is one too many; nothing where there is none."""
    odd = next((name for name in dataset.columns if not names.COLUMN.fullmatch(name)), "")
    return odd or (f"{len(dataset.columns)} columns" if len(dataset.columns) > COLUMNS_MAX else "")


def _inherited(datasets: Sequence[Dataset]) -> _Inherited:
    return _Inherited(
        reduce(_lower, (dataset.ceiling for dataset in datasets)),
        reduce(_common, (dataset.purposes for dataset in datasets)),
        min(dataset.retention_days for dataset in datasets),
        max(dataset.sensitivity for dataset in datasets),
        tuple(dict.fromkeys(dataset.notice for dataset in datasets)),
    )


def _lower(one: Ceiling, other: Ceiling) -> Ceiling:
    """Returns what two ceilings leave, for each action."""
    actions = sorted({*one.actions, *other.actions})
    both = _lower_of(one, other)
    return Ceiling(both.roles, both.people_max, {name: _lower_of(one.of(name), other.of(name)) for name in actions})


def _lower_of(one: Ceiling, other: Ceiling) -> Ceiling:
    counts = [ceiling.people_max for ceiling in (one, other) if ceiling.people_max is not None]
    return Ceiling(tuple(role for role in one.roles if role in other.roles), min(counts, default=None))


def _common(one: Sequence[str], other: Sequence[str]) -> tuple[str, ...]:
    """Returns the purposes that both permit; each permits its sub-purposes too."""
    inner = [a for a in one if any(_under(a, b) for b in other)]
    return tuple(dict.fromkeys((*inner, *(b for b in other if any(_under(b, a) for a in one)))))


def _under(purpose: str, above: str) -> bool:
    return purpose == above or purpose.startswith(f"{above}.")


def _notice(ids: Sequence[str], notices: dict[str, Notice]) -> Notice:
    """Returns the notice that holds where all of these do."""
    if len(ids) == 1:
        return notices[ids[0]]
    told = [notices[id_] for id_ in ids]
    ends = [notice.end_time for notice in told if notice.end_time is not None]
    return Notice(
        "+".join(ids),
        reduce(_common, (notice.purposes for notice in told)),
        max(notice.effective_time for notice in told),
        min(ends, default=None),
        "several notices together, by descent",
    )


def _tagged(column: Column, key: str, descent: Descent) -> Column:
    inherited = sorted(set(descent.tags((key, column.name))) - set(column.tags))
    nodes = tuple(names.inherited_node(tag) for tag in inherited)
    return replace(column, tags=(*column.tags, *nodes), inherits=True) if nodes else column


def _origins(key: str, descent: Descent) -> tuple[Origin, ...]:
    return tuple(
        Origin(descent.called(parent), str(by.job), by.run_id) for parent, by in sorted(descent.parents(key).items())
    )


def _tags(declared: Catalogue, datasets: Iterable[Dataset]) -> tuple[dict[str, Tag], frozenset[str]]:
    tags = dict(declared.tags)
    inherited = {
        tag
        for dataset in datasets
        for column in dataset.columns.values()
        for tag in column.tags
        if names.is_inherited(tag)
    }
    for node in sorted(inherited):
        name = node.removeprefix(names.TAG_PREFIX)
        tags[name] = Tag(name, description="inherited")
    return tags, declared.mask_tags | {names.inherited_node(node) for node in declared.mask_tags}


def _rules(rules: Iterable[Rule], catalogue: Catalogue) -> Iterable[Rule]:
    """Yields the rules, and behind each that restricts what has a tag the same of what inherits it."""
    nodes = {node for node in catalogue.nodes() if names.is_inherited(node)}
    for rule in rules:
        yield rule
        node = rule.fields[_OBJECT]
        restricts = rule.ptype != "p" or rule.fields[_EFFECT] != _ALLOW
        if restricts and node.startswith(names.TAG_PREFIX) and names.inherited_node(node) in nodes:
            fields = (*rule.fields[:_OBJECT], names.inherited_node(node), *rule.fields[_OBJECT + 1 :])
            yield replace(rule, fields=fields)
