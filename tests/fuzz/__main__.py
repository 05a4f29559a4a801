"""Looks for faults for as long as it is told: `make fuzz`, or `python -m tests.fuzz --minutes 5`.

Asks engine, reference and Casbin about random models, and has damaged files read. Prints how many requests were asked,
and which documented differences were met. What else is found is written to a file of its own, made as small as can be;
then it exits 1. A case file of `tests/vectors/casbin` repeats it for ever.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

from tests.fuzz.coverage_guided import ATHERIS, READERS, Mutation
from tests.fuzz.finding import Found, write
from tests.fuzz.targets import TARGETS, TURNS
from tests.property.agreement import DisagreementError

FOUND_MAX = 5
"""After so many findings a run stops: they are the same ones again."""
PROGRESS_SECONDS = 30.0
READER_SECONDS = 20.0
"""How long one reader is given damaged files, in a turn of its own."""
READER_ENDS_SECONDS = 600.0
"""How much longer it may take to begin and end, at the lowest priority; it ends slow texts by itself."""
READS = "read "


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
        try:
            run.go(pool, chosen.processes)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
    run.report()
    return 1 if run.found else 0


def rounds(seed: int, *, readers: bool) -> Iterator[tuple[str, int]]:
    """Yields targets in turn, each time with another seed, and after each turn the next reader."""
    each = itertools.cycle(READERS)
    turns = itertools.chain.from_iterable((*TURNS, READS + next(each)) if readers else TURNS for _ in itertools.count())
    return ((target, seed * 1_000_003 + number) for number, target in enumerate(turns))


def one_round(target: str, seed: int, folder: Path) -> Counter[str] | Found:
    """Runs one target once; returns what was met, or what was found."""
    if target.startswith(READS):
        return read_damaged(target.removeprefix(READS), seed, folder)
    try:
        return TARGETS[target].run(seed)
    except DisagreementError as err:
        return Found(target, seed, str(err), err.finding)
    except Exception as err:  # noqa: BLE001  # whatever is raised is a finding
        notes = "\n".join(getattr(err, "__notes__", ()))
        return Found(target, seed, f"{type(err).__name__}: {err}\n{notes}", None)


def read_damaged(reader: str, seed: int, folder: Path) -> Counter[str] | Found:
    """Has one reader read damaged texts for a while."""
    mutation = Mutation(reader, seed=seed, seconds=READER_SECONDS, folder=folder)
    texts, found = mutation.end(READER_SECONDS + READER_ENDS_SECONDS)
    if found:
        return Found(READS + reader, seed, f"{', '.join(map(str, found))}: see {mutation.log}", None)
    return Counter({"texts read": texts})


class Run:
    """One run: which rounds are under way, and what they came to."""

    def __init__(self, seed: int, seconds: float, folder: Path) -> None:
        """Begins now."""
        self.counts: Counter[str] = Counter()
        self.found: list[Path] = []
        self._folder, self._begun, self._seconds = folder, time.monotonic(), seconds
        readers = (ATHERIS / ".ready").exists()
        if not readers:
            tell("atheris is not installed for this Python: no damaged files are read")
        self._rounds = rounds(seed, readers=readers)

    def go(self, pool: ProcessPoolExecutor, processes: int) -> None:
        """Keeps every process busy until the time is over or enough was found."""
        pending: set[Future[Counter[str] | Found]] = set()
        told = self._begun
        while True:
            over = self._elapsed() > self._seconds or len(self.found) >= FOUND_MAX
            while not over and len(pending) < processes:
                pending.add(pool.submit(one_round, *next(self._rounds), self._folder))
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
