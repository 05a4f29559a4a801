"""Callers who do not keep to HTTP/2, gRPC or the contract: they get nothing but refusals, and nobody else suffers.

Beside each attack a good caller asks all the time. It must get every answer, the server must stay within its
memory and its descriptors, and at the end the book must verify and hold every answer that was given.
"""

from __future__ import annotations

import gzip
import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Self

import grpc
import pytest
from tests.contract.conftest import require_verified
from tests.http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    Raw,
    frame,
    message,
    request,
)
from tests.serving import POLICIES, RunningServer, serving
from tests.soak.receipts import Receipts
from tests.soak.watch import look

from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub

CHECK = "/gatebook.v1.AccessService/CheckAccess"
BATCH = "/gatebook.v1.AccessService/BatchCheckAccess"
STREAM = "/gatebook.v1.AccessService/StreamCheckAccess"
TAIL = "/gatebook.v1.AuditService/TailEntries"
WATCH = "/grpc.health.v1.Health/Watch"
MIB = 1 << 20
WINDOW = 65_535
"""What may be sent on a stream before the server asks for more (RFC 9113 s6.9.2)."""
GROWTH_MIB_MAX = 256.0
"""What the server may hold more at any moment of an attack than before it."""
FILES_MAX = 64
ANSWERS_LEAST = 5
ACCESS = types_pb2.AccessRequest(
    subject=types_pb2.Subject(id="alice"),
    action=types_pb2.Action(name="read"),
    resource=types_pb2.Resource(id="report:weekly"),
)
QUESTION = pb.CheckAccessRequest(access=ACCESS)


class Good:
    """A caller who asks one question after the other, on a thread of its own, and keeps every receipt."""

    def __init__(self, server: RunningServer, receipts: Receipts) -> None:
        """Takes whom to ask."""
        self._server = server
        self._receipts = receipts
        self._stop = threading.Event()
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answers = 0
        self.failures: list[str] = []
        self.grown_mib = 0.0

    def _run(self) -> None:
        process = self._server.process.pid
        before = look(process, 0, 0).rss_mib
        with self._server.channel() as channel:
            stub: Any = AccessServiceStub(channel)
            while not self._stop.is_set() and len(self.failures) < 10:
                try:
                    decision = stub.CheckAccess(QUESTION, timeout=20).decision
                except grpc.RpcError as error:
                    self.failures.append(f"{error.code()}: {error.details()}")
                    continue
                self._receipts.keep(decision)
                self.answers += 1
                self.grown_mib = max(self.grown_mib, look(process, 0, 0).rss_mib - before)
                if self.answers >= ANSWERS_LEAST:
                    self._enough.set()
                self._stop.wait(0.002)

    def __enter__(self) -> Self:
        """Begins to ask, and waits for the first answers."""
        self._thread.start()
        assert self._enough.wait(30), self.failures
        self._enough.clear()
        self.answers = 0
        return self

    def __exit__(self, *_: object) -> None:
        """Waits for some more answers, and stops asking."""
        self._enough.wait(30)
        self._stop.set()
        self._thread.join(30)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, Receipts]]:
    """A server, and the receipts of those who kept to the rules; at its end all of them are in the book."""
    folder = tmp_path_factory.mktemp("attacked")
    with Receipts(folder / "receipts") as receipts:
        with serving(folder / "data", [POLICIES / "basic"]) as server:
            yield server, receipts
            bugs = [line for line in list(server.lines) if line["event"] in {"bug", "not serving"}]
            assert server.stop() == 0
        assert bugs == []
        require_verified(server.data)
        assert receipts.count > 100
        assert receipts.missing(server.data / "book") == []


@pytest.fixture
def port(attacked: tuple[RunningServer, Receipts]) -> Iterator[int]:
    """The port to attack. A good caller asks meanwhile, and afterwards nothing may be left of the attack."""
    server, receipts = attacked
    with Good(server, receipts) as good:
        yield int(server.target.rpartition(":")[2])
    assert good.failures == []
    assert good.answers >= ANSWERS_LEAST
    assert good.grown_mib < GROWTH_MIB_MAX
    for _ in range(100):
        if look(server.process.pid, 0, 0).files <= FILES_MAX:
            break
        threading.Event().wait(0.1)
    assert look(server.process.pid, 0, 0).files <= FILES_MAX


