"""A bounded cache that forgets what was not used lately.

Owns a cache in two generations: what is used stays in the young one; when that is full it becomes
the old one, and what the old one held is forgotten. Each step is a single dict operation, so
that threads may share it: the worst that two of them can do is to forget early.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Thing = TypeVar("Thing")


class Generations(Generic[Key, Item]):
    """Holds items of at most `size_max` together, where the size of an item is 1 unless `put` says otherwise."""

    def __init__(self, size_max: int) -> None:
        """Takes the largest size of all items together, at least 2."""
        self._half = max(1, size_max // 2)
        self._young: dict[Key, tuple[Item, int]] = {}
        self._old: dict[Key, tuple[Item, int]] = {}
        self._young_size = 0

    def __len__(self) -> int:
        """Returns the number of items at hand."""
        return len(self._young) + len(self._old.keys() - self._young.keys())

    def get(self, key: Key) -> Item | None:
        """Returns the item, or None where it was forgotten or never known."""
        held = self._young.get(key)
        if held is None:
            held = self._old.get(key)
            if held is None:
                return None
            self.put(key, *held)
        return held[0]

    def put(self, key: Key, item: Item, size: int = 1) -> None:
        """Remembers the item, unless it alone is larger than half of what may be held."""
        if size > self._half:
            return
        if self._young_size + size > self._half:
            self.turn()
        self._young_size += size
        self._young[key] = (item, size)

    def turn(self) -> None:
        """Forgets what was not used since the last turn."""
        self._old, self._young, self._young_size = self._young, {}, 0


class ByIdentity(Generic[Thing, Item]):
    """Remembers what was made of an object, by which object it is, and keeps the object for as long."""

    def __init__(self, make: Callable[[Thing], Item], size_max: int, size: Callable[[Item], int] = lambda _: 1) -> None:
        """Takes what makes an item of an object, and the largest size of all items together."""
        self._make = make
        self._size = size
        # INVARIANT: an object stays alive as long as its id is a key, so that no other object has this id.
        self._made: Generations[int, tuple[Thing, Item]] = Generations(size_max)

    def __call__(self, thing: Thing) -> Item:
        """Returns what is made of the object."""
        held = self._made.get(id(thing))
        if held is None:
            made = self._make(thing)
            self._made.put(id(thing), (thing, made), self._size(made))
            return made
        return held[1]
