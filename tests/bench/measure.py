"""How the benchmarks measure, where they keep their books, and how they print.

The machine is shared and its speed swings, so every figure is the median of several rounds, and
candidates that are compared take turns within a round.
"""

from __future__ import annotations

import contextlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
MEMORY = Path("/dev/shm")  # noqa: S108  # the memory file system is what is measured
ROUNDS = 5
ROUND_SECONDS = 0.1
TABLE_WIDTH = 120

Step = Callable[[], object]


def microseconds(
    steps: Mapping[str, Step], rounds: int = ROUNDS, round_seconds: float = ROUND_SECONDS
) -> dict[str, float]:
    """Returns the median time of one run of each step, in microseconds."""
    counts = {name: _count(step, round_seconds) for name, step in steps.items()}
    samples: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            repeat = range(counts[name])
            began = time.perf_counter_ns()
            for _ in repeat:
                step()
            samples[name].append((time.perf_counter_ns() - began) / counts[name] / 1_000)
    return {name: statistics.median(found) for name, found in samples.items()}


def _count(step: Step, round_seconds: float) -> int:
    """Returns how often a step runs in one round; running it for the first time warms it."""
    step()
    count = 1
    while True:
        began = time.perf_counter()
        for _ in range(count):
            step()
        if (spent := time.perf_counter() - began) >= round_seconds / 4:
            return max(1, int(count * round_seconds / spent))
        count *= 4


@contextlib.contextmanager
def places() -> Iterator[dict[str, Path]]:
    """Gives an empty folder on disk and, where there is one, another on a memory file system."""
    disk = ROOT / "build" / "bench"
    disk.mkdir(parents=True, exist_ok=True)
    parents = {"disk": disk} | ({"memory": MEMORY} if MEMORY.is_dir() else {})
    made = {name: Path(tempfile.mkdtemp(prefix="gatebook-bench-", dir=parent)) for name, parent in parents.items()}
    try:
        yield made
    finally:
        for folder in made.values():
            shutil.rmtree(folder, ignore_errors=True)


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], module: str) -> None:
    """Prints a table and the command that makes it again."""
    table = Table()
    for position, name in enumerate(header):
        table.add_column(name, justify="right" if position else "left")
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    console.print(title, style="bold", soft_wrap=True)
    console.print(table)
    console.print(f"repeat: .venv/bin/python -m tests.bench.{module}\n", style="dim", soft_wrap=True)
