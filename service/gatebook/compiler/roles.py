"""The graph of one role definition, and what a name inherits by it.

Owns the links of `g`, `g2`, ...: a name inherits itself, its parents, theirs, and so on, to any depth.
Promises: immutable but for bounded memos that change no answer; a name without links, such as an
unknown subject, takes no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

from gatebook.values import Edge

CLOSURES_MAX = 16_384

Adjacency = Mapping[str, Sequence[str]]
_NO_LINKS: Adjacency = {}


class Roles:
    """Answers which names a name inherits, in one domain or where there are no domains."""

    def __init__(self, edges: Iterable[Edge]) -> None:
        """Takes the edges of one role definition."""
        links: dict[tuple[str, ...], dict[str, list[str]]] = {}
        for edge in edges:
            links.setdefault(edge.domains, {}).setdefault(edge.child, []).append(edge.parent)
        self._links: Mapping[tuple[str, ...], Adjacency] = links
        self._closure = lru_cache(maxsize=CLOSURES_MAX)(self._reach)

    def linked(self, name: str, parent: str, *domains: str) -> bool:
        """Tells whether `name` inherits `parent`."""
        if name == parent:
            return True
        return name in self._links.get(domains, _NO_LINKS) and parent in self._closure(str(name), *domains)

    def closure_within(self, used: frozenset[str]) -> Callable[..., frozenset[str]]:
        """Returns what says which names of `used` a name (in a domain) inherits, itself included."""
        links = self._links
        memoised = lru_cache(maxsize=CLOSURES_MAX)(lambda name, *domains: used & self._reach(name, *domains))

        def closure(name: str, *domains: str) -> frozenset[str]:
            if name in links.get(domains, _NO_LINKS):
                # A plain text: the memo must not keep the attributes of a subject.
                return memoised(str(name), *domains)
            return used & {name}

        return closure

    def heirs_within(self, used: frozenset[str]) -> Callable[..., frozenset[str]]:
        """Returns what says which names of `used` inherit a name (in a domain), itself included."""
        heirs = {domains: _reversed(links) for domains, links in self._links.items()}

        def below(name: str, *domains: str) -> frozenset[str]:
            return used & reach(heirs[domains], name)

        memoised = lru_cache(maxsize=CLOSURES_MAX)(below)

        def closure(name: str, *domains: str) -> frozenset[str]:
            if name in heirs.get(domains, _NO_LINKS):
                return memoised(str(name), *domains)
            return used & {str(name)}

        return closure

    def _reach(self, name: str, *domains: str) -> frozenset[str]:
        return frozenset(reach(self._links.get(domains, _NO_LINKS), name))


def reach(adjacency: Adjacency, name: str) -> set[str]:
    """Walks the graph from `name`; cycles and depth do not matter."""
    reached, pending = {name}, [name]
    while pending:
        for parent in adjacency.get(pending.pop(), ()):
            if parent not in reached:
                reached.add(parent)
                pending.append(parent)
    return reached


def _reversed(adjacency: Adjacency) -> Adjacency:
    children: dict[str, list[str]] = {}
    for child, parents in adjacency.items():
        for parent in parents:
            children.setdefault(parent, []).append(child)
    return children
