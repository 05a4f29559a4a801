"""The life of a server: start, drain, kill, and what it refuses to start on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.serving import POLICIES, RunningServer, gatebook, serving

from gatebook.tlog.merkle import leaf_hash
from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import audit_service_pb2, entry_pb2, types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub

BASIC = POLICIES / "basic"


def check(subject: str = "alice") -> types_pb2.AccessRequest:
    """Builds a question for the set `basic`."""
    return types_pb2.AccessRequest(
        subject=types_pb2.Subject(id=subject),
        action=types_pb2.Action(name="read"),
        resource=types_pb2.Resource(id="report:weekly"),
    )


class Load:
    """Callers that ask until the server is gone, and keep the receipts of what was answered."""

    def __init__(self, server: RunningServer, callers: int) -> None:
        """Starts the callers."""
        self.receipts: list[types_pb2.Receipt] = []
        self.codes: list[grpc.StatusCode] = []
        self._target = server.target
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(callers)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        with grpc.insecure_channel(self._target) as channel:
            stub = AccessServiceStub(channel)
            while not self._over.is_set():
                try:
                    batch = pb.BatchCheckAccessRequest(items=[pb.CheckItem(access=check())] * (1 + number % 3))
                    results = stub.BatchCheckAccess(batch, timeout=20).results
                except grpc.RpcError as error:
                    self.codes.append(error.code())
                    return
                self.receipts.extend(result.decision.receipt for result in results)

    def stop(self) -> None:
        """Waits until every caller has ended."""
        self._over.set()
        for thread in self._threads:
            thread.join()


def entries_of(server: RunningServer) -> Iterator[audit_service_pb2.EntryRecord]:
    """Yields every entry of the book."""
    with server.channel() as channel:
        stub = AuditServiceStub(channel)
        request = audit_service_pb2.ListEntriesRequest(
            page_size=1_000, order=audit_service_pb2.ENTRY_ORDER_OLDEST_FIRST
        )
        while True:
            response = stub.ListEntries(request)
            yield from response.entries
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token


def test_a_drain_answers_what_was_accepted(tmp_path: Path) -> None:
    """A stop under load answers every accepted call and loses no entry; others are told to ask elsewhere."""
    data = tmp_path / "data"
    server = RunningServer(data, "--policies", str(BASIC))
    load = Load(server, callers=8)
    threading.Event().wait(0.5)
    exit_code = server.stop()
    load.stop()
    with serving(data) as again:
        leaves = {record.index: record.leaf_hash for record in entries_of(again)}
        system = [r.entry.system for r in entries_of(again) if r.entry.kind == entry_pb2.ENTRY_KIND_SYSTEM]

    assert exit_code == 0
    assert load.receipts
    assert set(load.codes) <= {grpc.StatusCode.UNAVAILABLE}
    assert [r.leaf_hash for r in load.receipts] == [leaves[r.index] for r in load.receipts]
    assert [(s.event, s.unclean) for s in system] == [
        (entry_pb2.SYSTEM_EVENT_BOOK_OPENED, False),
        (entry_pb2.SYSTEM_EVENT_STOPPED, False),
        (entry_pb2.SYSTEM_EVENT_STARTED, False),
    ]


def test_a_restart_serves_the_same_revision(tmp_path: Path) -> None:
    """What was active before a stop is active after it, without the folder it came from."""
    data = tmp_path / "data"
    with serving(data, [BASIC]) as server, server.channel() as channel:
        before = AccessServiceStub(channel).CheckAccess(pb.CheckAccessRequest(access=check())).decision
    with serving(data) as server, server.channel() as channel:
        after = AccessServiceStub(channel).CheckAccess(pb.CheckAccessRequest(access=check())).decision

    assert (before.effect, before.policy_revision) == (after.effect, after.policy_revision)


def test_two_servers_cannot_write_one_book(tmp_path: Path) -> None:
    """The second server on a data directory is refused and says why."""
    with serving(tmp_path / "data", [BASIC]):
        second = gatebook("serve", "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0")

    assert second.returncode == 1
    assert "another" in second.stderr


@pytest.mark.parametrize(
    "lost", ["people.db", "keys/people.key", "keys/mask.key", "keys/directory.key", "keys/book.key", "checkpoints.db"]
)
@pytest.mark.parametrize("how", ["removed", "emptied"])
def test_what_cannot_be_made_again_is_never_made_in_silence(tmp_path: Path, lost: str, how: str) -> None:
    """Without a key or a store that older entries need, a start is refused and says what to restore."""
    data = tmp_path / "data"
    with serving(data, [BASIC]) as server, server.channel() as channel:
        AccessServiceStub(channel).CheckAccess(pb.CheckAccessRequest(access=check()))
    if how == "removed":
        (data / lost).unlink()
    else:
        (data / lost).write_bytes(b"")
    refused = gatebook("serve", "--data", str(data), "--listen", "127.0.0.1:0")

    assert refused.returncode == 1, refused.stderr
    assert Path(lost).stem in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_lost_verifier_key_file_is_written_again(tmp_path: Path) -> None:
    """The verifier key follows from the signing key, so its file may be lost."""
    data = tmp_path / "data"
    with serving(data, [BASIC]):
        pass
    before = (data / "book" / "vkey").read_text()
    (data / "book" / "vkey").unlink()
    with serving(data):
        pass

    assert (data / "book" / "vkey").read_text() == before


@pytest.mark.parametrize("address", ["0.0.0.0:7443", "[::]:7443", "192.0.2.1:7443", "gate.example.org:7443", "7443"])
def test_plaintext_beyond_this_machine_is_refused(tmp_path: Path, address: str) -> None:
    """Without TLS the server listens on loopback only."""
    refused = gatebook("serve", "--data", str(tmp_path / "data"), "--listen", address)

    assert refused.returncode == 2
    assert "listen" in refused.stderr


def test_a_set_with_findings_does_not_start_and_leaves_an_entry(tmp_path: Path) -> None:
    """A folder that is refused stops the start, with every finding, and the refusal is in the book."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model.conf").write_bytes((BASIC / "model.conf").read_bytes())
    (broken / "policy.csv").write_text("pp, alice, data1, read, allow\np, bob, data2\n")
    refused = gatebook("serve", "--data", str(tmp_path / "data"), "--policies", str(broken), "--listen", "127.0.0.1:0")
    with serving(tmp_path / "data") as server:
        told = [r.entry.policy for r in entries_of(server) if r.entry.kind == entry_pb2.ENTRY_KIND_POLICY]

    assert refused.returncode == 1
    assert "policy.csv:1:" in refused.stderr
    assert "policy.csv:2:" in refused.stderr
    # The next start, without that folder, makes the set `gatebook` active.
    assert [(s.step, s.policy_set) for s in told] == [
        (entry_pb2.POLICY_STEP_REFUSED, ""),
        (entry_pb2.POLICY_STEP_ACTIVATED, "gatebook"),
    ]


