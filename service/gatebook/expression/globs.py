"""Translates the globs of `globMatch` into regular expressions.

Owns their meaning, which is pycasbin's (a shell's, by way of wcmatch), for globs that can be read in
one way only:

1. `*` and `?` stay within one segment of a path, and match no dot at its beginning;
2. `**` as a whole segment is any number of segments, none of which begins with a dot;
   at the end it also stands for nothing: `/a/**` matches `/a`;
3. `[a-z]` and `[!a-z]` are classes of letters, digits and `_`; `{a,b}` are alternatives of plain text;
4. a leading `*/` counts as `/`.

Any other use of these characters, a backslash and repeated slashes are refused. A text that is no
plain path (`is_path`) has no answer.
"""

from __future__ import annotations

import itertools
import math
import re

from gatebook.expression.dialect import PatternError, Reading, literal

ALTERNATIVES_MAX = 64
CHARACTERS_MAX = 4_000
"""How many characters the alternatives of a glob have together."""

_NAME = r"[^/.][^/]*"
_TOKEN = re.compile(r"(?P<set>\[[^\]]*\])|(?P<star>\*)|(?P<other>.)", re.DOTALL)
_SET = re.compile(r"\[!?(?:[0-9]-[0-9]|[a-z]-[a-z]|[A-Z]-[A-Z]|\w)+\]", re.ASCII)
_NOT_PLAIN = re.compile(r"[\\{}\[\],*?/\n]|\.\.")


def read_glob(pattern: str) -> Reading:
    """Translates a glob into a regular expression for RE2 that is anchored at both ends.

    Raises:
        PatternError: it is malformed, has too many alternatives, or can be read in several ways.
    """
    alternatives = [_translate(alternative) for alternative in _alternatives(_without_star(pattern))]
    return Reading(rf"^(?:{'|'.join(alternatives)})\z", ascii_only=False, ends=False, plain=False)


def is_path(text: str) -> bool:
    """Tells whether a text is a path that globs are asked about: no line feeds, no empty or dotted segments."""
    return bool(text) and "\n" not in text and "//" not in text and not {".", ".."} & set(text.split("/"))


def _without_star(pattern: str) -> str:
    while pattern.startswith("*/"):
        pattern = pattern[1:]
    if "\\" in pattern or "\n" in pattern or "//" in pattern:
        message = "a glob has no `\\`, no line feed and no repeated `/`: write it without"
        raise PatternError(message)
    segments = pattern.split("/")
    if any("**" in segment and segment != "**" for segment in segments) or "**/**" in pattern:
        message = "`**` is a segment by itself, and not twice in a row: write `*` within a segment"
        raise PatternError(message)
    return pattern


def _alternatives(pattern: str) -> list[str]:
    """Multiplies the braces out, once it is known to how many alternatives."""
    choices: list[list[str]] = []
    rest = pattern
    while rest:
        before, brace, rest = rest.partition("{")
        if "}" in before or "," in before or (brace and before.endswith("$")):
            message = "a `}` or `,` stands outside braces, or a `$` before them: write alternatives as `{a,b}`"
            raise PatternError(message)
        choices.append([before])
        if brace:
            inside, closed, rest = rest.partition("}")
            items = inside.split(",")
            if not closed or len(items) == 1 or not all(items) or _NOT_PLAIN.search(inside.replace(",", "")):
                message = f"`{{{inside}{closed}` is no `{{a,b}}` of plain texts: write several rules instead"
                raise PatternError(message)
            choices.append(items)
    count = math.prod(len(items) for items in choices)
    characters = sum(count // len(items) * sum(map(len, items)) for items in choices)
    if count > ALTERNATIVES_MAX or characters > CHARACTERS_MAX:
        message = (
            f"the alternatives are more than {ALTERNATIVES_MAX}, or longer than {CHARACTERS_MAX:,} characters "
            "together: make several rules of it"
        )
        raise PatternError(message)
    return ["".join(parts) for parts in itertools.product(*choices)]


def _translate(pattern: str) -> str:
    segments = pattern.split("/")
    written: list[str] = []
    for position, segment in enumerate(segments):
        last = position == len(segments) - 1
        if segment == "**":
            slash = "/*" if position == 0 else ""
            if not last:
                written.append(f"{slash}(?:{_NAME}/+)*")
            elif written:
                written[-1] = written[-1].removesuffix("/+") + f"(?:/+{_NAME})*"
            else:
                written.append(f"{slash}(?:{_NAME}(?:/+{_NAME})*)?")
        else:
            written.append(_segment(segment) + ("" if last else "/+"))
    end = "" if segments[-1] == "" else "/*"
    return "".join(written) + end


def _segment(segment: str) -> str:
    if not segment.startswith("*"):
        return _tail(segment, at_start=True)
    rest = segment[1:]
    if not rest:
        return _NAME
    some = _NAME + _tail(rest, at_start=False)
    # A dot at the beginning is matched by a dot only, and not by a star that stands for nothing.
    return some if rest.startswith(".") else f"(?:{some}|{_tail(rest, at_start=True)})"


def _tail(text: str, *, at_start: bool) -> str:
    parts = []
    for match in _TOKEN.finditer(text):
        kind, found = match.lastgroup, match.group()
        first = at_start and match.start() == 0
        if kind == "star":
            parts.append("[^/]*")
        elif kind == "set":
            parts.append(_set(found, but="/." if first else "/"))
        elif found == "?":
            parts.append("[^/.]" if first else "[^/]")
        elif found in "[]":
            message = f"a `{found}` has no partner: write a class as `[a-z]` or `[!a-z]`"
            raise PatternError(message)
        else:
            parts.append(literal(found))
    return "".join(parts)


def _set(text: str, but: str) -> str:
    if not _SET.fullmatch(text) or any(text[at - 1] > text[at + 1] for at, it in enumerate(text) if it == "-"):
        message = f"`{text}` is no class: write letters, digits, `_` and rising ranges, such as `[a-z]` or `[!a-z]`"
        raise PatternError(message)
    return f"[^{but}{text[2:]}" if text[1] == "!" else text
