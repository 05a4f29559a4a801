"""The load of a soak: good callers, impatient callers, callers that vanish, and bad callers, all at a modest pace.

Owns what is sent and what may come back. Every decision that is answered is kept as a receipt; an outcome
that a caller of its kind must not see (a bug, a lost connection, an answer to rubbish) is a fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc.aio
from tests.bench.questions import ENFORCER, QUESTIONS
from tests.serving import POLICIES
from tests.soak.receipts import Receipts

from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import audit_service_pb2, policy_service_pb2, types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub
from gatebook.v1.policy_service_pb2_grpc import PolicyServiceStub
from gatebook_client import Check
from gatebook_client.asking import Asking

BATCH_ITEMS = 50
STREAM_MESSAGES = 40
STRANGERS = 500
CALL_SECONDS = 20.0
FAULTS_MAX = 20
REFUSED = frozenset({"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "NOT_FOUND", "UNIMPLEMENTED"})
GONE = frozenset({"CANCELLED", "DEADLINE_EXCEEDED"})
OVERLOAD = frozenset({"RESOURCE_EXHAUSTED"})
RUBBISH = (
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01" + b"\xff" * 600,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00" + b"\xff" * 200,
    b"\x00" * 4_000,
)


class Load:
    """The callers of one run."""

    def __init__(self, target: str, receipts: Receipts, seed: int) -> None:
        """Takes whom to ask and where receipts go."""
        self._target = target
        self._receipts = receipts
        self._random = random.Random(seed)
        self._channel: grpc.aio.Channel | None = None
        self.outcomes: Counter[str] = Counter()
        self.faults: list[str] = []
        self.waits: list[float] = []
        """How long each unary check took, in seconds."""

    async def run(self, seconds: float, pace: float) -> None:
        """Lets every caller call for so long; `pace` multiplies how often."""
        until = time.monotonic() + seconds
        kinds: Sequence[tuple[Callable[[], Awaitable[None]], float]] = (
            (self._check, 30), (self._check, 30), (self._check, 30), (self._check, 30),
            (self._batch, 3), (self._batch, 3),
            (self._stream, 0.2), (self._tail, 0.1), (self._abandoned_tail, 0.2), (self._stream_abandoned, 0.5),
            (self._list, 0.5), (self._entry, 1), (self._publish, 0.03),
            (self._cancelled, 5), (self._out_of_time, 5), (self._malformed, 5), (self._too_large, 0.1),
            (self._rubbish, 2), (self._reconnect, 1),
        )  # fmt: skip
        async with grpc.aio.insecure_channel(self._target) as channel:
            self._channel = channel
            self._access: Any = AccessServiceStub(channel)
            self._audit: Any = AuditServiceStub(channel)
            self._policy: Any = PolicyServiceStub(channel)
            await asyncio.gather(*(self._again(call, 1 / (rate * pace), until) for call, rate in kinds))

    async def _again(self, call: Callable[[], Awaitable[None]], period: float, until: float) -> None:
        """Calls about once in a period until the time is over; an outcome that is not expected is a fault."""
        name = call.__name__.strip("_")
        await asyncio.sleep(self._random.uniform(0, min(period, 1)))
        while (now := time.monotonic()) < until and len(self.faults) < FAULTS_MAX:
            try:
                await call()
            except grpc.aio.AioRpcError as error:
                code = error.code().name
                self.outcomes[f"{name}: {code}"] += 1
                if code not in expected(name):
                    self.faults.append(f"{name}: {code}: {error.details()}")
            else:
                self.outcomes[f"{name}: OK"] += 1
            spent = time.monotonic() - now
            pause = max(0.0, self._random.uniform(0.5, 1.5) * period - spent)
            await asyncio.sleep(min(pause, max(0.0, until - time.monotonic())))

    def _checks(self, count: int) -> tuple[str, Sequence[Check]]:
        """Draws checks: people who may, people who may not, and people whom nobody knows."""
        if self._random.random() < 0.5:
            return "telemetry", [QUESTIONS["telemetry"].check] * count
        drawn = (f"stranger-{self._random.randrange(STRANGERS)}", "alice", "bob", "carol")
        return "basic", [
            Check(self._random.choice(drawn), self._random.choice(("read", "write")), "report:incidents")
            for _ in range(count)
        ]

    def _keep(self, results: Sequence[pb.CheckResult]) -> None:
        for result in results:
            self._receipts.keep(result.decision)

    async def _check(self) -> None:
        policy_set, [check] = self._checks(1)
        request, _ = Asking.of(policy_set, ENFORCER).check_request(check, at_least=0, explain=False, receipt="basic")
        request.explain = self._random.random() < 0.05
        began = time.perf_counter()
        answer = await self._access.CheckAccess(request, timeout=CALL_SECONDS)
        self.waits.append(time.perf_counter() - began)
        self._receipts.keep(answer.decision)

    def _request(self, items: int = BATCH_ITEMS) -> pb.BatchCheckAccessRequest:
        policy_set, checks = self._checks(items)
        request, _ = Asking.of(policy_set, ENFORCER).batch_request(checks, at_least=0, receipt="basic")
        return request

    async def _batch(self) -> None:
        self._keep((await self._access.BatchCheckAccess(self._request(), timeout=CALL_SECONDS)).results)

    async def _stream(self) -> None:
        call = self._access.StreamCheckAccess(timeout=60)
        for _ in range(STREAM_MESSAGES):
            asked = self._request(20)
            await call.write(pb.StreamCheckAccessRequest(policy_set=asked.policy_set, items=asked.items))
            answer = await call.read()
            if answer is grpc.aio.EOF:
                raise await failure_of(call)
            self._keep(answer.results)
            await asyncio.sleep(0.05)
        await call.done_writing()
        await call.read()

    async def _stream_abandoned(self) -> None:
        call = self._access.StreamCheckAccess()
        for _ in range(self._random.randrange(8)):
            asked = self._request(20)
            await call.write(pb.StreamCheckAccessRequest(policy_set=asked.policy_set, items=asked.items))
        await asyncio.sleep(self._random.uniform(0, 0.02))
        call.cancel()

    async def _tail(self) -> None:
        call = self._audit.TailEntries(audit_service_pb2.TailEntriesRequest(), timeout=8)
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for page in call:
                self.outcomes["tailed entries"] += len(page.entries)
        if await call.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            raise await failure_of(call)

    async def _abandoned_tail(self) -> None:
        call = self._audit.TailEntries(audit_service_pb2.TailEntriesRequest(start_index=0))
        await asyncio.sleep(self._random.uniform(0, 0.3))
        call.cancel()

    async def _list(self) -> None:
        asked = audit_service_pb2.EntryFilter(subject_id=self._random.choice(("fiona", "alice", "stranger-1")))
        request = audit_service_pb2.ListEntriesRequest(filter=asked, page_size=20)
        await self._audit.ListEntries(request, timeout=CALL_SECONDS)

    async def _entry(self) -> None:
        request = audit_service_pb2.GetEntryRequest(index=self._random.randrange(max(1, self._receipts.count)))
        await self._audit.GetEntry(request, timeout=CALL_SECONDS)

    async def _publish(self) -> None:
        """Publishes the set `basic` anew: one of two revisions in turn, whose answers are the same."""
        folder = POLICIES / "basic"
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        files["policy.csv"] += self._random.choice((b"", b"# as before\n"))
        request = policy_service_pb2.PublishPolicySetRequest(
            policy_set="basic",
            files=[policy_service_pb2.PolicyFile(path=path, content=content) for path, content in files.items()],
        )
        await self._policy.PublishPolicySet(request, timeout=CALL_SECONDS)

    async def _cancelled(self) -> None:
        call = self._access.BatchCheckAccess(self._request(self._random.choice((1, 50, 200))))
        await asyncio.sleep(self._random.uniform(0, 0.01))
        call.cancel()

    async def _out_of_time(self) -> None:
        call = self._access.BatchCheckAccess(self._request(), timeout=self._random.uniform(0.000_1, 0.02))
        self._keep((await call).results)

    async def _malformed(self) -> None:
        request = self._request(1)
        access = request.items[0].access
        wrong = self._random.randrange(5)
        if wrong == 0:
            access.subject.id = "x" * 300
        elif wrong == 1:
            access.context_json = b"[" * 5_000
        elif wrong == 2:
            request.policy_set = "nowhere"
        elif wrong == 3:
            access.resource.columns.extend(["c"] * 300)
        else:
            access.action.name = ""
        single = pb.CheckAccessRequest(policy_set=request.policy_set, access=access)
        await self._access.CheckAccess(single, timeout=CALL_SECONDS)
        self.faults.append(f"malformed: an answer to {wrong}")

    async def _too_large(self) -> None:
        access = types_pb2.AccessRequest(context_json=b"x" * (21 << 20))
        await self._access.CheckAccess(pb.CheckAccessRequest(access=access), timeout=CALL_SECONDS)
        self.faults.append("too_large: an answer")

    async def _rubbish(self) -> None:
        host, _, port = self._target.rpartition(":")
        loop = asyncio.get_running_loop()
        with socket.socket() as connection:
            connection.setblocking(False)  # noqa: FBT003  # socket takes it by position
            await loop.sock_connect(connection, (host, int(port)))
            with contextlib.suppress(OSError):
                await loop.sock_sendall(connection, self._random.choice(RUBBISH))
                await asyncio.sleep(self._random.uniform(0, 2))

    async def _reconnect(self) -> None:
        """Connects anew, asks once and leaves; the options keep grpc from sharing the connection."""
        options = (("grpc.use_local_subchannel_pool", 1),)
        async with grpc.aio.insecure_channel(self._target, options=options) as channel:
            stub: Any = AccessServiceStub(channel)
            self._keep((await stub.BatchCheckAccess(self._request(1), timeout=CALL_SECONDS)).results)


def expected(kind: str) -> frozenset[str]:
    """Returns the errors that a caller of a kind may get."""
    match kind:
        case "malformed" | "too_large":
            return REFUSED
        case "cancelled" | "out_of_time" | "stream_abandoned" | "abandoned_tail":
            return GONE | OVERLOAD
        case _:
            return OVERLOAD


async def failure_of(call: Any) -> grpc.aio.AioRpcError:  # noqa: ANN401  # the type exists for type checkers alone
    """Returns the error that ended a call, whatever its code."""
    return grpc.aio.AioRpcError(
        await call.code(), grpc.aio.Metadata(), grpc.aio.Metadata(), details=await call.details()
    )
