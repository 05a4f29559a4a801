"""What operators see: metrics that agree with what callers were answered, and health that tells the truth."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tests.certificates import Pair, authority, leaf, tls_options
from tests.scrapes import get, scrape
from tests.serving import POLICIES, RunningServer, gatebook, serving

from gatebook.gateway.connection import HEAD_SECONDS
from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub
from gatebook.v1.audit_service_pb2 import ListEntriesRequest
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub

ALLOWED, DENIED = "alice", "mallory-the-stranger"
PERSONAL = (ALLOWED, DENIED, "report:weekly")


def access(subject: str) -> types_pb2.AccessRequest:
    """Builds a question to the set `basic`."""
    return types_pb2.AccessRequest(
        subject=types_pb2.Subject(id=subject),
        action=types_pb2.Action(name="read"),
        resource=types_pb2.Resource(id="report:weekly"),
    )


def address_of(server: RunningServer) -> str:
    """Returns where a server tells operators."""
    return str(next(line for line in server.lines if line["event"] == "metrics")["listen"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Gives a server of which nobody else asks anything."""
    data = tmp_path_factory.mktemp("metrics") / "data"
    with serving(data, [POLICIES / "basic"], "--metrics", "127.0.0.1:0") as running:
        yield running


def test_metrics_agree_with_the_answers(server: RunningServer) -> None:
    """Calls, refusals, decisions, groups and book size are what was asked, answered and written since the start."""
    address = address_of(server)
    before = scrape(address)
    with server.channel() as channel:
        stub = AccessServiceStub(channel)
        for subject, count in ((ALLOWED, 5), (DENIED, 3)):
            for _ in range(count):
                stub.CheckAccess(pb.CheckAccessRequest(access=access(subject)), timeout=10)
        items = [pb.CheckItem(access=access(subject)) for subject in (*[ALLOWED] * 4, *[DENIED] * 16)]
        stub.BatchCheckAccess(pb.BatchCheckAccessRequest(items=items), timeout=10)
        with pytest.raises(grpc.RpcError):
            stub.BatchCheckAccess(pb.BatchCheckAccessRequest(), timeout=10)
        with pytest.raises(grpc.RpcError):
            stub.CheckAccess(pb.CheckAccessRequest(access=access(ALLOWED), policy_set="absent"), timeout=10)
        listed = AuditServiceStub(channel).ListEntries(ListEntriesRequest(page_size=1_000), timeout=10).entries
    after = scrape(address)

    assert 8 == after.value("gatebook_calls_total", operation="CheckAccess", code="OK", caller_kind="local")
    assert 9 == after.value("gatebook_call_seconds_count", operation="CheckAccess")
    assert 1 == after.value("gatebook_calls_total", operation="CheckAccess", code="NOT_FOUND")
    assert 1 == after.value("gatebook_refused_calls_total", operation="BatchCheckAccess", reason="INVALID_REQUEST")
    assert 1 == after.value("gatebook_refused_calls_total", operation="CheckAccess", reason="POLICY_SET_NOT_FOUND")
    assert 9 == after.value("gatebook_decisions_total", policy_set="basic", effect="ALLOW", reason="ALLOWED")
    assert 19 == after.value("gatebook_decisions_total", policy_set="basic", effect="DENY", reason="NO_MATCHING_RULE")
    assert 28 == after.value("gatebook_decisions_together_sum")
    assert 9 == after.value("gatebook_decisions_together_count")
    # ListEntries writes an entry of its own and does not show it.
    assert len(listed) + 1 == after.value("gatebook_book_entries")
    assert 29 == after.value("gatebook_group_entries_sum") - before.value("gatebook_group_entries_sum")
    assert 10 == after.value("gatebook_fsync_seconds_count") - before.value("gatebook_fsync_seconds_count")
    assert len(listed) <= after.value("gatebook_published_entries") <= after.value("gatebook_book_entries")
    assert len(listed) <= after.value("gatebook_indexed_entries")
    assert 1 == after.value("gatebook_revision_number", policy_set="basic")
    assert 1 == after.value("gatebook_book_writable")
    assert 0 == after.value("gatebook_calls_in_flight") == after.value("gatebook_writer_waiting_entries")


