"""What the SQL of a plan returns is what checks of the rows allow, on a real PostgreSQL.

Needs PostgreSQL 13 or newer: see `tests/postgres.py`.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest
from hypothesis import settings
from tests import postgres
from tests.planned import THINGS, TYPES, Line, bound, checked, drawn_plans, planned, require_same, snapshot_of

from gatebook.sql.statement import Statement

T = TypeVar("T")
SQL_TYPES = {"text[]": "text[]", "numeric": "numeric(20, 4)", "bool": "boolean"}


@pytest.fixture(scope="module")
def socket() -> Iterator[Path]:
    """A PostgreSQL that listens on a socket in a folder of its own, and nowhere else."""
    if (name := postgres.missing()) is not None:
        pytest.skip(f"needs `{name}`: install the Debian package postgresql")
    with postgres.running() as folder:
        yield folder


class Store:
    """A table of things in PostgreSQL, for tests that know nothing of asyncio."""

    def __init__(self, folder: Path) -> None:
        """Connects, and makes the table."""
        self._loop = asyncio.new_event_loop()
        self._connection = self._run(asyncpg.connect(host=str(folder), user="postgres"))
        definitions = [f'"{name}" {SQL_TYPES.get(of, of)}' for name, of in TYPES.items()]
        self._run(self._connection.execute("SET TimeZone = 'America/New_York'"))
        self._run(self._connection.execute(f"CREATE TEMP TABLE things (place int, {', '.join(definitions)})"))

    def close(self) -> None:
        """Ends the connection."""
        self._run(self._connection.close())
        self._loop.close()

    def hold(self, held: Sequence[Mapping[str, Any]]) -> None:
        """Makes these rows the content of the table."""
        self._run(self._connection.execute("DELETE FROM things"))
        holders = ", ".join(f"${position}" for position in range(1, len(TYPES) + 2))
        made = [[place, *[stored(row[name], of) for name, of in TYPES.items()]] for place, row in enumerate(held)]
        self._run(self._connection.executemany(f"INSERT INTO things VALUES ({holders})", made))  # noqa: S608  # numbers

    def selected(self, statement: Statement) -> dict[int, dict[str, Any]]:
        """Runs a plan; returns the rows by their places."""
        shown = [f'{sql} AS "{name}"' for name, sql in statement.columns.items()]
        where = f" WHERE {statement.filter_sql}" if statement.filter_sql else ""
        query = f"SELECT {', '.join((*shown, 'place'))} FROM things{where}"  # noqa: S608  # that is what is tested
        found = [dict(row) for row in self._run(self._connection.fetch(query, *bound(statement.parameters)))]
        return {row.pop("place"): {name: fetched(row[name], TYPES[name]) for name in row} for row in found}

    def count(self, statement: Statement, table: str) -> int:
        """Returns how many rows of another table a plan keeps."""
        query = f"SELECT count(*) FROM {table} WHERE {statement.filter_sql}"  # noqa: S608  # as above
        return int(self._run(self._connection.fetchval(query, *bound(statement.parameters))))

    def execute(self, sql: str) -> None:
        """Runs statements."""
        self._run(self._connection.execute(sql))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)


CASELESS = """
CREATE COLLATION caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TEMP TABLE careless (name text COLLATE caseless, tags text[] COLLATE caseless, more text[]);
INSERT INTO careless VALUES ('ANA', ARRAY['ANA'], ARRAY['ana']);
"""


def stored(value: Any, of: str) -> Any:  # noqa: ANN401  # a row holds anything
    """Returns a value as the driver takes it."""
    return json.dumps(value) if of == "jsonb" and value is not None else value


def fetched(value: Any, of: str) -> Any:  # noqa: ANN401  # a row holds anything
    """Returns a value of the driver as the rows have it."""
    return json.loads(value) if of == "jsonb" and value is not None else value


@pytest.fixture(scope="module")
def store(socket: Path) -> Iterator[Store]:
    """A table of things."""
    made = Store(socket)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.timeout(600)
@settings(max_examples=300, deadline=dt.timedelta(seconds=30))
@drawn_plans
def test_rows_and_values_are_those_of_checks(
    store: Store, policy: list[Line], held: list[dict[str, Any]], columns: list[str], allow_partial: bool
) -> None:
    """A plan returns the rows that checks of each allow, with the values that masks leave; or less, and says so."""

    def selected(statement: Statement) -> dict[int, dict[str, Any]]:
        store.hold(held)
        return store.selected(statement)

    require_same(policy, held, columns, "postgres", selected, allow_partial=allow_partial)


def test_columns_that_ignore_case(store: Store) -> None:
    """Texts, and lists of them, are compared by their code points, whatever collations the columns have."""
    store.execute(CASELESS)
    for condition in (
        "r.row.tags == ('ana',)",
        "r.row.tags == r.row.more",
        "'ana' in r.row.tags",
        "r.row.name in r.row.more",
        "r.row.name == 'ana'",
        "r.row.name in ('ana', 'b')",
        "keyMatch(r.row.name, 'an*')",
    ):
        snapshot = snapshot_of([("p", f"{THINGS}.small", condition, "allow")])
        decision, statement = planned(snapshot, ["small"], "postgres")
        assert (decision.allowed, store.count(statement, "careless")) == (True, 0), condition


PRECISE = "0.1" + "0" * 50 + "1"


@pytest.mark.parametrize(
    ("amount", "number", "condition", "expected"),
    [
        (PRECISE, "1", "r.row.amount == 0.1", 0),
        (PRECISE, "1", "r.row.amount != 0.2", 0),
        ("1e400", "1", "r.row.amount > 1", 0),
        ("NaN", "1", "r.row.amount != 1", 0),
        ("Infinity", "1", "r.row.amount > 1", 0),
        ("0.1", "1", "r.row.amount == 0.1", 1),
        ("-1.5", "1", "r.row.amount < 0", 1),
        ("1", "1e400", "r.row.meta.n > 1", 0),
        ("1", "1e-400", "r.row.meta.n < 1", 0),
        ("1", "0.5", "r.row.meta.n < 1", 1),
    ],
)
def test_numbers_that_no_check_takes(store: Store, amount: str, number: str, condition: str, expected: int) -> None:
    """A decimal number of more digits than a check takes is unknown, and no row makes a plan fail for all others."""
    store.execute("DROP TABLE IF EXISTS precise; CREATE TEMP TABLE precise (amount numeric, meta jsonb)")
    store.execute(f"INSERT INTO precise VALUES ('{amount}', '{{\"n\": {number}}}')")  # noqa: S608  # of the table above
    snapshot = snapshot_of([("p", f"{THINGS}.small", condition, "allow")])
    decision, statement = planned(snapshot, ["small"], "postgres")
    row = {**dict.fromkeys(TYPES), "amount": Decimal(amount), "meta": json.loads(f'{{"n": {number}}}')}
    assert (decision.allowed, store.count(statement, "precise")) == (True, expected)
    assert expected == 0 or checked(snapshot, ["small"], row) is not None
    if amount == PRECISE:
        assert checked(snapshot, ["small"], row) is None
