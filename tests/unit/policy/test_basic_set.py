"""The plain set that ships is clean, and its own tests hold."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from gatebook.policy.bundle import ignored_files, read_folder
from gatebook.revisions.validate import validate

FOLDER = Path(__file__).parents[3] / "policies/basic"


def test_basic_set_can_be_published() -> None:
    """Every expectation of the set's own tests holds, and nothing is found wrong with it."""
    found = validate(read_folder(FOLDER), "basic", now=datetime(2026, 6, 1, tzinfo=UTC))

    assert (17, (), ()) == (found.tests_run, found.findings, found.test_failures)
    assert () == ignored_files(FOLDER)
