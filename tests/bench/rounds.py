"""One round of load: closed loops, in which each asker waits for its answer, and open ones, which do not wait.

A closed loop finds the highest rate. An open one asks at a given rate whether or not answers come, at times drawn
beforehand (Poisson), and counts each latency from when the question was due: a server that stalls, or a load that
comes late, shows in the figures and does not hide in questions that were never asked.

Every answer is kept and held against the known one after the round; one that is wrong or missing fails the benchmark.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from tests.bench import h2
from tests.bench.office import NEW_THING, Asked
from tests.bench.products import Product, UnansweredError

LATE_SECONDS = 10.0
ONCE_SECONDS_MAX = 120.0
SEED = 7

Ask = Callable[[Asked], Awaitable[bool]]


@dataclass(slots=True)
class Measured:
    """What one round measured."""

    checks: int = 0
    spent_seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    server_cpu_seconds: float = 0.0
    load_cpu_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Returns the checks per second."""
        return self.checks / self.spent_seconds


@dataclass(frozen=True, slots=True)
class Sent:
    """A request made beforehand, and the answers it must get."""

    framed: bytes
    expected: list[bool]


class Wire:
    """Requests of one product as bytes, over connections of its own."""

    def __init__(
        self, product: Product, questions: Sequence[Sequence[Asked]], *, batches: bool, new: bool = False
    ) -> None:
        """Encodes the questions: each list as one batch, or one by one in a mixed order.

        Where they are to be `new` (see `office.about_new_things`), no two requests are about the same things.
        """
        self.product = product
        self._new = new
        self._read = product.read_many if batches else product.read_one
        self._path = product.many_path if batches else product.one_path
        if batches:
            self._sent = [Sent(h2.message(product.many(one)), [q.allowed for q in one]) for one in questions]
        else:
            mixed = [question for one in questions for question in one]
            random.Random(SEED).shuffle(mixed)
            self._sent = [Sent(h2.message(product.one(question)), [question.allowed]) for question in mixed]
        self._connections: list[h2.Connection] = []
        self._answers: list[tuple[Sent, bytes]] = []
        self._next = 0

    def __len__(self) -> int:
        """Returns how many different requests there are."""
        return len(self._sent)

    async def open(self, connections: int) -> None:
        """Connects."""
        self._connections = [await h2.connect(self.product.target, self._path) for _ in range(connections)]

    def close(self) -> None:
        """Closes the connections."""
        for connection in self._connections:
            connection.close()

    def ask(self, answered: Callable[[int], None]) -> None:
        """Asks the next request; `answered` gets the number of checks when the answer is there."""
        sent = self._sent[self._next % len(self._sent)]
        connection = self._connections[self._next % len(self._connections)]
        self._next += 1

        def keep(answer: bytes) -> None:
            self._answers.append((sent, answer))
            answered(len(sent.expected))

        # As long as before, so that all that is framed stays as it is.
        framed = sent.framed.replace(NEW_THING, b"%08x" % self._next) if self._new else sent.framed
        connection.call(framed, keep)

    def verify(self) -> None:
        """Reads every answer since the last time; each must be the known one."""
        answers, self._answers = self._answers, []
        for sent, answer in answers:
            if not answer:
                told = next((one.told for one in self._connections if one.told), "it answered with an error")
                raise UnansweredError(f"{self.product.name} failed a call: {told}")
            if self._read(answer) != sent.expected:
                raise UnansweredError(f"{self.product.name} decided otherwise than the rules say")


async def once(wire: Wire, in_flight: int) -> None:
    """Asks every request once."""
    left = iter(range(len(wire)))
    done = asyncio.get_running_loop().create_future()
    running = in_flight

    def begin(_checks: int = 0) -> None:
        nonlocal running
        if next(left, None) is not None:
            wire.ask(begin)
            return
        running -= 1
        if not running:
            done.set_result(None)

    for _ in range(in_flight):
        begin()
    await asyncio.wait_for(done, ONCE_SECONDS_MAX)
    wire.verify()


async def closed(wire: Wire, in_flight: int, seconds: float) -> Measured:
    """Keeps so many requests in flight for so long."""
    measured = Measured()
    began = time.perf_counter()
    done = asyncio.get_running_loop().create_future()
    left = in_flight

    def begin() -> None:
        nonlocal left
        asked = time.perf_counter()
        if asked - began >= seconds:
            left -= 1
            if not left:
                done.set_result(None)
            return

        def answered(checks: int) -> None:
            measured.latencies.append(time.perf_counter() - asked)
            measured.checks += checks
            begin()

        wire.ask(answered)

    for _ in range(in_flight):
        begin()
    await asyncio.wait_for(done, seconds + LATE_SECONDS)
    measured.spent_seconds = time.perf_counter() - began
    return measured


async def application(ask: Ask, questions: Sequence[Asked], tasks: int, seconds: float) -> Measured:
    """Runs so many tasks, each asking one question after the other."""
    measured = Measured()
    began = time.perf_counter()

    async def task(number: int) -> None:
        position = number * 13
        while (asked := time.perf_counter()) - began < seconds:
            question = questions[position % len(questions)]
            position += 1
            if await ask(question) != question.allowed:
                raise UnansweredError("the application was answered otherwise than the rules say")
            measured.latencies.append(time.perf_counter() - asked)
            measured.checks += 1

    await asyncio.gather(*(task(number) for number in range(tasks)))
    measured.spent_seconds = time.perf_counter() - began
    return measured


async def open_loop(begin: Callable[[Callable[[int], None]], None], rate: float, seconds: float) -> Measured:
    """Begins calls at a rate, whether or not earlier ones are answered; `begin` gets what takes how many checks."""
    measured = Measured()
    drawn = random.Random(SEED)
    began = time.perf_counter()
    asked = 0
    due = began

    def at(due: float) -> Callable[[int], None]:
        def answered(checks: int) -> None:
            measured.latencies.append(time.perf_counter() - due)
            measured.checks += checks

        return answered

    while due < began + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        while due <= time.perf_counter() and due < began + seconds:
            begin(at(due))
            asked += 1
            due += drawn.expovariate(rate)
    measured.spent_seconds = time.perf_counter() - began
    late = time.perf_counter() + LATE_SECONDS
    while len(measured.latencies) < asked:
        if time.perf_counter() > late:
            left = asked - len(measured.latencies)
            raise UnansweredError(f"{left} calls were not answered within {LATE_SECONDS:g} s")
        await asyncio.sleep(0.01)
    return measured


def begin_in_application(
    ask: Ask, questions: Sequence[Asked], wrong: list[Asked]
) -> Callable[[Callable[[int], None]], None]:
    """Returns how an open loop begins a task of an application; what is answered wrongly goes to `wrong`."""
    asked = iter(range(10**9))
    running: set[asyncio.Task[None]] = set()

    async def one(question: Asked, answered: Callable[[int], None]) -> None:
        if await ask(question) != question.allowed:
            wrong.append(question)
        answered(1)

    def begin(answered: Callable[[int], None]) -> None:
        question = questions[next(asked) % len(questions)]
        task = asyncio.get_running_loop().create_task(one(question, answered))
        running.add(task)
        task.add_done_callback(running.discard)

    return begin
