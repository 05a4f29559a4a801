"""A plan makes statements only of an answer beyond doubt, and only what the answer says."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import duckdb
import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st
from sqlglot import exp
from tests.plan_cases import TABLE, answer, asked

from gatebook.v1 import access_service_pb2 as pb
from gatebook_client.decision import clock, read_decision
from gatebook_client.dialects import DIALECTS, Style
from gatebook_client.errors import GatebookClientError
from gatebook_client.groups import Measure
from gatebook_client.parameters import padded
from gatebook_client.plan import Plan, read_plan
from gatebook_client.refusal import EnforcementError

LIFETIME_SECONDS = 300.0
DATASET = "mci.keystroke_events"
KEY = b"k" * 32


def plan(
    change: Mapping[str, Any] | None = None,
    question: Mapping[str, Any] | None = None,
    *,
    sent_clock: float | None = None,
    dataset: str = DATASET,
) -> Plan:
    """Returns what the client makes of it."""
    response = answer(change)
    decision = read_decision(response.decision, asked(question, sent_clock))
    return read_plan(response, decision, dataset, DIALECTS["duckdb"])


def test_a_plan_beyond_doubt_makes_a_statement() -> None:
    """The good answer of the table selects its columns of its rows, with its parameters."""
    found = plan()

    assert (True, "ALLOWED", ("subject_id", "key_text", "ts")) == (bool(found), found.reason, found.columns)
    sql, parameters = found.select()
    assert 'FROM "mci"."keystroke_events" AS stored\n  WHERE ("subject_id" = $1 AND "level" >= $2)' in sql
    assert ["ana", 3] == parameters


@pytest.mark.parametrize("case", TABLE["cases"], ids=lambda case: case["name"])
def test_what_leaves_a_doubt_makes_no_statement(case: dict[str, Any]) -> None:
    """Every case of the table is falsy, shows no column and makes no statement of any kind, with its reason."""
    found = plan(case["change"], case.get("asked"))

    assert (False, False, case["reason"], ()) == (found.allowed, bool(found), found.reason, found.columns)
    assert found.message
    makers: list[Callable[[], object]] = [
        found.select,
        lambda: found.aggregate(by=["ts"], measures={"n": ("count", "*")}),
    ]
    for make in makers:
        with pytest.raises(EnforcementError) as refusal:
            make()
        assert case["reason"] == refusal.value.reason


@given(st.binary(max_size=300))
def test_random_bytes_are_never_a_plan(data: bytes) -> None:
    """Whatever parses as an answer from random bytes allows nothing."""
    message = pb.PlanAccessResponse()
    try:
        message.ParseFromString(data)
    except Exception:  # noqa: BLE001  # any failure to parse is as good
        return

    assert not read_plan(message, read_decision(message.decision, asked()), DATASET, DIALECTS["duckdb"])


def test_a_plan_expires_and_its_statements_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the expiry a plan makes no statement, and a statement that was made gives neither SQL nor parameters."""
    found = plan()
    statement = found.select()
    monkeypatch.setattr("gatebook_client.decision.clock", lambda: clock() + LIFETIME_SECONDS)

    assert (False, "CLIENT_EXPIRED") == (bool(found), found.reason)
    for use in (found.select, lambda: statement.sql, lambda: statement.parameters, lambda: list(statement)):
        with pytest.raises(EnforcementError) as refusal:
            use()
        assert "CLIENT_EXPIRED" == refusal.value.reason


def test_a_plan_shows_nothing_about_people() -> None:
    """What is printed of a plan or statement names no value."""
    found = plan()

    assert "<Plan allowed ALLOWED duckdb d-1>" == repr(found)
    assert "ana" not in repr(found.select())


def test_a_decision_of_a_plan_lets_no_rows_out() -> None:
    """The decision that a plan with a condition brings cannot be taken for one about every row."""
    with pytest.raises(EnforcementError) as refusal:
        plan().decision.enforce([{"subject_id": "ben", "key_text": "s", "ts": 1}])

    assert "CLIENT_ROW_FILTER" == refusal.value.reason


GROUPED = {
    "decision": {
        "must_apply": ["OBLIGATION_KIND_MASKS", "OBLIGATION_KIND_ROW_FILTER", "OBLIGATION_KIND_MINIMUM_GROUP"],
        "minimum_group": {"k": 5, "entity_columns": ["subject_id"]},
    }
}


def test_rows_do_not_leave_under_a_minimum_group() -> None:
    """A plan with a minimum group selects no rows."""
    with pytest.raises(EnforcementError) as refusal:
        plan(GROUPED).select()

    assert "CLIENT_MINIMUM_GROUP" == refusal.value.reason


