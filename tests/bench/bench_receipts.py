"""Measures what each level of receipt costs: how long a check takes whose answer brings one, alone and beside others.

`BASIC` says where the entry stands, `FULL` brings its bytes and a signature, `PROOF` waits until a checkpoint covers
the entry, and proves it.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import grpc.aio
from tests.bench.measure import ROOT, show
from tests.bench.questions import QUESTIONS
from tests.serving import serving

from gatebook.v1 import types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub

POLICY_SET = "telemetry"
CHECKS = 256
ALONE_PROVED = 32
AT_ONCE = (1, 64)
LEVELS = ("BASIC", "FULL", "PROOF")


async def latencies(target: str, level: str, at_once: int) -> list[float]:
    """Returns how long each check took, in milliseconds."""
    request = QUESTIONS[POLICY_SET].check_request(POLICY_SET)
    request.receipt_level = types_pb2.ReceiptLevel.Value(f"RECEIPT_LEVEL_{level}")
    found: list[float] = []
    async with grpc.aio.insecure_channel(target) as channel:
        stub = AccessServiceStub(channel)
        await stub.CheckAccess(request)

        async def ask() -> None:
            for _ in range(ALONE_PROVED if level == "PROOF" and at_once == 1 else CHECKS // at_once):
                began = time.perf_counter()
                await stub.CheckAccess(request)
                found.append((time.perf_counter() - began) * 1e3)

        await asyncio.gather(*(ask() for _ in range(at_once)))
    return found


def main() -> None:
    """Prints the table."""
    folder = ROOT / "build" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    with (
        tempfile.TemporaryDirectory(dir=folder) as data,
        serving(Path(data), [ROOT / "policies" / POLICY_SET]) as server,
    ):
        for at_once in AT_ONCE:
            for level in LEVELS:
                cuts = statistics.quantiles(asyncio.run(latencies(server.target, level, at_once)), n=100)
                rows.append((f"{level}, {at_once} at once", *(f"{cuts[part - 1]:,.1f}" for part in (50, 95, 99))))
    show("A check and its receipt, book on disk", ("receipt", "p50 ms", "p95 ms", "p99 ms"), rows, "bench_receipts")


if __name__ == "__main__":
    main()