def ended_soon(connections: list[Raw], count: int) -> int:
    """Returns how many streams the server ended by itself within some seconds, of so many on each connection."""
    threading.Event().wait(4)
    return sum(len(raw.ends(0.5, count)) for raw in connections)


def in_frames(body: bytes) -> bytes:
    """Returns a body as frames, with which its stream ends."""
    parts = [frame(DATA, 0, 1, body[at : at + 16_384]) for at in range(0, len(body), 16_384)]
    return b"".join(parts) + frame(DATA, END_STREAM, 1)


def status_of(port: int, method: str, body: bytes, *headers: tuple[bytes, bytes]) -> str:
    """Sends one call by hand; returns the gRPC status that ends it, or how else it ended."""
    with Raw(port) as raw:
        raw.send(frame(HEADERS, END_HEADERS, 1, request(method, *headers)))
        raw.send(in_frames(body))
        for kind, flags, stream, payload in raw.frames(20):
            if kind == HEADERS and flags & END_STREAM and stream == 1:
                told = payload.partition(b"grpc-status")[2]
                return told[1 : 1 + told[0]].decode("ascii") if told else "none"
            if kind in {RST_STREAM, GOAWAY}:
                return "reset"
    return "closed"


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: gate\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xff" * 500,
        random.Random(1).randbytes(100_000),
        PREFACE + random.Random(2).randbytes(100_000),
        PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, b"\xff" * 1_000),
        PREFACE + frame(SETTINGS, 0, 0, b"\x00" * 5),
        PREFACE + frame(SETTINGS, 0, 0) + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
    ],
    ids=["http-1", "tls", "noise", "noise-after-preface", "hpack", "settings", "huge-frame"],
)
def test_garbage_closes_the_connection(port: int, garbage: bytes) -> None:
    """What is no HTTP/2 ends its own connection."""
    with Raw(port, greet=False) as raw:
        raw.send(garbage)
        assert raw.ended(30)


@pytest.mark.parametrize(
    "stray",
    [
        frame(DATA, 0, 7, b"x" * 1_000),
        frame(HEADERS, END_HEADERS, 2, request(CHECK)),
        frame(RST_STREAM, 0, 9, bytes(4)),
    ],
    ids=["data", "even-stream", "reset"],
)
def test_frames_of_no_call(port: int, stray: bytes) -> None:
    """Frames that belong to no call are no call, however many come."""
    with Raw(port) as raw:
        raw.send_briefly(stray * 500, 2)
        assert raw.ends(1, 1) <= {2}


def test_connections_that_never_say_anything(port: int) -> None:
    """Three hundred connections with half a preface are closed after a while, and disturb nobody."""
    with ExitStack() as stack:
        idle = [stack.enter_context(Raw(port, greet=False)) for _ in range(300)]
        for number, raw in enumerate(idle):
            raw.send(PREFACE[: number % len(PREFACE)])
        assert all(raw.ended(40) for raw in idle)


def test_a_thousand_half_open_streams(port: int) -> None:
    """Calls whose request never comes are ended after a moment, but for the few that may be slow."""
    with ExitStack() as stack:
        connections = [stack.enter_context(Raw(port)) for _ in range(10)]
        for raw in connections:
            raw.send(b"".join(frame(HEADERS, END_HEADERS, 1 + 2 * n, request(CHECK)) for n in range(100)))
        ended = ended_soon(connections, 100)

    assert 1_000 - 32 <= ended < 1_000


def test_streams_on_which_nothing_is_asked(port: int) -> None:
    """Streams over the limit are refused at once, and those within it are ended when no question comes."""
    with ExitStack() as stack:
        connections = [stack.enter_context(Raw(port)) for _ in range(10)]
        for raw in connections:
            raw.send(b"".join(frame(HEADERS, END_HEADERS, 1 + 2 * n, request(STREAM)) for n in range(100)))
        ended = ended_soon(connections, 100)

    assert 1_000 - 32 <= ended < 1_000


