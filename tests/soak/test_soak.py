"""A few minutes of the soak that `make soak` runs for an hour."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.soak.run import soak


@pytest.mark.long
@pytest.mark.timeout(900)
def test_two_minutes(tmp_path: Path) -> None:
    """Under mixed load memory stays flat, nobody sees a bug, and every acknowledged decision is in the book."""
    found = soak(tmp_path, seconds=150, warm_up_seconds=60, pace=1.0, seed=2)

    assert found.faults == ()
    assert found.receipts > 1_000