def test_health_is_told_for_the_server_and_each_service(shipped: RunningServer) -> None:
    """A load balancer asks for the server or for a service and is told SERVING."""
    with shipped.channel() as channel:
        check_health = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]  # the stubs lack it
        for name in ("", "gatebook.v1.AccessService", "gatebook.v1.PolicyService", "gatebook.v1.AuditService"):
            status = check_health(health_pb2.HealthCheckRequest(service=name)).status
            assert status == health_pb2.HealthCheckResponse.SERVING


def test_the_log_has_one_line_per_call_and_nothing_personal(tmp_path: Path) -> None:
    """Each call is one line, without the ids and attributes that the caller sent."""
    with serving(tmp_path / "data", [BASIC]) as server, server.channel() as channel:
        request = pb.CheckAccessRequest(access=check("alice"), request_id="ticket-4711")
        request.access.subject.properties_json = b'{"nickname": "ally-cat"}'
        AccessServiceStub(channel).CheckAccess(request)
        server.stop()
        calls = [line for line in server.lines if line["event"] == "call"]

    assert [(c["method"], c["code"], c["items"]) for c in calls] == [("CheckAccess", "OK", 1)]
    for secret in ("alice", "ally-cat", "ticket-4711", "report:weekly"):
        assert secret not in "\n".join(server.raw)


def test_a_receipt_of_level_full_holds_what_was_written(shipped: RunningServer) -> None:
    """The entry's bytes hash to the leaf hash, and can be read by the caller."""
    request = pb.CheckAccessRequest(access=check(), receipt_level=types_pb2.RECEIPT_LEVEL_FULL)
    with shipped.channel() as channel:
        decision = AccessServiceStub(channel).CheckAccess(request).decision
    entry = entry_pb2.AuditEntry.FromString(decision.receipt.entry_bytes)

    assert leaf_hash(decision.receipt.entry_bytes) == decision.receipt.leaf_hash
    assert entry.decision.decision_id == decision.decision_id


def test_sigint_drains_as_sigterm_does(tmp_path: Path) -> None:
    """Ctrl-C ends a server in order."""
    server = RunningServer(tmp_path / "data", "--policies", str(BASIC))
    server.process.send_signal(signal.SIGINT)

    assert server.process.wait(30) == 0
