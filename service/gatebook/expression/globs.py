"""Translates the globs of `globMatch` into regular expressions.

Owns their meaning, which is pycasbin's (a shell's, by way of wcmatch):

1. `*` and `?` stay within one segment of a path, and match no dot at its beginning;
2. `**` as a whole segment is any number of segments, none of which begins with a dot;
   at the end it also stands for nothing: `/a/**` matches `/a`;
3. `[a-z]` and `[!a-z]` are classes, `{a,b}` alternatives, a backslash quotes;
4. a leading `*/` counts as `/`, and repeated slashes as one.
"""

from __future__ import annotations

import re

_NAME = r"[^/.][^/]*"
_TOKEN = re.compile(r"(?P<quoted>\\.)|(?P<set>\[[!^]?\]?[^\]/]*\])|(?P<stars>\*+)|(?P<other>.)", re.DOTALL)
_BRACES = re.compile(r"\{([^{}]*)\}")
_REPEATED = re.compile(r"(?<![^/])\*\*(?:/\*\*)+(?![^/])")
_ALTERNATIVES_MAX = 64


def to_regex(pattern: str) -> str:
    """Translates `pattern` into a regular expression of RE2 that is anchored at both ends."""
    while pattern.startswith("*/"):
        pattern = pattern[1:]
    alternatives = [_translate(alternative) for alternative in _alternatives(pattern)]
    return f"^(?:{'|'.join(alternatives)})$"


def _alternatives(pattern: str) -> list[str]:
    """Multiplies the innermost braces out, up to a limit beyond which nothing matches."""
    pending = [pattern]
    done: list[str] = []
    while pending:
        if len(pending) + len(done) > _ALTERNATIVES_MAX:
            return []
        text = pending.pop()
        braces = next((found for found in _BRACES.finditer(text) if "," in found.group(1)), None)
        if braces is None:
            done.append(text)
        else:
            head, tail = text[: braces.start()], text[braces.end() :]
            pending.extend(head + item + tail for item in braces.group(1).split(","))
    return done


def _translate(pattern: str) -> str:
    segments = _REPEATED.sub("**", re.sub(r"/+", "/", pattern)).split("/")
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
    stars = len(segment) - len(segment.lstrip("*"))
    rest = segment[stars:]
    if not stars:
        return _tail(segment, at_start=True)
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
        if kind == "stars":
            parts.append("[^/]*")
        elif kind == "quoted":
            parts.append(re.escape(found[1:]))
        elif kind == "set":
            parts.append(_set(found, but="/." if first else "/"))
        elif found == "?":
            parts.append("[^/.]" if first else "[^/]")
        else:
            parts.append(re.escape(found))
    return "".join(parts)


def _set(text: str, but: str) -> str:
    body = text[1:-1]
    negated = body[:1] in ("!", "^")
    body = body[1:] if negated else body
    escaped = re.sub(r"([\\\[\]&~|^])", r"\\\1", body)
    return f"[^{but}{escaped}]" if negated else f"[{escaped}]"
