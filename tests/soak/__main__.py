"""Runs the soak and prints what it found: `make soak`, or `python -m tests.soak --minutes 3`.

Exits 1 when memory, files or threads grow beyond the tolerances in `watch`, when a caller saw what it must
not see, when the book does not verify, or when an acknowledged decision is not in it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.soak.run import Soaked, soak


def main(arguments: Sequence[str] | None = None) -> int:
    """Soaks; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--warm-up-seconds", type=float, default=60.0, help="what is compared with starts here")
    parser.add_argument("--pace", type=float, default=1.0, help="multiplies how often each caller calls")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sample-seconds", type=float, default=5.0)
    parser.add_argument("--folder", type=Path, help="keep the book and the log here")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="gatebook-soak-") as made:
        found = soak(
            chosen.folder or Path(made),
            seconds=chosen.minutes * 60,
            warm_up_seconds=chosen.warm_up_seconds,
            pace=chosen.pace,
            seed=chosen.seed,
            sample_seconds=chosen.sample_seconds,
        )
    report(found)
    return 1 if found.faults else 0


def report(found: Soaked) -> None:
    """Prints what a soak found."""
    verdict = found.verdict
    lines = [
        "",
        *(f"{count:>12,}  {outcome}" for outcome, count in sorted(found.outcomes.items())),
        "",
        f"memory: {verdict.after_warm_up_mib:.1f} MiB after the warm-up, {verdict.at_end_mib:.1f} MiB at the end;",
        f"        fitted to all samples it climbs {verdict.climbed_mib:+.1f} MiB, at most {verdict.tolerance_mib:.1f}",
        f"check:  p50 {found.wait_ms(0.5):.2f} ms, p99 {found.wait_ms(0.99):.2f} ms, of {len(found.waits):,}",
        f"book:   {found.receipts:,} acknowledged decisions, each in the book at its index",
        "",
        *(f"FAULT: {fault}" for fault in found.faults),
        "not soaked" if found.faults else "soaked: flat memory, no lost entry",
    ]
    print("\n".join(lines), flush=True)  # noqa: T201  # a program of its own


if __name__ == "__main__":
    sys.exit(main())
