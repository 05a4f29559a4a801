"""The writer is killed 200 times under load: every acknowledged entry is there, at its index, unchanged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.books import LIMITS, check_log, open_book

import gatebook
from gatebook.audit.book import Book
from gatebook.tlog.merkle import leaf_hash

PROGRAM = Path(__file__).with_name("writer_process.py")
BOOKS, KILLS = 10, 20


@pytest.fixture(scope="module")
def writer_process() -> Iterator[subprocess.Popen[str]]:
    """The program that forks writers and kills them."""
    source = str(Path(gatebook.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": source}
    with subprocess.Popen(
        [sys.executable, PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield process
        if process.stdin:
            process.stdin.close()


def kill_once(process: subprocess.Popen[str], data: Path, seed: int) -> dict[int, str]:
    """Runs and kills one writer; returns the leaf hash that it acknowledged at each index."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{data} {seed}\n")
    process.stdin.flush()
    return dict(json.loads(process.stdout.readline()))


@pytest.mark.parametrize("number", range(BOOKS))
def test_what_was_acknowledged_survives_sigkill(
    memory_path: Path, tmp_path: Path, writer_process: subprocess.Popen[str], number: int
) -> None:
    """A book whose writers were killed 20 times holds every acknowledged entry and still verifies.

    Every other book is on the disk, the rest in memory, where more happens until the kill.
    """
    data = (tmp_path if number % 2 else memory_path) / "data"
    acknowledged: dict[int, str] = {}
    for kill in range(KILLS):
        found = kill_once(writer_process, data, number * KILLS + kill)
        assert not acknowledged.keys() & found.keys()
        acknowledged |= found

    book: Book = open_book(data, limits=LIMITS)
    entries = [entry for at in range(0, book.size, 1_000) for entry in book.read(at, min(at + 1_000, book.size))]
    signed = book.signed.checkpoint.size
    book.close()
    leaves = {index: leaf_hash(entries[index]).hex() for index in acknowledged if index < len(entries)}
    assert acknowledged == leaves
    assert len(acknowledged) > KILLS
    check_log(data, entries, signed)
