"""Masks as select expressions: what each kind makes of a column, in each dialect.

Owns the translation of a mask; `gatebook_client.masks` says what a mask makes of a value, and for each value of the
column's type the SQL makes the same. A mask that a dialect cannot say is refused, with the reason, before anything is
allowed.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final

from gatebook.policy.dataset import Column
from gatebook.sql import characters, dialects, terms
from gatebook.sql.dialects import Dialect
from gatebook.sql.patterns import portable
from gatebook.sql.statement import KeyPad
from gatebook.sql.terms import Node
from gatebook.sql.times import truncated
from gatebook.sql.values import list_of
from gatebook.values import Mask, MaskKind

INNER_PAD: Final = 0x36
OUTER_PAD: Final = 0x5C
DECIMAL_DIGITS_MAX: Final = 38
ZEROS: Final[Mapping[str, str]] = {
    "text": "",
    "int": "0",
    "bigint": "0",
    "numeric": "0",
    "bool": "false",
    "uuid": "00000000-0000-0000-0000-000000000000",
    "timestamptz": "1970-01-01T00:00:00+00:00",
    "date": "1970-01-01",
    "jsonb": "{}",
    "text[]": "[]",
}
_NEVER_EMPTY: Final = re.compile(r"(?!.*(?:[*?|^$]|\{0|\{,|\\[bBAzZ])).+", re.DOTALL)
"""Patterns of which each match has a character, so that it does not matter how RE2 goes on after an empty one."""


def refuse_mask(mask: Mask, column: Column, dialect: Dialect) -> str:
    """Says why a mask of a column cannot be said; nothing where it can."""
    match mask.kind:
        case MaskKind.CUSTOM:
            return "a custom mask is the enforcer's own, and has no SQL"
        case MaskKind.REGEX:
            pattern = str(mask.parameters["pattern"])
            if _pattern(pattern, dialect) is None:
                return f"the pattern `{pattern}` of its mask may mean something else in `{dialect.name}`"
        case MaskKind.BAND | MaskKind.CONSTANT if column.type == "numeric":
            text = str(mask.parameters["step" if mask.kind is MaskKind.BAND else "value"])
            if sum(_digits(Decimal(text))) > DECIMAL_DIGITS_MAX:
                return f"its mask has a number of more than {DECIMAL_DIGITS_MAX} digits"
        case MaskKind.CONSTANT if "\0" in str(mask.parameters["value"]):
            return "its mask has a text that no engine stores"
        case _:
            pass
    return ""


def masked(mask: Mask, column: Column, dialect: Dialect) -> Node:
    """Returns what a mask makes of a column. It is one that `refuse_mask` does not refuse."""
    return _MAKERS[mask.kind](mask, column, dialect)


def null_of(column: Column, dialect: Dialect) -> Node:
    """Returns the null of a column's type."""
    match column.type:
        case "text[]":
            return terms.unknown(dialect.texts_type)
        case "jsonb":
            return terms.unknown(dialect.json_type)
        case "numeric":
            return terms.unknown("decimal(38, 10)")
        case other:
            return terms.unknown(_stored(other, dialect))


def constant(content: str, column_type: str, dialect: Dialect) -> Node:
    """Returns what a text is as a value of a type."""
    match column_type:
        case "text":
            return terms.value(content, "text")
        case "int" | "bigint":
            return terms.value(int(content), column_type)
        case "numeric":
            return _decimal(Decimal(content))
        case "bool":
            return terms.truth(content == "true")
        case "timestamptz":
            time = dt.datetime.fromisoformat(content).astimezone(dt.UTC).replace(tzinfo=None)
            zone = " UTC" if dialect.name == dialects.TRINO else "+00:00"
            return terms.value(f"{time.isoformat(' ', 'microseconds')}{zone}", "timestamptz")
        case "text[]":
            return list_of([terms.value(item, "text") for item in json.loads(content)], dialect)
        case "jsonb":
            if dialect.name == dialects.TRINO:
                return terms.call("json_parse", terms.value(content, "text"))
            return terms.value(content, dialect.json_type)
        case other:
            return terms.value(content, _stored(other, dialect))


