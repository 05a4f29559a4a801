"""Statements: SQL with its parameters in the form that a driver takes.

Owns `Statement`, which carries the expiry of the plan that it was made of: after it, neither the SQL nor the
parameters can be had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gatebook_client.dialects import STYLES, Dialect, Style
from gatebook_client.fragments import Fragment

Part = str | int
"""A piece of SQL, or the number of a parameter."""


class Statement:
    """One statement, ready for a driver: `connection.execute(*statement)`.

    `sql` and `parameters` raise `EnforcementError` once the plan has expired: plan again.
    """

    __slots__ = ("_parameters", "_require_usable", "_sql", "style")

    def __init__(
        self, parts: Sequence[Part], values: Mapping[int, Any], style: Style, require_usable: Callable[[], None]
    ) -> None:
        """Takes the pieces of the SQL, the values of its parameters, and what raises after the expiry."""
        self.style = style
        self._sql, self._parameters = _rendered(parts, values, style)
        self._require_usable = require_usable

    @property
    def sql(self) -> str:
        """Returns the SQL."""
        self._require_usable()
        return self._sql

    @property
    def parameters(self) -> Any:  # noqa: ANN401  # a list of anything, or a mapping for `named`
        """Returns the parameters: a list in the order of the SQL, or for the style `named` a mapping."""
        self._require_usable()
        return dict(self._parameters) if isinstance(self._parameters, dict) else list(self._parameters)

    def __iter__(self) -> Iterator[Any]:
        """Yields the SQL and the parameters."""
        yield self.sql
        yield self.parameters

    def __repr__(self) -> str:
        """Shows no value: parameters may be about people."""
        return f"<Statement {self.style} with {len(self._parameters)} parameters>"


def parts_of(fragment: Fragment, dialect: Dialect) -> list[Part]:
    """Returns the pieces of a fragment, between brackets where it is more than a column."""
    found: list[Part] = []
    for token in fragment.tokens:
        if token.kind == "placeholder":
            found.append(int(token.text))
        else:
            found.append(dialect.quoted(token.text) if token.kind == "name" else token.text)
    return found if fragment.column else ["(", *found, ")"]


def _rendered(parts: Sequence[Part], values: Mapping[int, Any], style: Style) -> tuple[str, list[Any] | dict[str, Any]]:
    """Returns the SQL in a style, and its parameters."""
    used = list(dict.fromkeys(part for part in parts if isinstance(part, int)))
    if style not in STYLES:
        raise ValueError(f"style: `{style}` is none of {sorted(STYLES)}")
    pieces = []
    ordered: list[Any] = []
    for part in parts:
        if isinstance(part, str):
            pieces.append(part.replace("%", "%%") if style == "format" else part)
        elif style in ("qmark", "format"):
            pieces.append("?" if style == "qmark" else "%s")
            ordered.append(values[part])
        else:
            pieces.append(f"${used.index(part) + 1}" if style == "dollar" else f":p{part}")
    sql = "".join(pieces)
    if style == "named":
        return sql, {f"p{number}": values[number] for number in used}
    return sql, ordered if style in ("qmark", "format") else [values[number] for number in used]
