"""The characters that masks tell apart, as classes of regular expressions.

Owns their spelling as ranges of characters, which every engine reads alike: what the classes of an engine hold depends
on its version and locale.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable
from functools import cache


@cache
def upper_case() -> str:
    """Returns the class of what `redact` makes an X."""
    return f"[{_ranges(lambda character: unicodedata.category(character) == 'Lu')}]"


@cache
def other_letters() -> str:
    """Returns the class of what `redact` makes an x: other letters, and their marks."""
    return f"[{_ranges(lambda character: unicodedata.category(character) in _OTHER_LETTERS)}]"


@cache
def digits() -> str:
    """Returns the class of what `redact` makes a 0."""
    return f"[{_ranges(lambda character: unicodedata.category(character)[0] == 'N')}]"


@cache
def address() -> str:
    """Returns a pattern of e-mail addresses, to be matched in full; it has no group."""
    words = _ranges(lambda character: re.match(r"\w", character) is not None)
    spaces = _ranges(lambda character: re.match(r"\s", character) is not None)
    return f"[^@{spaces}]+@[{words}-]+(?:\\.[{words}-]+)*"


_OTHER_LETTERS = frozenset(("Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me"))


def _ranges(belongs: Callable[[str], bool]) -> str:
    """Returns the characters that belong to a class, as ranges."""
    ranges: list[str] = []
    first = last = ""
    for number in range(sys.maxunicode + 2):
        character = chr(number) if number <= sys.maxunicode else ""
        if character and belongs(character):
            first, last = first or character, character
        elif first:
            ranges.append(first if first == last else f"{first}-{last}")
            first = ""
    return "".join(ranges)
