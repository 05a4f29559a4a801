"""The clients and the commands over TLS: with certificates, with tokens, and with what does not fit."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.certificates import DAY, Pair, authority, leaf, server_of
from tests.serving import POLICIES, RunningServer, gatebook
from tests.tokens import AUDIENCE, ISSUER, SigningKey, key_set

import gatebook_client
from gatebook_client import CredentialsError, GatebookClientError, Tls
from gatebook_client import credentials as client_credentials

CALLERS = f"""\
certificates:
  trust_domains: [corp.example]
issuers:
  corp: {{issuer: {ISSUER}, audiences: [{AUDIENCE}], algorithms: [ES256], jwks: keys.json}}
"""
CA = authority()
KEY = SigningKey("ec", "ES256")
TRINO = "spiffe://corp.example/trino"


@dataclass
class Encrypted:
    """A server with a port for certificates and one for tokens, and the files of a caller."""

    server: RunningServer
    folder: Path
    target: str
    token_target: str

    def tls(self, ca: Pair = CA, client: Pair | None = None) -> Tls:
        """Writes what a caller has, and says where it is."""
        (self.folder / "client-ca.crt").write_bytes(ca.pem)
        if client is None:
            return Tls(self.folder / "client-ca.crt")
        return Tls(self.folder / "client-ca.crt", *client.write(self.folder, "client"))

    def callers(self, method: str = "CheckAccess", at_least: int = 0) -> list[str]:
        """Returns who called a method, in order, once the log has told of at least so many."""
        told: list[str] = []
        for _ in range(2_000):
            told = [str(line["caller"]) for line in list(self.server.lines) if line.get("method") == method]
            if len(told) >= at_least:
                break
            threading.Event().wait(0.01)
        return told


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encrypted]:
    """A server that callers with certificates and with tokens can reach."""
    folder = tmp_path_factory.mktemp("encrypted")
    certificate, key = server_of(CA).write(folder, "server")
    (folder / "ca.crt").write_bytes(CA.pem)
    (folder / "keys.json").write_text(key_set(KEY))
    (folder / "callers.yaml").write_text(CALLERS)
    (folder / "token").write_text(KEY.token())
    options: dict[str, object] = {"--tls-cert": certificate, "--tls-key": key, "--client-ca": folder / "ca.crt"}
    options |= {"--callers": folder / "callers.yaml", "--policies": POLICIES / "basic"}
    options |= {"--listen-tokens": "127.0.0.1:0"}
    server = RunningServer(folder / "data", *(str(word) for pair in options.items() for word in pair))
    ports = {str(line["event"]): str(line["listen"]) for line in server.lines if "listen" in line}
    localhost = {event: address.replace("127.0.0.1", "localhost") for event, address in ports.items()}
    yield Encrypted(server, folder, localhost["serving"], localhost["listening for tokens"])
    server.stop()


QUESTION = ("alice", "read", "report:weekly")
KNOWN = "PERMISSION_DENIED"
"""What a caller is told whom the server knows, and who may do nothing there."""


async def reason_of(target: str, tls: Tls | None, token: object = None) -> str:
    """Asks with the asyncio client, and returns the reason of its error."""
    try:
        async with gatebook_client.connect(target, tls=tls, token=token, timeout_seconds=10) as client:  # type: ignore[arg-type]  # what is tried
            await client.check(*QUESTION)
    except GatebookClientError as error:
        return error.reason
    return "answered"


def reason_of_blocking(target: str, tls: Tls | None, token: object = None) -> str:
    """Asks with the blocking client, and returns the reason of its error."""
    try:
        with gatebook_client.connect_blocking(target, tls=tls, token=token, timeout_seconds=10) as client:  # type: ignore[arg-type]  # what is tried
            client.check(*QUESTION)
    except GatebookClientError as error:
        return error.reason
    return "answered"


async def test_clients_show_their_certificate(encrypted: Encrypted) -> None:
    """Both clients are known by the certificate that they were given."""
    tls, asked = encrypted.tls(client=leaf(CA, uris=[TRINO])), len(encrypted.callers())
    told = [await reason_of(encrypted.target, tls), reason_of_blocking(encrypted.target, tls)]

    assert told == [KNOWN, KNOWN]
    assert encrypted.callers(at_least=asked + 2)[asked:] == [TRINO, TRINO]


async def test_clients_show_their_token(encrypted: Encrypted) -> None:
    """A token as it is, from a function, from one that is awaited or from a file makes its caller known."""

    async def later() -> str:
        return KEY.token(sub="later")

    tls, path = encrypted.tls(), gatebook_client.token_file(encrypted.folder / "token")
    asked = len(encrypted.callers())
    sources = (KEY.token(sub="fixed"), lambda: KEY.token(sub="called"), later, path)
    told = [await reason_of(encrypted.token_target, tls, source) for source in sources]
    told += [reason_of_blocking(encrypted.token_target, tls, source) for source in (*sources[:2], path)]
    expected = ["fixed", "called", "later", "farah", "fixed", "called", "farah"]

    assert told == [KNOWN] * 7
    assert encrypted.callers(at_least=asked + 7)[asked:] == [f"corp:{name}" for name in expected]


async def test_streams_show_their_token(encrypted: Encrypted) -> None:
    """A stream carries the token, too."""
    tls, token = encrypted.tls(), KEY.token(sub="stream")
    async with gatebook_client.connect(encrypted.token_target, tls=tls, token=token, timeout_seconds=10) as client:
        with pytest.raises(GatebookClientError) as refused:
            _ = [answered async for answered in client.stream([gatebook_client.Check(*QUESTION)])]
    with (
        gatebook_client.connect_blocking(encrypted.token_target, tls=tls, token=token, timeout_seconds=10) as blocking,
        pytest.raises(GatebookClientError) as refused_blocking,
    ):
        _ = list(blocking.stream([gatebook_client.Check(*QUESTION)]))

    assert (refused.value.reason, refused_blocking.value.reason) == (KNOWN, KNOWN)
    # The asyncio client calls once more where its first message met the end of its call.
    assert set(encrypted.callers("StreamCheckAccess", at_least=2)) == {"corp:stream"}


async def test_clients_talk_to_nobody_else(encrypted: Encrypted) -> None:
    """A server of another CA gets no question, and who shows nothing or the wrong thing gets no answer."""
    other = authority("another ca")
    asked = encrypted.callers()
    told = [
        await reason_of(encrypted.target, encrypted.tls(other, leaf(CA, uris=[TRINO]))),
        await reason_of(
            encrypted.target.replace("localhost", "127.0.0.2"), encrypted.tls(client=leaf(CA, uris=[TRINO]))
        ),
        await reason_of(encrypted.target, encrypted.tls(client=leaf(other, uris=[TRINO]))),
        await reason_of(encrypted.target, encrypted.tls(client=leaf(CA, uris=[TRINO], begins=-2 * DAY, ends=-DAY))),
        await reason_of(encrypted.target, encrypted.tls()),
        await reason_of(encrypted.token_target, encrypted.tls()),
        await reason_of(encrypted.target.replace("localhost", "127.0.0.1"), None),
    ]

    assert told == ["UNREACHABLE"] * 5 + ["UNAUTHENTICATED", "UNREACHABLE"]
    assert encrypted.callers(at_least=len(asked) + 1) == [*asked, "-"]


async def test_a_renewed_certificate_is_shown_without_another_connection(
    encrypted: Encrypted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call after the files have changed shows the new certificate; half-written files are left alone."""
    monkeypatch.setattr(client_credentials, "LOOK_SECONDS", 0.0)
    tls = encrypted.tls(client=leaf(CA, uris=[TRINO]))
    asked = len(encrypted.callers())
    with gatebook_client.connect_blocking(encrypted.target, tls=tls, on_error="deny", timeout_seconds=10) as blocking:
        async with gatebook_client.connect(encrypted.target, tls=tls, on_error="deny", timeout_seconds=10) as client:
            blocking.check(*QUESTION)
            await client.check(*QUESTION)
            encrypted.tls(client=leaf(CA, uris=[f"{TRINO}-renewed"]))
            (encrypted.folder / "client.key").rename(encrypted.folder / "kept.key")
            blocking.check(*QUESTION)
            await client.check(*QUESTION)
            (encrypted.folder / "kept.key").rename(encrypted.folder / "client.key")
            blocking.check(*QUESTION)
            await client.check(*QUESTION)

    assert encrypted.callers(at_least=asked + 6)[asked:] == [TRINO] * 4 + [f"{TRINO}-renewed"] * 2


