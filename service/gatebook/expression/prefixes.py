"""Tells how each text begins that a pattern may match.

Owns the literal prefixes of patterns. Promises: a function with a pattern is False, and not UNKNOWN, of every
`plain` text that does not begin with the pattern's prefix.
"""

from __future__ import annotations

from gatebook.expression.globs import is_path

PREFIXED = frozenset(("keyMatch", "keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5", "regexMatch", "globMatch"))
"""The functions whose second argument is a pattern that may begin with a literal."""

PLAIN_LENGTH_MAX = 1_024
"""A longer text may have no answer, whatever it begins with."""

_REPEATING = frozenset("*+?{")
_SPECIAL = frozenset("\\.^$*+?{}[]|():")
_GLOB_SPECIAL = frozenset("*?[{}],\\")


def prefix_of(function: str, pattern: str) -> str:
    """Returns what every text begins with that the pattern may match."""
    if function == "keyMatch":
        return pattern.partition("*")[0]
    if function == "globMatch":
        return _of_glob(pattern)
    return _of_regex(pattern.removeprefix("^") if function == "regexMatch" else pattern, path=function != "regexMatch")


def is_plain(function: str, text: str) -> bool:
    """Tells whether a function has an answer for a text, whatever the pattern."""
    if function == "keyMatch":
        return True
    plain = len(text) <= PLAIN_LENGTH_MAX and text.isascii() and "\n" not in text
    return plain and (function != "globMatch" or is_path(text))


def _of_glob(pattern: str) -> str:
    end = next((at for at, character in enumerate(pattern) if character in _GLOB_SPECIAL), len(pattern))
    # `/a/**` also matches `/a`.
    return pattern[:end].removesuffix("/") if pattern.startswith("**", end) else pattern[:end]


def _of_regex(pattern: str, *, path: bool) -> str:
    if _has_alternatives(pattern):
        return ""
    end = next((at for at, character in enumerate(pattern) if character in _SPECIAL), len(pattern))
    # `/*` of a path stands for `/.*`; otherwise what is repeated may be missing.
    keeps = path and pattern[end - 1 : end + 1] == "/*"
    repeated = pattern[end : end + 1] in _REPEATING and not keeps
    return pattern[: max(end - 1, 0)] if repeated else pattern[:end]


def _has_alternatives(pattern: str) -> bool:
    """Tells whether a `|` stands, or may stand, outside brackets."""
    if "|" not in pattern:
        return False
    if "\\" in pattern or "[" in pattern:
        return True
    depth = 0
    for character in pattern:
        depth += (character == "(") - (character == ")")
        if character == "|" and depth == 0:
            return True
    return False
