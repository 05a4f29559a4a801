"""Lets long work be done in small steps, so that whoever answers meanwhile is not kept waiting.

Owns the one way in which pure code pauses: it is handed a `pause` and calls it after every `STEP` items, a
fraction of a millisecond of work. What a pause is, and whether it is one at all, is not its business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

STEP = 64
"""Items that are worked on without a pause."""

Pause = Callable[[], object]
T = TypeVar("T")


def no_pause() -> None:
    """Goes on at once."""


def paced(items: Iterable[T], pause: Pause) -> Iterable[T]:
    """Returns the items, with a pause after every few of them."""
    return items if pause is no_pause else _paced(iter(items), pause)


def _paced(items: Iterator[T], pause: Pause) -> Iterator[T]:
    while step := tuple(islice(items, STEP)):
        yield from step
        pause()
