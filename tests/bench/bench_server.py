"""Checks per second and latency of the real server, with the book on disk and on a memory file system.

The server runs as `gatebook serve` in a process of its own; the load shares the machine with it. A
round asks in every way at every place in turn, so that a slow moment of the machine hits all alike. A last table says
what durability costs: how much later answers come where the book is synced to a disk, and not to memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
import uvloop
from tests.bench.load import Load, Way, client, run
from tests.bench.measure import ROOT, places, show
from tests.bench.questions import QUESTIONS
from tests.serving import RunningServer, serving

MICROSECONDS = 1_000_000
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Found:
    """What all rounds of one way at one place measured."""

    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    server_cpu_us: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Returns the checks per second."""
        return statistics.median(self.rates)

    def milliseconds(self, part: float) -> float:
        """Returns the latency that this part of the checks does not exceed."""
        return sorted(self.seconds)[int(len(self.seconds) * part)] * 1_000

    def row(self) -> list[str]:
        """Returns the figures as text: rate, p50, p99 and the server's processor time per check."""
        return [
            f"{self.rate:,.0f}",
            f"{self.milliseconds(0.5):.2f}",
            f"{self.milliseconds(0.99):.2f}",
            f"{statistics.median(self.server_cpu_us):,.0f}",
        ]


def server_cpu_seconds(server: RunningServer) -> float:
    """Returns the processor time that a server has used, user and system (proc(5), /proc/pid/stat)."""
    stat = Path(f"/proc/{server.process.pid}/stat").read_text(encoding="ascii")
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


async def measure(
    servers: dict[str, RunningServer], policy_set: str, rounds: int, seconds: float
) -> dict[tuple[str, str], Found]:
    """Measures each way at each place."""
    found: dict[tuple[str, str], Found] = {}
    async with contextlib.AsyncExitStack() as stack:
        asked: list[tuple[str, Way]] = []
        for place, server in servers.items():
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.target))
            gatebook = await stack.enter_async_context(client(server.target, policy_set))
            asked += [(place, way) for way in Load(channel, gatebook, QUESTIONS[policy_set], policy_set).ways()]
        order = list(dict.fromkeys(way.title for _, way in asked))
        asked.sort(key=lambda one: order.index(one[1].title))
        for number in range(rounds + 1):
            for place, way in asked:
                began_cpu = server_cpu_seconds(servers[place])
                measured, spent = await run(way, seconds if number else seconds / 4)
                cpu_us = (server_cpu_seconds(servers[place]) - began_cpu) / measured.checks * MICROSECONDS
                if number:  # round 0 warms up
                    kept = found.setdefault((place, way.title), Found())
                    kept.rates.append(measured.checks / spent)
                    kept.seconds += measured.seconds
                    kept.server_cpu_us.append(cpu_us)
    return found


def cost_of_durability(found: dict[tuple[str, str], Found]) -> list[list[str]]:
    """Returns for each way of asking what a book on disk adds to one in memory, where nothing has to be synced."""
    rows = []
    for way in dict.fromkeys(way for _, way in found):
        disk, memory = found["disk", way], found["memory", way]
        added = [disk.milliseconds(part) - memory.milliseconds(part) for part in (0.5, 0.99)]
        rows.append([way, f"{disk.rate:,.0f}", f"{memory.rate:,.0f}", *(f"{each:+.2f}" for each in added)])
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy-set", choices=sorted(QUESTIONS), default="telemetry")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="the length of one round")
    chosen = parser.parse_args(arguments)
    with places() as folders, contextlib.ExitStack() as stack:
        policies = [ROOT / "policies" / chosen.policy_set]
        servers = {place: stack.enter_context(serving(folder, policies)) for place, folder in folders.items()}
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(measure(servers, chosen.policy_set, chosen.rounds, chosen.seconds))
    header = ["way of asking", "checks/s", "p50 ms", "p99 ms", "server CPU us/check"]
    title = f"`{chosen.policy_set}`: {QUESTIONS[chosen.policy_set].title}; every answer durable in the book, {{place}}"
    module = f"bench_server --policy-set {chosen.policy_set} --rounds {chosen.rounds} --seconds {chosen.seconds:g}"
    for place in folders:
        rows = [[way, *kept.row()] for (where, way), kept in found.items() if where == place]
        show(title.format(place=f"book on {place}"), header, rows, module)
    if "memory" not in folders:
        print("what durability costs is not measured: there is no memory file system")  # noqa: T201  # a benchmark prints
        return
    header = ["way of asking", "durable decisions/s", "in memory", "added p50 ms", "added p99 ms"]
    show(
        "What durability costs: the same checks, in turns, on disk and in memory",
        header,
        cost_of_durability(found),
        module,
    )


if __name__ == "__main__":
    main()