@pytest.mark.parametrize(
    ("by", "measures", "reason"),
    [
        (["salary"], {"n": ("count", "*")}, "CLIENT_COLUMN_NOT_ALLOWED"),
        (["ts"], {"n": ("sum", "salary")}, "CLIENT_COLUMN_NOT_ALLOWED"),
        (["ts"], {"n": ("max", "ts")}, "CLIENT_UNKNOWN_MEASURE"),
        (["ts"], {"n": ("sum", "*")}, "CLIENT_UNKNOWN_MEASURE"),
        (["ts"], {"ts": ("count", "*")}, "CLIENT_UNKNOWN_MEASURE"),
        (["ts", "ts"], {"n": ("count", "*")}, "CLIENT_UNKNOWN_MEASURE"),
        ([], {}, "CLIENT_UNKNOWN_MEASURE"),
        (["ts"], {"a\0b": ("count", "*")}, "CLIENT_PLAN_NAME"),
    ],
)
def test_groups_of_what_is_not_allowed_are_refused(by: list[str], measures: dict[str, Measure], reason: str) -> None:
    """Neither a column that is not allowed nor a measure that shows a single value gets into a statement."""
    with pytest.raises(EnforcementError) as refusal:
        plan().aggregate(by=by, measures=measures)

    assert reason == refusal.value.reason


def open_plan(columns: Mapping[str, str], conditional: Mapping[str, Any] | None = None) -> Plan:
    """Returns a plan of columns without masks, of all rows or by the condition of a change."""
    outcomes = [{"column": name, "effect": "EFFECT_ALLOW", "reason": "REASON_CODE_ALLOWED"} for name in columns]
    every = {"must_apply": None, "row_filter": {"kind": "ROW_FILTER_KIND_ALL_ROWS", "sql": None}}
    change = {
        "decision": {"columns": outcomes, **(conditional or every)},
        "masks_sql": {**dict.fromkeys(TABLE["good"]["masks_sql"]), **columns},
        "parameters": None,
    }
    return plan(change, {"columns": list(columns)})


@pytest.mark.parametrize("dialect", DIALECTS)
def test_groups_are_one_statement_in_every_dialect(dialect: str) -> None:
    """In each dialect groups are one select of one table, for another parser too, with every parameter in its place."""
    quoted = DIALECTS[dialect].quoted
    response = answer({**GROUPED, "masks_sql": {name: quoted(name) for name in ("subject_id", "ts")}})
    response.masks_sql["key_text"], response.people_types[:] = "NULL", ["text"]
    marks = {"dollar": ("$1", "$2"), "named": (":p1", ":p2"), "qmark": ("?", "?")}[DIALECTS[dialect].style]
    condition = f"{quoted('subject_id')} = {marks[0]} AND {quoted('level')} >= {marks[1]}"
    response.decision.row_filter.sql[dialect] = condition
    found = read_plan(response, read_decision(response.decision, asked()), DATASET, DIALECTS[dialect])
    measures: dict[str, Measure] = {
        "n": ("count", "*"),
        "mean": ("average", "key_text"),
        "who": ("distinct", "subject_id"),
    }

    sql, parameters = found.aggregate(by=["ts"], measures=measures, where=[("ts", ">=", 7)])

    [parsed] = sqlglot.parse(sql, dialect=dialect)
    assert isinstance(parsed, exp.Select)
    assert ["ts", "n", "mean", "who"] == parsed.named_selects
    assert ["keystroke_events"] == [table.name for table in parsed.find_all(exp.Table) if table.db]
    assert ["ana", 3, 7] == (list(parameters.values()) if isinstance(parameters, dict) else parameters)


