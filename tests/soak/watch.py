"""What a process holds, sampled over time, and whether it grows.

Owns the rule of a soak: a line is fitted through the samples after the warm-up (least squares), and what it
climbs until the end may not exceed a tolerance.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
KIB = 1 << 10
TOLERANCE_MIB = 16.0
"""What memory may climb by beside a tenth of what it was: allocators keep what they were once given."""
TOLERANCE_SHARE = 0.1
FILES_TOLERANCE = 16
THREADS_TOLERANCE = 4


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a process."""

    seconds: float
    rss_mib: float
    files: int
    threads: int
    cpu_seconds: float
    receipts: int


def look(process_id: int, seconds: float, receipts: int) -> Sample:
    """Looks at a process (proc(5))."""
    proc = Path(f"/proc/{process_id}")
    status = dict(line.split(":", 1) for line in (proc / "status").read_text(encoding="utf-8").splitlines())
    fields = (proc / "stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return Sample(
        seconds=seconds,
        rss_mib=int(status["VmRSS"].split()[0]) * KIB / MIB,
        files=sum(1 for _ in (proc / "fd").iterdir()),
        threads=int(status["Threads"]),
        cpu_seconds=(int(fields[11]) + int(fields[12])) / 100,
        receipts=receipts,
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the samples say."""

    after_warm_up_mib: float
    at_end_mib: float
    climbed_mib: float
    tolerance_mib: float
    faults: tuple[str, ...]


def judge(samples: Sequence[Sample], warm_up_seconds: float) -> Verdict:
    """Says whether the process grew after its warm-up."""
    warm = [sample for sample in samples if sample.seconds >= warm_up_seconds]
    times = [sample.seconds for sample in warm]
    fitted = statistics.linear_regression(times, [sample.rss_mib for sample in warm])
    climbed = fitted.slope * (times[-1] - times[0])
    tenth = max(1, len(warm) // 10)
    first = statistics.median(sample.rss_mib for sample in warm[:tenth])
    last = statistics.median(sample.rss_mib for sample in warm[-tenth:])
    tolerance = TOLERANCE_MIB + TOLERANCE_SHARE * first
    faults = []
    if climbed > tolerance:
        faults.append(f"memory climbs by {climbed:.1f} MiB, at most {tolerance:.1f} are tolerated")
    if last - first > tolerance:
        faults.append(f"memory was {first:.1f} MiB after the warm-up and is {last:.1f} MiB at the end")
    for name, allowed in (("files", FILES_TOLERANCE), ("threads", THREADS_TOLERANCE)):
        before = max(getattr(sample, name) for sample in warm[: len(warm) // 2])
        after = max(getattr(sample, name) for sample in warm[len(warm) // 2 :])
        if after > before + allowed:
            faults.append(f"{name} grow: at most {before} in the first half, {after} in the second")
    return Verdict(first, last, climbed, tolerance, tuple(faults))
