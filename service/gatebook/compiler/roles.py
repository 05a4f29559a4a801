"""The graph of one role definition, and what a name inherits by it.

Owns the links of `g`, `g2`, ...: a name inherits itself, its parents, theirs, and so on, to any depth.
Promises: immutable but for bounded memos that change no answer; a name without links, such as an
unknown subject, takes no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

from gatebook.pace import Pause, no_pause, paced
from gatebook.values import Edge

CLOSURES_MAX = 16_384
"""How many closures of one definition are remembered, of those that are not prepared."""

PREPARED_FACTOR = 4
"""How many names the closures prepared for one key may hold together, for each name that has links."""

PREPARED_MIN = 65_536

Adjacency = Mapping[str, Sequence[str]]
Domains = tuple[str, ...]
Names = tuple[str, ...] | frozenset[str]
"""Names that another inherits: hashable, iterable, each once; those of many are a set."""

SMALL = 8
_NO_LINKS: Adjacency = {}
_NOTHING: Names = ()


class Roles:
    """Answers which names a name inherits, in one domain or where there are no domains."""

    def __init__(self, edges: Iterable[Edge], pause: Pause = no_pause) -> None:
        """Takes the edges of one role definition."""
        links: dict[Domains, dict[str, Any]] = {}
        for edge in paced(edges, pause):
            links.setdefault(edge.domains, {}).setdefault(edge.child, []).append(edge.parent)
        for above in links.values():
            for child, parents in paced(above.items(), pause):
                above[child] = tuple(parents)  # the collector of rings leaves tuples of names alone
        self.links: Mapping[Domains, Adjacency] = links
        # No memo may be a method of its owner: what is a ring is not freed when the last who needs it has gone.
        self._closure = lru_cache(maxsize=CLOSURES_MAX)(partial(_reach_in, links))
        self._within: dict[frozenset[str], Inherited] = {}

    def within(self, used: frozenset[str], pause: Pause = no_pause) -> Inherited:
        """Returns what says which names of `used` a name inherits; for when a program is compiled."""
        if used not in self._within:
            self._within[used] = Inherited(self, used, pause)
        return self._within[used]

    def linked(self, name: str, parent: str, *domains: str) -> bool:
        """Tells whether `name` inherits `parent`."""
        if name == parent:
            return True
        return name in self.links.get(domains, _NO_LINKS) and parent in self._closure(str.__str__(name), *domains)

    def heirs_within(self, used: frozenset[str], pause: Pause = no_pause) -> Callable[..., frozenset[str]]:
        """Returns what says which names of `used` inherit a name (in a domain), itself included."""
        heirs = {domains: _reversed(links, pause) for domains, links in self.links.items()}

        def below(name: str, *domains: str) -> frozenset[str]:
            return used & reach(heirs[domains], name)

        memoised = lru_cache(maxsize=CLOSURES_MAX)(below)

        def closure(name: str, *domains: str) -> frozenset[str]:
            if name in heirs.get(domains, _NO_LINKS):
                return memoised(str.__str__(name), *domains)
            return used & {str.__str__(name)}

        return closure


class Inherited:
    """Says which of some names, those that rules use, a name inherits, itself included.

    What names with links inherit is prepared, so that a request need not walk the graph; equal closures are
    one object, and past a limit the rest is walked when it is asked for. `prepared` is by domains, then name.
    """

    def __init__(self, roles: Roles, used: frozenset[str], pause: Pause) -> None:
        """Takes the graph, and the names that count."""
        self.used = used
        self._links = roles.links if used else {}  # where no name counts, nothing is inherited that does
        names = sum(map(len, self._links.values()))
        budget = _Budget(max(PREPARED_MIN, PREPARED_FACTOR * names))
        self.prepared = {
            domains: _prepare(links, used, budget, pause) for domains, links in paced(self._links.items(), pause)
        }
        self._memoised = lru_cache(maxsize=CLOSURES_MAX)(partial(_walk, self._links, used))

    def __call__(self, name: str, *domains: str) -> Names:
        """Returns the names, for a name in a domain."""
        prepared = self.prepared.get(domains)
        if prepared is not None:
            names = prepared.get(name)
            if names is not None:
                return names
        if name in self._links.get(domains, _NO_LINKS):
            # A plain text: the memo must not keep the attributes of a subject; `str` of a member of an enumeration is
            # its name, and not the text that it equals.
            return self._memoised(str.__str__(name), *domains)
        return (str.__str__(name),) if name in self.used else _NOTHING


class _Budget:
    """How many names may still be prepared."""

    def __init__(self, left: int) -> None:
        self.left = left


def _prepare(adjacency: Adjacency, used: frozenset[str], budget: _Budget, pause: Pause) -> dict[str, Names]:
    """Returns what names with links inherit; names with the same parents share the walk and the closure."""
    prepared: dict[str, Names] = {}
    above: dict[tuple[str, ...], Names] = {}
    same: dict[Names, Names] = {}
    for name, parents in paced(adjacency.items(), pause):
        key = tuple(parents)
        names = above.get(key)
        if names is None and budget.left >= 0:
            reached = {it for parent in parents for it in reach(adjacency, parent)}
            budget.left -= len(reached)
            names = _names(reached, used)
            names = above[key] = same.setdefault(names, names)
        if names is None or budget.left < 0:
            break
        if name in used and name not in names:
            names = _names({name, *names}, used)
            names = same.setdefault(names, names)
            budget.left -= len(names)
        prepared[name] = names
    return prepared


def _walk(links: Mapping[Domains, Adjacency], used: frozenset[str], name: str, *domains: str) -> Names:
    return _names(reach(links[domains], name), used)


def _reach_in(links: Mapping[Domains, Adjacency], name: str, *domains: str) -> frozenset[str]:
    return frozenset(reach(links.get(domains, _NO_LINKS), name))


def _names(names: set[str], used: frozenset[str]) -> Names:
    within = used & names
    return tuple(sorted(within)) if len(within) <= SMALL else within


def reach(adjacency: Adjacency, name: str) -> set[str]:
    """Walks the graph from `name`; cycles and depth do not matter."""
    reached, pending = {name}, [name]
    while pending:
        for parent in adjacency.get(pending.pop(), ()):
            if parent not in reached:
                reached.add(parent)
                pending.append(parent)
    return reached


def _reversed(adjacency: Adjacency, pause: Pause) -> Adjacency:
    children: dict[str, list[str]] = {}
    for child, parents in paced(adjacency.items(), pause):
        for parent in parents:
            children.setdefault(parent, []).append(child)
    return children
