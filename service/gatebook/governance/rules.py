"""Which rules speak of which columns, actions and purposes.

Owns the grouping of everything that can be asked for: columns of a dataset of which the same rules speak, purposes
for which the same rules speak, stand together in one `Cell`. A set of 100 datasets has some thousand cells, of which
many have the same rules.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import msgspec

from gatebook.compiler.roles import reach
from gatebook.engine.obligations import demands_mask, demands_own, is_inherited
from gatebook.policy.dataset import Column, Dataset
from gatebook.policy.policy_set import PolicySet
from gatebook.values import Rule

SUBJECT, OBJECT, ACTION, PURPOSE, CONDITION, EFFECT = range(6)
"""The fields of a rule of a governed set."""

ALLOW, DENY = "allow", "deny"


class Speaking(msgspec.Struct, frozen=True):
    """The rules that speak of a cell, in order."""

    allows: tuple[Rule, ...]
    denies: tuple[Rule, ...]
    masks: tuple[Rule, ...]
    groups: tuple[Rule, ...]


class Cell(msgspec.Struct, frozen=True):
    """Columns of one dataset, one action, and purposes, of which the same rules speak.

    `masked` tells whether a tag of the columns demands a mask, and `own` whether one that did not come by lineage does:
    what masks an inherited tag is no answer to that.
    """

    dataset: Dataset
    columns: tuple[str, ...]
    action: str
    purposes: tuple[str, ...]
    masked: bool
    rules: Speaking
    own: bool = False

    @property
    def answers(self) -> tuple[Rule, ...]:
        """Returns the mask rules that can answer what tags demand."""
        masks = self.rules.masks
        return tuple(rule for rule in masks if not is_inherited(rule)) if self.own else masks


class _Group(msgspec.Struct, frozen=True):
    """Columns with the same nodes above them that rules name."""

    columns: tuple[Column, ...]
    nodes: frozenset[str]
    masked: bool
    own: bool


class Rules:
    """The rules of one governed set by what they speak of. Immutable."""

    def __init__(self, policy_set: PolicySet) -> None:
        """Takes a governed set."""
        self._set = policy_set
        self._above: dict[str, list[str]] = {}
        for edge in policy_set.edges:
            if edge.gtype == "g2":
                self._above.setdefault(edge.child, []).append(edge.parent)
        self._named = frozenset(rule.fields[OBJECT] for rule in policy_set.rules)
        # By action, then by object: the rules with their places.
        self._by_object: dict[str, dict[str, list[tuple[int, Rule]]]] = {}
        for place, rule in enumerate(policy_set.rules):
            of_action = self._by_object.setdefault(rule.fields[ACTION], {})
            of_action.setdefault(rule.fields[OBJECT], []).append((place, rule))
        self._allowed_actions = frozenset(
            rule.fields[ACTION] for rule in policy_set.rules if rule.ptype == "p" and rule.fields[EFFECT] == ALLOW
        )

    @property
    def actions(self) -> tuple[str, ...]:
        """Returns the actions that a rule allows, in the order of the settings."""
        return tuple(action for action in self._set.settings.actions if action in self._allowed_actions)

    def nodes_of(self, column: Column) -> frozenset[str]:
        """Returns everything that a column lies under: itself, its dataset, namespaces and tags."""
        return frozenset(reach(self._above, column.node))

    def cells(self, dataset: Dataset, actions: Collection[str], node: str = "") -> Iterator[Cell]:
        """Yields the cells of a dataset; of a `node`, those of the columns that lie under it."""
        groups = self._groups(dataset, node)
        purposes = self._purposes(dataset)
        for action in actions:
            by_object = self._by_object.get(action, {})
            for group in groups:
                found = sorted(
                    (pair for name in group.nodes for pair in by_object.get(name, ())), key=lambda pair: pair[0]
                )
                if found:
                    yield from self._cells(dataset, group, action, purposes, [rule for _, rule in found])

    def _cells(
        self,
        dataset: Dataset,
        group: _Group,
        action: str,
        purposes: Mapping[str, frozenset[str]],
        rules: list[Rule],
    ) -> Iterator[Cell]:
        named = frozenset(rule.fields[PURPOSE] for rule in rules)
        alike: dict[frozenset[str], list[str]] = {}
        for purpose, lineage in purposes.items():
            alike.setdefault(named & lineage, []).append(purpose)
        for granted, together in alike.items():
            speaking = _speaking([rule for rule in rules if rule.fields[PURPOSE] in granted])
            if speaking.allows:
                names = tuple(column.name for column in group.columns)
                yield Cell(dataset, names, action, tuple(together), group.masked, speaking, group.own)

    def _groups(self, dataset: Dataset, node: str) -> list[_Group]:
        catalogue = self._set.catalogue
        mask_tags = frozenset[str]() if catalogue is None else catalogue.mask_tags
        alike: dict[tuple[frozenset[str], bool, bool, object], list[Column]] = {}
        for column in dataset.columns.values():
            nodes = self.nodes_of(column)
            if not node or node in nodes:
                masked = demands_mask(column.tags, mask_tags)
                own = masked and column.inherits and demands_own(column, mask_tags)
                alike.setdefault((nodes & self._named, masked, own, column.type if masked else ""), []).append(column)
        return [_Group(tuple(columns), nodes, masked, own) for (nodes, masked, own, _), columns in alike.items()]

    def _purposes(self, dataset: Dataset) -> dict[str, frozenset[str]]:
        """Returns the purposes that the notice permits for a dataset, each with its lineage."""
        purposes = self._set.purposes
        lineages = {} if purposes is None else {name: frozenset(purposes.lineage(name)) for name in purposes.names}
        return {name: lineage for name, lineage in lineages.items() if not lineage.isdisjoint(dataset.purposes)}


def _speaking(rules: list[Rule]) -> Speaking:
    return Speaking(
        tuple(rule for rule in rules if rule.ptype == "p" and rule.fields[EFFECT] == ALLOW),
        tuple(rule for rule in rules if rule.ptype == "p" and rule.fields[EFFECT] == DENY),
        tuple(rule for rule in rules if rule.ptype == "p2"),
        tuple(rule for rule in rules if rule.ptype == "p3"),
    )
