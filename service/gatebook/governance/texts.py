"""Texts as numbers that stand in the same order.

Owns the one way in which a proof speaks of texts. A text that is named is a whole number, and what lies between two
of them is any text between them, in the order of their characters. So equality, order and beginnings are said exactly,
of any texts, and without a theory of texts. Promises: for any texts there are numbers with the same order among
themselves and with all that are named; of two names, none is added between later on but where `at` was asked.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from fractions import Fraction
from typing import Final

LAST: Final = "\U0010ffff"
PLAIN: Final = ("other", "another", "x", "zz", "1")
UUIDS: Final = tuple(f"{digit * 8}-0000-4000-8000-000000000000" for digit in "0123456789abcdef")


class Texts:
    """The texts that a policy set names, and those that were chosen between them."""

    def __init__(self, named: Iterable[str]) -> None:
        """Takes every text that a condition may compare with; the empty one is the first of all."""
        ordered = sorted({"", *named})
        self._points = {text: Fraction(place) for place, text in enumerate(ordered)}
        self._ordered = [(point, text) for text, point in self._points.items()]
        self._ordered.sort()

    def point(self, text: str) -> Fraction | None:
        """Returns the number of a text; None of one that was never named."""
        return self._points.get(text)

    def add(self, text: str) -> Fraction:
        """Names another text: it gets a number between those of the texts around it."""
        if text not in self._points:
            place = next((at for at, (_, other) in enumerate(self._ordered) if other > text), len(self._ordered))
            before = self._ordered[place - 1][0]
            after = self._ordered[place][0] if place < len(self._ordered) else before + 2
            self._points[text] = (before + after) / 2
            insort(self._ordered, (self._points[text], text))
        return self._points[text]

    def at(self, point: Fraction, *, uuid: bool = False) -> str:
        """Returns the text of a number, chosen now where none was: between the texts around it, where there is one."""
        place = bisect_left(self._ordered, (point, ""))
        if place < len(self._ordered) and self._ordered[place][0] == point:
            return self._ordered[place][1]
        before = self._ordered[place - 1][1] if place else ""
        after = self._ordered[place][1] if place < len(self._ordered) else None
        candidates = (*(UUIDS if uuid else PLAIN), *(before + end for end in ("x", "1", "!", " ", "\0")))
        for text in candidates:
            if before < text and (after is None or text < after):
                self._points[text] = point
                insort(self._ordered, (point, text))
                return text
        return before + "\0"  # there is no text between; the reference will tell


def successor(prefix: str) -> str | None:
    """Returns the first text behind all that begin so; None where there is none."""
    kept = prefix.rstrip(LAST)
    return kept[:-1] + chr(ord(kept[-1]) + 1) if kept else None
