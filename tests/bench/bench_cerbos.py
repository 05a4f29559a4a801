"""Gatebook beside Cerbos: the same questions in both, every answer held against the rules.

One run on one machine; load and servers share its cores, and the products take turns within each round. Every answer of
Gatebook is durable in its book on disk before it is sent; Cerbos writes its audit afterwards, in groups, without a sync
for an answer. What either does after its answers is waited for and counted to the round that it follows. See `products`
for how both are set, `office` for what is asked, and `h2` for where the load comes from.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import gc
import os
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
from tests.bench.office import Asked, about_new_things, questions
from tests.bench.products import Product, UnansweredError
from tests.bench.rounds import (
    Ask,
    Measured,
    Wire,
    application,
    begin_in_application,
    closed,
    once,
    open_loop,
)

import gatebook_client
from gatebook.v1 import audit_service_pb2, audit_service_pb2_grpc

MICROSECONDS = 1_000_000
TASKS = 256
TIMEOUT_SECONDS = 30.0
UNARY, ONE_BY_ONE, BATCHES, NEW_BATCHES, APPLICATION, UNCOALESCED = (
    "unary, 64 in flight",
    "unary, one at a time",
    "batches of 50, 8 in flight",
    "such, never asked before",
    f"application, {TASKS} tasks",
    "the same, coalesce=False",
)
CONNECTIONS = {UNARY: 16, ONE_BY_ONE: 1, BATCHES: 16, NEW_BATCHES: 16}
"""As many for both products: the system shares out connections among workers, and few might all fall to one."""
IN_FLIGHT = {UNARY: 64, ONE_BY_ONE: 1, BATCHES: 8, NEW_BATCHES: 8}
IN_MANY = (BATCHES, NEW_BATCHES)
PASSES, ODD_CONNECTIONS = 12, 15
"""All questions are asked so often beforehand, each time over other connections: every worker has seen them twice.
Gatebook remembers requests; the row of those that were never asked before says what that is worth."""
HALF_LOAD = (UNARY, BATCHES, APPLICATION)
SETTLED_SHARE = 0.05
"""A server that uses no more of a processor than this has done what it had to do after its answers."""
SETTLE_LOOK_SECONDS = 0.2
SETTLE_SECONDS_MAX = 4.0
HEADER = ("way of asking", "product", "checks/s", "x Cerbos", "p50 ms", "p99 ms", "server us", "load us", "x by CPU")
"""`us` is processor time per check: of the server, and of what asks it. The last is the ratio of their sums, which a
machine that has other things to do disturbs less than rates. That of a server includes what it does afterwards."""
LATE_HEADER = (
    "asked at half of the highest rate",
    "product",
    "checks/s",
    "p50 ms",
    "p99 ms",
    "server us",
    "load us",
    "load",
)
"""The last is how much of a processor the load took by itself: where that is much, latencies are its own."""


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

    @property
    def latencies_ms(self) -> tuple[str, str]:
        """Returns p50 and p99 of all rounds together, as text."""
        ordered = sorted(latency for one in self.rounds for latency in one.latencies)
        return f"{ordered[len(ordered) // 2] * 1_000:.2f}", f"{ordered[int(len(ordered) * 0.99)] * 1_000:.2f}"

    def row(self, peer: Found | None) -> list[str]:
        """Returns the figures as text."""
        server, load = self.cpu_us
        return [
            self.way.title,
            self.way.product.name,
            f"{self.rate:,.0f}",
            f"{self.rate / peer.rate:.2f}" if peer else "",
            *self.latencies_ms,
            f"{server:,.1f}",
            f"{load:,.1f}",
            f"{sum(peer.cpu_us) / (server + load):.2f}" if peer else "",
        ]

    def late_row(self) -> list[str]:
        """Returns the figures at a given rate as text."""
        server, load = self.cpu_us
        share = statistics.median(one.load_cpu_seconds / one.spent_seconds for one in self.rounds)
        rate = f"{self.rate:,.0f}"
        texts = (f"{server:,.1f}", f"{load:,.1f}", f"{share:.0%}")
        return [self.way.title, self.way.product.name, rate, *self.latencies_ms, *texts]


async def timed(way: Way, seconds: float) -> Measured:
    """Runs one round of a way, with the processor time that both sides used.

    What earlier rounds left is set aside, so that the load does not pause to look through it.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    server, load = way.product.cpu_seconds(), time.process_time()
    measured = await way.run(seconds)
    measured.load_cpu_seconds = time.process_time() - load
    await settled(way.product)
    measured.server_cpu_seconds = way.product.cpu_seconds() - server
    return measured


