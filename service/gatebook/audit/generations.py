"""A bounded cache that forgets what was not used lately.

Owns a cache in two generations: what is used stays in the young one; when that is full it becomes
the old one, and what the old one held is forgotten. Each step is a single dict operation, so
that threads may share it: the worst that two of them can do is to forget early.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


class Generations(Generic[Key, Item]):
    """Holds at most `size_max` items."""

    def __init__(self, size_max: int) -> None:
        """Takes the largest number of items, at least 2."""
        self._half = max(1, size_max // 2)
        self._young: dict[Key, Item] = {}
        self._old: dict[Key, Item] = {}

    def __len__(self) -> int:
        """Returns the number of items at hand."""
        return len(self._young) + len(self._old.keys() - self._young.keys())

    def get(self, key: Key) -> Item | None:
        """Returns the item, or None where it was forgotten or never known."""
        item = self._young.get(key)
        if item is None:
            item = self._old.get(key)
            if item is not None:
                self.put(key, item)
        return item

    def put(self, key: Key, item: Item) -> None:
        """Remembers the item."""
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}
        self._young[key] = item
