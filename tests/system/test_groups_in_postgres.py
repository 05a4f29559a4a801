"""The groups of a plan are those that the client finds in the rows, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conformance.test_groups_in_sql import plan_of, raw_decision
from tests.system.test_plans_in_postgres import socket as socket  # noqa: PLC0414  # a fixture

from gatebook_client.groups import Measure, aggregate
from gatebook_client.plan import Condition

EPOCH = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
DAYS = [EPOCH + dt.timedelta(hours=7 * number) for number in range(5)]
MEASURES: dict[str, Measure] = {"rows": ("count", "*"), "people": ("distinct", "person"), "sum": ("sum", "tokens")}

rows = st.lists(
    st.fixed_dictionaries(
        {
            "team": st.sampled_from(["red", "blue", 'it\'s "$1" %s', None]),
            "person": st.sampled_from([*"abcdefgh", None]),
            "tokens": st.none() | st.integers(0, 9) | st.just(2**53 + 1),
            "ts": st.sampled_from(DAYS),
        }
    ),
    min_size=1,
    max_size=30,
)
WANTED: Sequence[tuple[Condition, Any]] = [
    (("tokens", ">=", 2), lambda row: (row["tokens"] or 0) >= 2),  # as in the condition
    (("tokens", "<>", 2**53 + 1), lambda row: row["tokens"] not in (None, 2**53 + 1)),
    (("team", "=", 'it\'s "$1" %s'), lambda row: row["team"] == 'it\'s "$1" %s'),
    (("ts", ">", DAYS[2].astimezone(dt.timezone(dt.timedelta(hours=5, minutes=45)))), lambda row: row["ts"] > DAYS[2]),
]


@settings(max_examples=100, deadline=dt.timedelta(seconds=30))
@given(
    rows,
    st.integers(1, 5),
    st.sampled_from([["team"], [], ["team", "ts"]]),
    st.lists(st.sampled_from(WANTED), max_size=2),
)
def test_groups_and_remainder(
    socket: Path,  # the fixture
    rows: list[dict[str, Any]],
    k: int,
    by: list[str],
    wanted: list[tuple[Condition, Any]],
) -> None:
    """Groups, remainder and order are those of the client, of the rows that the application's conditions keep."""
    statement = plan_of(k, "postgres").aggregate(by=by, measures=MEASURES, where=[condition for condition, _ in wanted])

    async def run() -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(host=str(socket), user="postgres")
        try:
            await connection.execute("CREATE TEMP TABLE kept (team text, person text, tokens bigint, ts timestamptz)")
            held = [(row["team"], row["person"], row["tokens"], row["ts"]) for row in rows]
            await connection.executemany("INSERT INTO kept VALUES ($1, $2, $3, $4)", held)
            found = await connection.fetch(statement.sql, *statement.parameters)
            return [tuple(int(value) if isinstance(value, Decimal) else value for value in row) for row in found]
        finally:
            await connection.close()

    kept = [row for row in rows if all(holds(row) for _, holds in wanted)]
    expected = [tuple(group.values()) for group in aggregate(raw_decision(k), kept, by=by, measures=MEASURES)]
    # The database orders texts by its own collation.
    assert sorted(expected, key=str) == sorted(asyncio.run(run()), key=str)