async def settled(product: Product) -> None:
    """Waits until a server has done what it does after its answers, so that it is not the next one's burden."""
    until, used = time.perf_counter() + SETTLE_SECONDS_MAX, product.cpu_seconds()
    while time.perf_counter() < until:
        await asyncio.sleep(SETTLE_LOOK_SECONDS)
        before, used = used, product.cpu_seconds()
        if used - before <= SETTLED_SHARE * SETTLE_LOOK_SECONDS:
            return


async def wire_way(title: str, product: Product, asked: list[list[Asked]], stack: contextlib.AsyncExitStack) -> Way:
    """Returns a way of asking with requests made beforehand."""
    if product.name == products.EMPTY:  # it knows one answer
        asked = [[question for one in asked for question in one if question.allowed]]
    new = title == NEW_BATCHES
    wire = Wire(product, about_new_things(asked) if new else asked, batches=title in IN_MANY, new=new)
    await wire.open(CONNECTIONS[title])
    stack.callback(wire.close)

    async def run(seconds: float) -> Measured:
        measured = await closed(wire, IN_FLIGHT[title], seconds)
        wire.verify()
        return measured

    return Way(title, product, run)


async def client_of(product: Product, stack: contextlib.AsyncExitStack, *, coalesce: bool = True) -> Ask:
    """Returns how an application asks a product through that product's own Python client."""
    if product.name != products.CERBOS_NAME:
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


async def way_at_half_load(best: Found, asked: list[list[Asked]], stack: contextlib.AsyncExitStack) -> Way:
    """Returns a way of asking at half of the highest rate, without waiting for answers."""
    product, half = best.way.product, best.rate / 2
    if best.way.title == APPLICATION:
        mixed = [question for one in asked for question in one]
        wrong: list[Asked] = []
        begin = begin_in_application(await client_of(product, stack), mixed, wrong)

        async def run(seconds: float) -> Measured:
            measured = await open_loop(begin, half, seconds)
            if wrong:
                raise UnansweredError(f"{product.name}: {len(wrong)} checks were answered otherwise than the rules say")
            return measured

        return Way("application, its own client", product, run)
    batches = best.way.title == BATCHES
    wire = Wire(product, asked, batches=batches)
    await wire.open(CONNECTIONS[best.way.title])
    stack.callback(wire.close)

    async def run_on_wire(seconds: float) -> Measured:
        # A check in a batch waits as long as its batch.
        measured = await open_loop(wire.ask, half / len(asked[0]) if batches else half, seconds)
        wire.verify()
        return measured

    return Way("batches of 50, on the wire" if batches else "unary, on the wire", product, run_on_wire)


async def in_turns(ways: Sequence[Way], rounds: int, seconds: float) -> dict[tuple[str, str], Found]:
    """Measures ways of asking, each once in every round; round 0 warms up."""
    found: dict[tuple[str, str], Found] = {}
    for number in range(rounds + 1):
        for way in ways:
            measured = await timed(way, seconds if number else seconds / 2)
            if number:
                found.setdefault((way.title, way.product.name), Found(way)).rounds.append(measured)
    return found


