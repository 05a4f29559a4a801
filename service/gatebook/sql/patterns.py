"""Patterns of the `regex` mask that engines read alike.

Owns the choice of what is accepted: a row of characters and classes, each perhaps repeated, of which each match has a
character. What such a pattern matches is the same to RE2, which the client uses, and to Java. To PostgreSQL, which
wants the longest match, it is the same where no repeated part can take what the next part wants.
Groups, alternatives, anchors and what is between words are not accepted.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

_ATOM: Final = re.compile(
    r"\[(?P<negated>\^?)(?P<content>(?:[A-Za-z0-9]-[A-Za-z0-9]|[A-Za-z0-9_@.?/:;,=+*%!~#()$ ])+-?)\]"
    r"|\\(?P<kind>[dws])"
    r"|\\(?P<escaped>[.?*+()\[\]{}|^$/-])"
    r"|(?P<any>\.)"
    r"|(?P<literal>[A-Za-z0-9_@/:;,=%!~# -])"
)
_REPEATED: Final = re.compile(r"(?P<sign>[*+?])|\{(?P<least>[0-9]{1,3})(?P<more>,(?P<most>[0-9]{0,3}))?\}")
_KINDS: Final = {"d": "0-9", "w": "0-9A-Za-z_", "s": "\t\n\f\r "}
_RANGE: Final = re.compile(r"([A-Za-z0-9])-([A-Za-z0-9])")
_SORTS: Final = ("0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
PARTS_MAX: Final = 100
TIMES_MAX: Final = 255
"""How often PostgreSQL lets a part be repeated."""


class Part(msgspec.Struct, frozen=True):
    """One character: `written` is how all engines read it; `content` None stands for more than a class can name."""

    written: str
    content: frozenset[str] | None
    varies: bool
    optional: bool


def portable(pattern: str, *, longest: bool = False) -> str | None:
    """Returns a pattern as every engine reads it; nothing where they might differ.

    With `longest` it means the same, too, to an engine that wants the longest match.
    """
    parts: list[Part] = []
    position = 0
    while position < len(pattern):
        found = _ATOM.match(pattern, position)
        if found is None or len(parts) == PARTS_MAX:
            return None
        position = found.end()
        repeated = _REPEATED.match(pattern, position)
        if repeated is not None:
            position = repeated.end()
        part = _part(found, repeated)
        if part is None:
            return None
        parts.append(part)
    if all(part.optional for part in parts) or (longest and not _is_plain(parts)):
        return None
    return "".join(part.written for part in parts)


def _part(found: re.Match[str], repeated: re.Match[str] | None) -> Part | None:
    """Returns a part, or nothing where it is read in more than one way."""
    if not _is_sound(found["content"] or ""):
        return None
    written, content = _character(found)
    if repeated is None:
        return Part(written, content, varies=False, optional=False)
    if repeated["sign"]:
        return Part(written + repeated[0], content, varies=True, optional=repeated["sign"] != "+")
    least = int(repeated["least"])
    most = least if repeated["more"] is None else int(repeated["most"] or TIMES_MAX)
    if not least <= most <= TIMES_MAX:
        return None
    varies = repeated["more"] is not None and repeated["most"] != repeated["least"]
    return Part(written + repeated[0], content, varies, optional=least == 0)


def _character(found: re.Match[str]) -> tuple[str, frozenset[str] | None]:
    """Returns how one character is written, and which it can be."""
    if found["any"]:
        return "[^\n]", None
    if found["kind"]:
        content = _KINDS[found["kind"]]
        return f"[{content}]", _named(content)
    if found["content"]:
        return found[0], None if found["negated"] else _named(found["content"])
    return found[0], frozenset(found["escaped"] or found["literal"])


def _is_sound(content: str) -> bool:
    """Tells whether each range of a class goes from a letter or digit to a later one of its sort."""
    return all(
        first <= last and any(first in sort and last in sort for sort in _SORTS)
        for first, last in _RANGE.findall(content)
    )


def _named(content: str) -> frozenset[str]:
    """Returns the characters of a class."""
    named = set(_RANGE.sub("", content))
    for first, last in _RANGE.findall(content):
        named |= {chr(number) for number in range(ord(first), ord(last) + 1)}
    return frozenset(named)


def _is_plain(parts: list[Part]) -> bool:
    """Tells whether no part that varies can take what a part behind it, with nothing certain between, wants."""
    for place, part in enumerate(parts):
        if not part.varies:
            continue
        for following in parts[place + 1 :]:
            if part.content is None or following.content is None or part.content & following.content:
                return False
            if not following.optional:
                break
    return True
