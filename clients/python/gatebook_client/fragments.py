"""The SQL that a plan brings, read before any of it is used.

Owns `read_fragment`. A fragment is one expression over the columns of one table; what it may hold is a closed list, so
that whatever the service says, no statement that this client builds reads another table, calls a function that
reaches out of the query, or does more than select. Rules:

1. every name is quoted and stands alone: a column, never a table, a schema or an alias;
2. every other word is one of `WORDS`, and what it calls one of `FUNCTIONS`;
3. what it opens it closes, and outside of brackets there is neither a comma nor `AS`;
4. there are no statements, comments, variables, subqueries but one form that reads a column of the row, or texts that
   two readers could end at different places;
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

_EXPRESSIONS: Final = "AND ARRAY AS BETWEEN CASE COLLATE ELSE END FALSE IN IS NOT NULL OR THEN TIME TRUE WHEN WITH ZONE"
_TYPES: Final = (
    "BIGINT BINARY BLOB BOOLEAN BYTEA DATE DECIMAL DOUBLE INT INT128 INTEGER JSON JSONB PRECISION STRING TEXT "
    "TIMESTAMP TIMESTAMPTZ UUID VARBINARY VARCHAR ARRAY<STRING> ARRAY(VARCHAR)"
)
_CALLED: Final = (
    "ARRAY_COMPACT ARRAY_CONTAINS ARRAY_POSITION AT_TIMEZONE CAST COALESCE CONCAT CONTAINS CONVERT_TO "
    "DATE_FROM_UNIX_DATE DATE_TRUNC ENCODE JSONB_BUILD_ARRAY JSONB_EXTRACT_PATH JSONB_EXTRACT_PATH_TEXT "
    "JSONB_TYPEOF JSON_EXTRACT JSON_EXTRACT_STRING JSON_KEYS JSON_PARSE JSON_TYPE LEN LENGTH LIST_CONTAINS "
    "LIST_COUNT LIST_TRANSFORM LIST_UNIQUE LIST_VALUE LOWER LPAD NULLIF PMOD REGEXP_FULL_MATCH REGEXP_LIKE "
    "REGEXP_REPLACE RPAD SHA2 SHA256 SIZE SPLIT_PART SUBSTR SUBSTRING TIMESTAMP_MICROS TIMEZONE TO_HEX TO_UTF8 "
    "TRANSFORM TRUNC UNHEX UNIX_DATE UNIX_MICROS"
)
FUNCTIONS: Final = frozenset(_CALLED.split())
"""The functions that a fragment may call: each of its arguments alone, and without any effect."""
TYPES: Final = frozenset(_TYPES.split())
WORDS: Final = frozenset(_EXPRESSIONS.split()) | TYPES | FUNCTIONS
"""Every word that may stand outside of quotes."""
_SIZED: Final = "AND ARRAY BETWEEN CASE DECIMAL ELSE IN NOT OR THEN TIMESTAMP VARCHAR WHEN"
_BEFORE_BRACKETS: Final = FUNCTIONS | frozenset(_SIZED.split())
_BEFORE_TYPES: Final = frozenset({"AS", "::", "DOUBLE"})
_FOLLOWED_BY: Final[Mapping[str, str]] = {"ARRAY": "[(", "TIME": "ZONE", "WITH": "TIME"}

_EACH, _OF_EACH = "ARRAY(SELECT ", " FROM UNNEST("
"""How PostgreSQL changes each item of a list: the one subquery there is, which reads a column of the row alone."""
_TOKEN: Final = re.compile(
    rf"(?P<each>{re.escape(_EACH)})"
    rf"|(?P<of_each>{re.escape(_OF_EACH)}\"(?:[^\"\0]|\"\")+\"\) WITH ORDINALITY AS items\(it, place\)"
    r" ORDER BY items\.place(?: NULLS FIRST)?\))"
    r"|(?P<binding>LAMBDA it : |it -> )"
    r"|(?P<space>[ \t\r\n]+)"
    r"|(?P<placeholder>\?|(?:\$|:p)[1-9][0-9]{0,5})"
    r"|(?P<name>\"(?:[^\"\0]|\"\")+\"|`(?:[^`\0]|``)+`)"
    # A backslash before the quote ends the text for some readers and not for others.
    r"|(?P<text>'(?:[^'\\\0]|\\[^'\0]|'')*')"
    r"|(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<item>it\b)"
    r"|(?P<word>ARRAY<STRING>|ARRAY\(VARCHAR\)|[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<sign><>|<=|>=|!=|\|\||::|[=<>+*/%(),~\[\]-])"
)


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a kind of `_TOKEN`; names are without their quotes, and parameters numbers."""

    kind: str
    text: str


_VALUES: Final = ("name", "text", "number", "placeholder", "item")
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
    known = known and (word not in _FOLLOWED_BY or (following != "" and following in _FOLLOWED_BY[word]))
    if not known:
        raise refused("holds a word that this client does not know here; upgrade gatebook")


def _check_brackets(tokens: list[Token]) -> None:
    """Checks that what is opened is closed, and that there is one expression."""
    opened: list[str] = []
    for token in tokens:
        if not opened and (token.text == "," or token.text.upper() == "AS") and token.kind in ("word", "sign"):
            raise refused("is not one expression")
        closes = _closed_by(token)
        if token.kind == "each" or (token.kind == "sign" and token.text in ("(", "[")):
            opened.append(token.text)
        elif closes and (not opened or opened.pop() != closes):
            raise refused("closes what it did not open")
        if len(opened) > DEPTH_MAX:
            raise refused("is too deep")
    if opened:
        raise refused("does not close what it opens")


def _closed_by(token: Token) -> str:
    """Returns what a token closes."""
    if token.kind == "of_each":
        return _EACH
    return {")": "(", "]": "["}.get(token.text, "") if token.kind == "sign" else ""


def refused(what: str) -> EnforcementError:
    """Returns the refusal of a fragment, which is not repeated: it may hold anything."""
    return EnforcementError("CLIENT_PLAN_SQL", f"the SQL of the plan {what}")
