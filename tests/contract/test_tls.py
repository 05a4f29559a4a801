"""The TLS of a server: what it shows, when it shows something new, and what it refuses to start with."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.certificates import DAY, Pair, authority, leaf, server_of
from tests.serving import POLICIES, RunningServer, gatebook

from gatebook.door.tls_files import TlsFiles, ssl_context

ACCEPTED = "certificates: {trust_domains: [corp.example]}\n"
BASIC = ("--policies", str(POLICIES / "basic"))
SECONDS = 20


class Files:
    """The files of a server as Kubernetes lays them out: links through one link, which is exchanged whole."""

    def __init__(self, folder: Path, ca: Pair, shown: Pair) -> None:
        """Writes the first generation."""
        self.folder = folder
        self.ca = ca
        self._generation = 0
        self.exchange(shown, ca)
        for name in ("tls.crt", "tls.key", "ca.crt"):
            (folder / name).symlink_to(Path("..data") / name)
        (folder / "callers.yaml").write_text(ACCEPTED)

    def exchange(self, shown: Pair, client_ca: Pair, key: bytes = b"") -> None:
        """Puts another generation in place."""
        self._generation += 1
        made = self.folder / f"..{self._generation}"
        made.mkdir()
        (made / "tls.crt").write_bytes(shown.pem)
        (made / "tls.key").write_bytes(key or shown.key_pem)
        (made / "ca.crt").write_bytes(client_ca.pem)
        link = self.folder / "..data_tmp"
        link.symlink_to(made.name)
        link.rename(self.folder / "..data")

    def arguments(self) -> list[str]:
        """Returns the options that name them."""
        named = {"--tls-cert": "tls.crt", "--tls-key": "tls.key", "--client-ca": "ca.crt", "--callers": "callers.yaml"}
        return [word for option, name in named.items() for word in (option, str(self.folder / name))]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """The files of a server of this machine."""
    folder = tmp_path / "tls"
    folder.mkdir()
    ca = authority()
    return Files(folder, ca, server_of(ca))


@pytest.fixture
def server(files: Files, tmp_path: Path) -> Iterator[RunningServer]:
    """A server that shows them."""
    running = RunningServer(tmp_path / "data", *BASIC, *files.arguments())
    yield running
    running.stop()


def client_of(ca: Pair) -> Pair:
    """Makes the certificate of a caller."""
    return leaf(ca, uris=["spiffe://corp.example/trino"])


def channel_of(server: RunningServer, roots: Pair, client: Pair) -> grpc.Channel:
    """Opens a channel that shares nothing with other channels of this process."""
    credentials = grpc.ssl_channel_credentials(roots.pem, client.key_pem, client.pem)
    return grpc.secure_channel(server.target, credentials, [("grpc.use_local_subchannel_pool", 1)])


def is_served(channel: grpc.Channel) -> bool:
    """Tells whether a call gets through TLS."""
    try:
        check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]  # the stubs lack it
        check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
    except grpc.RpcError as error:
        return error.code() is not grpc.StatusCode.UNAVAILABLE
    return True


def shown_by(server: RunningServer) -> int:
    """Returns the serial number of the certificate that a new connection is shown."""
    host, _, port = server.target.rpartition(":")
    pem = ssl.get_server_certificate((host, int(port)), timeout=SECONDS)
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def wait_for_line(server: RunningServer, event: str, count: int = 1) -> dict[str, object]:
    """Waits until the log has told something so many times."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        lines = [line for line in list(server.lines) if line.get("event") == event]
        if len(lines) >= count:
            return lines[-1]
        threading.Event().wait(0.02)
    raise AssertionError(f"the log never told `{event}` {count} times: {list(server.lines)}")


def test_a_new_certificate_is_shown_without_a_restart(files: Files, server: RunningServer) -> None:
    """An exchanged folder is seen: open connections stay, and new ones are shown the new certificate."""
    before = shown_by(server)
    renewed = server_of(files.ca)
    with channel_of(server, files.ca, client_of(files.ca)) as old:
        assert is_served(old)
        files.exchange(renewed, files.ca)
        told = wait_for_line(server, "tls reloaded")
        assert is_served(old)

    assert told["expires"] == renewed.certificate.not_valid_after_utc.isoformat()
    assert before != shown_by(server) == renewed.certificate.serial_number


def test_a_new_client_ca_counts_without_a_restart(files: Files, server: RunningServer) -> None:
    """After another CA is put in place its certificates get in, and those of the former one no longer."""
    other = authority("another ca")
    with (
        channel_of(server, files.ca, client_of(files.ca)) as old,
        channel_of(server, files.ca, client_of(other)) as new,
    ):
        before = is_served(old), is_served(new)
        files.exchange(server_of(files.ca), other)
        wait_for_line(server, "tls reloaded")
    with (
        channel_of(server, files.ca, client_of(files.ca)) as old,
        channel_of(server, files.ca, client_of(other)) as new,
    ):
        after = is_served(old), is_served(new)

    assert (before, after) == ((True, False), (False, True))