def _stored(column_type: str, dialect: Dialect) -> str:
    return "text" if column_type == "uuid" and not dialect.has_uuid else column_type


def _decimal(number: Decimal) -> Node:
    """Returns an exact decimal number, which is bound as a text."""
    whole, fraction = _digits(number)
    return terms.cast(terms.value(f"{number:f}", "text"), f"decimal({whole + fraction}, {fraction})")


def _digits(number: Decimal) -> tuple[int, int]:
    """Returns how many digits stand before and behind the point."""
    whole, _, fraction = f"{abs(number):f}".partition(".")
    return len(whole), len(fraction)


def _nullify(_mask: Mask, column: Column, dialect: Dialect) -> Node:
    return null_of(column, dialect)


def _default(_mask: Mask, column: Column, dialect: Dialect) -> Node:
    return constant(ZEROS[column.type], column.type, dialect)


def _constant(mask: Mask, column: Column, dialect: Dialect) -> Node:
    return constant(str(mask.parameters["value"]), column.type, dialect)


def _none(_mask: Mask, column: Column, _dialect: Dialect) -> Node:
    return terms.column(column.name)


def _of_texts(make: Callable[[Node, Mask, Dialect], Node]) -> Callable[[Mask, Column, Dialect], Node]:
    """Returns a mask of a text, or of each text of a list."""

    def masks(mask: Mask, column: Column, dialect: Dialect) -> Node:
        node = terms.column(column.name)
        if column.type != "text[]":
            return make(node, mask, dialect)

        def one(item: Node) -> Node:
            return make(item, mask, dialect)

        match dialect.name:
            case dialects.POSTGRES:
                return terms.each_of_array(node, one)
            case dialects.DUCKDB:
                return terms.call("list_transform", node, terms.keyword_lambda("it", one(terms.variable("it"))))
            case _:
                return terms.call("transform", node, terms.arrow("it", one(terms.variable("it"))))

    return masks


def _hashed(node: Node, mask: Mask, dialect: Dialect) -> Node:
    """Returns the HMAC of a text, which is two hashes (RFC 2104, section 2); the key comes as two padded ones."""
    outer, inner = (terms.value(KeyPad(mask.key_id, pad), "varbinary") for pad in (OUTER_PAD, INNER_PAD))
    match dialect.name:
        case dialects.POSTGRES:
            octets = terms.call("convert_to", node, "UTF8")
            within = terms.call("sha256", terms.binary("||", inner, octets))
            return terms.call("encode", terms.call("sha256", terms.binary("||", outer, within)), "hex")
        case dialects.DUCKDB:
            within = terms.call("sha256", terms.binary("||", inner, terms.call("encode", node)))
            return terms.call("sha256", terms.binary("||", outer, terms.call("unhex", within)))
        case dialects.TRINO:
            within = terms.call("sha256", terms.call("concat", inner, terms.call("to_utf8", node)))
            found = terms.call("sha256", terms.call("concat", outer, within))
            return terms.call("lower", terms.call("to_hex", found))
        case _:
            within = terms.call("sha2", terms.call("concat", inner, terms.call("encode", node, "UTF-8")), 256)
            return terms.call("sha2", terms.call("concat", outer, terms.call("unhex", within)), 256)


def _redacted(node: Node, _mask: Mask, dialect: Dialect) -> Node:
    for characters_of, sign in (
        (characters.upper_case, "X"),
        (characters.other_letters, "x"),
        (characters.digits, "0"),
    ):
        node = _replaced(node, terms.value(characters_of(), "text"), terms.text(sign), dialect)
    return node


