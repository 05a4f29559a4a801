"""The characters that masks tell apart, as classes of regular expressions.

Owns their spelling as ranges of characters, which every engine reads alike: what the classes of an engine hold depends
on its version and locale.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import cache


@cache
def upper_case() -> str:
    """Returns the class of what `redact` makes an X."""
    return f"[{_ranges('U+', _signs())}]"


@cache
def other_letters() -> str:
    """Returns the class of what `redact` makes an x: other letters, and their marks."""
    return f"[{_ranges('l+', _signs())}]"


@cache
def digits() -> str:
    """Returns the class of what `redact` makes a 0."""
    return f"[{_ranges('n+', _signs())}]"


@cache
def address() -> str:
    """Returns a pattern of e-mail addresses, to be matched in full; it has no group."""
    characters = "".join(map(chr, range(sys.maxunicode + 1)))
    words, spaces = _ranges(r"\w+", characters), _ranges(r"\s+", characters)
    return f"[^@{spaces}]+@[{words}-]+(?:\\.[{words}-]+)*"


_SIGNS = {"Lu": "U", **dict.fromkeys(("Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me"), "l")}


@cache
def _signs() -> str:
    """Returns one sign for each character, in their order: U, l, n, or the first letter of another category."""
    categories = map(unicodedata.category, map(chr, range(sys.maxunicode + 1)))
    return "".join([_SIGNS.get(category) or ("n" if category[0] == "N" else category[0]) for category in categories])


def _ranges(pattern: str, characters: str) -> str:
    """Returns the characters at whose places a pattern matches, as ranges."""
    spans = [(chr(found.start()), chr(found.end() - 1)) for found in re.finditer(pattern, characters)]
    return "".join([first if first == last else f"{first}-{last}" for first, last in spans])
