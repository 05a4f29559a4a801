"""What the types that databases report are in a catalogue.

Owns the translation. A type that is not known here is `jsonb`, which few masks can be cast to: that denies.
"""

from __future__ import annotations

import re
from typing import Final

UNKNOWN: Final = "jsonb"
_TYPES: Final = {
    "text": (
        "text",
        "string",
        "varchar",
        "char",
        "character",
        "character varying",
        "nvarchar",
        "nchar",
        "clob",
        "utf8",
    ),
    "text[]": ("text[]", "array<string>", "array(varchar)", "list<string>"),
    "int": ("int", "integer", "int4", "int32", "smallint", "int2", "int16", "tinyint", "int8bit", "short", "byte"),
    "bigint": ("bigint", "int8", "int64", "long", "serial8"),
    "numeric": (
        "numeric",
        "decimal",
        "number",
        "float",
        "float4",
        "float8",
        "float64",
        "real",
        "double",
        "double precision",
    ),
    "bool": ("bool", "boolean"),
    "uuid": ("uuid",),
    "timestamptz": (
        "timestamptz",
        "timestamp",
        "timestamp with time zone",
        "timestamp_tz",
        "datetime",
        "timestamp without time zone",
        "timestamp_ntz",
    ),
    "date": ("date",),
    "jsonb": ("jsonb", "json", "variant", "struct", "map", "object"),
}
_KNOWN: Final = {word: name for name, words in _TYPES.items() for word in words}
_PARAMETERS: Final = re.compile(r"\s*\([0-9, ]*\)")


def column_type(reported: str) -> str:
    """Returns the type of a column as a catalogue writes it."""
    return _KNOWN.get(_PARAMETERS.sub("", reported.strip().lower()), UNKNOWN)
