"""Gatebook beside Cerbos: the same questions in both, every answer held against the rules.

One run on one machine; load and servers share its cores, and the products take turns within each round. Every answer of
Gatebook is durable in its book on disk before it is sent; Cerbos writes its audit afterwards, in groups, without a sync
for an answer. See `products` for how both are set, `office` for what is asked, and `h2` for where the load comes from.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import gc
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import uvloop
from tests.bench import products
from tests.bench.measure import places, show
from tests.bench.office import Asked, questions
from tests.bench.products import Product, UnansweredError
from tests.bench.rounds import (
    Ask,
    Measured,
    Wire,
    application,
    begin_in_application,
    begin_on_wire,
    closed,
    once,
    open_loop,
)

import gatebook_client
from gatebook.v1 import audit_service_pb2, audit_service_pb2_grpc

MICROSECONDS = 1_000_000
TASKS = 256
TIMEOUT_SECONDS = 30.0
UNARY, ONE_BY_ONE, BATCHES, APPLICATION, UNCOALESCED = (
    "unary, 64 in flight",
    "unary, one at a time",
    "batches of 50, 8 in flight",
    f"application, {TASKS} tasks",
    "the same, coalesce=False",
)
CONNECTIONS = {UNARY: 16, ONE_BY_ONE: 1, BATCHES: 16}
"""As many for both products: the system shares out connections among workers, and few might all fall to one."""
IN_FLIGHT = {UNARY: 64, ONE_BY_ONE: 1, BATCHES: 8}
COMPARED = ("gatebook", "cerbos")
HEADER = ("way of asking", "product", "checks/s", "x Cerbos", "p50 ms", "p99 ms", "server us", "load us", "x by CPU")
"""`us` is processor time per check: of the server, and of what asks it. The last is the ratio of their sums, which a
machine that has other things to do disturbs less than rates."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way of asking one product for so many seconds."""

    title: str
    product: Product
    run: Callable[[float], Awaitable[Measured]]


@dataclass(slots=True)
class Found:
    """What all rounds of one way measured."""

    way: Way
    rounds: list[Measured] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Returns the median of the rates."""
        return statistics.median(one.rate for one in self.rounds)

    @property
    def cpu_us(self) -> tuple[float, float]:
        """Returns the processor time of a check, in microseconds: of the server, and of what asks it."""
        checks = sum(one.checks for one in self.rounds)
        server = sum(one.server_cpu_seconds for one in self.rounds)
        load = sum(one.load_cpu_seconds for one in self.rounds)
        return server / checks * MICROSECONDS, load / checks * MICROSECONDS

    def row(self, peer: Found | None) -> list[str]:
        """Returns the figures as text; latencies are those of all rounds together."""
        ordered = sorted(latency for one in self.rounds for latency in one.latencies)
        server, load = self.cpu_us
        return [
            self.way.title,
            self.way.product.name,
            f"{self.rate:,.0f}",
            f"{self.rate / peer.rate:.2f}" if peer else "",
            f"{ordered[len(ordered) // 2] * 1_000:.2f}",
            f"{ordered[int(len(ordered) * 0.99)] * 1_000:.2f}",
            f"{server:,.0f}",
            f"{load:,.0f}",
            f"{sum(peer.cpu_us) / (server + load):.2f}" if peer else "",
        ]


async def timed(way: Way, seconds: float) -> Measured:
    """Runs one round of a way, with the processor time that both sides used.

    What earlier rounds left is set aside, so that the load does not pause to look through it.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    server, load = way.product.cpu_seconds(), time.process_time()
    measured = await way.run(seconds)
    measured.server_cpu_seconds = way.product.cpu_seconds() - server
    measured.load_cpu_seconds = time.process_time() - load
    return measured


async def wire_way(title: str, product: Product, asked: list[list[Asked]], stack: contextlib.AsyncExitStack) -> Way:
    """Returns a way of asking with requests made beforehand."""
    if product.name not in COMPARED:  # it knows one answer
        asked = [[question for one in asked for question in one if question.allowed]]
    wire = Wire(product, asked, batches=title == BATCHES)
    await wire.open(CONNECTIONS[title])
    stack.callback(wire.close)

    async def run(seconds: float) -> Measured:
        measured = await closed(wire, IN_FLIGHT[title], seconds)
        wire.verify()
        return measured

    return Way(title, product, run)


async def client_of(product: Product, stack: contextlib.AsyncExitStack, *, coalesce: bool = True) -> Ask:
    """Returns how an application asks a product through that product's own Python client."""
    if product.name == "gatebook":
        gatebook = await stack.enter_async_context(
            gatebook_client.connect(
                product.target, policy_set=products.POLICY_SET, timeout_seconds=TIMEOUT_SECONDS, coalesce=coalesce
            )
        )

        async def check(asked: Asked) -> bool:
            question = products.check_of(asked)
            return bool(await gatebook.check(question.subject, question.action, question.resource))

        return check
    sdk = products.cerbos_module("cerbos.sdk.grpc.client")
    cerbos = await stack.enter_async_context(sdk.AsyncCerbosClient(product.target, timeout_secs=TIMEOUT_SECONDS))

    async def is_allowed(asked: Asked) -> bool:
        principal, resource = products.cerbos_principal(asked), products.cerbos_resource(asked)
        return bool(await cerbos.is_allowed(asked.action, principal, resource))

    return is_allowed


