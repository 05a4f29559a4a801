"""A bounded cache that forgets what was not used lately.

Owns a cache in two generations: what is used stays in the young one; when that is full it becomes
the old one, and what the old one held is forgotten. Each step is a single dict operation, so
that threads may share it: the worst that two of them can do is to forget early.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

FRAGMENT_BYTES = 512
"""What an encoded object takes beside its bytes, roughly: its place, and that of the object."""

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

    def drop(self, key: Key) -> None:
        """Forgets an item, if it is held."""
        young = self._young.pop(key, None)
        if young is not None:
            self._young_size -= young[1]
        self._old.pop(key, None)

    def turn(self) -> None:
        """Forgets what was not used since the last turn."""
        self._old, self._young, self._young_size = self._young, {}, 0


class _Held(weakref.ref[Thing]):
    """An object that is not kept, and under which key it was held."""

    __slots__ = ("key",)

    key: int


class ByIdentity(Generic[Thing, Item]):
    """Remembers what was made of objects, by which object it is, for as long as somebody else keeps the object.

    So what was made of an old revision goes with it, and does not wait until the memo is full.
    """

    def __init__(self, size_max: int) -> None:
        """Takes the largest size of all items together."""
        self._made: Generations[int, tuple[_Held[Thing], Item]] = Generations(size_max)

    def __len__(self) -> int:
        """Returns the number of items at hand."""
        return len(self._made)

    def get(self, thing: Thing) -> Item | None:
        """Returns what was made of this very object, or None where it was forgotten or never known."""
        held = self._made.get(id(thing))
        # INVARIANT: another object may get the id of one that is gone, and never what was made of that.
        return held[1] if held is not None and held[0]() is thing else None

    def put(self, thing: Thing, item: Item, size: int) -> None:
        """Remembers what was made of an object."""
        held = _Held(thing, self._gone)
        held.key = id(thing)
        self._made.put(held.key, (held, item), size)

    def _gone(self, held: _Held[Thing]) -> None:
        self._made.drop(held.key)


class Fragments(Generic[Thing]):
    """Remembers how objects are encoded; see `ByIdentity`."""

    def __init__(self, encode: Callable[[Thing], bytes], bytes_max: int) -> None:
        """Takes what encodes an object, and what all that is remembered may take, roughly."""
        self._encode = encode
        self._encoded: ByIdentity[Thing, bytes] = ByIdentity(bytes_max)

    def __call__(self, thing: Thing) -> bytes:
        """Returns the object, encoded."""
        encoded = self._encoded.get(thing)
        if encoded is None:
            encoded = self._encode(thing)
            self._encoded.put(thing, encoded, FRAGMENT_BYTES + len(encoded))
        return encoded