def test_requests_that_come_by_the_drop(port: int) -> None:
    """Requests of eight MiB of which all but the end is sent take no memory that grows with their number."""
    part = frame(DATA, 0, 1, message(b"x" * 16_000, length=8 * MIB))
    with ExitStack() as stack:
        connections = [stack.enter_context(Raw(port)) for _ in range(100)]
        for raw in connections:
            raw.send(frame(HEADERS, END_HEADERS, 1, request(BATCH)) + part)
            raw.send(frame(DATA, 0, 1, b"x" * 16_000) * 3)
        ended = ended_soon(connections, 1)

    assert ended >= 100 - 32


@pytest.mark.parametrize("length", [9 * MIB + 1, 0xFFFF_FFFF])
def test_messages_over_the_limit(port: int, length: int) -> None:
    """A message that says it is too large is refused by its first five bytes."""
    assert status_of(port, CHECK, message(b"x" * 100, length=length)) == "8"


def test_messages_that_unpack_to_more_than_the_limit(port: int) -> None:
    """Small messages that unpack to 60 MiB each are refused, and take no such memory."""
    bomb = message(gzip.compress(bytes(60 * MIB), 9), compressed=True)
    assert len(bomb) < WINDOW
    with ExitStack() as stack:
        connections = [stack.enter_context(Raw(port)) for _ in range(30)]
        for raw in connections:
            raw.send(frame(HEADERS, END_HEADERS, 1, request(CHECK, (b"grpc-encoding", b"gzip"))) + in_frames(bomb))
        ended = [raw.ends(20, 1) for raw in connections]

    assert ended == [{1}] * 30
    assert status_of(port, CHECK, bomb, (b"grpc-encoding", b"gzip")) == "8"


def nested_groups(depth: int) -> bytes:
    """Returns groups (wire type 3) of an unknown field, each in the next."""
    return b"\xfb\x07" * depth + b"\xfc\x07" * depth


def nested_struct(depth: int) -> bytes:
    """Returns a Struct value in a Struct value and so on, of which nothing is built as objects."""
    inner = b""
    for _ in range(depth):
        value = b"\x2a" + varint(len(inner)) + inner
        entry = b"\x0a\x01k\x12" + varint(len(value)) + value
        inner = b"\x0a" + varint(len(entry)) + entry
    return inner


def varint(number: int) -> bytes:
    """Encodes a number as protobuf does."""
    encoded = bytearray()
    while number >= 128:
        encoded.append(number % 128 + 128)
        number //= 128
    return bytes([*encoded, number])


def in_context(struct: bytes) -> bytes:
    """Returns a request with the encoded Struct as its context."""
    number = types_pb2.AccessRequest.DESCRIPTOR.fields_by_name["context"].number
    access = ACCESS.SerializeToString() + varint(number << 3 | 2) + varint(len(struct)) + struct
    field = pb.CheckAccessRequest.DESCRIPTOR.fields_by_name["access"].number
    return varint(field << 3 | 2) + varint(len(access)) + access


def with_json(context: bytes) -> bytes:
    """Returns a request with these bytes as its context."""
    access = types_pb2.AccessRequest()
    access.CopyFrom(ACCESS)
    access.context_json = context
    return pb.CheckAccessRequest(access=access).SerializeToString()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"\xff" * 100, "3"),
        (random.Random(3).randbytes(5_000), "3"),
        (b"\x0a\xff\xff\xff\xff\x0f", "3"),
        (nested_groups(15_000), "3"),
        (in_context(nested_struct(60)), "3"),
        (in_context(nested_struct(400)), "3"),
        (with_json(b"[" * 8_000), "3"),
        (with_json(b'{"a":' * 2_000 + b"1" + b"}" * 2_000), "3"),
        (with_json(b'{"a":' * 20 + b"1" + b"}" * 20), "8"),
        (with_json(b'{"a": "\xff\xfe"}'), "3"),
        (with_json(b"x" * 20_000), "8"),
        (pb.CheckAccessRequest(access=ACCESS).SerializeToString().replace(b"alice", b"al\xff\xfee"), "3"),
        (b"", "3"),
    ],
    ids=[
        "garbage", "noise", "length-beyond-the-end", "groups", "struct-deep", "struct-very-deep", "json-open",
        "json-deep", "json-a-little-too-deep", "json-no-utf-8", "json-too-long", "string-no-utf-8", "empty",
    ],
)  # fmt: skip
def test_requests_that_are_none(port: int, body: bytes, status: str) -> None:
    """What is malformed, nests too deeply or is no UTF-8 is refused as the caller's mistake."""
    assert status_of(port, CHECK, message(body)) == status


