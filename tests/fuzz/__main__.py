"""Compares engine, reference and Casbin for as long as it is told: `make fuzz`, or `python -m tests.fuzz --minutes 5`.

Prints how many requests were asked, and which documented differences were met. What else is found is written to a
file of its own, made as small as can be; then it exits 1. A case file of `tests/vectors/casbin` repeats it for ever.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

from tests.fuzz.finding import Found, write
from tests.fuzz.targets import TARGETS, TURNS
from tests.property.agreement import DisagreementError

FOUND_MAX = 5
"""After so many findings a run stops: they are the same ones again."""
PROGRESS_SECONDS = 30.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Compares; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)), help="repeats a run")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz/found"), help="where findings are written")
    chosen = parser.parse_args(arguments)
    tell(f"seed {chosen.seed}, {chosen.minutes:g} minutes, {chosen.processes} processes")
    run = Run(chosen.seed, chosen.minutes * 60, chosen.folder)
    with ProcessPoolExecutor(chosen.processes) as pool:
        run.go(pool, chosen.processes)
    run.report()
    return 1 if run.found else 0


def one_round(target: str, seed: int) -> Counter[str] | Found:
    """Runs one target once; returns what was met, or what was found."""
    try:
        return TARGETS[target].run(seed)
    except DisagreementError as err:
        return Found(target, seed, str(err), err.finding)
    except Exception as err:  # noqa: BLE001  # whatever is raised is a finding
        notes = "\n".join(getattr(err, "__notes__", ()))
        return Found(target, seed, f"{type(err).__name__}: {err}\n{notes}", None)


class Run:
    """One run: which rounds are under way, and what they came to."""

    def __init__(self, seed: int, seconds: float, folder: Path) -> None:
        """Begins now."""
        self.counts: Counter[str] = Counter()
        self.found: list[Path] = []
        self._folder, self._begun, self._seconds = folder, time.monotonic(), seconds
        self._rounds = ((target, seed * 1_000_003 + number) for number, target in enumerate(itertools.cycle(TURNS)))

    def go(self, pool: ProcessPoolExecutor, processes: int) -> None:
        """Keeps every process busy until the time is over or enough was found."""
        pending: set[Future[Counter[str] | Found]] = set()
        told = self._begun
        while True:
            over = self._elapsed() > self._seconds or len(self.found) >= FOUND_MAX
            while not over and len(pending) < processes:
                pending.add(pool.submit(one_round, *next(self._rounds)))
            if not pending:
                return
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                self._take(future.result())
            if time.monotonic() - told > PROGRESS_SECONDS:
                told = time.monotonic()
                self._progress()

    def report(self) -> None:
        """Prints what the run came to."""
        self._progress()
        for what, count in sorted(self.counts.items()):
            tell(f"{count:>14,}  {what}")
        tell(*(f"FOUND: {path}" for path in self.found))
        tell("they part" if self.found else "they agree")

    def _take(self, came: Counter[str] | Found) -> None:
        if isinstance(came, Found):
            path = write(came, self._folder)
            self.found.append(path)
            tell(f"FOUND by `{came.target}`, seed {came.seed}: {path}", came.text)
        else:
            self.counts.update(came)

    def _progress(self) -> None:
        asked, elapsed = self.counts["requests"], self._elapsed()
        rate = asked / max(elapsed, 1.0)
        tell(f"{elapsed / 60:6.1f} min  {asked:>12,} requests  {rate:8,.0f}/s  {len(self.found)} found")

    def _elapsed(self) -> float:
        return time.monotonic() - self._begun


def tell(*lines: str) -> None:
    """Prints lines at once."""
    for line in lines:
        print(line, flush=True)  # noqa: T201  # a program of its own


if __name__ == "__main__":
    sys.exit(main())
