"""Every plan that the service writes is one that the client reads, and its statement leaves what checks leave."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import sqlglot
from hypothesis import event, given, settings
from hypothesis import strategies as st
from sqlglot import exp
from tests.planned import (
    KEY,
    SHOWN,
    THINGS,
    TYPES,
    Line,
    checked,
    comparable,
    planned,
    policies,
    rows,
    snapshot_of,
)
from tests.property.test_plans import DEFINITIONS, stored

from gatebook.rpc import encode
from gatebook.rpc.plan_service import parameter
from gatebook.sql.statement import Statement
from gatebook.v1 import types_pb2
from gatebook.v1.access_service_pb2 import PlanAccessResponse
from gatebook.values import Decision
from gatebook_client import plan as plans
from gatebook_client.decision import clock, read_decision
from gatebook_client.dialects import DIALECTS
from gatebook_client.doubts import Asked

EPOCH = dt.datetime.fromtimestamp(0, dt.UTC)
STORE = duckdb.connect()
STORE.execute(f"SET TimeZone = 'Asia/Kathmandu'; CREATE SCHEMA lab; CREATE TABLE {THINGS} ({', '.join(DEFINITIONS)})")


def told(decision: Decision, statement: Statement) -> PlanAccessResponse:
    """Returns the answer that the service would send, as if it were in the book; the minimum group is left out."""
    raw = encode.outcome(decision.outcome)
    raw.decision_id, raw.policy_revision.digest, raw.receipt.origin = "d-1", "a" * 64, "book.example/gatebook"
    raw.receipt.leaf_hash = bytes(32)
    for time in (raw.receipt.entry_time, raw.decide_time):
        time.FromJsonString("2026-11-21T09:30:00Z")
    raw.expires_time.FromJsonString("9999-01-01T00:00:00Z")
    raw.ClearField("minimum_group")
    obligations = [kind for kind in raw.must_apply if kind != types_pb2.OBLIGATION_KIND_MINIMUM_GROUP]
    del raw.must_apply[:]
    raw.must_apply.extend(obligations)
    raw.row_filter.kind = types_pb2.ROW_FILTER_KIND_ALL_ROWS
    if statement.filter is not None:
        raw.row_filter.kind = types_pb2.ROW_FILTER_KIND_CONDITIONAL
        raw.row_filter.sql[statement.dialect] = statement.filter_sql
    return PlanAccessResponse(
        decision=raw, masks_sql=statement.columns, parameters=[parameter(value) for value in statement.parameters]
    )


def read(decision: Decision, statement: Statement, columns: Sequence[str], *, allow_partial: bool) -> plans.Plan:
    """Returns what the client makes of it."""
    response = told(decision, statement)
    asked = Asked(
        columns=tuple(columns),
        allow_partial=allow_partial,
        masks=plans.PLANNED_MASKS,
        obligations=plans.PLANNED_OBLIGATIONS,
        sent_clock=clock(),
        plan=True,
    )
    return plans.read_plan(response, read_decision(response.decision, asked), THINGS, DIALECTS[statement.dialect])


def keys_of(statement: Statement) -> dict[str, bytes]:
    """Returns the keys that a statement hashes with."""
    named = (parameter(value).mask_key_pad.key_id for value in statement.parameters)
    return {key_id: KEY for key_id in named if key_id}


asked_columns = st.lists(st.sampled_from(SHOWN), min_size=1, max_size=5, unique=True)


@settings(max_examples=150, deadline=None)
@given(policies(), asked_columns, st.booleans(), st.sampled_from(sorted(DIALECTS)))
def test_whatever_the_service_writes_is_read(
    policy: list[Line], columns: list[str], allow_partial: bool, dialect: str
) -> None:
    """No plan of the service has a word that the client does not know; each makes one select of one table."""
    decision, statement = planned(snapshot_of(policy), columns, dialect, allow_partial=allow_partial)
    if not decision.allowed:
        return
    plan = read(decision, statement, columns, allow_partial=allow_partial)

    assert (True, "ALLOWED") == (plan.allowed, plan.reason), plan.message
    sql, parameters = plan.select(keys=keys_of(statement))
    assert len(parameters) == len(statement.parameters)
    [parsed] = sqlglot.parse(sql, dialect=dialect)
    assert isinstance(parsed, exp.Select)
    assert list(plan.columns) == parsed.named_selects
    assert {"things"} == {table.name for table in parsed.find_all(exp.Table) if table.db}


@settings(max_examples=100, deadline=None)
@given(policies(), st.lists(rows, min_size=4, max_size=10), asked_columns, st.booleans())
def test_a_statement_leaves_what_checks_leave(
    policy: list[Line], held: list[dict[str, Any]], columns: list[str], allow_partial: bool
) -> None:
    """The statement that the client makes leaves the rows and values that checks of each row leave, in their order."""
    snapshot = snapshot_of(policy)
    decision, statement = planned(snapshot, columns, "duckdb", allow_partial=allow_partial)
    if not decision.allowed:
        return
    plan = read(decision, statement, columns, allow_partial=allow_partial)
    expected = [
        left for row in held if (left := checked(snapshot, columns, row, allow_partial=allow_partial)) is not None
    ]

    found = run(plan, statement, held)

    event(f"narrowed: {bool(statement.narrowings)}, rows left: {bool(found)}")
    if statement.narrowings:
        assert len(found) <= len(expected)
        return
    due = [{name: comparable(left_as_json(row.get(name), TYPES[name])) for name in plan.columns} for row in expected]
    assert due == found


def left_as_json(value: Any, of: str) -> Any:  # noqa: ANN401  # a row holds anything
    """Returns what a mask left of JSON as a value: the client leaves a text where it got one."""
    try:
        return json.loads(value) if of == "jsonb" and isinstance(value, str) else value
    except ValueError:
        return value


def run(plan: plans.Plan, statement: Statement, held: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Runs a plan on rows; returns what it leaves, in comparable values."""
    STORE.execute(f"DELETE FROM {THINGS}")  # noqa: S608  # a name of these tests
    places = ", ".join("?" for _ in TYPES)
    STORE.executemany(
        f"INSERT INTO {THINGS} VALUES ({places})",  # noqa: S608  # as above
        [[stored(row[name], of) for name, of in TYPES.items()] for row in held],
    )
    sql, parameters = plan.select(keys=keys_of(statement))
    shown = [f'epoch_us("{name}")' if TYPES[name] == "timestamptz" else f'"{name}"' for name in plan.columns]
    selected = STORE.execute(f"SELECT {', '.join(shown)} FROM ({sql}) AS planned", parameters).fetchall()  # noqa: S608  # as above
    return [
        {name: comparable(fetched(value, TYPES[name])) for name, value in zip(plan.columns, row, strict=True)}
        for row in selected
    ]


def fetched(value: Any, of: str) -> Any:  # noqa: ANN401  # a row holds anything
    """Returns a value of DuckDB as the rows have it."""
    if value is None or of not in ("jsonb", "timestamptz"):
        return value
    return json.loads(value) if of == "jsonb" else EPOCH + dt.timedelta(microseconds=value)
