"""What each dataset was made of, over any number of steps and around circles, for all datasets at once.

Owns the walk over the steps of jobs. Its work grows with the number of steps and not with their depth: datasets that
are made of each other are one part, and what a part descends from is what its own members and the parts behind it do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping


class Ancestry:
    """Which declared datasets each dataset descends from, and the first of which nothing is known."""

    def __init__(
        self, parents: Mapping[str, Collection[str]], declared: Iterable[str], called: Callable[[str], str]
    ) -> None:
        """Takes what each dataset was made of in one step, those that are declared, and what to call the others."""
        self._parents = parents
        self._declared = sorted(declared)
        self._bits = {key: 1 << place for place, key in enumerate(self._declared)}
        self._called = called
        self._above: dict[str, int] = {}
        self._unknown: dict[str, str] = {}
        self._order: dict[str, int] = {}
        self._lowest: dict[str, int] = {}
        self._open: list[str] = []
        for key in parents:
            if key not in self._order:
                self._walk(key)

    def declared_above(self, key: str) -> tuple[str, ...]:
        """Returns the declared datasets that one descends from, itself among them, by name."""
        bits = self._above.get(key, self._bits.get(key, 0))
        found = []
        while bits:
            found.append(self._declared[(bits & -bits).bit_length() - 1])
            bits &= bits - 1
        return tuple(found)

    def unknown_above(self, key: str) -> str:
        """Returns the first that one descends from and that descends from nothing declared; empty if there is none."""
        return self._unknown.get(key, "")

    def _walk(self, start: str) -> None:
        """Visits what one was made of, depth first and without recursion (Tarjan's strongly connected components)."""
        way = [(start, iter(self._entered(start)))]
        while way:
            key, rest = way[-1]
            for parent in rest:
                if parent not in self._order:
                    way.append((parent, iter(self._entered(parent))))
                    break
                if parent not in self._above:  # it is open: a circle
                    self._lowest[key] = min(self._lowest[key], self._order[parent])
            else:
                way.pop()
                if way:
                    child = way[-1][0]
                    self._lowest[child] = min(self._lowest[child], self._lowest[key])
                if self._lowest[key] == self._order[key]:
                    self._close(key)

    def _entered(self, key: str) -> Collection[str]:
        self._order[key] = self._lowest[key] = len(self._order)
        self._open.append(key)
        return self._parents.get(key, ())

    def _close(self, key: str) -> None:
        """Settles a part, whose parents are all settled: `key` is the member that was entered first."""
        members = [self._open.pop()]
        while members[-1] != key:
            members.append(self._open.pop())
        behind = {parent for member in members for parent in self._parents.get(member, ())}.difference(members)
        bits = 0
        for member in members:
            bits |= self._bits.get(member, 0)
        unknown = {self._unknown[parent] for parent in behind if parent in self._unknown}
        for parent in behind:
            bits |= self._above[parent]
        if not bits:
            unknown.update(map(self._called, members))
        for member in members:
            self._above[member] = bits
            if unknown:
                self._unknown[member] = min(unknown)
