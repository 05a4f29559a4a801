"""The dialects of SQL that this client writes, and the styles in which drivers name parameters.

Owns how each quotes names and marks parameters. A dialect that is not here is refused before anybody is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from gatebook_client.refusal import EnforcementError

DialectName = Literal["duckdb", "postgres", "spark", "trino"]
Style = Literal["qmark", "dollar", "format", "named"]
"""How parameters stand in the SQL: `?`, `$1`, `%s`, or `:p1` with a mapping."""

STYLES: Final[frozenset[str]] = frozenset({"qmark", "dollar", "format", "named"})
NAME_LENGTH_MAX: Final = 512


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a dialect quotes names, and the style in which the service writes its parameters."""

    name: str
    quote: str
    style: Style

    def quoted(self, name: str) -> str:
        """Returns a name between quotes, whatever it holds.

        Raises:
            EnforcementError: it is no name of a column or table.
        """
        try:
            name.encode()
        except UnicodeEncodeError:
            name = ""
        if not name or len(name) > NAME_LENGTH_MAX or "\0" in name:
            raise EnforcementError("CLIENT_PLAN_NAME", "a name is empty, too long, or holds what no name can")
        return f"{self.quote}{name.replace(self.quote, self.quote * 2)}{self.quote}"


DIALECTS: Final[Mapping[str, Dialect]] = {
    dialect.name: dialect
    for dialect in (
        Dialect("duckdb", '"', "dollar"),
        Dialect("postgres", '"', "dollar"),
        Dialect("spark", "`", "named"),
        Dialect("trino", '"', "qmark"),
    )
}
