"""The client's groups are those that DuckDB finds in SQL that was written apart (AT-09), and in that of plans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
from hypothesis import given, settings
from hypothesis import strategies as st

from gatebook.v1 import types_pb2
from gatebook.v1.access_service_pb2 import PlanAccessResponse
from gatebook_client.decision import clock, read_decision
from gatebook_client.dialects import DIALECTS
from gatebook_client.doubts import Asked
from gatebook_client.groups import Measure, aggregate
from gatebook_client.plan import Plan, read_plan

GROUPS = """
WITH kept AS (SELECT unnest(?::VARCHAR[]) AS team, unnest(?::VARCHAR[]) AS person, unnest(?::BIGINT[]) AS tokens),
     sized AS (SELECT team, count(DISTINCT person) >= ? AS large FROM kept GROUP BY team)
SELECT CASE WHEN large THEN kept.team END, count(*),
       CASE WHEN count(DISTINCT person) FILTER (WHERE tokens IS NOT NULL) >= ? THEN sum(tokens) END,
       count(DISTINCT person)
FROM kept JOIN sized ON kept.team IS NOT DISTINCT FROM sized.team
GROUP BY CASE WHEN large THEN kept.team END, NOT large
HAVING count(DISTINCT person) >= ?
"""

STORE = duckdb.connect()


COLUMNS = ("team", "person", "tokens", "ts")


def raw_decision(k: int, columns: Sequence[str] = COLUMNS, person: str = "person") -> types_pb2.Decision:
    """Returns an allow of every column, of groups of at least k people."""
    decision = types_pb2.Decision(
        effect=types_pb2.EFFECT_ALLOW,
        reason=types_pb2.REASON_CODE_ALLOWED,
        must_apply=[types_pb2.OBLIGATION_KIND_MINIMUM_GROUP],
        minimum_group=types_pb2.MinimumGroup(k=k, entity_columns=[person]),
        row_filter=types_pb2.RowFilter(kind=types_pb2.ROW_FILTER_KIND_ALL_ROWS),
    )
    decision.expires_time.FromJsonString("9999-01-01T00:00:00Z")
    for name in columns:
        decision.columns.add(column=name, effect=types_pb2.EFFECT_ALLOW, reason=types_pb2.REASON_CODE_ALLOWED)
    return decision


def plan_of(k: int, dialect: str = "duckdb", columns: Sequence[str] = COLUMNS, person: str = "person") -> Plan:
    """Returns the plan of the same decision."""
    raw = raw_decision(k, columns, person)
    raw.decision_id, raw.policy_revision.digest, raw.receipt.origin = "d-1", "9f86d081", "book.example/gatebook"
    raw.receipt.leaf_hash = bytes(32)
    raw.receipt.entry_time.GetCurrentTime()
    raw.decide_time.GetCurrentTime()
    selected = {name: DIALECTS[dialect].quoted(name) for name in columns}
    obligations = frozenset({types_pb2.OBLIGATION_KIND_MINIMUM_GROUP})
    decision = read_decision(raw, Asked(obligations=obligations, sent_clock=clock(), plan=True))
    response = PlanAccessResponse(decision=raw, masks_sql=selected, people_types=["text"])
    return read_plan(response, decision, "kept", DIALECTS[dialect])


rows = st.lists(
    st.fixed_dictionaries(
        {
            "team": st.sampled_from(["red", "blue", "green", None]),
            "person": st.sampled_from([*"abcdefgh", None]),
            "tokens": st.none() | st.integers(0, 9),
        }
    ),
    max_size=40,
)


@settings(max_examples=50)
@given(rows, st.integers(1, 6))
def test_groups_and_remainder(rows: list[dict[str, Any]], k: int) -> None:
    """Exactly the groups of at least k people leave, and the rest as one remainder if it has k."""
    found = aggregate(
        raw_decision(k),
        rows,
        by=["team"],
        measures={"rows": ("count", "*"), "tokens": ("sum", "tokens"), "people": ("distinct", "person")},
    )
    arguments = [[row[name] for row in rows] for name in ("team", "person", "tokens")]
    expected = STORE.execute(GROUPS, [*arguments, k, k, k]).fetchall()

    by_text = sorted(expected, key=str)
    assert by_text == sorted((tuple(group.values()) for group in found), key=str)
    assert all(group["people"] >= k for group in found)


@settings(max_examples=60)
@given(rows, st.integers(1, 6), st.sampled_from([["team"], [], ["team", "tokens"]]))
def test_groups_of_plans(rows: list[dict[str, Any]], k: int, by: list[str]) -> None:
    """The statement of a plan finds the groups, the remainder and the order that the client finds in the rows."""
    measures: dict[str, Measure] = {
        "rows": ("count", "*"),
        "people": ("distinct", "person"),
        "named": ("count", "team"),
    }
    if "tokens" not in by:
        measures["sum"], measures["mean"] = ("sum", "tokens"), ("average", "tokens")
    STORE.execute("CREATE OR REPLACE TABLE kept (team VARCHAR, person VARCHAR, tokens BIGINT)")
    if rows:
        STORE.executemany("INSERT INTO kept VALUES ($team, $person, $tokens)", rows)

    found = STORE.execute(*plan_of(k).aggregate(by=by, measures=measures)).fetchall()

    assert [tuple(group.values()) for group in aggregate(raw_decision(k), rows, by=by, measures=measures)] == found


@settings(max_examples=30)
@given(rows, st.integers(1, 6), st.sampled_from(["red", "blue"]))
def test_groups_of_some_rows(rows: list[dict[str, Any]], k: int, team: str) -> None:
    """Rows that the application leaves out are in no group, and stand for nobody."""
    measures: dict[str, Measure] = {"rows": ("count", "*")}
    STORE.execute("CREATE OR REPLACE TABLE kept (team VARCHAR, person VARCHAR, tokens BIGINT)")
    if rows:
        STORE.executemany("INSERT INTO kept VALUES ($team, $person, $tokens)", rows)
    kept = [
        row for row in rows if row["team"] == team and (row["tokens"] or 0) < 5 and row["tokens"] is not None
    ]  # as below

    where = [("team", "=", team), ("tokens", "<", 5)]
    found = STORE.execute(*plan_of(k).aggregate(by=["tokens"], measures=measures, where=where)).fetchall()

    assert [
        tuple(group.values()) for group in aggregate(raw_decision(k), kept, by=["tokens"], measures=measures)
    ] == found
