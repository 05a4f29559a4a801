"""Finds the rules that concern a request, by hash.

Owns the nested index of one alternative of a matcher: one level per key, each a mapping from the
value of a rule's field to the next level, and at the end the rules with these values. A request walks
it with one set of values per key (a value, or all that it inherits) and at each level iterates
over the smaller of the set and the level, so rules that do not concern it cost nothing.

Where a value of the request is UNKNOWN (null, or no text), its key says nothing of any rule: all of
the level are walked, and the match is UNKNOWN at best.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from gatebook.compiler.closure import Closure, Tokens
from gatebook.compiler.roles import Roles
from gatebook.compiler.split import Key
from gatebook.expression.environment import attribute
from gatebook.expression.tree import Expression, Literal, Path
from gatebook.values import Rule

Values = Collection[str] | None
"""What a key may be; None where that is unknown."""


class Entry(msgspec.Struct, frozen=True):
    """A rule in an index: `rest` is what is left of the matcher, None if nothing is.

    `order` is the place of the rule in the policy; `certain` is False where a key or a guard is
    UNKNOWN. `row_dependent` holds the rest as a tree, if it reads the row.
    """

    order: int
    rule: Rule
    rest: Closure | None
    row_dependent: Expression | None
    certain: bool = True


class Walk(NamedTuple):
    """How far a request came: the levels or leaves it reached, and whether all its keys were known."""

    nodes: list[Any]
    certain: bool


class Index:
    """The rules of one alternative, by its keys. Immutable."""

    def __init__(
        self,
        keys: Sequence[tuple[Key, int]],
        guard: Closure | None,
        entries: Sequence[Entry],
        roles: Mapping[str, Roles],
        late_token: str = "",
    ) -> None:
        """Takes the keys with the positions of their fields, and the entries in order.

        Keys on `late_token` come last, so that one walk serves many values of it. Of the others,
        equalities come first: they leave the fewest rules.
        """
        by_cost = sorted(keys, key=lambda it: (it[0].request.names[1] == late_token, it[0].role != ""))
        self._early = tuple(_Lookup(key, roles) for key, _ in by_cost if key.request.names[1] != late_token)
        self._late = tuple(_Lookup(key, roles) for key, _ in by_cost if key.request.names[1] == late_token)
        self._guard = guard
        self._root: Any = _nest(entries, [position for _, position in by_cost])

    def walk(self, tokens: Tokens) -> Walk:
        """Walks the keys that do not read the late token."""
        return _walk(Walk([self._root] if self._root else [], certain=True), self._early, tokens)

    def find(self, start: Walk, tokens: Tokens) -> list[Entry]:
        """Walks the rest of the way and returns the entries that may match, in no order."""
        walk = _walk(start, self._late, tokens)
        if not walk.nodes:
            return []
        certain = walk.certain
        if self._guard is not None:
            guarded = self._guard(tokens, ())
            if guarded is False:
                return []
            certain = certain and guarded is True
        entries = [entry for leaf in walk.nodes for entry in leaf]
        return entries if certain else [msgspec.structs.replace(entry, certain=False) for entry in entries]


class _Lookup:
    """Reads the values of one key from a request. Immutable."""

    def __init__(self, key: Key, roles: Mapping[str, Roles]) -> None:
        _, self._token, *attributes = key.request.names
        self._attributes = tuple(attributes)
        self._roles = roles[key.role] if key.role else None
        self._domain = key.domain

    def values(self, tokens: Tokens) -> Values:
        """Returns what the field of a rule may be."""
        value: object = tokens.get(self._token)
        for name in self._attributes:
            value = attribute(value, name)
        if not isinstance(value, str):
            return None
        if self._roles is None:
            return (value,)
        if self._domain is None:
            return self._roles.closure(value)
        domain = _read(self._domain, tokens)
        return self._roles.closure(value, domain) if isinstance(domain, str) else None


def _read(domain: Path | Literal, tokens: Tokens) -> object:
    if isinstance(domain, Literal):
        return domain.value
    value: object = tokens.get(domain.names[1])
    for name in domain.names[2:]:
        value = attribute(value, name)
    return value


def _walk(walk: Walk, lookups: tuple[_Lookup, ...], tokens: Tokens) -> Walk:
    nodes, certain = walk
    for lookup in lookups:
        if not nodes:
            break
        values = lookup.values(tokens)
        certain = certain and values is not None
        reached: list[Any] = []
        for node in nodes:
            if values is None:
                reached.extend(node.values())
            elif len(values) <= len(node):
                reached.extend(node[value] for value in values if value in node)
            else:
                reached.extend(child for value, child in node.items() if value in values)
        nodes = reached
    return Walk(nodes, certain)


def _nest(entries: Sequence[Entry], positions: list[int]) -> Any:  # noqa: ANN401 - a mapping of mappings, as deep as there are keys
    if not positions:
        return tuple(entries)
    grouped: dict[str, list[Entry]] = {}
    for entry in entries:
        grouped.setdefault(entry.rule.fields[positions[0]], []).append(entry)
    return {value: _nest(group, positions[1:]) for value, group in grouped.items()}
