"""What a plan says to the engine that holds the rows.

Owns the values; `dialects` says how each dialect writes them.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gatebook.expression.tree import Expression


class KeyPad(msgspec.Struct, frozen=True):
    """Stands for bytes that the enforcer makes of a mask key: see `MaskKeyPad` in access_service.proto."""

    key_id: str
    pad: int


Parameter = str | bool | int | float | KeyPad
"""The value of a placeholder."""


class Statement(msgspec.Struct, frozen=True):
    """The SQL of a plan, with the values of its placeholders in the order in which they stand in it.

    `columns` has the select expression of each column that is returned; `filter` and `filter_sql` the condition
    that a row must meet, or nothing where all rows are returned; `narrowings` say in words what the dialect cannot.
    """

    dialect: str
    columns: Mapping[str, str] = {}
    filter: Expression | None = None
    filter_sql: str = ""
    parameters: tuple[Parameter, ...] = ()
    narrowings: tuple[str, ...] = ()
