"""Measures `audit verify`: full verification by one process and by several, later runs, and memory.

Makes a book of real entries (`big_book`) and a smaller one to compare memory with, and deletes them; `--data` takes
one that is there. A later run reads only what is new: it is measured from checkpoints of 99% and of 99.9% of the
book, signed for it.

    .venv/bin/python -m tests.bench.bench_verify --entries 10000000
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.big_book import make
from tests.bench.measure import ROOT, show

from gatebook.audit.opening import Layout, sign
from gatebook.audit.tile_folder import TileFolder
from gatebook.audit.verify import Report, verify_book
from gatebook.audit.verify_copy import Copy
from gatebook.tlog.keys import SigningKey, VerifierKey

ENTRIES = 200_000
SMALL_ENTRIES = 10_000
ROUNDS = 3
KIBIBYTES = 1 << 10
WAIT = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(process.pid, 0)
print(used.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""A small process between, since a process is told to have been as large as the one that it was forked from."""


@dataclass(slots=True)
class Found:
    """What all rounds of one way measured."""

    read: int = 0
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    def row(self, name: str) -> list[str]:
        """Returns the figures as text."""
        seconds, cpu = statistics.median(self.seconds), statistics.median(self.cpu_seconds)
        rates = (f"{self.read / seconds:,.0f}", f"{self.read / cpu:,.0f}")
        return [name, f"{self.read:,}", f"{seconds:,.2f}", f"{cpu:,.2f}", *rates]


def cpu_seconds() -> float:
    """Returns the processor time of this process and of those that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def ways(data: Path, jobs: int) -> dict[str, Callable[[], Report]]:
    """Returns what is measured, by name."""
    key = VerifierKey.parse((data / "book" / "vkey").read_text("utf-8"))
    size = verify_size(data)
    public, whole = Copy.at(data / "book"), Copy.at(data)

    def verified(copy: Copy, jobs: int, since: bytes | None = None) -> Callable[[], Report]:
        meaning = copy.meaning(key.name)
        return lambda: verify_book(copy.book, key, wal=copy.wal, since=since, meaning=meaning, jobs=jobs)

    several = sorted({1, jobs})
    found = {f"copy of the book, {count} processes": verified(public, count) for count in several}
    found |= {f"data directory, every seal opened, {count} processes": verified(whole, count) for count in several}
    for part in (0.99, 0.999):
        found[f"copy, since {part:.1%} of it"] = verified(public, jobs, signed(data, int(size * part), size))
    return found


def verify_size(data: Path) -> int:
    """Returns how many entries are published."""
    return int((data / "book" / "checkpoint").read_text("utf-8").splitlines()[1])


def signed(data: Path, size: int, published: int) -> bytes:
    """Returns a checkpoint of a smaller size, as it would have been signed then."""
    key = SigningKey.parse(Layout(data).key.read_text("utf-8"))
    return sign(key, size, TileFolder(data / "book").frontier(size, published).root(), 0).note


def memory(data: Path, jobs: int) -> int:
    """Returns the largest resident set of a process of `gatebook audit verify`, in bytes."""
    command = [sys.executable, "-m", "gatebook", "audit", "verify", str(data / "book"), "--no-remember"]
    command += ["--vkey", str(data / "book" / "vkey"), "--jobs", str(jobs), "--json"]
    done = subprocess.run([sys.executable, "-c", WAIT, *command], capture_output=True, text=True, check=True)
    return int(done.stdout) * KIBIBYTES


def measure(data: Path, small: Path, jobs: int, rounds: int, command: str) -> None:
    """Measures every way in turn, and prints."""
    found: dict[str, Found] = {}
    for _ in range(rounds):
        for name, verify in ways(data, jobs).items():
            began, cpu = time.perf_counter(), cpu_seconds()
            report = verify()
            kept = found.setdefault(name, Found(report.size - report.first_index))
            kept.seconds.append(time.perf_counter() - began)
            kept.cpu_seconds.append(cpu_seconds() - cpu)
    header = ("what is verified", "entries read", "seconds", "CPU s", "entries/s", "entries/CPU s")
    title = f"Verification of a book of {verify_size(data):,} entries: bytes, tiles, and what entries say"
    show(title, header, [kept.row(name) for name, kept in found.items()], command)
    sizes = [(f"{verify_size(each):,} entries", f"{memory(each, jobs) >> 20:,} MiB") for each in (small, data)]
    show("Largest process of `gatebook audit verify`", ("book of", "resident"), sizes, command)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=ENTRIES)
    parser.add_argument("--data", type=Path, help="a data directory that `big_book` made; it is not changed")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args()
    parent = ROOT / "build" / "bench"
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        small, data = Path(folder) / "small", asked.data or Path(folder) / "data"
        make(small, SMALL_ENTRIES)
        if asked.data is None:
            make(data, asked.entries)
        command = f"bench_verify --entries {verify_size(data)} --jobs {asked.jobs} --rounds {asked.rounds}"
        measure(data, small, asked.jobs, asked.rounds, command)


if __name__ == "__main__":
    main()