async def measure(
    servers: Sequence[Product], rounds: int, seconds: float
) -> tuple[dict[tuple[str, str], Found], list[list[str]]]:
    """Measures every way of asking, the products in turn, and then the latencies at half load."""
    asked = questions()
    mixed = [question for one in asked for question in one]
    async with contextlib.AsyncExitStack() as stack:
        ways: list[Way] = []
        for title in IN_FLIGHT:
            ways += [
                await wire_way(title, product, asked, stack)
                for product in servers
                if title not in IN_MANY or product.name != products.EMPTY
            ]
        for product in servers:
            for title in (APPLICATION, UNCOALESCED):
                ours = product.name not in (products.CERBOS_NAME, products.EMPTY)
                if ours or (product.name, title) == (products.CERBOS_NAME, APPLICATION):
                    ask = await client_of(product, stack, coalesce=title == APPLICATION)
                    ways.append(Way(title, product, functools.partial(application, ask, mixed, TASKS)))
        order = (*IN_FLIGHT, APPLICATION, UNCOALESCED)
        ways.sort(key=lambda way: order.index(way.title))
        found = await in_turns(ways, rounds, seconds)
    async with contextlib.AsyncExitStack() as stack:
        late_ways = [
            await way_at_half_load(best, asked, stack)
            for (title, name), best in found.items()
            if title in HALF_LOAD and name != products.EMPTY
        ]
        late = await in_turns(late_ways, max(1, rounds // 2), 2 * seconds)
    return found, [one.late_row() for one in late.values()]


async def compare(servers: Sequence[Product]) -> int:
    """Asks every question, in batches and one by one; every answer must be the known one. Returns how many."""
    asked = questions()
    for product in servers:
        for batches, passes in ((True, PASSES), (False, 1)):
            wire = Wire(product, asked, batches=batches)
            await wire.open(ODD_CONNECTIONS)
            for _ in range(passes):
                await once(wire, in_flight=8)
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
    parser.add_argument("--seconds", type=float, default=1.0, help="the length of one round")
    cores = os.cpu_count() or 1
    parser.add_argument(
        "--workers",
        type=int,
        nargs="*",
        default=sorted({1, cores}),
        help="the processes of gatebook: 1, and one a core",
    )
    chosen = parser.parse_args(arguments)
    with_peer = products.cerbos_is_there()
    if not with_peer:
        print("CERBOS IS NOT INSTALLED (`make build/cerbos/.ready` says why): gatebook alone, without comparison")  # noqa: T201  # a benchmark prints
    with places() as folders, contextlib.ExitStack() as stack:
        disk = folders["disk"]
        ours = [stack.enter_context(products.gatebook(disk / f"gatebook-{n}", n)) for n in chosen.workers]
        servers = list(ours)
        if with_peer:
            servers.append(stack.enter_context(products.cerbos(disk / "cerbos")))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            count = runner.run(compare(servers))
            servers.append(stack.enter_context(products.empty(disk / "empty")))
            found, late = runner.run(measure(servers, chosen.rounds, chosen.seconds))
        entries = [entries_in_book(one) for one in ours]
        audit = bytes_below(disk / "cerbos" / "audit") if with_peer else 0
    workers = " ".join(map(str, chosen.workers))
    module = f"bench_cerbos --rounds {chosen.rounds} --seconds {chosen.seconds:g} --workers {workers}"
    rows = [one.row(found.get((title, products.CERBOS_NAME))) for (title, _), one in found.items()]
    show(
        f"{count:,} different questions, half allowed; every answer of gatebook durable, on disk", HEADER, rows, module
    )
    show("Latency at half of the highest rate, open loop, from when each question was due", LATE_HEADER, late, module)
    books = " and ".join(f"{size:,}" for size in entries)
    print(f"gatebook's first books hold {books} entries; Cerbos's audit store occupies {audit:,} bytes")  # noqa: T201  # as above
    return 0 if with_peer else 1


if __name__ == "__main__":
    sys.exit(main())
