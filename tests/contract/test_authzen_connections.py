"""HTTP connections: who calls, and what gets nothing but refusals: slow, garbled, pipelined, misdirected, too many."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.callers import CA, config_of
from tests.certificates import Pair, authority, leaf
from tests.serving import POLICIES

from gatebook.config import Config
from gatebook.door.authentication import authentication_of
from gatebook.door.door import Door, Finished
from gatebook.door.tls_files import TlsFiles
from gatebook.gateway import connection, listening, rim
from gatebook.gateway.listening import answering_http
from gatebook.server import open_door, publish_folders
from gatebook.service import open_service

SECONDS = 20
TRUSTED = "certificates: {trust_domains: [corp.example]}\n"
QUESTION = {
    "subject": {"type": "user", "id": "alice"},
    "action": {"name": "read"},
    "resource": {"type": "report", "id": "report:weekly"},
}
BODY = json.dumps(QUESTION).encode()
HEAD = b"POST /access/v1/evaluation HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


@dataclass(frozen=True)
class Listening:
    """A server within the process of a test."""

    host: str
    port: int
    door: Door
    finished: list[Finished]
    tls: TlsFiles | None

    async def send(self, *parts: bytes) -> bytes:
        """Sends bytes on a connection of its own, and returns all that comes until the server closes it."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
            return await asyncio.wait_for(reader.read(), SECONDS)
        except ConnectionError:
            return b""
        finally:
            writer.close()


@asynccontextmanager
async def answering(folder: Path, *, plain: bool = True) -> AsyncIterator[Listening]:
    """Answers HTTP for the set `basic`."""
    base = config_of(folder, TRUSTED, plain=plain, tokens=False)
    config = Config(
        policies=(POLICIES / "basic",),
        data=folder / "data",
        http="127.0.0.1:0",
        tls_cert=base.tls_cert,
        tls_key=base.tls_key,
        client_ca=base.client_ca,
        callers=None if plain else base.callers,
    )
    authentication = authentication_of(config)
    finished: list[Finished] = []
    async with authentication.kept_fresh(), open_service(config) as service:
        await publish_folders(service, config)
        door = open_door(service, config, authentication)
        door.observers.append(finished.append)
        async with answering_http(service, door, config, authentication.tls) as address:
            host, _, port = address.rpartition(":")
            yield Listening(host, int(port), door, finished, authentication.tls)


def on(folder: Path, work: Callable[[Listening], Awaitable[None]], *, plain: bool = True) -> None:
    """Runs the work of a test against a server."""

    async def turn() -> None:
        async with answering(folder, plain=plain) as server:
            await work(server)

    asyncio.run(turn())


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"P",
        b"POST /access/v1/evaluation HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        WHOLE + b"POST /access/v1/ev",
    ],
    ids=["nothing", "a byte", "a header that does not end", "half of a second request"],
)
def test_a_request_that_does_not_come_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """A head that is not complete in time ends its connection, the first and every later one (slow loris)."""
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.3)

    async def work(server: Listening) -> None:
        answer = await server.send(sent)
        assert answer.count(b"HTTP/1.1 200") == sent.count(WHOLE)

    on(tmp_path, work)


