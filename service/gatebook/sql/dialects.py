"""The dialects that plans are written in, and what each has for what our conditions and masks need.

Owns the list of dialects. One is offered once the rows and values that its SQL returns were compared, on the engine
itself, with those of checks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from gatebook.errors import InvalidRequestError

POSTGRES: Final = "postgres"
DUCKDB: Final = "duckdb"
TRINO: Final = "trino"
SPARK: Final = "spark"


class Dialect(msgspec.Struct, frozen=True):
    """What one dialect has.

    `wide` is a type for whole numbers of 38 digits, `texts_type` and `json_type` those of `text[]` and `jsonb`.
    `binary_collation` compares texts by their code points; empty where all texts compare so. With `looks_into_json`
    conditions can read what is within.
    """

    name: str
    placeholder: Callable[[int], str]
    wide: str
    texts_type: str
    json_type: str
    binary_collation: str = ""
    has_uuid: bool = True
    looks_into_json: bool = False


def _dollar(position: int) -> str:
    return f"${position}"


def _question_mark(_position: int) -> str:
    return "?"


def _named(position: int) -> str:
    return f":p{position}"


DIALECTS: Final[Mapping[str, Dialect]] = {
    DUCKDB: Dialect(DUCKDB, _dollar, "hugeint", "text[]", "json", "C", looks_into_json=True),
    POSTGRES: Dialect(POSTGRES, _dollar, "decimal", "text[]", "jsonb", "C", looks_into_json=True),
    SPARK: Dialect(SPARK, _named, "decimal(38, 0)", "array<string>", "text", has_uuid=False),
    TRINO: Dialect(TRINO, _question_mark, "decimal(38, 0)", "array<text>", "json"),
}


def dialect_of(name: str) -> Dialect:
    """Returns the dialect of this name.

    Raises:
        InvalidRequestError: there is none.
    """
    dialect = DIALECTS.get(name)
    if dialect is None:
        known = ", ".join(f"`{known}`" for known in DIALECTS)
        raise InvalidRequestError("dialect", f"must be one of {known}")
    return dialect