def test_metrics_name_nobody(server: RunningServer) -> None:
    """No label holds what a request brought."""
    with server.channel() as channel:
        AccessServiceStub(channel).CheckAccess(pb.CheckAccessRequest(access=access(DENIED)), timeout=10)
    told = scrape(address_of(server)).text
    assert [] == [word for word in PERSONAL if word in told]


def test_health(server: RunningServer) -> None:
    """A server that serves is alive and ready; there is nothing else on this port."""
    address = address_of(server)
    answers = {path: get(address, path)[0] for path in ("/livez", "/readyz", "/", "/access/v1/evaluation")}
    assert answers == {"/livez": 200, "/readyz": 200, "/": 404, "/access/v1/evaluation": 404}


def test_plaintext_beyond_loopback_is_refused(tmp_path: Path) -> None:
    """Metrics are not told to other machines in plaintext, nor to whoever has no certificate."""
    told = gatebook("serve", "--data", str(tmp_path / "data"), "--metrics", "0.0.0.0:0")
    assert 2 == told.returncode
    assert "metrics: `0.0.0.0:0` is reachable from other machines" in told.stderr


def test_beyond_loopback_a_certificate_is_needed(tmp_path: Path) -> None:
    """Over TLS operators are told who show a certificate that the client CA has signed, and nobody else."""
    ca, other = authority(), authority("another ca")
    tls = tls_options(tmp_path, ca)
    with serving(tmp_path / "data", [POLICIES / "basic"], *tls, "--metrics", "0.0.0.0:0") as running:
        port = address_of(running).rpartition(":")[2]
        clients: dict[str, Pair | None] = {"ours": leaf(ca), "of another ca": leaf(other), "none": None}
        told = {name: asked_over_tls(port, ca, client, tmp_path) for name, client in clients.items()}
        assert told == {"ours": 200, "of another ca": 0, "none": 0}
        with pytest.raises((http.client.BadStatusLine, ConnectionError)):
            get(f"127.0.0.1:{port}", "/metrics")


def asked_over_tls(port: str, ca: Pair, client: Pair | None, folder: Path) -> int:
    """Asks for metrics over TLS, and returns the status; 0 where the connection does not come about."""
    context = ssl.create_default_context(cadata=ca.pem.decode())
    if client is not None:
        context.load_cert_chain(*client.write(folder, "client"))
    connection = http.client.HTTPSConnection("127.0.0.1", int(port), context=context, timeout=30)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().status
    except (ssl.SSLError, ConnectionError):
        return 0
    finally:
        connection.close()


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """A server that could not tell operators does not start."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        serve = ("serve", "--policies", str(POLICIES / "basic"), "--data", str(tmp_path / "data"))
        told = gatebook(*serve, "--listen", "127.0.0.1:0", "--metrics", address)
    assert 1 == told.returncode
    assert f"cannot listen on {address}" in told.stderr


def test_connections_that_ask_nothing_keep_no_operator_out(server: RunningServer) -> None:
    """Who opens connections and says nothing, or half a word, loses them, and a probe is answered meanwhile."""
    address = address_of(server)
    host, _, port = address.rpartition(":")
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection((host, int(port)), HEAD_SECONDS * 3)) for _ in range(40)]
        for number, one in enumerate(silent):
            one.sendall(b"GET /livez" * (number % 2))
        status, _ = get(address, "/livez")
        told = {ends(one) for one in silent}

    assert (200, {b""}) == (status, told)


def ends(connection: socket.socket) -> bytes:
    """Waits until the server closes a connection; returns what it said before."""
    with contextlib.suppress(ConnectionError):
        return connection.recv(100)
    return b""
