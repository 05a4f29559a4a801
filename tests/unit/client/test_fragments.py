"""The SQL of a plan is one expression over columns, whatever the service sent."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

import duckdb
import pytest
import sqlglot
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from sqlglot import exp

from gatebook_client.dialects import DIALECTS, NAME_LENGTH_MAX, Style
from gatebook_client.errors import GatebookClientError
from gatebook_client.fragments import DEPTH_MAX, FUNCTIONS, LENGTH_MAX, WORDS, read_fragment
from gatebook_client.refusal import EnforcementError
from gatebook_client.statement import Statement, parts_of

CASES = YAML(typ="safe").load(
    (pathlib.Path(__file__).parents[2] / "cases" / "plan_sql.yaml").read_text(encoding="utf-8")
)
DUCKDB = DIALECTS["duckdb"]
NOT_IN_EXPRESSIONS = (
    *(exp.Query, exp.Table, exp.Command, exp.DDL, exp.DML, exp.Window, exp.Star, exp.Parameter),
    *(exp.SessionParameter,),
)
"""What no fragment may be for a parser that others wrote."""

pieces = st.one_of(
    st.sampled_from(sorted(WORDS)),
    st.sampled_from(["SELECT", "FROM", "UNION", "pg_sleep", "OVER", "LATERAL", "VALUES", "EXISTS", "INTO", "users"]),
    st.sampled_from(['"a"', '"b""c"', "'x'", "'it''s'", "1", "2.5", "$1", "$2", "?", ":p1", "`a`", '"', "'", "\\"]),
    st.sampled_from(
        ["(", ")", "[", "]", ",", "=", "<>", "||", "-", "--", "/*", "*/", ";", ".", "::", ":", "*", "%", "#"]
    ),
)
soups = st.lists(pieces, min_size=1, max_size=14).flatmap(
    lambda parts: st.sampled_from(["", " ", "  \n"]).map(lambda space: space.join(parts))
)


@pytest.fixture(scope="module")
def store() -> Iterator[duckdb.DuckDBPyConnection]:
    """Returns a database with a table of two rows, and with one that nobody should reach."""
    with duckdb.connect() as connection:
        connection.execute(
            """CREATE TABLE t AS SELECT unnest(['x', 'y']) AS a, 1 AS "b""c"; CREATE TABLE users (a INT)"""
        )
        yield connection


def written(sql: str, style: Style = "dollar") -> str:
    """Returns what this client makes of a fragment of DuckDB in a statement."""
    fragment = read_fragment(sql, DUCKDB, 1)
    values = dict.fromkeys(fragment.placeholders, 0)
    return Statement(parts_of(fragment, DUCKDB), values, style, lambda: None).sql


@pytest.mark.parametrize("sql", CASES["accepted"])
def test_what_plans_hold_is_used_as_it_is(sql: str) -> None:
    """An expression of columns, values and known functions comes through unchanged, in brackets where it needs them."""
    assert written(sql) in (sql, f"({sql})")


@pytest.mark.parametrize("case", CASES["refused"], ids=lambda case: case["name"])
def test_what_reaches_further_is_refused(case: dict[str, str]) -> None:
    """Whatever is more than one expression of columns is refused, and not repeated in the message."""
    with pytest.raises(EnforcementError) as refusal:
        read_fragment(case["sql"], DUCKDB, 1)

    assert "CLIENT_PLAN_SQL" == refusal.value.reason
    assert not case["sql"].strip() or case["sql"] not in refusal.value.message


@settings(max_examples=400)
@given(soups)
@example('"a" OR TRUE')
@example("CASE WHEN TRUE THEN (NULL) END")
@example('RPAD("a", 2)')
def test_what_is_accepted_is_one_expression(store: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Of any pieces of SQL in any order, what is accepted is one expression, for DuckDB and for another parser."""
    try:
        statement = f"SELECT {written(sql)} AS c1 FROM t"  # noqa: S608  # that is the question
    except GatebookClientError:
        return
    with contextlib.suppress(sqlglot.errors.SqlglotError, ValueError):
        [parsed] = sqlglot.parse(statement, dialect="duckdb")
        assert isinstance(parsed, exp.Select)
        assert ["c1"] == parsed.named_selects
        assert ["t"] == [table.name for table in parsed.find_all(exp.Table)]
        assert [] == list(parsed.expressions[0].find_all(*NOT_IN_EXPRESSIONS))
        assert {str(found.this).upper() for found in parsed.find_all(exp.Anonymous)} <= FUNCTIONS
    with contextlib.suppress(duckdb.Error):
        found = store.execute(statement, [0] * statement.count("$"))
        assert ["c1"] == [column[0] for column in found.description or ()]
        assert 2 == len(found.fetchall())


@settings(max_examples=300)
@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(sql: str) -> None:
    """No text makes the reading fail in another way."""
    for dialect in DIALECTS.values():
        with contextlib.suppress(EnforcementError):
            assert read_fragment(sql, dialect, 1).tokens


def test_sizes_are_bounded() -> None:
    """A fragment is neither longer nor deeper than it may be, and is refused in time that its length bounds."""
    deep = "(" * DEPTH_MAX + "1" + ")" * DEPTH_MAX
    assert () == read_fragment(deep, DUCKDB, 1).placeholders
    for sql in (f"({deep})", "1" * (LENGTH_MAX + 1), "'" + "''" * (LENGTH_MAX // 2 - 1), '"' * (LENGTH_MAX - 1)):
        with pytest.raises(EnforcementError):
            read_fragment(sql, DUCKDB, 1)


@pytest.mark.parametrize("name", ["a", 'a"b', '""', "a`b", "sel;ect", "ä b", "%s", "?", "--", "'", "\\", "\n"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_names_stay_names(name: str, dialect: str) -> None:
    """Whatever a name holds, between quotes it is that name for another parser."""
    quoted = DIALECTS[dialect].quoted(name)
    [column] = sqlglot.parse_one(f"SELECT {quoted}", dialect=dialect).expressions

    assert isinstance(column, exp.Column)
    assert name == column.name
    assert name == read_fragment(quoted, DIALECTS[dialect], 1).column


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", "a" * (NAME_LENGTH_MAX + 1)])
def test_what_is_no_name_is_refused(name: str) -> None:
    """A name that no engine could have is refused."""
    with pytest.raises(EnforcementError) as refusal:
        DUCKDB.quoted(name)

    assert "CLIENT_PLAN_NAME" == refusal.value.reason


@pytest.mark.parametrize(
    ("style", "sql"),
    [
        ("qmark", '("a" % ? = ? AND \'100%\' <> "b")'),
        ("dollar", '("a" % $1 = $2 AND \'100%\' <> "b")'),
        ("format", '("a" %% %s = %s AND \'100%%\' <> "b")'),
        ("named", '("a" % :p1 = :p2 AND \'100%\' <> "b")'),
    ],
)
def test_parameters_stand_as_drivers_want_them(style: Style, sql: str) -> None:
    """A parameter is written in the style of the driver, and what looks like one in that style is not."""
    assert sql == written('"a" % $1 = $2 AND \'100%\' <> "b"', style=style)


def test_functions_are_words() -> None:
    """Every function is a word that may stand in a fragment, and none is one that reads anything but its arguments."""
    assert FUNCTIONS < WORDS
    assert set() == WORDS & {"SELECT", "UNION", "INTO", "USING", "OVER", "GETENV", "READ_TEXT", "PG_SLEEP", "QUERY"}
