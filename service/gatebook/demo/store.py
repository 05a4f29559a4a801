"""The telemetry of a generated company, in a DuckDB file.

Owns the tables that the demo reads through the gate: those of the telemetry catalogue, with its
columns and types, filled by `telemetry.sql`. The same seed, scale and directory give the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import duckdb

from gatebook.demo.people import SEED
from gatebook.demo.texts import texts
from gatebook.policy.catalogue import Catalogue, Dataset
from gatebook.policy.directory import Directory
from gatebook_client import Statement

SQL: Final = Path(__file__).with_name("telemetry.sql")
NOW: Final = datetime(2026, 6, 22, 18, tzinfo=UTC)
"""When the company was recorded: the last record is no later."""
COLLEAGUES: Final = 40
"""How many people the texts mention."""

COLUMN_TYPES: Final[Mapping[str, str]] = {
    "text": "VARCHAR",
    "text[]": "VARCHAR[]",
    "int": "INTEGER",
    "bigint": "BIGINT",
    "numeric": "DECIMAL(18,4)",
    "bool": "BOOLEAN",
    "uuid": "UUID",
    "timestamptz": "TIMESTAMPTZ",
    "date": "DATE",
    "jsonb": "JSON",
}
COLLECTIONS: Final = (
    *("prompts", "answers", "apps", "window_titles", "targets", "keys", "transcripts", "messages"),
    *("titles", "excerpts", "ocr", "narratives", "ai_notes", "ideas"),
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def build_store(
    path: Path,
    catalogue: Catalogue,
    directory: Directory,
    *,
    seed: int = SEED,
    scale: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """Builds the store in a new file; returns the number of rows of each table.

    Args:
        path: The file, which must not exist yet.
        catalogue: The tables.
        directory: The people whom the rows are about; the named ones come first.
        seed: What the rows depend on.
        scale: The share of the usual few hundred thousand rows, for tests.
        progress: Is told how many statements are done, and of how many.
    """
    connection = duckdb.connect(str(path))
    try:
        connection.execute("SET TimeZone = 'UTC'")
        create_tables(connection, catalogue.datasets.values())
        _bring_people(connection, directory)
        _set_variables(connection, directory, seed, scale)
        statements = connection.extract_statements(SQL.read_text(encoding="utf-8"))
        for done, statement in enumerate(statements, start=1):
            connection.execute(statement)
            if progress is not None:
                progress(done, len(statements))
        return {
            dataset: _one(connection, f"SELECT count(*) FROM {_quoted(dataset)}")  # noqa: S608  # a catalogued name
            for dataset in catalogue.datasets
        }
    finally:
        connection.close()


def read_rows(
    connection: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    columns: Sequence[str],
    *,
    where: str = "",
    limit: int = 1_000,
) -> list[dict[str, Any]]:
    """Reads columns of a table into rows, with times as aware datetimes and ids as text.

    `where` is SQL of the demo's own, never of a request.
    """
    chosen = ", ".join(_selected(name, dataset.columns[name].type) for name in columns)
    condition = f" WHERE {where}" if where else ""
    query = f"SELECT {chosen} FROM {_quoted(dataset.id)}{condition} LIMIT {limit:d}"  # noqa: S608  # names of the catalogue
    types = [dataset.columns[name].type for name in columns]
    return [
        {name: _value(type_, value) for name, type_, value in zip(columns, types, row, strict=True)}
        for row in connection.execute(query).fetchall()
    ]


def run_statement(
    connection: duckdb.DuckDBPyConnection,
    statement: Statement,
    types: Mapping[str, str],
    *,
    limit: int = 1_000,
) -> tuple[int, list[dict[str, Any]]]:
    """Runs the statement of a plan; returns how many rows it leaves, and the first of them.

    `types` has each column of the result, and its type where it is a column of the table.
    """
    sql, parameters = statement
    chosen = ", ".join(_selected(name, type_) for name, type_ in types.items())
    counted = connection.execute(f"SELECT count(*) FROM ({sql}) AS planned", parameters).fetchall()  # noqa: S608  # of a plan
    first = connection.execute(f"SELECT {chosen} FROM ({sql}) AS planned LIMIT {limit:d}", parameters)  # noqa: S608  # as above
    rows = [
        {name: _value(type_, value) for (name, type_), value in zip(types.items(), row, strict=True)}
        for row in first.fetchall()
    ]
    return int(counted[0][0]), rows


def create_tables(connection: duckdb.DuckDBPyConnection, datasets: Iterable[Dataset]) -> None:
    """Creates empty tables."""
    listed = list(datasets)
    for schema in dict.fromkeys(dataset.id.partition(".")[0] for dataset in listed):
        connection.execute(f'CREATE SCHEMA "{schema}"')
    for dataset in listed:
        columns = ", ".join(f'"{it.name}" {COLUMN_TYPES[it.type]}' for it in dataset.columns.values())
        connection.execute(f"CREATE TABLE {_quoted(dataset.id)} ({columns})")


def _bring_people(connection: duckdb.DuckDBPyConnection, directory: Directory) -> None:
    """Makes the tables `people` and `holders`, in the order of the directory with the named ones first."""
    people = sorted(
        (it for it in directory.subjects.values() if it.type == "user"), key=lambda it: it.file != "personas.jsonl"
    )
    attributes = ("team", "org", "country", "manager")
    ids = [it.id for it in people]
    lists = [[str(it.attributes.get(name, "")) for it in people] for name in attributes]
    connection.execute(
        "CREATE TEMP TABLE people AS SELECT unnest(range(?)) AS n, unnest(?) AS id, unnest(?) AS name, "
        "unnest(?) AS team, unnest(?) AS org, unnest(?) AS country, unnest(?) AS manager",
        [len(people), ids, [id_.replace(".", " ").title() for id_ in ids], *lists],
    )
    connection.execute(f"CREATE TEMP MACRO count_people() AS {len(people)}")
    holders = [(group, it.id) for it in people for group in it.groups]
    connection.execute(
        "CREATE TEMP TABLE holders AS SELECT role, id, row_number() OVER (PARTITION BY role ORDER BY o) - 1 AS n "
        "FROM (SELECT unnest(range(?)) AS o, unnest(?) AS role, unnest(?) AS id)",
        [len(holders), [role for role, _ in holders], [id_ for _, id_ in holders]],
    )


def _set_variables(connection: duckdb.DuckDBPyConnection, directory: Directory, seed: int, scale: float) -> None:
    people = [it.id for it in directory.subjects.values() if it.type == "user"]
    variables: dict[str, object] = {
        "seed": seed,
        "scale": scale,
        "now": int(NOW.timestamp()),
        "colleagues": people[:: max(len(people) // COLLEAGUES, 1)],
        **{name: list(texts(name)) for name in COLLECTIONS},
    }
    for name, value in variables.items():
        connection.execute(f"SET VARIABLE {name} = ?", [value])


def _selected(name: str, type_: str) -> str:
    # DuckDB hands out a TIMESTAMPTZ only where pytz is installed; microseconds it hands out to everybody.
    return f'epoch_us("{name}")' if type_ == "timestamptz" else f'"{name}"'


def _value(type_: str, value: Any) -> Any:  # noqa: ANN401  # a value of any column type
    if value is None:
        return None
    if type_ == "timestamptz":
        return _EPOCH + timedelta(microseconds=value)
    return str(value) if type_ == "uuid" else value


def _quoted(dataset: str) -> str:
    return ".".join(f'"{part}"' for part in dataset.split("."))


def _one(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    row = connection.execute(query).fetchone()
    assert row is not None  # noqa: S101  # a count has a row
    return int(row[0])
