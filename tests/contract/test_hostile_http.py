"""Attacks on the HTTP port that were found to work once: each is one test, named after the attack."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.authorised import Claimed, caller, gatebook_set
from tests.callers import CA
from tests.certificates import authority, leaf
from tests.contract.test_authzen_connections import HEAD, QUESTION, SECONDS, Listening, on
from tests.serving import POLICIES, gatebook, serving

from gatebook.config import Config
from gatebook.gateway import connection
from gatebook.gateway.listening import answering_http
from gatebook.server import open_door, publish_folders
from gatebook.service import open_service

MEMBERS = 150_000
"""As many as fit a batch. To compare each with each other would take minutes."""


def test_a_member_that_is_repeated_among_very_many(tmp_path: Path) -> None:
    """One body with very many members, of which the last is repeated, does not keep the server from other callers."""
    members = ",".join(f'"m{n}":0' for n in range(MEMBERS))

    async def work(server: Listening) -> None:
        body = f'{{{members},"m{MEMBERS - 1}":0}}'
        headers = {"content-type": "application/json"}
        async with httpx.AsyncClient(base_url=f"http://{server.host}:{server.port}", timeout=SECONDS) as http:
            answer = await http.post("/access/v1/evaluations", content=body, headers=headers)
        expected = f"body: the member `m{MEMBERS - 1}` stands twice in one object"
        assert (400, expected) == (answer.status_code, answer.text)

    on(tmp_path, work)


def test_a_default_that_is_multiplied_by_the_evaluations(tmp_path: Path) -> None:
    """A default counts for every evaluation that it completes: a small body cannot write a large part of the book."""
    body = {**QUESTION, "context": {"long": "x" * 15_000}, "evaluations": [{}] * 1_000}

    async def work(server: Listening) -> None:
        async with httpx.AsyncClient(base_url=f"http://{server.host}:{server.port}", timeout=SECONDS) as http:
            answer = await http.post("/access/v1/evaluations", json=body)
            fewer = await http.post("/access/v1/evaluations", json={**body, "evaluations": [{}] * 100})
        assert (400, "LIMIT_EXCEEDED") == (answer.status_code, answer.headers["gatebook-reason"])
        assert (200, 100) == (fewer.status_code, len(fewer.json()["evaluations"]))

    on(tmp_path, work)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_resumed_session_of_a_ca_that_is_gone(tmp_path: Path, version: ssl.TLSVersion) -> None:
    """Who was once let in by a certificate cannot go on, by resuming that session, once its CA counts no longer."""
    trusting = ssl.create_default_context(cadata=CA.pem.decode())
    trusting.maximum_version = version
    trusting.load_cert_chain(*leaf(CA, uris=["spiffe://corp.example/pep"]).write(tmp_path, "pep"))

    def statuses(server: Listening, sessions: list[ssl.SSLSession | None]) -> list[bytes]:
        return [status_of(server, trusting, sessions) for _ in range(2)]

    async def work(server: Listening) -> None:
        sessions: list[ssl.SSLSession | None] = [None]
        before = await asyncio.to_thread(statuses, server, sessions)
        (tmp_path / "ca.crt").write_bytes(authority("another").pem)
        tls = server.tls
        assert tls is not None
        assert tls.refresh(anyway=True)
        after = await asyncio.to_thread(statuses, server, sessions)

        assert [b"HTTP/1.1 4"] * 2 == before
        assert [b""] * 2 == after
        assert ["spiffe://corp.example/pep"] * 2 == [one.caller for one in server.finished]

    on(tmp_path, work, plain=False)


def status_of(server: Listening, context: ssl.SSLContext, sessions: list[ssl.SSLSession | None]) -> bytes:
    """Asks once, going on with the newest session if there is one; returns how the answer begins, if one comes."""
    try:
        with (
            socket.create_connection((server.host, server.port), SECONDS) as raw,
            context.wrap_socket(raw, server_hostname="localhost", session=sessions[-1]) as secured,
        ):
            secured.sendall(HEAD + b"Content-Length: 2\r\n\r\n{}")
            told = secured.recv(10)
            sessions.append(secured.session)
    except (ssl.SSLError, ConnectionError):
        return b""
    return told


@pytest.mark.parametrize("target", [b"/nowhere", b"/access/v1/evaluation/"])
def test_a_body_without_end_to_a_path_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: bytes
) -> None:
    """A connection is not kept open by sending on and on what nobody reads."""
    monkeypatch.setattr(connection, "IDLE_SECONDS", 0.5)
    head = b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n" % target

    async def work(server: Listening) -> None:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(head)
        told = asyncio.create_task(reader.read())
        for _ in range(200):
            writer.write(b"1\r\nx\r\n")
            await asyncio.wait({told}, timeout=0.05)
            if told.done():
                break
        writer.close()
        assert told.done()

    on(tmp_path, work)


def test_a_request_of_two_lengths(tmp_path: Path) -> None:
    """A request that says two things about where it ends is refused, and nothing behind it is read (RFC 9112 6.1)."""
    smuggled = b"POST /access/v1/evaluation HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n"

    async def work(server: Listening) -> None:
        sent = HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled
        told = await server.send(sent)
        assert (b"HTTP/1.1 400", 1) == (told[:12], told.count(b"HTTP/1.1"))

    on(tmp_path, work)


MALFORMED: dict[str, dict[str, Any]] = {
    "columns": {"resource": {"type": "dataset", "id": "d", "properties": {"columns": 5}}},
    "purpose": {"context": {"purpose": 5}},
}


@pytest.mark.parametrize("wrong", MALFORMED)
@pytest.mark.parametrize("path", ["/evaluation", "/evaluations", "/search/resource"])
def test_a_malformed_question_to_a_set_that_may_be_there(tmp_path: Path, path: str, wrong: str) -> None:
    """Who may not ask a set is told the same of one that is there and of one that is not, whatever is sent."""
    asked = {**QUESTION, **MALFORMED[wrong]}
    body = {"evaluations": [asked]} if path == "/evaluations" else asked
    rules = [
        "p, cn:narrow, operation:check, call, *, True, allow",
        "p, cn:narrow, operation:search, call, *, True, allow",
        "p, cn:narrow, *, ask, basic, True, allow",
    ]
    config = Config(
        policies=(POLICIES / "telemetry", POLICIES / "basic", gatebook_set(tmp_path, *rules)),
        data=tmp_path / "data",
        http="127.0.0.1:0",
    )

    async def work() -> list[tuple[int, str]]:
        authentication = Claimed({"narrow": caller("narrow")})
        async with open_service(config) as service:
            await publish_folders(service, config)
            door = open_door(service, config, authentication)
            async with (
                answering_http(service, door, config) as address,
                httpx.AsyncClient(base_url=f"http://{address}", headers={"authorization": "narrow"}) as http,
            ):
                answers = [
                    await http.post(f"/{name}/access/v1{path}", json=body) for name in ("telemetry", "nowhere", "basic")
                ]
        return [(answer.status_code, answer.text) for answer in answers]

    there, nowhere, allowed = asyncio.run(work())

    assert nowhere == there
    assert allowed != there


def test_a_port_for_http_that_another_service_of_this_user_has(tmp_path: Path) -> None:
    """Two services with workers never share a port for HTTP, or each would be asked what the other is to decide."""
    arguments = ("--workers", "2", "--http")
    with serving(tmp_path / "one", [POLICIES / "basic"], *arguments, "127.0.0.1:0") as server:
        ports = {line["listen"] for line in list(server.lines) if line.get("event") == "http"}
        second = gatebook(
            "serve", "--data", str(tmp_path / "two"), "--listen", "127.0.0.1:0", *arguments, server.http, seconds=60
        )

    assert 1 == len(ports)
    assert second.returncode not in (0, -9)
    assert f"cannot listen on {server.http}" in second.stderr