def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that is not complete in time is answered 408, and its connection closed."""
    monkeypatch.setattr(rim, "BODY_SECONDS", 0.3)

    async def work(server: Listening) -> None:
        answer = await server.send(HEAD + b"Content-Length: 100\r\n\r\n{")
        assert answer.startswith(b"HTTP/1.1 408")
        assert server.door.admission.calls_in_flight == 0

    on(tmp_path, work)


def test_an_idle_connection_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection on which nothing more comes is closed."""
    monkeypatch.setattr(listening, "IDLE_SECONDS", 0.3)

    async def work(server: Listening) -> None:
        assert (await server.send(WHOLE)).startswith(b"HTTP/1.1 200")

    on(tmp_path, work)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"404"),
        (b"GARBAGE\r\n\r\n", b"400"),
        (HEAD + b"Content-Length: ten\r\n\r\n", b"400"),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", b"400"),
        (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", b"400"),
        (HEAD + b"X: " + b"a" * 40_000, b"400"),
        (HEAD + b"Content-Length: 10000000\r\n\r\n", b"413"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + (b"8000\r\n" + b" " * 0x8000 + b"\r\n") * 3, b"413"),
        (HEAD + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", b"400"),
        (HEAD + b"X-Request-ID: " + b"r" * 300 + b"\r\nContent-Length: 2\r\n\r\n{}", b"400"),
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused_and_closed(tmp_path: Path, sent: bytes, status: bytes) -> None:
    """Garbage, other protocols, two lengths, a head or body over its limit: a refusal, and the connection ends."""

    async def work(server: Listening) -> None:
        answer = await server.send(sent)
        assert answer.split(b" ", 2)[1] == status, answer[:200]
        assert server.door.admission.calls_in_flight == 0

    on(tmp_path, work)


def test_pipelined_requests_are_answered_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that come at once are answered one after the other, each with its own id."""
    monkeypatch.setattr(listening, "IDLE_SECONDS", 0.3)
    ids = [b"%d" % number for number in range(20)]

    async def work(server: Listening) -> None:
        answer = await server.send(b"".join(WHOLE.replace(b"Host:", b"X-Request-ID: %s\r\nHost:" % i) for i in ids))
        told = [line.partition(b": ")[2] for line in answer.split(b"\r\n") if line.lower().startswith(b"x-request-id")]
        assert ids == told
        assert len(ids) == answer.count(b"HTTP/1.1 200")

    on(tmp_path, work)


def test_a_flood_of_connections_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections over the limit are closed at once, and the others are served on."""
    monkeypatch.setattr(listening, "CONNECTIONS_MAX", 10)

    async def work(server: Listening) -> None:
        held = [await asyncio.open_connection(server.host, server.port) for _ in range(10)]
        assert b"" == await server.send(WHOLE)
        reader, writer = held[0]
        writer.write(WHOLE)
        assert (await asyncio.wait_for(reader.readline(), SECONDS)).startswith(b"HTTP/1.1 200")
        for _, one in held:
            one.close()

    on(tmp_path, work)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::1", "10.0.0.1"])
def test_plain_text_is_for_this_machine_by_name_too(tmp_path: Path, host: str) -> None:
    """A page whose name was made to mean 127.0.0.1 cannot call as `local` (DNS rebinding)."""

    async def work(server: Listening) -> None:
        answer = await server.send(WHOLE.replace(b"Host: 127.0.0.1", f"Host: {host}\r\nConnection: close".encode()))
        assert answer.startswith(b"HTTP/1.1 400")
        assert [("-", "INVALID_ARGUMENT")] == [(f.caller, f.code) for f in server.finished]

    on(tmp_path, work)


def test_a_server_that_stops_answers_what_is_under_way(tmp_path: Path) -> None:
    """Once the door drains, new requests get 503 with `Retry-After`."""

    async def work(server: Listening) -> None:
        server.door.admission.draining.set()
        async with httpx.AsyncClient(base_url=f"http://{server.host}:{server.port}") as client:
            answer = await client.post("/access/v1/evaluation", json=QUESTION)
        assert (503, "1", "DRAINING") == (
            answer.status_code,
            answer.headers["retry-after"],
            answer.headers["gatebook-reason"],
        )

    on(tmp_path, work)


NOBODY = (401, "-")
CALLER = "spiffe://corp.example/pep"
GOOD = leaf(CA, uris=[CALLER])
CERTIFICATES: dict[str, tuple[Pair | None, tuple[int, str]]] = {
    "none": (None, NOBODY),
    "of another domain": (leaf(CA, uris=["spiffe://other.example/pep"]), NOBODY),
    "nameless": (leaf(CA), NOBODY),
}


@pytest.mark.parametrize("name", CERTIFICATES)
def test_who_is_not_known_is_told_nothing(tmp_path: Path, name: str) -> None:
    """Without a certificate that counts, over TLS, the answer is 401, says what would count, and not why."""
    client, expected = CERTIFICATES[name]

    async def work(server: Listening) -> None:
        async with tls_client(tmp_path, server, client) as http:
            answer = await http.post("/access/v1/evaluation", json=QUESTION)
        assert expected == (answer.status_code, server.finished[-1].caller)
        assert answer.headers["www-authenticate"].startswith("Bearer")

    on(tmp_path, work, plain=False)


@pytest.mark.parametrize("sent", ["Bearer nonsense", "Basic YTpi", "Bearer"])
def test_an_authorization_that_does_not_count_is_refused_beside_a_certificate(tmp_path: Path, sent: str) -> None:
    """A token that does not verify is refused, whatever certificate came with it."""

    async def work(server: Listening) -> None:
        async with tls_client(tmp_path, server, GOOD) as http:
            answer = await http.post("/access/v1/evaluation", json=QUESTION, headers={"authorization": sent})
        assert NOBODY == (answer.status_code, server.finished[-1].caller)

    on(tmp_path, work, plain=False)


def test_a_caller_is_recognised_by_its_certificate(tmp_path: Path) -> None:
    """The client's certificate says who calls, as over gRPC."""

    async def work(server: Listening) -> None:
        async with tls_client(tmp_path, server, GOOD) as http:
            answer = await http.post("/access/v1/evaluation", json=QUESTION)
        assert answer.status_code != 401
        assert CALLER == server.finished[-1].caller

    on(tmp_path, work, plain=False)


def test_a_certificate_of_another_authority_gets_no_connection(tmp_path: Path) -> None:
    """A certificate that the client CA did not sign ends the handshake."""
    other = leaf(authority("other"), uris=[CALLER])

    async def work(server: Listening) -> None:
        async with tls_client(tmp_path, server, other) as http:
            with pytest.raises(httpx.TransportError):
                await http.post("/access/v1/evaluation", json=QUESTION)
        assert [] == server.finished

    on(tmp_path, work, plain=False)


def test_plain_text_to_a_port_with_tls_gets_nothing(tmp_path: Path) -> None:
    """Whoever speaks plain text to a port with TLS gets no answer."""

    async def work(server: Listening) -> None:
        assert b"HTTP" not in await server.send(WHOLE)
        assert [] == server.finished

    on(tmp_path, work, plain=False)


def tls_client(folder: Path, server: Listening, client: Pair | None) -> httpx.AsyncClient:
    """Returns a client that trusts the server, and shows a certificate."""
    context = ssl.create_default_context(cadata=CA.pem.decode())
    if client is not None:
        context.load_cert_chain(*client.write(folder, "client"))
    return httpx.AsyncClient(base_url=f"https://{server.host}:{server.port}", verify=context, timeout=SECONDS)