def _replaced(node: Node, pattern: Node, replacement: Node, dialect: Dialect) -> Node:
    """Returns a text with each match of a pattern replaced."""
    match dialect.name:
        case dialects.POSTGRES:
            under = terms.collated(node, dialect.binary_collation)
            return terms.call("regexp_replace", under, pattern, replacement, "g")
        case dialects.DUCKDB:
            return terms.call("regexp_replace", node, pattern, replacement, "g")
        case _:
            return terms.call("regexp_replace", node, pattern, replacement)


def _regex(node: Node, mask: Mask, dialect: Dialect) -> Node:
    pattern, replacement = _pattern(str(mask.parameters["pattern"]), dialect), str(mask.parameters["replacement"])
    if pattern is None:
        raise RuntimeError("a mask that was refused is written")
    if dialect.name in (dialects.TRINO, dialects.SPARK):
        replacement = replacement.replace("$", "\\$")
    return _replaced(node, terms.value(pattern, "text"), terms.value(replacement, "text"), dialect)


def _pattern(pattern: str, dialect: Dialect) -> str | None:
    """Returns a pattern as a dialect reads it; nothing where it might mean something else."""
    if dialect.name == dialects.DUCKDB and _NEVER_EMPTY.fullmatch(pattern):
        return pattern  # the engine is RE2 itself
    return portable(pattern, longest=dialect.name == dialects.POSTGRES)


def _partial(node: Node, mask: Mask, dialect: Dialect) -> Node:
    count = int(mask.parameters["count"])
    length = terms.call("LENGTH", node)
    keeps_first = mask.parameters["keep"] == "first"
    start = terms.number(1) if keeps_first else terms.binary("-", length, terms.number(count - 1))
    kept = terms.call("SUBSTR", node, terms.cast(start, "int"), count)
    hidden = terms.call("RPAD" if keeps_first else "LPAD", kept, terms.cast(length, "int"), "X")
    short = terms.binary("<=", length, terms.number(count))
    return terms.case([(short, _redacted(node, mask, dialect))], hidden)


def _email(node: Node, mask: Mask, dialect: Dialect) -> Node:
    pattern = characters.address()
    match dialect.name:
        case dialects.POSTGRES:
            under = terms.collated(node, dialect.binary_collation)
            found = terms.call("SUBSTRING", under, terms.value(f"^(?:{pattern})$", "text"))
            is_address = terms.is_not_null(found)
        case dialects.DUCKDB:
            is_address = terms.call("regexp_full_match", node, terms.value(pattern, "text"))
        case _:
            is_address = terms.call("regexp_like", node, terms.value(f"^(?:{pattern})\\z", "text"))
    domain = terms.call("SPLIT_PART", node, "@", 2)
    address = terms.binary("||", terms.text("XXXXX@"), domain)
    return terms.case([(is_address, address)], _redacted(node, mask, dialect))


def _band(mask: Mask, column: Column, _dialect: Dialect) -> Node:
    node = terms.column(column.name)
    step = mask.parameters["step"]
    if column.type == "numeric":
        size = _decimal(Decimal(str(step)))
    else:
        node, size = terms.cast(node, "bigint"), terms.value(int(step), "bigint")
    rest = terms.binary("%", terms.binary("+", terms.binary("%", node, size), size), size)
    return terms.binary("-", node, rest)


def _truncate(mask: Mask, column: Column, dialect: Dialect) -> Node:
    unit = str(mask.parameters["unit"])
    return truncated(terms.column(column.name), unit, is_date=column.type == "date", dialect=dialect)


_MAKERS: Mapping[MaskKind, Callable[[Mask, Column, Dialect], Node]] = {
    MaskKind.NULLIFY: _nullify,
    MaskKind.DEFAULT: _default,
    MaskKind.CONSTANT: _constant,
    MaskKind.HASH: _of_texts(_hashed),
    MaskKind.REDACT: _of_texts(_redacted),
    MaskKind.REGEX: _of_texts(_regex),
    MaskKind.PARTIAL: _of_texts(_partial),
    MaskKind.EMAIL: _of_texts(_email),
    MaskKind.BAND: _band,
    MaskKind.TRUNCATE: _truncate,
    MaskKind.NONE: _none,
}
