"""Rows and tables that are made to mislead a plan: what it returns of them is what checks allow, on a real DuckDB."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
from tests.planned import THINGS, TYPES, bound, checked, planned, snapshot_of
from tests.property.test_plans import DEFINITIONS

EMPTY: dict[str, Any] = dict.fromkeys(TYPES)


@pytest.fixture(name="careless")
def _careless() -> Iterator[duckdb.DuckDBPyConnection]:
    """A store that compares texts without regard to case, unless it is told otherwise."""
    with duckdb.connect() as store:
        store.execute("SET default_collation = 'NOCASE'")
        store.execute(f"CREATE TABLE things ({', '.join(DEFINITIONS)})")
        yield store


def shown(store: duckdb.DuckDBPyConnection, condition: str) -> int:
    """Returns how many rows a plan returns, of which a rule allows those that meet a condition."""
    snapshot = snapshot_of([("p", f"{THINGS}.small", condition, "allow")])
    decision, statement = planned(snapshot, ["small"], "duckdb")
    assert decision.allowed
    query = f"SELECT count(*) FROM things WHERE {statement.filter_sql}"  # noqa: S608  # that is what is tested
    return int(store.execute(query, bound(statement.parameters)).fetchall()[0][0])


def is_allowed(condition: str, row: dict[str, Any]) -> bool:
    """Tells whether a check of a row allows it."""
    snapshot = snapshot_of([("p", f"{THINGS}.small", condition, "allow")])
    return checked(snapshot, ["small"], {**EMPTY, **row}) is not None


CASES = ["r.row.tags == ('ana', 'b')", "r.row.tags == r.row.more", "r.row.name in r.row.more", "r.row.name == 'ana'",
         "'ana' in r.row.tags", "r.row.name in ('ana', 'b')", "keyMatch(r.row.name, 'an*')", "r.row.name >= 'a'",
         "!(r.row.tags != ('ana', 'b'))"]  # fmt: skip


@pytest.mark.parametrize("condition", CASES)
def test_a_store_that_ignores_case(careless: duckdb.DuckDBPyConnection, condition: str) -> None:
    """Texts, and lists of them, are compared by their code points, whatever collation the store has."""
    row = {"name": "ANA", "tags": ["ANA", "B"], "more": ["ana", "b"]}
    careless.execute("INSERT INTO things (name, tags, more) VALUES ('ANA', ['ANA', 'B'], ['ana', 'b'])")
    assert not is_allowed(condition, row)
    assert shown(careless, condition) == 0


@pytest.mark.parametrize(
    ("stored", "condition"),
    [
        ('{"team": "a", "team": "b"}', "r.row.meta.team == 'a'"),
        ('{"team": "a", "team": "b"}', "r.row.meta.team != 'b'"),
        ('{"deep": {"x": "a", "x": "b"}}', "r.row.meta.deep.x == 'a'"),
        ('{"deep": {"x": "a"}, "deep": {"x": "b"}}', "r.row.meta.deep.x == 'a'"),
        ('{"n": 1, "n": 2}', "r.row.meta.n < 2"),
    ],
)
def test_a_key_that_stands_twice(careless: duckdb.DuckDBPyConnection, stored: str, condition: str) -> None:
    """Of a key that an object has twice a check sees the last, and so no plan shows the row for the first."""
    careless.execute("INSERT INTO things (meta) VALUES (?)", [stored])
    assert not is_allowed(condition, {"meta": json.loads(stored)})
    assert shown(careless, condition) == 0


@pytest.mark.parametrize(
    ("stored", "condition"),
    [
        ('{"team": "a", "Team": "b"}', "r.row.meta.team == 'a'"),
        ('{"deep": {"x": "a"}}', "r.row.meta.deep.x == 'a'"),
        ("5", "r.row.meta == 5"),
    ],
)
def test_a_key_that_stands_once(careless: duckdb.DuckDBPyConnection, stored: str, condition: str) -> None:
    """What is unmistakable is shown."""
    careless.execute("INSERT INTO things (meta) VALUES (?)", [stored])
    assert is_allowed(condition, {"meta": json.loads(stored)})
    assert shown(careless, condition) == 1
