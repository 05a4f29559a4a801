"""A place for books that need no disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")  # noqa: S108 - only to choose the file system; the folder's name is random


@pytest.fixture
def memory_path(tmp_path: Path) -> Iterator[Path]:
    """A folder on a memory file system where there is one: a test that syncs a thousand times stays quick."""
    if not MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)