async def at_half_load(best: Found, asked: list[list[Asked]], seconds: float) -> Found:
    """Measures latencies at half of the highest rate, asked without waiting for answers."""
    product, half = best.way.product, best.rate / 2
    mixed = [question for one in asked for question in one]
    wrong: list[Asked] = []
    async with contextlib.AsyncExitStack() as stack:
        wire = Wire(product, asked, batches=False)
        await wire.open(CONNECTIONS[UNARY])
        stack.callback(wire.close)
        if best.way.title == UNARY:
            begin = begin_on_wire(wire)
        else:
            begin = begin_in_application(await client_of(product, stack), mixed, wrong)

        async def run(spent: float) -> Measured:
            return await open_loop(begin, half, spent)

        way = Way(best.way.title.partition(",")[0], product, run)
        await timed(way, seconds / 8)
        kept = Found(way, [await timed(way, seconds)])
        wire.verify()
        if wrong:
            raise UnansweredError(f"{product.name}: {len(wrong)} checks were answered otherwise than the rules say")
        return kept


async def measure(
    servers: Sequence[Product], rounds: int, seconds: float
) -> tuple[dict[tuple[str, str], Found], list[list[str]]]:
    """Measures every way of asking, the products in turn, and then the latencies at half load."""
    asked = questions()
    mixed = [question for one in asked for question in one]
    found: dict[tuple[str, str], Found] = {}
    async with contextlib.AsyncExitStack() as stack:
        ways: list[Way] = []
        for title in (UNARY, ONE_BY_ONE, BATCHES):
            ways += [
                await wire_way(title, product, asked, stack)
                for product in servers
                if title != BATCHES or product.name in COMPARED
            ]
        for product in servers:
            for title in (APPLICATION, UNCOALESCED):
                if product.name == "gatebook" or (product.name, title) == ("cerbos", APPLICATION):
                    ask = await client_of(product, stack, coalesce=title == APPLICATION)
                    ways.append(Way(title, product, functools.partial(application, ask, mixed, TASKS)))
        order = (UNARY, ONE_BY_ONE, BATCHES, APPLICATION, UNCOALESCED)
        ways.sort(key=lambda way: order.index(way.title))
        for number in range(rounds + 1):
            for way in ways:
                measured = await timed(way, seconds if number else seconds / 2)
                if number:  # round 0 warms up
                    found.setdefault((way.title, way.product.name), Found(way)).rounds.append(measured)
    late = [
        (await at_half_load(best, asked, 4 * seconds)).row(None)
        for (title, name), best in found.items()
        if title in (UNARY, APPLICATION) and name in COMPARED
    ]
    return found, late


async def compare(servers: Sequence[Product]) -> int:
    """Asks every question once, in batches and one by one; every answer must be the known one. Returns how many."""
    asked = questions()
    for product in servers:
        for batches in (True, False):
            wire = Wire(product, asked, batches=batches)
            await wire.open(1)
            await once(wire, in_flight=4)
            wire.close()
    return sum(len(one) for one in asked)


def entries_in_book(product: Product) -> int:
    """Returns how many entries the book of a running Gatebook has."""
    with grpc.insecure_channel(product.target) as channel:
        stub = audit_service_pb2_grpc.AuditServiceStub(channel)
        return stub.GetCheckpoint(audit_service_pb2.GetCheckpointRequest(refresh=True)).size


def bytes_below(folder: Path) -> int:
    """Returns what all files below a folder occupy."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints. Without the peer the figures stand alone, and the exit code says so."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="the length of one round")
    parser.add_argument("--workers", type=int, default=1, help="the processes of gatebook")
    chosen = parser.parse_args(arguments)
    with_peer = products.cerbos_is_there()
    if not with_peer:
        print("CERBOS IS NOT INSTALLED (`make build/cerbos/.ready` says why): gatebook alone, without comparison")  # noqa: T201  # a benchmark prints
    with places() as folders, contextlib.ExitStack() as stack:
        disk = folders["disk"]
        ours = stack.enter_context(products.gatebook(disk / "gatebook", chosen.workers))
        servers = [ours]
        if with_peer:
            servers.append(stack.enter_context(products.cerbos(disk / "cerbos")))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            count = runner.run(compare(servers))
            servers.append(stack.enter_context(products.empty(disk / "empty")))
            found, late = runner.run(measure(servers, chosen.rounds, chosen.seconds))
        entries = entries_in_book(ours)
        audit = bytes_below(disk / "cerbos" / "audit") if with_peer else 0
    module = f"bench_cerbos --rounds {chosen.rounds} --seconds {chosen.seconds:g} --workers {chosen.workers}"
    rows = [one.row(found.get((title, "cerbos"))) for (title, _), one in found.items()]
    processes = "one process" if chosen.workers == 1 else f"{chosen.workers} workers"
    title = f"{count:,} different questions, half allowed; gatebook: {processes}, every answer durable, on disk"
    show(title, HEADER, rows, module)
    show("Latency at half of the highest rate, open loop, from when each question was due", HEADER, late, module)
    print(f"gatebook's book holds {entries:,} entries; Cerbos's audit store occupies {audit:,} bytes")  # noqa: T201  # as above
    return 0 if with_peer else 1


if __name__ == "__main__":
    sys.exit(main())