STORED = [
    [1, "b", "2026-05-31 18:59:59+00", 1.0],
    [2, "c", "2026-06-01 00:00:00+00", float("nan")],
    [2**53 + 1, "it's; DROP TABLE t --", None, float("inf")],
    [-(2**63), "a' OR '1'='1", None, None],
]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ([], [1, 2, 2**53 + 1, -(2**63)]),
        ([("n", "=", 2**53 + 1)], [2**53 + 1]),
        ([("n", ">", 1), ("n", "<=", 2)], [2]),
        ([("n", ">", 2**53), ("name", "=", "it's; DROP TABLE t --")], [2**53 + 1]),
        ([("name", "<>", "a' OR '1'='1")], [1, 2, 2**53 + 1]),
        ([("ts", ">=", dt.datetime(2026, 6, 1, 0, tzinfo=dt.timezone(dt.timedelta(hours=5))))], [2]),
        ([("ts", "<", dt.datetime(2026, 6, 1, tzinfo=dt.UTC))], [1]),
        ([("x", "=", float("nan"))], [2]),
        ([("x", ">", 1e308)], [2, 2**53 + 1]),
    ],
)
@pytest.mark.parametrize("style", ["dollar", "qmark"])
def test_conditions_of_the_application_are_values(where: list[Any], expected: list[int], style: Style) -> None:
    """What the application wants besides is compared as the value that it is, whatever it holds."""
    names = ("n", "name", "ts", "x")
    found = open_plan({name: f'"{name}"' for name in names})
    with duckdb.connect() as store:
        store.execute("SET TimeZone = 'UTC'; CREATE SCHEMA mci")
        store.execute(f"CREATE TABLE {DATASET} (n BIGINT, name TEXT, ts TIMESTAMPTZ, x DOUBLE)")
        store.executemany(f"INSERT INTO {DATASET} VALUES (?, ?, ?, ?)", STORED)  # noqa: S608  # a name of this file
        sql, parameters = found.select(where=where, style=style)
        rows = store.execute(f"SELECT n FROM ({sql}) ORDER BY n < 0, n", parameters).fetchall()  # noqa: S608  # the statement within another
        counted = store.execute(*found.aggregate(by=[], measures={"n": ("count", "*")}, where=where, style=style))

        assert expected == [row[0] for row in rows]
        assert [(len(expected),)] == counted.fetchall()


@pytest.mark.parametrize(
    ("condition", "kind"),
    [
        (("salary", "=", 1), EnforcementError),
        (('n" = 1 OR "n', "=", 1), EnforcementError),
        (("n", "= 1 OR 1 =", 1), ValueError),
        (("n", "LIKE", "%"), ValueError),
        (("n", "=", None), ValueError),
    ],
)
def test_conditions_reach_no_further_than_the_plan(condition: tuple[str, str, Any], kind: type[Exception]) -> None:
    """A condition is about a column that is allowed, by a comparison of a list, with a value."""
    found = open_plan({"n": '"n"'})

    for make in (found.select, partial(found.aggregate, by=["n"], measures={})):
        with pytest.raises(kind):
            make(where=[condition])


def test_conditions_are_about_what_is_shown() -> None:
    """A condition on a masked column finds what the mask leaves of it, so that a value cannot be guessed."""
    found = plan(
        {
            "decision": {
                "columns": [
                    {
                        "column": "n",
                        "effect": "EFFECT_ALLOW",
                        "reason": "REASON_CODE_ALLOWED",
                        "masks": [{"kind": "MASK_KIND_NULLIFY"}],
                    }
                ],
                "must_apply": ["OBLIGATION_KIND_MASKS"],
                "row_filter": {"kind": "ROW_FILTER_KIND_ALL_ROWS", "sql": None},
            },
            "masks_sql": {**dict.fromkeys(TABLE["good"]["masks_sql"]), "n": "CAST(NULL AS INT)"},
            "parameters": None,
        },
        {"columns": ["n"]},
    )
    with duckdb.connect() as store:
        store.execute(f"CREATE SCHEMA mci; CREATE TABLE {DATASET} AS SELECT 7 AS n")

        assert [(None,)] == store.execute(*found.select()).fetchall()
        assert [] == store.execute(*found.select(where=[("n", "=", 7)])).fetchall()


@pytest.mark.parametrize("stored_as", [("",), ("a\0b",), ("\ud800",), ("mci", "")])
def test_a_table_has_a_name(stored_as: tuple[str, ...]) -> None:
    """What can be no name of a table is refused."""
    with pytest.raises(EnforcementError) as refusal:
        plan().select(stored_as=stored_as)

    assert "CLIENT_PLAN_NAME" == refusal.value.reason


def test_a_table_is_named_name_by_name() -> None:
    """One text for a name in parts is refused, with what to write."""
    with pytest.raises(TypeError, match=r"\('lake', 'usage'\)"):
        plan().select(stored_as="lake.usage")


def test_a_key_is_needed_where_the_sql_hashes() -> None:
    """A statement that hashes is made with the key that the plan names alone, and HMAC comes of it (RFC 2104)."""
    pads = [{"mask_key_pad": {"key_id": "set/purpose/1", "pad": pad}} for pad in (0x36, 0x5C)]
    found = plan({"parameters": pads})

    for keys in ({}, {"set/purpose/2": KEY}, {"set/purpose/1": b"short"}):
        with pytest.raises(EnforcementError) as refusal:
            found.select(keys=keys)
        assert "CLIENT_MASK_KEY_MISSING" == refusal.value.reason
    inner, outer = found.select(keys={"set/purpose/1": KEY}).parameters
    told = hashlib.sha256(outer + hashlib.sha256(inner + b"ana").digest()).digest()
    assert hmac.new(KEY, b"ana", hashlib.sha256).digest() == told


