"""Plans which rules to ask for a request.

Owns what the indexes have in common: each key is read once per request, and what the indexes give for
the same values is remembered, so that most requests need one look-up. Promises: immutable but for that
memo, which is bounded, changes no answer and holds no value that is not a field of some rule.

Keys that read the late token (the resource, of which one request may have many) are read apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

from gatebook.compiler.closure import Closure, Tokens
from gatebook.compiler.index import Entry, Index
from gatebook.compiler.keys import Form, Key
from gatebook.compiler.lookups import Graph, Values, lookup
from gatebook.compiler.split import reads_token
from gatebook.expression.tree import Path
from gatebook.pace import Pause, no_pause

PLANS_MAX = 16_384


class Found(NamedTuple):
    """Rules of one alternative of a matcher that come into question, under its guard, in order."""

    guard: Closure | None
    entries: tuple[Entry, ...]


Plan = Mapping[str, tuple[Found, ...]]
"""For each group of rules, what its alternatives found."""


class Planner:
    """Plans requests to one policy set.

    `late_alone` tells that the keys which read the late token read nothing else: the plan is then a function
    of the early values and that token.
    """

    def __init__(
        self,
        groups: Mapping[str, Sequence[Index]],
        roles: Mapping[str, Graph],
        late_token: str = "",
        pause: Pause = no_pause,
    ) -> None:
        """Takes the indexes of each group of rules."""
        used = used_values(groups)
        keys = {identity(key): key for indexes in groups.values() for index in indexes for key in index.keys}
        early = [it for it, key in keys.items() if not reads_token(key.part, late_token)]
        late = [it for it, key in keys.items() if reads_token(key.part, late_token)]
        self._early = tuple(lookup(keys[it], roles, used[it], pause) for it in early)
        self._late = tuple(lookup(keys[it], roles, used[it], pause) for it in late)
        self.late_alone = all(not keys[it].domains for it in late)
        position = {it: at for at, it in enumerate((*early, *late))}
        self._groups: _Placed = {
            name: tuple((index, tuple(position[identity(key)] for key in index.keys)) for index in indexes)
            for name, indexes in groups.items()
        }
        # Functions of the indexes, and no methods: a ring would keep an old revision.
        self._make = partial(_make, self._groups)
        self._remembered = lru_cache(maxsize=PLANS_MAX)(self._make)

    def indexes(self) -> Iterator[Index]:
        """Yields the indexes that it asks."""
        return (index for indexes in self._groups.values() for index, _ in indexes)

    def read(self, tokens: Tokens) -> tuple[Values, ...]:
        """Reads the keys that do not depend on the late token."""
        return tuple([read(tokens) for read in self._early])

    def plan(self, early: tuple[Values, ...], tokens: Tokens) -> Plan:
        """Reads the other keys, and returns the rules to ask."""
        values = (*early, *[read(tokens) for read in self._late]) if self._late else early
        return self._make(values) if None in values else self._remembered(values)


_Placed = Mapping[str, tuple[tuple[Index, tuple[int, ...]], ...]]
"""The indexes of each group, and which of the values that were read are those of their keys."""


def _make(groups: _Placed, values: tuple[Values, ...]) -> Plan:
    return {
        name: tuple(
            Found(index.guard, entries)
            for index, positions in indexes
            if (entries := index.reach([values[at] for at in positions]))
        )
        for name, indexes in groups.items()
    }


Identity = tuple[tuple[str, ...], Form, str, tuple[tuple[str, ...] | str, ...], bool]


def used_values(groups: Mapping[str, Sequence[Index]]) -> dict[Identity, frozenset[str]]:
    """Returns, for each key, which values some rule of any group has."""
    used: dict[Identity, set[str]] = {}
    for index in (index for indexes in groups.values() for index in indexes):
        for key, values in zip(index.keys, index.used, strict=True):
            used.setdefault(identity(key), set()).update(values)
    return {it: frozenset(values) for it, values in used.items()}


def identity(key: Key) -> Identity:
    """Names what a key reads, wherever in a matcher it stands."""
    domains = tuple(domain.names if isinstance(domain, Path) else str(domain.value) for domain in key.domains)
    return key.request.names, key.form, key.role, domains, key.exact
