"""Finds the rules that concern a request, by hash.

Owns the nested index of one alternative of a matcher. Its first level holds all equalities at once,
then comes one level per role, each a mapping from the value of a rule's field to the next level, and
at the end stand the rules with these values. A request walks it with one set of values per role (all
that a name inherits) and at each level iterates over the smaller of the set and the level, so rules that
do not concern it cost nothing.

Where a value of the request is UNKNOWN, its key says nothing of any rule: the whole level is walked,
and the match is UNKNOWN at best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from gatebook.compiler.closure import Closure, Fields, Tokens
from gatebook.compiler.lookups import Values, lookup, read_path
from gatebook.compiler.roles import Roles
from gatebook.compiler.split import Key
from gatebook.expression.tree import Expression
from gatebook.values import Rule

Lookup = Callable[[Tokens], Values]
Outcome = bool | Expression | None
"""Whether a rule applies: True, False, None (UNKNOWN), or an expression over a row that is not known."""

Blind = Callable[[Tokens, Fields], Outcome]


class Entry(msgspec.Struct, frozen=True):
    """A rule in an index: `rest` is what is left of the matcher, None if nothing is.

    `order` is the place of the rule in the policy. `blind` is there if the rest reads the row, and gives
    the outcome without one. `late` tells whether the rest reads the late token; `certain` is False where a
    key or a guard is UNKNOWN.
    """

    order: int
    rule: Rule
    rest: Closure | None = None
    blind: Blind | None = None
    late: bool = False
    certain: bool = True


class Walk(NamedTuple):
    """The values of all keys but the late one, and whether all are known."""

    exact: tuple[object, ...]
    inherited: tuple[Values, ...]
    certain: bool


WALKS_MAX = 16_384
_ORDER = attrgetter("order")


class Index:
    """The rules of one alternative, by its keys. Immutable but for a bounded memo that changes no answer."""

    def __init__(
        self,
        keys: Sequence[tuple[Key, int]],
        guard: Closure | None,
        entries: Sequence[Entry],
        roles: Mapping[str, Roles],
        late_token: str = "",
    ) -> None:
        """Takes the keys with the positions of their fields, and the entries in order.

        A key on `late_token` comes last, so that one walk serves many values of it.
        """
        late = [it for it in keys if it[0].request.names[1] == late_token][:1]
        exact = [it for it in keys if it not in late and not it[0].role]
        inherited = [it for it in keys if it not in late and it[0].role]

        def lookups(chosen: Sequence[tuple[Key, int]]) -> tuple[Lookup, ...]:
            return tuple(
                lookup(key, roles, frozenset(entry.rule.fields[position] for entry in entries))
                for key, position in chosen
            )

        self._exact = tuple(read_path(key.request) for key, _ in exact)
        self._early = lookups(inherited)
        self._late = next(iter(lookups(late)), None)
        self._guard = guard
        positions = [position for _, position in exact]
        levels = [position for _, position in (*inherited, *late)]
        grouped: dict[tuple[str, ...], list[Entry]] = {}
        for entry in entries:
            grouped.setdefault(tuple([entry.rule.fields[position] for position in positions]), []).append(entry)
        self._root: Mapping[tuple[object, ...], Any] = {
            values: _nest(group, levels) for values, group in grouped.items()
        }
        self._memoised = lru_cache(maxsize=WALKS_MAX)(self._reach)

    def walk(self, tokens: Tokens) -> Walk:
        """Reads all keys but the late one, once for all values of it."""
        exact = tuple([read(tokens) for read in self._exact])
        inherited = tuple([read(tokens) for read in self._early])
        certain = None not in inherited and all(isinstance(value, str) for value in exact)
        return Walk(exact, inherited, certain)

    def find(self, walk: Walk, tokens: Tokens) -> Sequence[Entry]:
        """Returns the entries that may match, in order."""
        exact, inherited, certain = walk
        if self._late is None:
            found = self._reach(exact, inherited) if certain else self._scan(exact, inherited)
        else:
            late = self._late(tokens)
            certain = certain and late is not None
            values = (*inherited, late)
            found = self._memoised(exact, values) if certain else self._scan(exact, values)
        if not found or (certain and self._guard is None):
            return found
        guarded = True if self._guard is None else self._guard(tokens, ())
        if guarded is False:
            return ()
        if certain and guarded is True:
            return found
        return [msgspec.structs.replace(entry, certain=False) for entry in found]

    def _reach(self, exact: tuple[object, ...], values: tuple[Values, ...]) -> Sequence[Entry]:
        node = self._root.get(exact)
        return () if node is None else _entries([node], values)

    def _scan(self, exact: tuple[object, ...], values: tuple[Values, ...]) -> Sequence[Entry]:
        """Finds the rules whose known keys hold, though others are UNKNOWN."""
        nodes = [
            node
            for key, node in self._root.items()
            if all(value == field or not isinstance(value, str) for value, field in zip(exact, key, strict=True))
        ]
        return _entries(nodes, values)


def _entries(nodes: list[Any], values: tuple[Values, ...]) -> tuple[Entry, ...]:
    """Walks the levels of the roles to the end."""
    for names in values:
        nodes = _descend(nodes, names)
    if len(nodes) == 1:
        leaf: tuple[Entry, ...] = nodes[0]
        return leaf
    return tuple(sorted([entry for leaf in nodes for entry in leaf], key=_ORDER))


def _descend(nodes: list[Any], values: Values) -> list[Any]:
    """Goes one level down, by the smaller of the values and each level; by all of it where they are UNKNOWN."""
    reached: list[Any] = []
    for node in nodes:
        if values is None:
            reached.extend(node.values())
        elif len(values) <= len(node):
            reached.extend([node[value] for value in values if value in node])
        else:
            reached.extend([child for value, child in node.items() if value in values])
    return reached


def _nest(entries: Sequence[Entry], positions: list[int]) -> Any:  # noqa: ANN401 - a mapping of mappings, as deep as there are keys
    if not positions:
        return tuple(entries)
    grouped: dict[str, list[Entry]] = {}
    for entry in entries:
        grouped.setdefault(entry.rule.fields[positions[0]], []).append(entry)
    return {value: _nest(group, positions[1:]) for value, group in grouped.items()}
