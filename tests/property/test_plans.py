"""What the SQL of a plan returns is what checks of the rows allow and the client's masks leave, on a real DuckDB."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import pytest
from hypothesis import settings
from tests.planned import THINGS, TYPES, Line, bound, drawn_plans, require_same

from gatebook.sql.statement import Statement

SQL_TYPES = {
    "text": "VARCHAR",
    "text[]": "VARCHAR[]",
    "int": "INTEGER",
    "bigint": "BIGINT",
    "numeric": "DECIMAL(20, 4)",
    "bool": "BOOLEAN",
    "uuid": "UUID",
    "timestamptz": "TIMESTAMPTZ",
    "date": "DATE",
    "jsonb": "JSON",
}
STORE = duckdb.connect()
STORE.execute("SET TimeZone = 'America/New_York'")
DEFINITIONS = [f'"{name}" {SQL_TYPES[of]}' for name, of in TYPES.items()]
STORE.execute(f"CREATE TABLE things (place INTEGER, {', '.join(DEFINITIONS)})")


def store(held: Sequence[Mapping[str, Any]]) -> None:
    """Makes these rows the content of the table."""
    STORE.execute("DELETE FROM things")
    holders = ", ".join("?" for _ in range(len(TYPES) + 1))
    STORE.executemany(
        f"INSERT INTO things VALUES ({holders})",  # noqa: S608  # question marks
        [[place, *[stored(row[name], of) for name, of in TYPES.items()]] for place, row in enumerate(held)],
    )


def stored(value: Any, of: str) -> Any:  # noqa: ANN401  # a row holds anything
    """Returns a value as DuckDB takes it."""
    if value is not None and of in ("jsonb", "timestamptz"):
        return json.dumps(value) if of == "jsonb" else value.isoformat()
    return value


def selected(statement: Statement) -> dict[int, dict[str, Any]]:
    """Runs a plan; returns the rows by their places."""
    shown = [
        f'CAST(epoch_us({sql}) AS BIGINT) AS "{name}"' if TYPES[name] == "timestamptz" else f'{sql} AS "{name}"'
        for name, sql in statement.columns.items()
    ]
    where = f" WHERE {statement.filter_sql}" if statement.filter_sql else ""
    found = STORE.execute(f"SELECT {', '.join((*shown, 'place'))} FROM things{where}", bound(statement.parameters))  # noqa: S608
    rows = [dict(zip((*statement.columns, "place"), row, strict=True)) for row in found.fetchall()]
    return {row.pop("place"): {name: fetched(value, TYPES[name]) for name, value in row.items()} for row in rows}


def fetched(value: Any, of: str) -> Any:  # noqa: ANN401  # a row holds anything
    """Returns a value of DuckDB as the rows have it."""
    if value is None or of not in ("jsonb", "timestamptz"):
        return value
    return (
        json.loads(value) if of == "jsonb" else dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(microseconds=value)
    )


@settings(max_examples=150, deadline=None)
@drawn_plans
def test_rows_and_values_are_those_of_checks(
    policy: list[Line], held: list[dict[str, Any]], columns: list[str], allow_partial: bool
) -> None:
    """A plan returns the rows that checks of each allow, with the values that masks leave; or less, and says so."""

    def run(statement: Statement) -> dict[int, dict[str, Any]]:
        store(held)
        return selected(statement)

    require_same(policy, held, columns, "duckdb", run, allow_partial=allow_partial)


NAME, SMALL, MAIL = (f"{THINGS}.{column}" for column in ("name", "small", "mail"))
FLAG, ONE, MORE = "r.row.flag", "r.row.small == 1", "r.row.small > 1"
EMPTY: dict[str, Any] = dict.fromkeys(TYPES)
MEETINGS = {
    "two constants": [("p2", NAME, FLAG, "constant:x"), ("p2", NAME, ONE, "constant:y")],
    "two constants and what covers both": [
        ("p2", NAME, FLAG, "constant:x"),
        ("p2", NAME, ONE, "constant:y"),
        ("p2", NAME, MORE, "nullify"),
    ],
    "both ends": [("p2", NAME, FLAG, "partial:last:1"), ("p2", NAME, ONE, "partial:first:2")],
    "both ends over none": [
        ("p2", NAME, FLAG, "partial:last:1"),
        ("p2", NAME, ONE, "partial:first:2"),
        ("p2", NAME, "True", "none"),
    ],
    "a mask of another type": [("p2", SMALL, FLAG, "redact")],
    "a mask of another type, and what covers it": [("p2", SMALL, FLAG, "redact"), ("p2", SMALL, ONE, "nullify")],
    "one of three types": [("p2", SMALL, FLAG, "redact"), ("p2", SMALL, ONE, "band:3"), ("p2", SMALL, MORE, "band:10")],
    "a mask that a tag demands": [("p2", MAIL, FLAG, "redact")],
    "a none that a tag demands": [("p2", MAIL, FLAG, "none"), ("p2", MAIL, ONE, "redact")],
    "the same mask for two reasons": [("p2", NAME, FLAG, "hash"), ("p2", NAME, ONE, "hash")],
    "a number, a truth value": [("p", NAME, "r.row.small == 1 || r.row.flag == True", "deny")],
}


@pytest.mark.parametrize("allow_partial", [False, True])
@pytest.mark.parametrize("name", MEETINGS)
def test_masks_that_meet(name: str, allow_partial: bool) -> None:
    """Where masks contradict each other, do not fit or are demanded on some rows, a plan returns what checks allow."""
    held = [
        {**EMPTY, "name": "Ab 7", "mail": "ana@example.com", "flag": flag, "small": small}
        for flag in (True, False, None)
        for small in (1, 2, None)
    ]

    def run(statement: Statement) -> dict[int, dict[str, Any]]:
        store(held)
        return selected(statement)

    policy: list[Line] = [("p", THINGS, "True", "allow"), *MEETINGS[name]]
    columns = ["mail"] if "tag" in name else ["name", "small"]
    require_same(policy, held, columns, "duckdb", run, allow_partial=allow_partial)
