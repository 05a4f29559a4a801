"""The values of a condition in SQL: what kind each is, decided from the types of the catalogue.

Owns how columns are read. A column has the type that the catalogue says (docs/plans.md lists the SQL types), and a
value is null where a check of the row would not know it: a date that no calendar of Python has, a list with a null.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from gatebook.expression.tree import Value
from gatebook.policy.casts import BIGINT_BITS, INT_BITS
from gatebook.sql import dialects, terms
from gatebook.sql.dialects import POSTGRES, TRINO, Dialect
from gatebook.sql.numbers import Number, Numbers
from gatebook.sql.terms import Node

UUID_PATTERN: Final = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
UUID_LENGTH: Final = 36


class Text(msgspec.Struct, frozen=True):
    """A text; `uuid` is the column where it is one, and `constant` what it is where that is known."""

    node: Node
    uuid: Node | None = None
    constant: str | None = None


class Truth(msgspec.Struct, frozen=True):
    """A truth value."""

    node: Node
    constant: bool | None = None


class Moment(msgspec.Struct, frozen=True):
    """A date, or a time."""

    node: Node
    is_date: bool


class Texts(msgspec.Struct, frozen=True):
    """A list of texts without a null."""

    node: Node


class Items(msgspec.Struct, frozen=True):
    """A list that a condition spells out; None stands for an item that is unknown."""

    items: tuple[Known | None, ...]


class Json(msgspec.Struct, frozen=True):
    """A JSON value, of whatever kind each row has; `text` is what it is as a text, without quotes."""

    node: Node
    text: Node


Known = Text | Number | Truth | Moment | Texts | Items | Json


def constant(content: Value, numbers: Numbers) -> Known | None:
    """Returns a literal; None where it is unknown or nothing that a row could hold."""
    match content:
        case None:
            return None
        case bool():
            return Truth(terms.truth(content), content)
        case int() | float():
            return numbers.literal(content)
        case str():
            return Text(terms.value(content, "text"), constant=content) if storable(content) else None
        case tuple():
            return Items(tuple([constant(item, numbers) for item in content]))


def storable(text: str) -> bool:
    """Tells whether a text is one that every engine can store."""
    try:
        return "\0" not in text and bool(text.encode() or True)
    except UnicodeEncodeError:
        return False


def column_value(name: str, column_type: str, dialect: Dialect, numbers: Numbers) -> Known | None:
    """Returns a column of the row; None where the dialect does not know its type."""
    node = terms.column(name)
    match column_type:
        case "text":
            return Text(terms.cast(node, "text"))
        case "uuid":
            return _uuid(node, dialect)
        case "int" | "bigint":
            return numbers.whole_column(node, INT_BITS if column_type == "int" else BIGINT_BITS)
        case "numeric":
            return numbers.decimal(node)
        case "bool":
            return Truth(node)
        case "date" | "timestamptz":
            return _moment(node, column_type, dialect)
        case "text[]":
            return Texts(_without_nulls(node, dialect))
        case "jsonb":
            return _json(node, dialect) if dialect.looks_into_json else None
        case _:
            return None


def _json(node: Node, dialect: Dialect) -> Json:
    if dialect.name == dialects.POSTGRES:
        # It has a function for the text of what is within, and none for the text of the whole.
        return Json(node, terms.call("jsonb_extract_path_text", terms.call("jsonb_build_array", node), "0"))
    return Json(node, terms.call("json_extract_string", node, "$"))


def member(json: Json, name: str, dialect: Dialect) -> Json:
    """Returns what an object has under a name, which is a word."""
    if dialect.name == dialects.POSTGRES:
        return Json(
            terms.call("jsonb_extract_path", json.node, name), terms.call("jsonb_extract_path_text", json.node, name)
        )
    object_ = _with_keys_once(json.node)
    return Json(
        terms.call("json_extract", object_, f"$.{name}"), terms.call("json_extract_string", object_, f"$.{name}")
    )


def _with_keys_once(node: Node) -> Node:
    """Returns a JSON value, or null where it is an object with a key twice: DuckDB reads the first, others the last."""
    keys = terms.call("json_keys", node)
    return terms.known(terms.binary("=", terms.call("len", keys), terms.call("list_unique", keys)), node)


def json_as(kind: type[Known], json: Json, dialect: Dialect, numbers: Numbers) -> Known | None:
    """Returns a JSON value as a text, number or truth value: null where it is none."""
    names = {Text: ("string", "VARCHAR"), Truth: ("boolean", "BOOLEAN"), Number: ("number", "")}.get(kind)
    if names is None:
        return None
    if dialect.name == POSTGRES:
        is_kind = terms.binary("=", terms.call("jsonb_typeof", json.node), terms.text(names[0]))
    else:
        found = terms.call("json_type", json.node)
        types = [terms.text(name) for name in ("BIGINT", "UBIGINT", "HUGEINT", "UHUGEINT", "DOUBLE")]
        is_kind = terms.among(found, types) if kind is Number else terms.binary("=", found, terms.text(names[1]))
    text = terms.known(is_kind, json.text)
    if kind is Text:
        return Text(text)
    if kind is Truth:
        return Truth(terms.cast(text, "boolean"))
    return numbers.decimal(text)


def _uuid(node: Node, dialect: Dialect) -> Text:
    text = terms.call("LOWER", terms.cast(node, "text"))
    if dialect.has_uuid:
        return Text(text, uuid=node)
    # The pattern's end is, to some, also before a last line feed.
    of_length = terms.binary("=", terms.call("LENGTH", text), terms.number(UUID_LENGTH))
    return Text(terms.known(terms.both([of_length, terms.call("REGEXP_LIKE", text, UUID_PATTERN)]), text))


def _moment(node: Node, column_type: str, dialect: Dialect) -> Moment:
    """Returns a date or time that a calendar of Python has."""
    is_date = column_type == "date"
    zone = "" if is_date else " 00:00:00 UTC" if dialect.name == TRINO else " 00:00:00+00:00"
    return Moment(_within(node, column_type, f"0001-01-02{zone}", f"9999-12-30{zone}"), is_date=is_date)


def _within(node: Node, sql_type: str, first: str, last: str) -> Node:
    limits = (terms.cast(terms.text(limit), sql_type) for limit in (first, last))
    return terms.known(terms.between(node, *limits), node)


def _without_nulls(node: Node, dialect: Dialect) -> Node:
    """Returns a list, or null where one of its items is null."""
    match dialect.name:
        case dialects.POSTGRES:
            whole = terms.is_null(terms.call("array_position", node, terms.unknown("text")))
        case dialects.DUCKDB:
            whole = terms.binary("=", terms.call("len", node), terms.call("list_count", node))
        case dialects.TRINO:
            whole = terms.binary("=", node, node)  # of which it knows nothing if there is a null
        case _:
            whole = terms.binary("=", terms.call("size", node), terms.call("size", terms.call("array_compact", node)))
    return terms.known(whole, node)


def contains(texts: Texts, item: Text, dialect: Dialect) -> Node:
    """Tells whether a list of texts has an item."""
    match dialect.name:
        case dialects.POSTGRES:
            sought = terms.collated(item.node, dialect.binary_collation)
            found = terms.is_not_null(terms.call("array_position", texts.node, sought))
            needed = [texts.node] if item.constant is not None else [texts.node, item.node]
            return terms.known(terms.both([terms.is_not_null(node) for node in needed]), found)
        case dialects.DUCKDB:
            found = terms.call("list_contains", texts.node, terms.collated(item.node, dialect.binary_collation))
            return found if item.constant is not None else terms.known(terms.is_not_null(item.node), found)
        case dialects.TRINO:
            return terms.call("contains", texts.node, item.node)
        case _:
            return terms.call("array_contains", texts.node, item.node)


def same_texts(left: Node, right: Node, dialect: Dialect) -> Node:
    """Tells whether two lists of texts are equal, whatever collations the columns have."""
    match dialect.name:
        case dialects.POSTGRES:
            return terms.binary("=", terms.collated(left, dialect.binary_collation), right)
        case dialects.DUCKDB:
            octets = terms.keyword_lambda("it", terms.call("encode", terms.variable("it")))
            return terms.binary("=", *[terms.call("list_transform", node, octets) for node in (left, right)])
        case _:
            return terms.binary("=", left, right)


def list_of(texts: Sequence[Node], dialect: Dialect) -> Node:
    """Returns a list that is spelt out."""
    match dialect.name:
        case dialects.DUCKDB:
            spelt = terms.call("list_value", *texts)
        case dialects.SPARK:
            spelt = terms.call("array", *texts)
        case _:
            spelt = terms.array(texts)
    return terms.cast(spelt, dialect.texts_type)
