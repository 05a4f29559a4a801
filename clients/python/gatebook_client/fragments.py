"""The SQL that a plan brings, read before any of it is used.

Owns `read_fragment`. A fragment is one expression over the columns of one table; what it may hold is a closed list, so
that whatever the service says, no statement that this client builds reads another table, calls a function that
reaches out of the query, or does more than select. Rules:

1. every name is quoted and stands alone: a column, never a table, a schema or an alias;
2. every other word is one of `WORDS`, and what it calls one of `FUNCTIONS`;
3. what it opens it closes, and outside of brackets there is neither a comma nor `AS`;
4. there are no statements, subqueries, comments, variables, or texts that two readers could end at different places;
5. a value stands in it as a placeholder in the way of the dialect, which the plan's parameters fill.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from gatebook_client.dialects import Dialect
from gatebook_client.refusal import EnforcementError

LENGTH_MAX: Final = 262_144
DEPTH_MAX: Final = 256

_EXPRESSIONS: Final = (
    "AND ARRAY AS AT BETWEEN CASE COLLATE DISTINCT ELSE END FALSE FROM IN IS LIKE NOT NULL OR THEN TIME TRUE WHEN "
    "WITH ZONE"
)
_TYPES: Final = (
    "BIGINT BINARY BLOB BOOLEAN BYTEA CHAR DATE DECIMAL DOUBLE FLOAT INT INTEGER JSON JSONB NUMERIC PRECISION "
    "STRING TEXT TIMESTAMP TIMESTAMPTZ UUID VARBINARY VARCHAR"
)
_CALLED: Final = (
    "ABS CAST CHAR_LENGTH COALESCE CONCAT CONTAINS DATE_TRUNC FLOOR LEFT LENGTH LOWER MOD NULLIF REGEXP_REPLACE REPEAT "
    "RIGHT SPLIT_PART SUBSTR SUBSTRING TIMESTAMP_TRUNC TRY_CAST UPPER"
)
FUNCTIONS: Final = frozenset(_CALLED.split())
"""The functions that a fragment may call: each of its arguments alone, and without any effect."""
TYPES: Final = frozenset(_TYPES.split())
WORDS: Final = frozenset(_EXPRESSIONS.split()) | TYPES | FUNCTIONS
"""Every word that may stand outside of quotes."""
_SIZED: Final = "AND CASE CHAR DECIMAL ELSE IN NOT NUMERIC OR THEN TIMESTAMP VARCHAR WHEN"
_BEFORE_BRACKETS: Final = FUNCTIONS | frozenset(_SIZED.split())
_BEFORE_TYPES: Final = frozenset({"AS", "::", "DOUBLE"})
_FOLLOWED_BY: Final[Mapping[str, str]] = {
    "ARRAY": "[",
    "AT": "TIME",
    "DISTINCT": "FROM",
    "TIME": "ZONE",
    "WITH": "TIME",
}
_TOKEN: Final = re.compile(
    r"(?P<space>[ \t\r\n]+)"
    r"|(?P<placeholder>\?|(?:\$|:p)[1-9][0-9]{0,5})"
    r"|(?P<name>\"(?:[^\"\0]|\"\")+\"|`(?:[^`\0]|``)+`)"
    # A backslash before the quote ends the text for some readers and not for others.
    r"|(?P<text>'(?:[^'\\\0]|\\[^'\0]|'')*')"
    r"|(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<sign><>|<=|>=|!=|\|\||::|[=<>+*/%(),\[\]-])"
)


@dataclass(frozen=True, slots=True)
class Token:
    """One token: `kind` is space, placeholder, name, text, number, word or sign; names are without their quotes."""

    kind: str
    text: str


_VALUES: Final = ("name", "text", "number", "placeholder")
_ENDS: Final = frozenset({")", "]", "END", "FALSE", "NULL", "TRUE"})
"""What else a value ends with."""
_OPENING, _STAR = Token("sign", "("), Token("sign", "*")


@dataclass(frozen=True, slots=True)
class Fragment:
    """An expression that may be used, and the numbers of its parameters in their order."""

    tokens: tuple[Token, ...]
    placeholders: tuple[int, ...]

    @property
    def column(self) -> str:
        """Returns the column of a fragment that is nothing but a column; else an empty text."""
        told = [token for token in self.tokens if token.kind != "space"]
        return told[0].text if len(told) == 1 and told[0].kind == "name" else ""


def read_fragment(text: str, dialect: Dialect, first: int) -> Fragment:
    """Reads a fragment; its parameters are numbered from `first`.

    Raises:
        EnforcementError: it holds something that this client does not know.
    """
    if not text.strip() or len(text) > LENGTH_MAX:
        raise refused("is empty or too long")
    tokens = tuple(_tokens(text, dialect, first))
    told = [token for token in tokens if token.kind != "space"]
    _check_brackets(told)
    for before, token, after in zip([None, *told], told, [*told[1:], None], strict=False):
        _check(before, token, after)
    return Fragment(tokens, tuple(int(token.text) for token in told if token.kind == "placeholder"))


def _tokens(text: str, dialect: Dialect, first: int) -> Iterator[Token]:
    """Splits a text; parameters become their numbers."""
    place, number = 0, first
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None or found.lastgroup is None:
            raise refused("holds a character that has no place in it")
        kind, token = found.lastgroup, found.group()
        if kind == "name":
            if token[0] != dialect.quote:
                raise refused("quotes names in the way of another dialect")
            token = token[1:-1].replace(dialect.quote * 2, dialect.quote)
        elif kind == "placeholder":
            # INVARIANT: each parameter stands once, in order, so that a value cannot slip into another's place.
            if token != {"qmark": "?", "dollar": f"${number}", "named": f":p{number}"}.get(dialect.style):
                raise refused("has parameters that are out of order")
            token = str(number)
            number += 1
        elif kind == "sign" and text.startswith(("--", "/*"), place):
            raise refused("holds a comment")
        yield Token(kind, token)
        place = found.end()


def _check(before: Token | None, token: Token, after: Token | None) -> None:
    """Checks a token by its neighbours."""
    last = "" if before is None or before.kind in _VALUES else before.text.upper()
    after_value = (before is not None and before.kind in _VALUES) or last in _ENDS
    if token.kind == "word":
        _check_word(token.text.upper(), last, after)
    if token.kind in _VALUES and after_value:
        raise refused("is not one expression")
    if token == _OPENING and before is not None and before.kind in _VALUES:
        raise refused("calls what this client does not know; upgrade gatebook")
    if token == _STAR and not after_value:
        raise refused("selects every column")


def _check_word(word: str, last: str, after: Token | None) -> None:
    """Checks a word by those around it."""
    following = "" if after is None or after.kind in _VALUES else after.text.upper()
    called = following == "("
    known = word in WORDS and (not called or word in _BEFORE_BRACKETS) and (called or word not in FUNCTIONS)
    known = known and (word not in TYPES or last in _BEFORE_TYPES)
    known = known and (word not in _FOLLOWED_BY or following == _FOLLOWED_BY[word])
    if not known or (word == "FROM" and last != "DISTINCT"):
        raise refused("holds a word that this client does not know here; upgrade gatebook")


def _check_brackets(tokens: list[Token]) -> None:
    """Checks that what is opened is closed, and that there is one expression."""
    pairs: Mapping[str, str] = {")": "(", "]": "["}
    opened: list[str] = []
    for token in tokens:
        if token.kind == "word" and token.text.upper() == "AS" and not opened:
            raise refused("names itself")
        if token.kind != "sign":
            continue
        if token.text in pairs.values():
            opened.append(token.text)
        elif token.text in pairs and (not opened or opened.pop() != pairs[token.text]):
            raise refused("closes what it did not open")
        elif token.text == "," and not opened:
            raise refused("is not one expression")
        if len(opened) > DEPTH_MAX:
            raise refused("is too deep")
    if opened:
        raise refused("does not close what it opens")


def refused(what: str) -> EnforcementError:
    """Returns the refusal of a fragment, which is not repeated: it may hold anything."""
    return EnforcementError("CLIENT_PLAN_SQL", f"the SQL of the plan {what}")
