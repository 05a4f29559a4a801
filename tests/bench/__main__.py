"""Runs every benchmark of this folder, one after the other, and prints their tables.

`make bench` runs this. Each table says how to make it again.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FIRST = (
    "bench_cerbos",
    "bench_steps",
    "bench_server --policy-set telemetry",
    "bench_server --policy-set basic",
)


def main() -> int:
    """Runs the benchmarks; returns how many failed."""
    written = {path.stem for path in Path(__file__).parent.glob("bench_*.py")}
    named = {command.partition(" ")[0] for command in FIRST}
    commands = [*FIRST, *sorted(written - named)]
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {platform.release()}\n")  # noqa: T201  # a benchmark prints
    failed = 0
    for command in commands:
        words = [sys.executable, "-m", *f"tests.bench.{command}".split()]
        failed += subprocess.run(words, cwd=ROOT, check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
