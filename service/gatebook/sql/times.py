"""Times and dates cut to a unit in SQL, in UTC whatever the time zone of the session is."""

from __future__ import annotations

from typing import Final

from gatebook.sql import dialects, terms
from gatebook.sql.dialects import Dialect
from gatebook.sql.terms import Node

DAY: Final = 86_400_000_000
"""Microseconds."""
HOUR: Final = 3_600_000_000
UTC: Final = "UTC"


def truncated(node: Node, unit: str, *, is_date: bool, dialect: Dialect) -> Node:
    """Returns the beginning of the unit that a time or date lies in."""
    match dialect.name:
        case dialects.POSTGRES:
            if is_date:
                return terms.cast(terms.call("date_trunc", unit, terms.cast(node, "timestamp")), "date")
            return terms.call("date_trunc", unit, node, UTC)
        case dialects.DUCKDB:
            if is_date:
                return terms.cast(terms.call("date_trunc", unit, node), "date")
            local = terms.call("timezone", UTC, terms.cast(node, "timestamptz"))
            return terms.call("timezone", UTC, terms.cast(terms.call("date_trunc", unit, local), "timestamp"))
        case dialects.TRINO:
            return terms.call("date_trunc", unit, node if is_date else terms.call("at_timezone", node, UTC))
        case _:
            return terms.call("trunc", node, unit) if is_date else _of_spark(node, unit)


def _of_spark(node: Node, unit: str) -> Node:
    """Cuts a time by its microseconds: all that Spark does with times by their parts is in the zone of the session."""
    micros = terms.call("unix_micros", node)
    if unit in ("hour", "day"):
        rest = terms.call("pmod", micros, terms.cast(terms.number(HOUR if unit == "hour" else DAY), "bigint"))
        return terms.call("timestamp_micros", terms.binary("-", micros, rest))
    within = terms.call("pmod", micros, terms.cast(terms.number(DAY), "bigint"))
    days = terms.cast(terms.binary("/", terms.binary("-", micros, within), terms.number(DAY)), "int")
    first = terms.call("trunc", terms.call("date_from_unix_date", days), unit)
    at = terms.binary(
        "*", terms.cast(terms.call("unix_date", first), "bigint"), terms.cast(terms.number(DAY), "bigint")
    )
    return terms.call("timestamp_micros", at)
