"""Pandas and Spark read a Parquet export, and find in it what the book says.

Needs Java 17 or newer (the Debian package default-jdk-headless) and `make build/spark/.ready`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.audit_samples import ORIGIN
from tests.filters import SIZE, write_some

from gatebook.audit.book import Book
from gatebook.audit.copied import CopiedBook
from gatebook.audit.export import Export
from gatebook.audit.exported import Shape
from gatebook.audit.people import People
from gatebook.audit.publish import Publisher
from gatebook.tlog.keys import VerifierKey
from gatebook.v1 import types_pb2
from gatebook.v1.audit_service_pb2 import EntryRecord

PYTHON = Path(__file__).parents[2] / "build/spark/bin/python"
PROGRAM = Path(__file__).with_name("export_readers.py")


def exported(data: Path, folder: Path) -> list[EntryRecord]:
    """Writes a book of several days, exports it, and returns its entries."""
    book = Book.open(data, origin=ORIGIN)
    people = People.open(data)
    write_some(book, people, SIZE, 9, timedelta(minutes=97))
    Publisher(book).publish_now()
    people.close()
    book.close()
    copy = CopiedBook(data / "book", VerifierKey.parse((data / "book" / "vkey").read_text("utf-8").strip()))
    Export(folder, ORIGIN, Shape()).run(copy.batches(), copy.checkpoint, copy.note, lambda _done, _total: None)
    return [record for batch in copy.batches() for record in batch]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Provides what both readers find, and what is so."""
    if not PYTHON.exists() or shutil.which("java") is None:
        pytest.skip("needs Java, pyspark and pandas: install default-jdk-headless, and call `make build/spark/.ready`")
    data, folder = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("lake") / "gatebook"
    records = exported(data, folder)
    environment = {**os.environ, "PYSPARK_PYTHON": str(PYTHON), "SPARK_LOCAL_IP": "127.0.0.1"}
    command = [str(PYTHON), str(PROGRAM), str(folder), str(tmp_path_factory.mktemp("warehouse"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=300)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    denied = [record for record in records if record.entry.decision.effect == types_pb2.EFFECT_DENY]
    told["book"] = {
        "indexes": list(range(SIZE)),
        "denials": Counter(str(record.entry.entry_time.ToDatetime().date()) for record in denied),
        "leaf": records[0].leaf_hash.hex(),
        "time": records[0].entry.entry_time.ToMicroseconds(),
        "columns": sum(len([c for c in record.entry.decision.columns if c.column]) for record in records),
    }
    return told


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("reader", "types"), [("pandas", ["int64", "datetime64[us, UTC]"]), ("spark", ["bigint", "timestamp"])]
)
def test_readers_find_what_the_book_says(found: dict[str, Any], reader: str, types: list[str]) -> None:
    """Rows, days, texts, times, lists and hashes are those of the entries, with the types of the reader."""
    told = dict(found[reader])

    assert types == told.pop("types")
    assert found["book"] == told