@pytest.mark.parametrize("wrong", ["the key of another", "half a key", "expired"])
def test_files_that_cannot_be_served_change_nothing(files: Files, server: RunningServer, wrong: str) -> None:
    """What does not belong together, is cut off or has expired is logged, and what was shown is shown on."""
    before = shown_by(server)
    renewed = server_of(files.ca)
    match wrong:
        case "the key of another":
            files.exchange(renewed, files.ca, key=server_of(files.ca).key_pem)
        case "half a key":
            files.exchange(renewed, files.ca, key=renewed.key_pem[:100])
        case _:
            files.exchange(server_of(files.ca, begins=-2 * DAY, ends=-DAY), files.ca)
    wait_for_line(server, "tls files not taken")
    kept = shown_by(server)
    files.exchange(renewed, files.ca)
    wait_for_line(server, "tls reloaded")

    assert (kept, shown_by(server)) == (before, renewed.certificate.serial_number)


def test_a_hangup_reads_the_files_at_once(files: Files, server: RunningServer) -> None:
    """SIGHUP is answered by the log, ends nothing, and takes what has changed."""
    server.process.send_signal(signal.SIGHUP)
    wait_for_line(server, "told to reload")
    renewed = server_of(files.ca)
    files.exchange(renewed, files.ca)
    server.process.send_signal(signal.SIGHUP)
    wait_for_line(server, "tls reloaded")

    assert shown_by(server) == renewed.certificate.serial_number


def test_plain_text_is_not_spoken_where_tls_is(server: RunningServer) -> None:
    """Whoever speaks plain text to a port with TLS gets no answer."""
    with grpc.insecure_channel(server.target) as channel:
        assert not is_served(channel)


def test_strangers_do_not_write_into_the_log(files: Files, server: RunningServer) -> None:
    """A handshake that fails, and a client of another protocol, leave every line of the log what it is: JSON."""
    host, _, port = server.target.rpartition(":")
    with channel_of(server, files.ca, client_of(authority())) as channel:
        assert not is_served(channel)
    with socket.create_connection((host, int(port)), timeout=SECONDS) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
        raw.recv(100)
    server.process.send_signal(signal.SIGHUP)
    wait_for_line(server, "told to reload")

    assert [line for line in server.raw if not line.startswith("{")] == []


def start(tmp_path: Path, *arguments: str) -> tuple[int, str]:
    """Tries to start a server; returns its exit code and the last line that it printed."""
    done = gatebook("serve", "--data", str(tmp_path / "data"), "--log", "json", *arguments)
    return done.returncode, done.stderr.strip().splitlines()[-1]


def without(arguments: list[str], *options: str) -> list[str]:
    """Leaves options out."""
    pairs = zip(arguments[::2], arguments[1::2], strict=True)
    return [word for option, value in pairs if option not in options for word in (option, value)]


def test_what_lets_nobody_in_is_refused_at_start(files: Files, tmp_path: Path) -> None:
    """A server that nobody could call, or that strangers could, does not start, and says what to do."""
    everything = files.arguments()
    beyond = ("--listen", "0.0.0.0:0")
    told = [
        start(tmp_path, *beyond),
        start(tmp_path, *beyond, *without(everything, "--tls-key")),
        start(tmp_path, *without(everything, "--client-ca")),
        start(tmp_path, *without(everything, "--callers")),
        start(tmp_path, *without(everything, "--tls-cert", "--tls-key")),
        start(tmp_path, *everything, "--listen-tokens", "127.0.0.1:0"),
    ]

    assert [code for code, _ in told] == [2] * 6
    assert [line.removeprefix("gatebook: ").split(": ")[0] for _, line in told] == [
        "listen",
        "tls-cert",
        "tls-cert",
        "client-ca",
        "client-ca",
        "listen-tokens",
    ]
    assert "nobody could call" in told[2][1]
    assert not (tmp_path / "data").exists()


def test_beyond_this_machine_tls_is_enough(files: Files, tmp_path: Path) -> None:
    """With TLS and callers that count, a server listens on every address."""
    server = RunningServer(tmp_path / "data", *BASIC, *files.arguments(), "--listen", "0.0.0.0:0")
    server.target = server.target.replace("0.0.0.0", "127.0.0.1")  # noqa: S104  # what is tried
    with channel_of(server, files.ca, client_of(files.ca)) as channel:
        assert is_served(channel)
    assert server.stop() == 0


async def greeted(context: ssl.SSLContext, roots: Pair, client: Pair | None, folder: Path) -> str:
    """Serves one connection with a context of the standard library; returns what the client was told."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"known" if writer.get_extra_info("peercert") else b"a stranger")
        await writer.drain()
        writer.close()

    trusting = ssl.create_default_context(cadata=roots.pem.decode())
    if client is not None:
        trusting.load_cert_chain(*client.write(folder, "client"))
    async with await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context) as listener:
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", listener.sockets[0].getsockname()[1], ssl=trusting, server_hostname="localhost"
            )
            told = await reader.read(100)
            writer.close()
        except (ssl.SSLError, ConnectionError):
            return "refused"
    return told.decode() or "refused"


async def test_a_context_of_the_standard_library_follows_the_files(files: Files, tmp_path: Path) -> None:
    """HTTPS asks for a certificate without requiring it, and new keys and another CA count at the next handshake."""
    ca, other = files.ca, authority("another ca")
    path = files.folder / "..data"
    tls = TlsFiles(path / "tls.crt", path / "tls.key", path / "ca.crt")
    context = ssl_context(tls)
    before = [await greeted(context, ca, client, tmp_path) for client in (None, client_of(ca), client_of(other))]
    files.exchange(server_of(other), other)
    taken = tls.refresh()
    after = [await greeted(context, other, client, tmp_path) for client in (None, client_of(ca), client_of(other))]

    assert taken
    assert (before, after) == (["a stranger", "known", "refused"], ["a stranger", "refused", "known"])
