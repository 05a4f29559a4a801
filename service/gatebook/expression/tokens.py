"""Cuts the text of a matcher or condition into tokens.

Owns the characters: what a name, a number and a string look like, and which escapes a string may
hold. Everything that pycasbin would rewrite or misread at this level is refused, never guessed.
"""

from __future__ import annotations

import math
import re
from typing import ClassVar

import msgspec

from gatebook.errors import GatebookError
from gatebook.expression.tree import Span

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
      | (?P<number>(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?)
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<string>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")
      | (?P<symbol>&&|\|\||==|!=|<=|>=|[!<>()\[\],.+\-*/%])""",
    re.VERBOSE | re.ASCII,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"\\": "\\", "'": "'", '"': '"', "n": "\n", "t": "\t", "r": "\r"}
# Python reads these as control characters or code points; in a pattern nobody means that.
_AMBIGUOUS_ESCAPES = frozenset("abfvxuUN01234567")
_DIGITS_MAX = 30
_HINTS = {
    "=": "`=` is not a comparison: write `==`",
    "&": "`&` is not an operator: write `&&`",
    "|": "`|` is not an operator: write `||`",
    "'": "the string is not closed",
    '"': "the string is not closed",
    "{": "sets and dictionaries are not supported: write a list, `('a', 'b')`",
    "#": "a comment cannot stand in an expression",
}


class ParseError(GatebookError):
    """The text is no expression; `offset` counts characters from the start of the text."""

    reason: ClassVar[str] = "POLICY_SET_REFUSED"

    def __init__(self, message: str, offset: int) -> None:
        """Takes what is wrong and where."""
        super().__init__(message)
        self.offset = offset


class Token(msgspec.Struct, frozen=True):
    """One token: `kind` is `name`, `number`, `string`, `symbol` or `end`."""

    kind: str
    text: str
    start: int

    @property
    def span(self) -> Span:
        """Says where the token stands."""
        return Span(self.start, self.start + len(self.text))


def tokenize(text: str) -> list[Token]:
    """Cuts `text` into tokens, the last of which is `end`.

    Raises:
        ParseError: a character begins no token.
    """
    tokens = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            character = text[position]
            raise ParseError(_HINTS.get(character, f"unexpected character {character!r}"), position)
        kind = match.lastgroup or "space"
        if kind != "space":
            tokens.append(Token(kind, match.group(), position))
        position = match.end()
    tokens.append(Token("end", "", len(text)))
    return tokens


def number(token: Token) -> int | float:
    """Reads a number as Python does, without leading zeros, infinities and endless digits."""
    text = token.text
    if len(text) > _DIGITS_MAX:
        raise ParseError(f"a number has at most {_DIGITS_MAX} characters", token.start)
    if text.isdigit():
        if len(text) > 1 and text[0] == "0":
            raise ParseError(f"`{text}` has a leading zero: quote it, if it is a name", token.start)
        return int(text)
    value = float(text)
    if math.isinf(value):
        raise ParseError(f"`{text}` is too large a number", token.start)
    return value


def string(token: Token) -> str:
    r"""Reads a quoted string; an unknown escape such as `\d` keeps its backslash, as in Python."""

    def unescape(match: re.Match[str]) -> str:
        letter = match.group(1)
        if letter in _AMBIGUOUS_ESCAPES:
            message = f"ambiguous escape `\\{letter}` in a string: write `\\\\{letter}`"
            raise ParseError(message, token.start + 1 + match.start())
        return _ESCAPES.get(letter, match.group())

    return _ESCAPE.sub(unescape, token.text[1:-1])