def test_headers_over_the_limit(port: int) -> None:
    """Headers of a call that are larger than 16 KiB end it, before anything reads them."""
    found = {status_of(port, CHECK, b"", (b"x-%d" % n, b"v" * 2_000)) for n in range(2)}
    with Raw(port) as raw:
        raw.send(
            frame(
                HEADERS, END_HEADERS | END_STREAM, 1, request(CHECK, *[(b"x-%d" % n, b"v" * 1_000) for n in range(15)])
            )
        )
        within = raw.ends(20, 1)
    with Raw(port) as raw:
        block = request(CHECK, *[(b"x-%d" % n, b"v" * 2_000) for n in range(40)])
        parts = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
        raw.send(frame(HEADERS, END_STREAM, 1, parts[0]))
        for part in parts[1:-1]:
            raw.send(frame(CONTINUATION, 0, 1, part))
        raw.send(frame(CONTINUATION, END_HEADERS, 1, parts[-1]))
        beyond = raw.ends(20, 1)

    assert found == {"3"}
    assert (within, beyond) == ({1}, {1})


def test_headers_that_never_end(port: int) -> None:
    """CONTINUATION frames without end are not collected: the connection or the stream ends."""
    with Raw(port) as raw:
        raw.send(frame(HEADERS, 0, 1, request(CHECK)))
        more = frame(CONTINUATION, 0, 1, b"\x00\x01x" + b"\x7f\x80\x7d" + b"v" * 16_127)
        sent = 0
        while sent < 4_000 and raw.send(more):
            sent += 1
        assert raw.ends(20, 1) or raw.ended(20)


def test_streams_that_are_reset_at_once(port: int) -> None:
    """Twenty thousand calls that are reset as soon as they begin cost no memory (CVE-2023-44487)."""
    with Raw(port) as raw:
        call = request(BATCH)
        cancel = (8).to_bytes(4, "big")
        for start in range(1, 40_000, 200):
            one = b"".join(
                frame(HEADERS, END_HEADERS, n, call) + frame(RST_STREAM, 0, n, cancel)
                for n in range(start, start + 200, 2)
            )
            if not raw.send(one):
                break


@pytest.mark.parametrize(
    "flood", [frame(PING, 0, 0, bytes(8)), frame(SETTINGS, 0, 0, b"\x00\x04\x00\x00\xff\xff")], ids=["ping", "settings"]
)
def test_floods_of_what_must_be_answered(port: int, flood: bytes) -> None:
    """Pings and settings without end, whose answers are not read, do not pile up."""
    with Raw(port) as raw:
        for _ in range(500):
            if not raw.send_briefly(flood * 100, 2):
                break


def test_answers_that_are_never_taken(port: int) -> None:
    """Tails and watches whose callers open no window hold no more than one page each."""
    closed = INITIAL_WINDOW_SIZE.to_bytes(2, "big") + bytes(4)
    with ExitStack() as stack:
        connections = [stack.enter_context(Raw(port, closed)) for _ in range(50)]
        for raw in connections:
            for n, method in enumerate((TAIL, WATCH)):
                body = message(b"\x08\x00" if method == TAIL else b"")
                raw.send(frame(HEADERS, END_HEADERS, 1 + 2 * n, request(method)))
                raw.send(frame(DATA, END_STREAM, 1 + 2 * n, body))
        threading.Event().wait(2)


def test_calls_that_are_cancelled_while_they_are_decided(attacked: tuple[RunningServer, Receipts], port: int) -> None:
    """Large batches whose callers leave are no work that stays, and what is in the book stays whole."""
    server, _ = attacked
    assert int(server.target.rpartition(":")[2]) == port
    drawn = random.Random(4)
    batch = pb.BatchCheckAccessRequest(items=[pb.CheckItem(access=ACCESS)] * 1_000)
    with server.channel() as channel:
        stub: Any = AccessServiceStub(channel)
        for _ in range(60):
            call = stub.BatchCheckAccess.future(batch, timeout=drawn.choice((0.001, 0.01, 0.05, 5)))
            threading.Event().wait(drawn.uniform(0, 0.02))
            call.cancel()