async def test_without_a_token_nobody_is_asked(encrypted: Encrypted) -> None:
    """A source that fails, gives nothing or takes too long is an error of the client, with its deadline."""

    def failing() -> str:
        raise OSError("gone")

    async def endless() -> str:
        return str(await asyncio.Event().wait())

    asked = encrypted.callers()
    missing = gatebook_client.token_file(encrypted.folder / "missing")
    told = [
        await reason_of(encrypted.token_target, encrypted.tls(), source) for source in (failing, lambda: "", missing)
    ]
    async with gatebook_client.connect(encrypted.token_target, tls=encrypted.tls(), token=endless) as client:
        with pytest.raises(GatebookClientError) as late:
            await client.check(*QUESTION, timeout_seconds=0.1)
        with pytest.raises(CredentialsError) as none:
            await client.check_many([gatebook_client.Check(*QUESTION)], timeout_seconds=0.1)

    assert told == ["NO_CREDENTIALS"] * 3
    assert late.value.reason in {"DEADLINE_EXCEEDED", "NO_CREDENTIALS"}
    assert none.value.message == "the source of tokens gave none in time"
    assert encrypted.callers() == asked


def test_a_file_that_is_missing_is_told_at_once(encrypted: Encrypted) -> None:
    """Files that cannot be read, or half of a pair, are an error before anything is sent."""
    for tls in (Tls(encrypted.folder / "missing"), Tls(certificate=encrypted.folder / "server.crt")):
        with pytest.raises(CredentialsError):
            gatebook_client.connect_blocking(encrypted.target, tls=tls)


