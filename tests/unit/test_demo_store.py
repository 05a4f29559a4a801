"""The store of the generated company has the catalogue's shape, and is always the same."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest
from tests.telemetry_sets import DIRECTORY, TELEMETRY

from gatebook.demo.people import write_directory
from gatebook.demo.store import NOW, build_store, read_rows
from gatebook.policy import bundle
from gatebook.policy.catalogue import Catalogue
from gatebook.policy.directory import Directory, load_directory
from gatebook.policy.policy_set import load

SCALE = 0.05
PYTHON_TYPES = {
    "text": str,
    "text[]": list,
    "int": int,
    "bigint": int,
    "numeric": Decimal,
    "bool": bool,
    "uuid": str,
    "timestamptz": datetime,
    "date": date,
    "jsonb": str,
}


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    """Returns the telemetry catalogue."""
    catalogue = load(bundle.read_folder(TELEMETRY)).catalogue
    assert catalogue is not None
    return catalogue


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Directory:
    """Returns the directory of a company of six hundred."""
    folder = tmp_path_factory.mktemp("company")
    write_directory(folder, DIRECTORY / "personas.jsonl", count=600)
    return load_directory(bundle.read_directory_folder(folder))


@pytest.fixture(scope="module")
def store(
    tmp_path_factory: pytest.TempPathFactory, catalogue: Catalogue, company: Directory
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yields a small store."""
    path = tmp_path_factory.mktemp("store") / "telemetry.duckdb"
    build_store(path, catalogue, company, scale=SCALE)
    with duckdb.connect(str(path), read_only=True) as connection:
        yield connection


def fingerprints(connection: duckdb.DuckDBPyConnection, catalogue: Catalogue) -> dict[str, str]:
    """Returns a digest of the rows of each table, in their order."""
    connection.execute("SET TimeZone = 'UTC'")
    found = {}
    for dataset in catalogue.datasets:
        row = connection.execute(f"SELECT md5(string_agg(t::VARCHAR, '|')) FROM {dataset} AS t").fetchone()  # noqa: S608  # a catalogued name
        assert row is not None
        found[dataset] = str(row[0])
    return found


def test_tables_are_those_of_the_catalogue(store: duckdb.DuckDBPyConnection, catalogue: Catalogue) -> None:
    """Every table has every column of the catalogue, filled, and every value has the column's type."""
    for dataset in catalogue.datasets.values():
        rows = read_rows(store, dataset, list(dataset.columns), limit=500)
        for column in dataset.columns.values():
            kinds = {type(row[column.name]) for row in rows} - {type(None)}
            assert {PYTHON_TYPES[column.type]} == kinds, column.node


def test_store_is_the_same_each_time(
    store: duckdb.DuckDBPyConnection,
    catalogue: Catalogue,
    company: Directory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same seed gives the same rows in the same order, wherever the machine stands."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    build_store(tmp_path / "again.duckdb", catalogue, company, scale=SCALE)

    with duckdb.connect(str(tmp_path / "again.duckdb"), read_only=True) as again:
        assert fingerprints(store, catalogue) == fingerprints(again, catalogue)


def test_rows_are_about_people_of_the_directory(
    store: duckdb.DuckDBPyConnection, catalogue: Catalogue, company: Directory
) -> None:
    """Whoever a row is about works at the company; pseudonyms are nobody's id."""
    strangers = set()
    for dataset in catalogue.datasets.values():
        for row in read_rows(store, dataset, dataset.subject_keys, limit=100_000) if dataset.subject_keys else ():
            for value in row.values():
                strangers |= set(value if isinstance(value, list) else [value]) - company.subjects.keys()

    pseudonyms = catalogue.datasets["mlops.training_features"]
    assert {row["subject_pseudo"] for row in read_rows(store, pseudonyms, ["subject_pseudo"])} == strangers


def test_nobody_talks_or_meets_alone(store: duckdb.DuckDBPyConnection, catalogue: Catalogue) -> None:
    """A message has a recipient, a meeting a guest, and neither names its sender or host again."""
    for name, one, others in (
        ("mci.private_conversations", "sender_id", "recipient_ids"),
        ("mci.transcripts", "host_id", "participant_ids"),
    ):
        rows = read_rows(store, catalogue.datasets[name], [one, others])
        assert all(row[others] and row[one] not in row[others] for row in rows), name


def test_dashboard_rows_cover_ten_people(store: duckdb.DuckDBPyConnection, catalogue: Catalogue) -> None:
    """Each row of the team figures is aggregated over at least as many people as the catalogue says."""
    team_daily = catalogue.datasets["ai_usage.team_daily"]
    rows = read_rows(store, team_daily, ["team_id", "active_subjects"])

    assert team_daily.group_minimum <= min(row["active_subjects"] for row in rows)
    assert None in {row["team_id"] for row in rows}


def test_prompts_are_those_that_usage_counts(store: duckdb.DuckDBPyConnection) -> None:
    """Each prompt is one use of a tool, by the same person at the same time."""
    row = store.execute(
        "SELECT count(*), count(usage_id) FROM mci.prompts "
        "LEFT JOIN ai_usage.token_usage USING (prompt_id, subject_id, ts)"
    ).fetchone()

    assert row is not None
    assert row[0] == row[1] > 0


def test_nothing_happens_after_the_recording(store: duckdb.DuckDBPyConnection, catalogue: Catalogue) -> None:
    """Every time lies between spring and the moment at which the company was recorded."""
    for dataset in catalogue.datasets.values():
        if "ts" in dataset.columns:
            times = [row["ts"] for row in read_rows(store, dataset, ["ts"], limit=100_000)]
            assert datetime(2026, 4, 1, tzinfo=UTC) < min(times) <= max(times) <= NOW, dataset.id


def test_texts_hold_what_masks_are_for(store: duckdb.DuckDBPyConnection) -> None:
    """Secure fields, addresses and people's names are there to be masked, and no blank is left unfilled."""
    for query in (
        "SELECT count(*) FROM mci.keystroke_events WHERE is_secure_field",
        "SELECT count(*) FROM mci.prompts WHERE prompt_text LIKE '%@example.com%'",
        "SELECT count(*) FROM mci.screen_frames WHERE redaction_state = 'raw'",
    ):
        row = store.execute(query).fetchone()
        assert row is not None
        assert row[0] > 0, query
    row = store.execute(
        "SELECT count(*) FROM mci.prompts WHERE contains(prompt_text || response_text, '@who')"
    ).fetchone()
    assert (0,) == row
