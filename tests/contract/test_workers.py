"""Several workers of one service: one port, one order of what is active, a book for each."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.contract.conftest import require_verified
from tests.serving import POLICIES, RunningServer, gatebook, serving

from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import audit_service_pb2, entry_pb2, policy_service_pb2, types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub
from gatebook.v1.policy_service_pb2_grpc import PolicyServiceStub

BASIC = POLICIES / "basic"
WORKERS = 3
CONNECTIONS = 60
"""So many that the kernel leaves no worker out, but for once in a billion runs."""
WAIT_SECONDS = 30.0


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Serves the set `basic` with three workers."""
    with serving(tmp_path_factory.mktemp("team") / "var", [BASIC], "--dev", "--workers", str(WORKERS)) as server:
        yield server


@contextmanager
def connection(server: RunningServer) -> Iterator[grpc.Channel]:
    """Opens a connection of its own, which the kernel gives to any worker."""
    with grpc.insecure_channel(server.target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield channel


def check(subject: str = "alice") -> pb.CheckAccessRequest:
    """Builds a question for the set `basic`."""
    access = types_pb2.AccessRequest(
        subject=types_pb2.Subject(id=subject),
        action=types_pb2.Action(name="read"),
        resource=types_pb2.Resource(id="report:weekly"),
    )
    return pb.CheckAccessRequest(policy_set="basic", access=access)


def receipts(server: RunningServer, subject: str = "alice") -> list[types_pb2.Decision]:
    """Asks over many connections and returns the decisions."""
    found = []
    for _ in range(CONNECTIONS):
        with connection(server) as channel:
            found.append(AccessServiceStub(channel).CheckAccess(check(subject), timeout=20).decision)
    return found


def eventually(holds: Callable[[], bool]) -> None:
    """Waits until something holds."""
    until = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < until, "it did not come to be"
        time.sleep(0.05)


def pid_of(server: RunningServer, worker: int) -> int:
    """Returns the process of a worker: they are the children of the server that serve, in the order of their start."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text(encoding="ascii")
    serving_ = [int(pid) for pid in children.split() if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return sorted(serving_)[worker]


def test_every_worker_answers_and_writes_into_its_own_book(team: RunningServer) -> None:
    """Connections reach all workers, and each answer's receipt names a book that holds it."""
    decisions = receipts(team)
    origins = {decision.receipt.origin for decision in decisions}
    with connection(team) as channel:
        audit = AuditServiceStub(channel)
        books = audit.ListBooks(audit_service_pb2.ListBooksRequest()).books
        for decision in decisions:
            asked = audit_service_pb2.GetEntryRequest(index=decision.receipt.index, origin=decision.receipt.origin)
            record = audit.GetEntry(asked).record
            assert decision.receipt.leaf_hash == record.leaf_hash
            assert decision.decision_id == record.entry.decision.decision_id

    assert origins == {book.origin for book in books}
    assert len(origins) == WORKERS


@pytest.mark.parametrize(
    "order", [audit_service_pb2.ENTRY_ORDER_NEWEST_FIRST, audit_service_pb2.ENTRY_ORDER_OLDEST_FIRST]
)
def test_merged_pages_are_the_books_together_in_order_of_time(
    team: RunningServer, order: audit_service_pb2.EntryOrder.ValueType
) -> None:
    """Page by page a list of all books gives each decision once, as the lists of the single books do."""
    receipts(team)
    only = audit_service_pb2.EntryFilter(kind=entry_pb2.ENTRY_KIND_DECISION)

    def listed(origin: str, page_size: int) -> list[audit_service_pb2.EntryRecord]:
        request = audit_service_pb2.ListEntriesRequest(filter=only, order=order, origin=origin, page_size=page_size)
        found: list[audit_service_pb2.EntryRecord] = []
        while True:
            with connection(team) as channel:  # any worker may be asked for the next page
                response = AuditServiceStub(channel).ListEntries(request)
            found += response.entries
            request.page_token = response.next_page_token
            if not response.next_page_token:
                return found

    def place(record: audit_service_pb2.EntryRecord) -> tuple[int, str, int]:
        return record.entry.entry_time.ToNanoseconds(), record.origin, record.index

    with connection(team) as channel:
        books = AuditServiceStub(channel).ListBooks(audit_service_pb2.ListBooksRequest()).books
    single = [record for book in books for record in listed(book.origin, 1_000)]
    newest_first = order == audit_service_pb2.ENTRY_ORDER_NEWEST_FIRST

    assert [place(r) for r in sorted(single, key=place, reverse=newest_first)] == [place(r) for r in listed("", 7)]


def test_a_publish_is_answered_when_every_worker_decides_by_it(tmp_path: Path, team: RunningServer) -> None:
    """Whichever worker takes a publish, every worker answers by its revision at once."""
    draft = tmp_path / "basic"
    shutil.copytree(BASIC, draft)
    for round_ in range(4):
        name = f"newcomer{round_}"
        with (draft / "policy.csv").open("a", encoding="utf-8") as file:
            file.write(f"p, {name}, report:weekly, read, allow\n")
        files = [
            policy_service_pb2.PolicyFile(path=str(path.relative_to(draft)), content=path.read_bytes())
            for path in draft.rglob("*")
            if path.is_file()
        ]
        with connection(team) as channel:
            request = policy_service_pb2.PublishPolicySetRequest(policy_set="basic", files=files)
            number = PolicyServiceStub(channel).PublishPolicySet(request).revision.number
        decisions = receipts(team, name)

        assert {(number, types_pb2.EFFECT_ALLOW)} == {(d.policy_revision.number, d.effect) for d in decisions}


def test_a_refused_publish_tells_its_findings_through_any_worker(team: RunningServer) -> None:
    """A worker that passes a publish on passes its error on too, with every detail."""
    files = [policy_service_pb2.PolicyFile(path="model.conf", content=b"[request_definition]\n")]
    request = policy_service_pb2.PublishPolicySetRequest(policy_set="basic", files=files)
    told = set()
    for _ in range(CONNECTIONS // 3):
        with connection(team) as channel:
            publish = PolicyServiceStub(channel).PublishPolicySet
            with pytest.raises(grpc.RpcError) as caught:
                publish(request)
        [details] = [m.value for m in caught.value.trailing_metadata() if m.key == "grpc-status-details-bin"]
        status = status_pb2.Status.FromString(details)
        told.add((caught.value.code().name, caught.value.details(), len(status.details)))

    assert [("FAILED_PRECONDITION", 2)] == [(code, count) for code, _, count in told]


def test_an_index_alone_names_no_entry_among_several_books(team: RunningServer) -> None:
    """A decision's id finds its entry in whichever book it is; an index needs the book."""
    [decision, *_] = receipts(team)
    with connection(team) as channel:
        audit = AuditServiceStub(channel)
        record = audit.GetEntry(audit_service_pb2.GetEntryRequest(decision_id=decision.decision_id)).record
        with pytest.raises(grpc.RpcError) as caught:
            audit.GetEntry(audit_service_pb2.GetEntryRequest(index=0))

    assert (decision.receipt.origin, decision.receipt.index) == (record.origin, record.index)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_tail_follows_every_book(team: RunningServer) -> None:
    """Entries of all workers arrive at a tail that names no book."""
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            receipts(team)

    asking = threading.Thread(target=ask)
    asking.start()
    seen: set[str] = set()
    try:
        with connection(team) as channel:
            only = audit_service_pb2.EntryFilter(kind=entry_pb2.ENTRY_KIND_DECISION)
            tail = AuditServiceStub(channel).TailEntries(audit_service_pb2.TailEntriesRequest(filter=only), timeout=60)
            while len(seen) < WORKERS:
                seen |= {record.origin for record in next(tail).entries}
            tail.cancel()
    finally:
        over.set()
        asking.join()

    assert len(seen) == WORKERS


def test_a_killed_worker_comes_back_and_keeps_what_it_answered(tmp_path: Path) -> None:
    """After kill -9 the others answer, the worker is started again, and every book verifies with every receipt."""
    data = tmp_path / "var"
    with serving(data, [BASIC], "--workers", str(WORKERS)) as server:
        before = receipts(server)
        os.kill(pid_of(server, 2), signal.SIGKILL)
        eventually(lambda: any(line.get("event") == "worker ended" for line in server.lines))
        eventually(
            lambda: sum(line.get("event") == "worker serving" for line in server.lines) == WORKERS + 1,
        )
        after = receipts(server)
        with connection(server) as channel:
            audit = AuditServiceStub(channel)
            for decision in (*before, *after):
                record = audit.GetEntry(audit_service_pb2.GetEntryRequest(decision_id=decision.decision_id)).record
                assert decision.receipt.leaf_hash == record.leaf_hash
        assert server.stop() == 0
    assert len({decision.receipt.origin for decision in after}) == WORKERS
    for home in (data, data / "workers" / "1", data / "workers" / "2"):
        require_verified(home)


def test_without_the_first_worker_the_service_ends(tmp_path: Path) -> None:
    """What is active comes from the first worker, so its end is the end of all, with a code that asks for a restart."""
    with serving(tmp_path / "var", [BASIC], "--workers", "2") as server:
        os.kill(pid_of(server, 0), signal.SIGKILL)

        assert server.process.wait(WAIT_SECONDS) != 0


def test_workers_end_when_the_process_that_started_them_is_killed(tmp_path: Path) -> None:
    """Workers do not outlive the service: they drain and let go of the port and the data."""
    server = RunningServer(tmp_path / "var", "--policies", str(BASIC), "--workers", "2")
    pids = [pid_of(server, number) for number in range(2)]
    server.process.kill()
    server.process.wait(WAIT_SECONDS)
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    with serving(tmp_path / "var", [], "--workers", "2") as again:
        decisions = receipts(again)

    assert {types_pb2.EFFECT_ALLOW} == {decision.effect for decision in decisions}


def test_a_worker_that_lost_the_first_decides_nothing(tmp_path: Path) -> None:
    """A worker whose lease is over refuses, says why, and decides again when the first one is back."""
    with serving(tmp_path / "var", [BASIC], "--workers", "2") as server:
        follower = worker_channel(server, first=False)
        with follower as channel:
            access = AccessServiceStub(channel)
            first = pid_of(server, 0)
            os.kill(first, signal.SIGSTOP)
            try:
                codes: list[grpc.StatusCode] = []
                eventually(lambda: refused(access, codes))
            finally:
                os.kill(first, signal.SIGCONT)
            eventually(lambda: not refused(access, codes))

    assert {grpc.StatusCode.UNAVAILABLE} == set(codes)


@contextmanager
def worker_channel(server: RunningServer, *, first: bool) -> Iterator[grpc.Channel]:
    """Opens connections until one is to the first worker, or to another."""
    while True:
        with connection(server) as channel:
            decision = AccessServiceStub(channel).CheckAccess(check(), timeout=20).decision
            if ("/worker/" in decision.receipt.origin) is not first:
                yield channel
                return


def refused(access: AccessServiceStub, codes: list[grpc.StatusCode]) -> bool:
    """Tells whether a check is refused, and keeps the code."""
    try:
        access.CheckAccess(check(), timeout=20)
    except grpc.RpcError as error:
        codes.append(error.code())
        return True
    return False


def test_a_data_directory_takes_more_workers_and_fewer(tmp_path: Path) -> None:
    """The first worker's book is that of a service with one worker; the others' wait until they are served again."""
    data = tmp_path / "var"
    sizes = []
    for workers in ("1", "3", "1", "2"):
        with serving(data, [BASIC], "--workers", workers) as server:
            receipts(server)
            with connection(server) as channel:
                books = AuditServiceStub(channel).ListBooks(audit_service_pb2.ListBooksRequest()).books
            sizes.append(len(books))
            assert server.stop() == 0

    assert [1, 3, 1, 2] == sizes
    assert gatebook("audit", "verify", str(data), "--vkey", str(data / "book" / "vkey")).returncode == 0


def test_one_backup_holds_every_book(tmp_path: Path) -> None:
    """What all workers acknowledged before a backup is in the service that is restored from it, and goes on there."""
    data, restored = tmp_path / "var", tmp_path / "restored"
    with serving(data, [BASIC], "--workers", "2") as server:
        before = receipts(server)
        taken = gatebook("backup", str(tmp_path / "kept.tar"), "--data", str(data), "--json")
    assert taken.returncode == 0, taken.stderr
    shutil.rmtree(data)
    for archive, home in (("kept.tar", restored), ("kept.worker-1.tar", restored / "workers" / "1")):
        done = gatebook("restore", str(tmp_path / archive), "--data", str(home))
        assert done.returncode == 0, done.stderr
    held = gatebook("serve", "--data", str(restored), "--listen", "127.0.0.1:0", "--workers", "2")
    assert (1, True) == (held.returncode, "restored book" in held.stderr)
    for home in (restored, restored / "workers" / "1"):
        assert gatebook("restore", "--continue", "--no-erasures", "--data", str(home)).returncode == 0

    with serving(restored, [], "--workers", "2") as server, connection(server) as channel:
        audit = AuditServiceStub(channel)
        for decision in before:
            record = audit.GetEntry(audit_service_pb2.GetEntryRequest(decision_id=decision.decision_id)).record
            assert (decision.receipt.origin, decision.receipt.leaf_hash) == (record.origin, record.leaf_hash)
        after = receipts(server)

    assert {decision.receipt.origin for decision in before} == {decision.receipt.origin for decision in after}


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    """Workers share a port among themselves and with nobody else, although the kernel would let them."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = gatebook("serve", "--data", str(tmp_path / "var"), "--listen", address, "--workers", "2")

    assert (1, True) == (done.returncode, "is the port taken" in done.stderr)


def test_a_worker_that_hangs_holds_up_a_publish_no_longer_than_its_lease(tmp_path: Path) -> None:
    """A publish waits seconds, not a minute, for a worker that is stopped; which decides nothing by what was before."""
    draft = tmp_path / "basic"
    shutil.copytree(BASIC, draft, ignore=shutil.ignore_patterns("tests"))
    rules = draft / "policy.csv"
    rules.write_text(rules.read_text().replace("g, alice, role:editor\n", ""))
    files = [policy_service_pb2.PolicyFile(path=path.name, content=path.read_bytes()) for path in draft.iterdir()]
    request = policy_service_pb2.PublishPolicySetRequest(policy_set="basic", files=files)
    with (
        serving(tmp_path / "var", [BASIC], "--dev", "--workers", "2") as server,
        worker_channel(server, first=True) as first,
        worker_channel(server, first=False) as follower,
    ):
        access = AccessServiceStub(follower)
        hanging = pid_of(server, 1)
        os.kill(hanging, signal.SIGSTOP)
        try:
            number = PolicyServiceStub(first).PublishPolicySet(request, timeout=WAIT_SECONDS).revision.number
            asked = access.CheckAccess.future(check(), timeout=WAIT_SECONDS)
        finally:
            os.kill(hanging, signal.SIGCONT)
        told = asked.result() if asked.code() is grpc.StatusCode.OK else None
        eventually(lambda: not refused(access, []))
        after = access.CheckAccess(check(), timeout=WAIT_SECONDS).decision

    assert told is None or told.decision.policy_revision.number == number
    assert (number, types_pb2.EFFECT_DENY) == (after.policy_revision.number, after.effect)


def test_a_tail_of_all_books_does_not_end_as_if_there_were_no_more(tmp_path: Path) -> None:
    """Who follows every book is told when the worker of one dies: what that book holds beyond is not passed over."""
    with serving(tmp_path / "var", [BASIC], "--workers", "2") as server, worker_channel(server, first=True) as channel:
        tail = AuditServiceStub(channel).TailEntries(audit_service_pb2.TailEntriesRequest(), timeout=WAIT_SECONDS)
        ended: list[grpc.StatusCode] = []

        def follow() -> None:
            try:
                for _ in tail:
                    pass
            except grpc.RpcError as error:
                ended.append(error.code())

        following = threading.Thread(target=follow)
        following.start()
        with worker_channel(server, first=False) as follower:
            audit = AuditServiceStub(follower)
            reads = audit_service_pb2.ListEntriesRequest(
                filter=audit_service_pb2.EntryFilter(kind=entry_pb2.ENTRY_KIND_READ), page_size=1_000
            )

            def began() -> int:
                found = audit.ListEntries(reads, timeout=WAIT_SECONDS).entries
                return sum(record.entry.read.method == "TailEntries" for record in found)

            eventually(lambda: began() == 2)
        os.kill(pid_of(server, 1), signal.SIGKILL)
        following.join(WAIT_SECONDS)

    assert [grpc.StatusCode.UNAVAILABLE] == ended


def test_a_worker_that_lost_the_first_shows_nobody_its_book(tmp_path: Path) -> None:
    """Who may read is decided by rules too: a worker that may know old ones alone answers no call, whatever it asks."""
    with serving(tmp_path / "var", [BASIC], "--workers", "2") as server, worker_channel(server, first=False) as channel:
        origin = AccessServiceStub(channel).CheckAccess(check(), timeout=WAIT_SECONDS).decision.receipt.origin
        audit = AuditServiceStub(channel)

        def ends() -> grpc.StatusCode:
            try:
                audit.GetCheckpoint(audit_service_pb2.GetCheckpointRequest(origin=origin), timeout=WAIT_SECONDS)
            except grpc.RpcError as error:
                return error.code()
            return grpc.StatusCode.OK

        assert grpc.StatusCode.OK is ends()
        first = pid_of(server, 0)
        os.kill(first, signal.SIGSTOP)
        try:
            eventually(lambda: refused(AccessServiceStub(channel), []))
            told = ends()
        finally:
            os.kill(first, signal.SIGCONT)
        eventually(lambda: ends() is grpc.StatusCode.OK)

    assert grpc.StatusCode.UNAVAILABLE is told


def test_a_worker_that_lost_the_first_does_not_say_that_it_serves(tmp_path: Path) -> None:
    """The health of a worker whose lease is over sends its callers elsewhere, and comes back with the lease."""
    with serving(tmp_path / "var", [BASIC], "--workers", "2") as server, worker_channel(server, first=False) as channel:
        check_health = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]  # the stubs lack it

        def is_serving() -> bool:
            told = check_health(health_pb2.HealthCheckRequest(), timeout=WAIT_SECONDS)
            return bool(told.status == health_pb2.HealthCheckResponse.SERVING)

        assert is_serving()
        first = pid_of(server, 0)
        os.kill(first, signal.SIGSTOP)
        try:
            eventually(lambda: not is_serving())
        finally:
            os.kill(first, signal.SIGCONT)
        eventually(is_serving)
