"""Runs the benchmarks of this folder, one after the other, and prints their tables.

`make bench` runs this. Each table says how to make it again. `--only book` runs those of the book alone, and
`--entries` says how many entries the large book has, which is made once for all that is asked of it:

    make bench ONLY=book ENTRIES=10000000
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENTRIES = 200_000
FIRST = (
    "bench_cerbos",
    "bench_steps",
    "bench_server --policy-set telemetry",
    "bench_server --policy-set basic",
)
BOOK = ("bench_server --policy-set telemetry --rounds 3", "bench_receipts", "bench_postgres")
LARGE = ("bench_verify --rounds 1 --data {data}", "bench_audit --data {data}")
"""Of one book: nothing is added to it before it is verified."""


def main() -> int:
    """Runs the benchmarks; returns how many failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["all", "book"], default="all")
    parser.add_argument("--entries", type=int, default=ENTRIES, help="of the book that is verified and asked")
    asked = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {platform.release()}\n")  # noqa: T201  # a benchmark prints
    folder = ROOT / "build" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    began, failed = time.monotonic(), 0
    with tempfile.TemporaryDirectory(dir=folder, prefix="gatebook-large-") as name:
        data = Path(name) / "data"
        commands = BOOK if asked.only == "book" else every_other()
        commands += (f"big_book {data} --entries {asked.entries}", *(one.format(data=data) for one in LARGE))
        for command in commands:
            words = [sys.executable, "-m", *f"tests.bench.{command}".split()]
            failed += subprocess.run(words, cwd=ROOT, check=False).returncode != 0
    print(f"{time.monotonic() - began:,.0f} s in all, {failed} failed")  # noqa: T201  # a benchmark prints
    return failed


def every_other() -> tuple[str, ...]:
    """Returns all benchmarks but those of the large book, each with its arguments."""
    written = {path.stem for path in Path(__file__).parent.glob("bench_*.py")}
    named = {command.partition(" ")[0] for command in (*FIRST, *LARGE)}
    return (*FIRST, *sorted(written - named))


if __name__ == "__main__":
    sys.exit(main())
