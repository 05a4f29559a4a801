"""Load for the server's benchmark: requests made beforehand, answers read afterwards.

Owns the ways of asking. Requests are bytes that were encoded once and answers are kept as bytes, so
that the load costs little beside the server on the same cores. After each round every answer is read:
an error or a denial in place of an allow fails the benchmark, since refusing is always fast.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import grpc.aio
from tests.bench.questions import ENFORCER, Question

import gatebook_client
from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import types_pb2

SERVICE = "/gatebook.v1.AccessService"
BATCH_ITEMS = 50


@dataclass(slots=True)
class Round:
    """What one round measured: `checks` answered, and the seconds of each exchange."""

    until: float
    checks: int = 0
    seconds: list[float] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)

    def take(self, began: float, checks: int, answer: bytes = b"") -> None:
        """Notes one exchange."""
        self.seconds.append(time.perf_counter() - began)
        self.checks += checks
        if answer:
            self.answers.append(answer)


@dataclass(frozen=True, slots=True)
class Way:
    """A way of asking: what runs `in_flight` times at once until the round is over."""

    title: str
    in_flight: int
    ask: Callable[[Round], Awaitable[None]]
    read: Callable[[bytes], list[types_pb2.Decision]]


async def run(way: Way, seconds: float) -> tuple[Round, float]:
    """Runs one round; returns what it measured and how long it took."""
    began = time.perf_counter()
    found = Round(began + seconds)
    await asyncio.gather(*(way.ask(found) for _ in range(way.in_flight)))
    spent = time.perf_counter() - began
    decisions = [decision for answer in found.answers for decision in way.read(answer)]
    if found.answers and len(decisions) != found.checks:
        raise RuntimeError(f"{way.title}: {len(decisions)} decisions for {found.checks} checks")
    if any(decision.effect != types_pb2.EFFECT_ALLOW for decision in decisions):
        raise RuntimeError(f"{way.title}: a check was not allowed")
    return found, spent


class Load:
    """Asks one question over one channel, and over one connection of the client."""

    def __init__(
        self, channel: grpc.aio.Channel, gatebook: gatebook_client.Connection, question: Question, policy_set: str
    ) -> None:
        """Encodes the requests."""
        batch = question.batch_request(policy_set, BATCH_ITEMS)
        message = pb.StreamCheckAccessRequest(policy_set=policy_set, items=batch.items)
        self._question = question.check
        self._gatebook = gatebook
        self._check_bytes = question.check_request(policy_set).SerializeToString()
        self._batch_bytes = batch.SerializeToString()
        self._message_bytes = message.SerializeToString()
        # Without serializers both ends of a call are bytes.
        self._check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"{SERVICE}/CheckAccess")
        self._batch: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"{SERVICE}/BatchCheckAccess")
        self._stream: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
            f"{SERVICE}/StreamCheckAccess"
        )

    def ways(self) -> list[Way]:
        """Returns the ways to measure."""
        return [
            Way("unary, 1 in flight", 1, self._ask_one, read_check),
            Way("unary, 64 in flight", 64, self._ask_one, read_check),
            Way(f"batch of {BATCH_ITEMS}, 1 in flight", 1, self._ask_batch, read_batch),
            Way(f"batch of {BATCH_ITEMS}, 4 in flight", 4, self._ask_batch, read_batch),
            Way(f"4 streams, {BATCH_ITEMS} checks a message", 4, self._ask_stream, read_stream),
            Way("gatebook_client, 64 tasks", 64, self._ask_client, read_check),
        ]

    async def _ask_one(self, found: Round) -> None:
        while (began := time.perf_counter()) < found.until:
            found.take(began, 1, await self._check(self._check_bytes))

    async def _ask_batch(self, found: Round) -> None:
        while (began := time.perf_counter()) < found.until:
            found.take(began, BATCH_ITEMS, await self._batch(self._batch_bytes))

    async def _ask_stream(self, found: Round) -> None:
        call = self._stream()
        while (began := time.perf_counter()) < found.until:
            await call.write(self._message_bytes)
            answer = await call.read()
            if not isinstance(answer, bytes):
                raise RuntimeError(f"the stream ended: {await call.details()}")  # noqa: TRY004  # the service's end
            found.take(began, BATCH_ITEMS, answer)
        await call.done_writing()
        await call.read()

    async def _ask_client(self, found: Round) -> None:
        asked = self._question
        while (began := time.perf_counter()) < found.until:
            decision = await self._gatebook.check(
                asked.subject,
                asked.action,
                asked.resource,
                columns=asked.columns,
                purpose=asked.purpose,
                context=asked.context,
            )
            if not decision:
                raise RuntimeError(f"the client's check was not allowed: {decision}")
            found.take(began, 1)


def read_check(answer: bytes) -> list[types_pb2.Decision]:
    """Reads the answer to one check."""
    return [pb.CheckAccessResponse.FromString(answer).decision]


def read_batch(answer: bytes) -> list[types_pb2.Decision]:
    """Reads the answers to a batch; an error counts as an empty decision."""
    return [result.decision for result in pb.BatchCheckAccessResponse.FromString(answer).results]


def read_stream(answer: bytes) -> list[types_pb2.Decision]:
    """Reads the answers in one message of a stream; an error counts as an empty decision."""
    return [result.decision for result in pb.StreamCheckAccessResponse.FromString(answer).results]


def client(target: str, policy_set: str) -> gatebook_client.Connection:
    """Returns a connection of the client for a round."""
    return gatebook_client.connect(target, policy_set=policy_set, enforcer=ENFORCER, timeout_seconds=30)