def command(encrypted: Encrypted, target: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Asks on the command line."""
    return gatebook("check", *QUESTION, "--target", target, *options, cwd=encrypted.folder)


def test_commands_show_certificates_and_tokens(encrypted: Encrypted) -> None:
    """Every command takes a CA, a certificate and a token, by option or from the environment."""
    encrypted.tls(client=leaf(CA, uris=[f"{TRINO}-cli"]))
    asked = len(encrypted.callers())
    certificate = ("--tls-cert", "client.crt", "--tls-key", "client.key")
    done = [
        command(encrypted, encrypted.target, "--tls-ca", "ca.crt", *certificate),
        command(encrypted, encrypted.token_target, "--tls-ca", "ca.crt", "--token-file", "token"),
    ]

    assert [d.returncode for d in done] == [1, 1], done
    assert [d.stderr.rpartition(" ")[2].strip() for d in done] == ["(PERMISSION_DENIED)"] * 2
    assert encrypted.callers(at_least=asked + 2)[asked:] == [f"{TRINO}-cli", "corp:farah"]


def test_commands_say_why_they_could_not_ask(encrypted: Encrypted) -> None:
    """Each thing that is wrong with TLS has its own words and exit code 3; what cannot be used is usage."""
    (encrypted.folder / "other.crt").write_bytes(authority("another ca").pem)
    done = [
        command(encrypted, encrypted.target, "--tls-ca", "other.crt"),
        command(encrypted, encrypted.target, "--tls-ca", "ca.crt"),
        command(encrypted, encrypted.target.replace("localhost", "127.0.0.1")),
        command(encrypted, "gatebook.corp.example:7443"),
        command(encrypted, encrypted.target, "--tls-ca", "missing.crt"),
        command(encrypted, encrypted.token_target, "--tls-ca", "ca.crt"),
    ]

    assert [d.returncode for d in done] == [3, 3, 3, 2, 2, 1]
    told = [d.stderr.strip().removeprefix("gatebook: ") for d in done]
    assert told[0].endswith("does not verify: is --tls-ca the CA that signed it, and is that its name?")
    assert told[1].endswith("hung up: does it speak TLS, does it accept --tls-cert, and is --tls-key the key of that?")
    assert "plain text goes to loopback addresses only" in told[3]
    assert told[4] == "`missing.crt` cannot be read: No such file or directory"
    assert told[5].endswith("(UNAUTHENTICATED)")
