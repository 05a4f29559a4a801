"""A newer version always opens the books of older ones: the data directories of each are kept, and go on."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest
from tests.documents import ROOT
from tests.serving import gatebook, serving

from gatebook_client import connect_blocking

BOOKS = ROOT / "tests" / "vectors" / "books"
VERSIONS = sorted(path.name for path in BOOKS.iterdir() if path.is_dir())

every_version = pytest.mark.parametrize("version", VERSIONS)


@pytest.fixture
def data(version: str, tmp_path: Path) -> Path:
    """Unpacks the data directory of a version."""
    with tarfile.open(BOOKS / version / "data.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "data"


def verify(version: str, data: Path, checkpoint: Path) -> dict[str, object]:
    """Verifies a data directory against what was kept elsewhere."""
    kept = BOOKS / version
    options = (
        "--vkey",
        str(kept / "vkey"),
        "--checkpoint",
        str(checkpoint),
        "--receipts",
        str(kept / "receipts.jsonl"),
    )
    done = gatebook("audit", "verify", str(data), *options, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture
def remembered(version: str, tmp_path: Path) -> Path:
    """Returns a copy of the checkpoint that was kept, since verifying replaces it."""
    return Path(shutil.copy(BOOKS / version / "checkpoint", tmp_path / "seen.checkpoint"))


@every_version
def test_a_book_of_an_older_version_verifies_as_it_lies(version: str, data: Path, remembered: Path) -> None:
    """Bytes, meaning, checkpoint and receipts: all that was promised then is kept now."""
    found = verify(version, data, remembered)

    assert found["receipts"] == len((BOOKS / version / "receipts.jsonl").read_text().splitlines())
    assert found["unsigned_entries"]


@every_version
def test_a_book_of_an_older_version_goes_on(version: str, data: Path, remembered: Path) -> None:
    """It is served without naming a set again, old and new entries are read, and it still verifies after two starts."""
    for _ in range(2):
        with serving(data) as server, connect_blocking(server.target, policy_set="telemetry", enforcer="x") as client:
            columns = ["team_id", "tokens_in"]
            decision = client.check("fiona", "read", "ai_usage.token_usage", columns=columns, purpose="cost_management")
            assert decision.allowed
            old = client.entry(10)
            assert old.HasField("request")
            listed = gatebook("audit", "list", "--limit", "1000", "--target", server.target, "--json")
            assert listed.returncode == 0, listed.stderr
    verify(version, data, remembered)


@every_version
def test_a_book_of_an_older_version_is_backed_up(version: str, data: Path, remembered: Path, tmp_path: Path) -> None:
    """What an older version left, killed as it was, is backed up and restored by this one."""
    del remembered
    assert 0 == gatebook("backup", str(tmp_path / "b.tar"), "--data", str(data)).returncode
    kept = BOOKS / version
    done = gatebook(
        "restore", str(tmp_path / "b.tar"), "--data", str(tmp_path / "restored"),
        "--vkey", str(kept / "vkey"), "--checkpoint", str(kept / "checkpoint"), "--continue", "--no-erasures",
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    with serving(tmp_path / "restored") as server:
        assert 0 == gatebook("health", "--target", server.target).returncode
