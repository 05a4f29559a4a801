"""Chance that comes out the same everywhere.

Owns the drawing of lots for generated companies. Only `random.Random(int).random()` is used, whose
sequence Python promises to keep between versions ("Notes on Reproducibility", module random).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """Draws lots; the same seed and the same draws give the same lots."""

    def __init__(self, seed: int) -> None:
        """Takes the seed."""
        self._random = random.Random(seed)  # noqa: S311  # a generated company is no secret

    def below(self, limit: int) -> int:
        """Returns a whole number from 0 to `limit` - 1, all as likely."""
        return int(self._random.random() * limit)

    def among(self, choices: Sequence[T]) -> T:
        """Returns one of the choices, all as likely."""
        return choices[self.below(len(choices))]

    def weighted(self, choices: Sequence[tuple[T, int]]) -> T:
        """Returns one of the choices, each as likely as its weight says."""
        lot = self.below(sum(weight for _, weight in choices))
        for choice, weight in choices:
            lot -= weight
            if lot < 0:
                return choice
        raise AssertionError

    def skewed(self, limit: int) -> int:
        """Returns a whole number from 0 to `limit` - 1, small ones more likely."""
        first, second = self._random.random(), self._random.random()
        return int(first * second * limit)
