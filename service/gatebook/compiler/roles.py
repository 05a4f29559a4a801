"""The graph of one role definition, and what a name inherits by it.

Owns the links of `g`, `g2`, ...: a name reaches itself, its parents, theirs, and so on, to any depth.
Promises: immutable but for a bounded memo that changes no answer; names without links, such as
unknown subjects, take no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

from gatebook.values import Edge

CLOSURES_MAX = 65_536

Adjacency = Mapping[str, Sequence[str]]


class Roles:
    """Answers which names a name inherits, in one domain or where there are no domains."""

    def __init__(self, edges: Iterable[Edge]) -> None:
        """Takes the edges of one role definition."""
        links: dict[tuple[str, ...], dict[str, list[str]]] = {}
        for edge in edges:
            links.setdefault(edge.domains, {}).setdefault(edge.child, []).append(edge.parent)
        self._closures: Mapping[tuple[str, ...], Callable[[str], frozenset[str]]] = {
            domains: _closure_of({child: tuple(parents) for child, parents in adjacency.items()})
            for domains, adjacency in links.items()
        }

    def closure(self, name: str, *domains: str) -> frozenset[str]:
        """Returns every name that `name` inherits in the domain, itself included."""
        closure = self._closures.get(domains)
        return frozenset((name,)) if closure is None else closure(name)

    def linked(self, name: str, parent: str, *domains: str) -> bool:
        """Tells whether `name` inherits `parent`."""
        return name == parent or parent in self.closure(name, *domains)


def _closure_of(adjacency: Adjacency) -> Callable[[str], frozenset[str]]:
    memoised = lru_cache(maxsize=CLOSURES_MAX)(lambda name: frozenset(reach(adjacency, name)))

    def closure(name: str) -> frozenset[str]:
        # A plain text: the memo must not keep the attributes of a subject.
        return memoised(str(name)) if name in adjacency else frozenset((name,))

    return closure


def reach(adjacency: Adjacency, name: str) -> set[str]:
    """Walks the graph from `name`; cycles and depth do not matter."""
    reached, pending = {name}, [name]
    while pending:
        for parent in adjacency.get(pending.pop(), ()):
            if parent not in reached:
                reached.add(parent)
                pending.append(parent)
    return reached
