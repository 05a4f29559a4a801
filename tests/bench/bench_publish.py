"""What a check waits while a large set is published: latency with and without, at a rate that is well within reach.

The server runs as `gatebook serve` with a set of 110,000 lines. Questions come at random times, drawn beforehand,
whether or not answers come, and each latency counts from when its question was due. Quiet rounds and rounds in
which the set is published again, with another line, take turns; a round ends a second after the publish, in which the
revision before it is freed. Every answer is read afterwards.

The load has a process to itself. Who publishes is another one, which has its request at hand when a round begins, and
only gets processors that nobody else wants: it stands for a machine of its own, on which drafts are published.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import uvloop
from tests.bench import h2
from tests.bench.measure import places, show
from tests.bench.models import model, rbac
from tests.serving import RunningServer, serving

from gatebook.v1 import access_service_pb2, policy_service_pb2, types_pb2

PATH = "/gatebook.v1.AccessService/CheckAccess"
PUBLISH = "/gatebook.v1.PolicyService/PublishPolicySet"
NAME = "large"
QUESTIONS = 4_000
CONNECTIONS = 8
SEED = 20_261_121
LATE_SECONDS = 30.0
PUBLISH_SECONDS_MAX = 600.0
FREEING_SECONDS = 1.0


@dataclass(slots=True)
class Found:
    """What the rounds of one kind measured."""

    rounds: list[list[float]] = field(default_factory=list)
    spent: list[float] = field(default_factory=list)

    def median(self, share: float) -> float:
        """Returns in how many milliseconds this share of the checks of a round was answered: the median of rounds."""
        return statistics.median(late(round_, share) for round_ in self.rounds)

    def row(self, name: str) -> tuple[str, ...]:
        """Returns the figures as text."""
        checks = [latency for round_ in self.rounds for latency in round_]
        figures = [self.median(0.5), self.median(0.99), late(checks, 0.99), max(checks) * 1_000]
        return name, f"{len(checks):,}", f"{statistics.median(self.spent):.1f}", *[f"{it:.1f}" for it in figures]


def late(latencies: Sequence[float], share: float) -> float:
    """Returns in how many milliseconds this share of some checks was answered."""
    return sorted(latencies)[int(len(latencies) * share)] * 1_000


class Asking:
    """Asks questions whose answers are known, over connections of its own."""

    def __init__(self, users: int, connections: Sequence[h2.Connection]) -> None:
        """Draws the questions: half of them are denied."""
        drawn = random.Random(SEED)
        self._connections = connections
        self._asked = []
        for number in range(QUESTIONS):
            user = drawn.randrange(users)
            allowed = bool(number % 2)
            # Group g may read data g // 10, and user u is in group u // 10.
            item = user // 100 if allowed else user // 100 + 1
            access = types_pb2.AccessRequest(
                subject=types_pb2.Subject(id=f"user{user}"),
                action=types_pb2.Action(name="read"),
                resource=types_pb2.Resource(id=f"data{item}"),
            )
            request = access_service_pb2.CheckAccessRequest(policy_set=NAME, access=access)
            self._asked.append((h2.message(request.SerializeToString()), allowed))
        drawn.shuffle(self._asked)
        self._next = 0
        self._answers: list[tuple[bool, bytes]] = []

    async def at_rate(self, rate: float, over: Future[None]) -> list[float]:
        """Asks until `over` is done; returns the latencies."""
        drawn = random.Random(self._next)
        latencies: list[float] = []
        asked = 0
        due = time.perf_counter()
        while not over.done():
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            while due <= time.perf_counter():
                self._ask(due, latencies)
                asked += 1
                due += drawn.expovariate(rate)
        until = time.perf_counter() + LATE_SECONDS
        while len(latencies) < asked:
            if time.perf_counter() > until:
                raise RuntimeError(f"{asked - len(latencies)} questions were not answered")
            await asyncio.sleep(0.01)
        self._verify()
        return latencies

    def _ask(self, due: float, latencies: list[float]) -> None:
        framed, allowed = self._asked[self._next % len(self._asked)]
        connection = self._connections[self._next % len(self._connections)]
        self._next += 1

        def answered(answer: bytes) -> None:
            latencies.append(time.perf_counter() - due)
            self._answers.append((allowed, answer))

        connection.call(framed, answered)

    def _verify(self) -> None:
        answers, self._answers = self._answers, []
        for allowed, answer in answers:
            decision = access_service_pb2.CheckAccessResponse.FromString(answer).decision
            if (decision.effect == types_pb2.EFFECT_ALLOW) is not allowed or not decision.HasField("receipt"):
                raise RuntimeError("a question was answered otherwise than the rules say")


def in_thread(work: Callable[[], object]) -> Future[None]:
    """Runs something in a thread of its own, beside the load."""
    over: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # the future carries it
            over.set_exception(error)
        else:
            over.set_result(None)

    Thread(target=run, daemon=True).start()
    return over


def memory_mib(server: RunningServer) -> int:
    """Returns the memory of a server, in MiB."""
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * 4_096 >> 20


class Publisher:
    """Publishes the set again and again, with another line each time, from a process of its own."""

    def __init__(self, target: str, files: dict[str, bytes]) -> None:
        """Begins the process."""
        spawn = multiprocessing.get_context("spawn")
        self._process = ProcessPoolExecutor(1, mp_context=spawn, initializer=_begin, initargs=(target, files))

    def prepare(self, number: int) -> None:
        """Has a request made, which is not sent yet."""
        self._process.submit(_prepare, number).result()

    def publish(self) -> None:
        """Sends it, and waits until what it replaced had time to be freed."""
        self._process.submit(_publish).result()
        time.sleep(FREEING_SECONDS)

    def close(self) -> None:
        """Ends the process."""
        self._process.shutdown()


class _Draft:
    """What the process of a publisher holds."""

    target = ""
    files: Mapping[str, bytes] = {}
    encoded = b""


def _begin(target: str, files: dict[str, bytes]) -> None:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    _Draft.target, _Draft.files = target, files


def _prepare(number: int) -> None:
    more = {**_Draft.files, "policy.csv": _Draft.files["policy.csv"] + f"p, nobody{number}, data0, read\n".encode()}
    parts = [policy_service_pb2.PolicyFile(path=path, content=content) for path, content in more.items()]
    _Draft.encoded = policy_service_pb2.PublishPolicySetRequest(policy_set=NAME, files=parts).SerializeToString()


def _publish() -> None:
    with grpc.insecure_channel(_Draft.target) as channel:
        publish: Any = channel.unary_unary(PUBLISH)
        publish(_Draft.encoded, timeout=PUBLISH_SECONDS_MAX)


async def measure(
    server: RunningServer, publisher: Publisher, users: int, rate: float, rounds: int, seconds: float
) -> tuple[dict[str, Found], list[int]]:
    """Measures quiet rounds and rounds with a publish in turn."""
    found = {"quiet": Found(), "during a publish": Found()}
    memory = []
    connections = [await h2.connect(server.target, PATH) for _ in range(CONNECTIONS)]
    asking = Asking(users, connections)
    works: dict[str, Callable[[], object]] = {
        "quiet": partial(time.sleep, seconds),
        "during a publish": publisher.publish,
    }
    for number in range(rounds + 1):
        publisher.prepare(number)
        for name, work in works.items():
            began = time.perf_counter()
            over = in_thread(work)
            latencies = await asking.at_rate(rate, over)
            over.result()
            if number:  # round 0 warms up
                found[name].rounds.append(latencies)
                found[name].spent.append(time.perf_counter() - began)
        memory.append(memory_mib(server))
    for connection in connections:
        connection.close()
    return found, memory


@contextlib.contextmanager
def set_of(files: dict[str, bytes], folder: Path) -> Iterator[Path]:
    """Gives a folder with the files."""
    folder.mkdir()
    for path, content in files.items():
        (folder / path).write_bytes(content)
    yield folder


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=110_000)
    parser.add_argument("--rate", type=float, default=200.0, help="questions a second")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="the length of a quiet round")
    chosen = parser.parse_args(arguments)
    rules = chosen.lines // 11
    users = chosen.lines - rules
    text = model("g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act", roles="g = _, _")
    files = {"model.conf": text.encode(), "policy.csv": rbac(rules, users).encode()}
    with places() as folders:
        for place, folder in folders.items():
            with set_of(files, folder / NAME) as policies, serving(folder / "data", [policies], "--dev") as server:
                publisher = Publisher(server.target, files)
                measuring = measure(server, publisher, users, chosen.rate, chosen.rounds, chosen.seconds)
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, contextlib.closing(publisher):
                    found, memory = runner.run(measuring)
            header = ("", "checks", "seconds a round", "p50 ms", "p99 ms", "p99 of all ms", "longest ms")
            title = f"Checks at {chosen.rate:g}/s while a set of {chosen.lines:,} lines is published, book on {place}"
            module = f"bench_publish --lines {chosen.lines} --rate {chosen.rate:g} --rounds {chosen.rounds}"
            show(title, header, [kept.row(name) for name, kept in found.items()], module)
            quiet, during = (kept.median(0.99) for kept in found.values())
            print(f"p99 during a publish: {during / quiet:.2f} times that without (medians of rounds)")  # noqa: T201  # a benchmark prints
            print(f"memory of the server after each publish, MiB: {', '.join(map(str, memory))}\n")  # noqa: T201  # a benchmark prints


if __name__ == "__main__":
    main()