@given(st.binary(min_size=16, max_size=200), st.binary(max_size=100))
def test_pads_make_the_hmac(key: bytes, text: bytes) -> None:
    """Pads of keys of any length give the HMAC that the library gives."""
    inner = hashlib.sha256(padded(key, 0x36) + text).digest()

    assert hmac.new(key, text, hashlib.sha256).digest() == hashlib.sha256(padded(key, 0x5C) + inner).digest()


HOSTILE_NAMES = [
    'a"b',
    "a; DROP TABLE t --",
    "a' OR '1'='1",
    "ä ö",
    "%s",
    "?",
    "$1",
    ":p1",
    "c1",
    "p1",
    "governed",
    "SELECT",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_of_columns_reach_the_engine_as_names(name: str) -> None:
    """A column of any name is selected, grouped by and measured under that name, and nothing else happens."""
    quoted = DIALECTS["duckdb"].quoted(name)
    outcome = {"column": name, "effect": "EFFECT_ALLOW", "reason": "REASON_CODE_ALLOWED"}
    change = {
        "decision": {
            "columns": [outcome],
            "must_apply": None,
            "row_filter": {"kind": "ROW_FILTER_KIND_ALL_ROWS", "sql": None},
        },
        "masks_sql": {**dict.fromkeys(TABLE["good"]["masks_sql"]), name: quoted},
        "parameters": None,
    }
    found = plan(change, {"columns": [name]}, dataset=f"{name}x.t")
    with duckdb.connect() as store:
        schema = DIALECTS["duckdb"].quoted(f"{name}x")
        store.execute(f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.t ({quoted} INTEGER)")
        store.execute(f"INSERT INTO {schema}.t VALUES (7), (8)")  # noqa: S608  # a name between quotes
        for style in ("dollar", "qmark"):
            selected = store.execute(*found.select(style=style))
            assert [name] == [column[0] for column in selected.description or ()]
            assert [(7,), (8,)] == sorted(selected.fetchall())
        grouped = store.execute(*found.aggregate(by=[name], measures={f"{name}2": ("sum", name)}))
        assert [name, f"{name}2"] == [column[0] for column in grouped.description or ()]
        assert [(7, 7), (8, 8)] == grouped.fetchall()


@pytest.mark.parametrize("missing", ["level", "key_text", "ts"])
def test_a_column_that_the_table_lacks_is_no_other(missing: str) -> None:
    """Where a table lacks a column of the plan the engine refuses; nothing that is shown stands in for it."""
    constant = {
        "masks_sql": {"key_text": "'x'", "ts": '"ts"'},
        "decision": {"row_filter": {"sql": {"duckdb": f'"{missing}" = $1 OR "level" = $2'}}},
    }
    columns = [f'"{name}" INTEGER' for name in ("subject_id", "key_text", "ts", "level") if name != missing]
    with duckdb.connect() as store:
        store.execute(f"CREATE SCHEMA mci; CREATE TABLE {DATASET} ({', '.join(columns)})")
        with pytest.raises(duckdb.BinderException):
            store.execute(*plan(constant).select())


@pytest.mark.parametrize("stored_as", [("subject_id",), ("main", "subject_id"), ("Subject_Id",)])
def test_a_column_that_the_table_is_named_after_is_not_its_row(stored_as: tuple[str, ...]) -> None:
    """What is named like a table is its whole row to some engines; a plan never shows one, nor what it withholds."""
    condition = 'CAST("level" AS TEXT) = $1 OR "level" = $2'
    found = plan({"decision": {"row_filter": {"sql": {"duckdb": condition}}}})
    with duckdb.connect() as store:
        store.execute("CREATE TABLE subject_id (secret TEXT, key_text TEXT, ts TIMESTAMPTZ, level INTEGER)")
        store.execute("INSERT INTO subject_id VALUES ('not for you', 'x', now(), 3)")
        with pytest.raises(duckdb.BinderException):
            store.execute(*found.select(stored_as=stored_as))


@pytest.mark.parametrize("column", ["stored", "STORED", "stored_"])
def test_a_table_is_called_what_no_column_is(column: str) -> None:
    """The name that a statement gives its table is none that its columns have."""
    sql, _ = plan({"decision": {"row_filter": {"sql": {"duckdb": f'"{column}" = $1 OR "stored" = $2'}}}}).select()
    names = {found.name.lower() for found in sqlglot.parse_one(sql, dialect="duckdb").find_all(exp.Column)}
    [table] = [found.alias for found in sqlglot.parse_one(sql, dialect="duckdb").find_all(exp.Table)]
    assert table not in names


def test_an_error_is_no_plan() -> None:
    """Every refusal is an error of this package, so that whoever catches those has caught them all."""
    assert issubclass(EnforcementError, GatebookClientError)
