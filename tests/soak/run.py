"""One soak: a server, its load, samples of what it holds, and what is in its book at the end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import uvloop
from tests.serving import POLICIES, RunningServer, gatebook
from tests.soak.load import Load
from tests.soak.receipts import Receipts
from tests.soak.watch import Sample, Verdict, judge, look

SETTLE_SECONDS = 3.0
BUGS = frozenset({"bug", "not serving", "book failed", "log lines dropped"})
"""Events of the log that a soak must not see."""


@dataclass(frozen=True, slots=True)
class Soaked:
    """What a soak found; without faults it is passed."""

    verdict: Verdict
    outcomes: dict[str, int]
    receipts: int
    waits: list[float]
    faults: tuple[str, ...]

    def wait_ms(self, share: float) -> float:
        """Returns how long a share of the unary checks took at most, in milliseconds."""
        ordered = sorted(self.waits) or [0.0]
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1_000


def soak(
    folder: Path, *, seconds: float, warm_up_seconds: float, pace: float, seed: int, sample_seconds: float = 5.0
) -> Soaked:
    """Runs a server under load for so long, stops it in order, and reads its book."""
    folder.mkdir(parents=True, exist_ok=True)
    policies = [word for name in ("basic", "telemetry") for word in ("--policies", str(POLICIES / name))]
    policies.append("--dev")  # who calls here may publish
    server = RunningServer(folder / "data", *policies)
    faults: list[str] = []
    with Receipts(folder / "receipts") as receipts:
        load = Load(server.target, receipts, seed)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            samples = runner.run(watched(server, load, receipts, seconds, pace, sample_seconds))
        verdict = judge(samples, warm_up_seconds)
        faults += verdict.faults
        faults += load.faults
        faults += [f"the log says {line}" for line in list(server.lines) if line.get("event") in BUGS]
        if (code := server.stop()) != 0:
            faults.append(f"the server ended with {code}")
        book = folder / "data" / "book"
        verified = gatebook("audit", "verify", str(book), "--vkey", (book / "vkey").read_text().strip(), seconds=3_600)
        if verified.returncode:
            faults.append(f"the book does not verify: {verified.stdout}{verified.stderr}")
        faults += receipts.missing(book)[:10]
    return Soaked(verdict, dict(load.outcomes), receipts.count, load.waits, tuple(faults))


async def watched(
    server: RunningServer, load: Load, receipts: Receipts, seconds: float, pace: float, sample_seconds: float
) -> list[Sample]:
    """Runs the load and looks at the server meanwhile; prints each look."""
    began = time.monotonic()
    samples: list[Sample] = []
    loading = asyncio.create_task(load.run(seconds, pace))
    print(f"{'s':>6} {'RSS MiB':>9} {'files':>6} {'threads':>8} {'CPU s':>8} {'receipts':>10}", flush=True)  # noqa: T201
    while not loading.done():
        await asyncio.wait({loading}, timeout=sample_seconds)
        found = look(server.process.pid, time.monotonic() - began, receipts.count)
        samples.append(found)
        print(  # noqa: T201  # a program of its own
            f"{found.seconds:6.0f} {found.rss_mib:9.1f} {found.files:6} {found.threads:8}"
            f" {found.cpu_seconds:8.1f} {found.receipts:10,}",
            flush=True,
        )
    loading.result()
    return samples
