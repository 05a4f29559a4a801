"""Receipts with proofs, of a real server: each is checked by RFC 6962 as it is written, or there is no answer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from google.rpc import error_details_pb2, status_pb2
from tests import rfc6962
from tests.books import ORIGIN, key_of
from tests.serving import POLICIES, RunningServer, gatebook, serving
from tests.witnesses import RunningWitness, create, witnessing

import gatebook_client
from gatebook.audit.publish import HASTENED_SECONDS
from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub
from gatebook_client import Check, RetryPolicy, connect_blocking
from gatebook_client.errors import GatebookClientError
from gatebook_client.verify import (
    CheckpointMemory,
    ContradictionError,
    VerificationError,
    proof_file,
    receipt_proof_file,
    verify_inclusion,
    verify_proof_file,
    verify_receipt,
    verify_receipt_proof,
)

SERVED = ([POLICIES / "basic"], "--origin", ORIGIN)
QUESTION = ("alice", "read", "report:weekly")
CHECK = Check(*QUESTION)
ONCE = RetryPolicy(attempts_max=1)
SECONDS_MAX = 60.0
PROOF, WITNESSED = types_pb2.RECEIPT_LEVEL_PROOF, types_pb2.RECEIPT_LEVEL_WITNESSED


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Gives a server without witnesses."""
    with serving(tmp_path_factory.mktemp("proved") / "data", *SERVED) as running:
        yield running


def access(*question: str) -> types_pb2.AccessRequest:
    """Returns a question as a message."""
    subject, action, resource = question or QUESTION
    return types_pb2.AccessRequest(
        subject=types_pb2.Subject(type="user", id=subject),
        action=types_pb2.Action(name=action),
        resource=types_pb2.Resource(id=resource),
    )


def leaves_of(server: RunningServer, size: int) -> list[bytes]:
    """Returns the exact bytes of the entries before a size."""
    with connect_blocking(server.target, timeout_seconds=SECONDS_MAX) as client:
        found = [record.entry_bytes for record in client.entries(oldest_first=True, end_index=size)]
    assert len(found) == size
    return found


def require_proved(receipt: types_pb2.Receipt, server: RunningServer) -> int:
    """Requires a proof that leads from the entry to the root that the book's key signed; returns the size.

    Nothing of ours takes part: the signature is Ed25519 over the text of the note, root and path are those of RFC 6962.
    """
    text, _, lines = receipt.proof.checkpoint.partition("\n\n")
    origin, size, root = text.split("\n")
    _, name, blob = lines.splitlines()[0].split()
    vkey = (server.data / "book" / "vkey").read_text().strip()
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(vkey.split("+", 2)[2])[1:])
    key.verify(base64.b64decode(blob)[4:], f"{text}\n".encode())
    entries = leaves_of(server, int(size))

    assert (ORIGIN, ORIGIN, receipt.origin) == (origin, name, origin)
    assert entries[receipt.index] == receipt.entry_bytes
    assert hashlib.sha256(b"\x00" + receipt.entry_bytes).digest() == receipt.leaf_hash
    assert base64.b64encode(rfc6962.mth(entries)).decode() == root
    assert rfc6962.path(receipt.index, entries) == list(receipt.proof.hashes)
    return int(size)


@contextlib.contextmanager
def held(server: RunningServer) -> Iterator[None]:
    """Stops within the block the process that writes tiles, so that nothing is published."""
    [clerk] = server.children()
    os.kill(clerk, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(clerk, signal.SIGCONT)


def refusal_of(error: grpc.RpcError) -> tuple[grpc.StatusCode, error_details_pb2.ErrorInfo]:
    """Returns code and reason of a failed call."""
    failed: Any = error  # a call that failed is an error and a call, and the stubs know it as the first
    status = dict(failed.trailing_metadata())["grpc-status-details-bin"]
    return failed.code(), info_of(status_pb2.Status.FromString(status))


def info_of(status: status_pb2.Status) -> error_details_pb2.ErrorInfo:
    """Returns the reason in a status."""
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info


def test_a_check_is_proved(server: RunningServer) -> None:
    """Allow or deny, the receipt of a check leads to a checkpoint that is signed and covers the entry."""
    with server.channel() as channel:
        for question in (QUESTION, ("carol", "read", "report:incidents")):
            request = pb.CheckAccessRequest(access=access(*question), receipt_level=PROOF)
            decision = AccessServiceStub(channel).CheckAccess(request, timeout=SECONDS_MAX).decision

            assert require_proved(decision.receipt, server) > decision.receipt.index
            verify_receipt_proof(decision, str(key_of(server.data)))


def test_a_batch_and_a_stream_are_proved(server: RunningServer) -> None:
    """Each item of a batch, and of a message of a stream, has a proof of its own entry."""
    items = [pb.CheckItem(correlation_id=f"{n}", access=access()) for n in range(300)]
    with server.channel() as channel:
        stub = AccessServiceStub(channel)
        batch = stub.BatchCheckAccess(
            pb.BatchCheckAccessRequest(items=items, receipt_level=PROOF), timeout=SECONDS_MAX
        ).results
        messages = [pb.StreamCheckAccessRequest(items=items[:5], receipt_level=PROOF) for _ in range(4)]
        stream = [
            one for answer in stub.StreamCheckAccess(iter(messages), timeout=SECONDS_MAX) for one in answer.results
        ]
    entries = leaves_of(server, max(int(one.decision.receipt.proof.checkpoint.split("\n")[1]) for one in stream))

    assert (300, 20) == (len(batch), len({one.decision.receipt.index for one in stream}))
    for one in (*batch[::37], *stream[::6]):
        receipt = one.decision.receipt
        size = int(receipt.proof.checkpoint.split("\n")[1])
        assert rfc6962.path(receipt.index, entries[:size]) == list(receipt.proof.hashes)
    for one in (*batch, *stream):
        verify_receipt_proof(one.decision, str(key_of(server.data)))


def test_a_plan_is_proved(tmp_path: Path) -> None:
    """The receipt of a plan leads to a checkpoint, too."""
    served = ([POLICIES / "telemetry"], "--directory", str(POLICIES / "telemetry" / "directory"))
    arguments = ("kai", "read", "ai_usage.team_daily")
    with serving(tmp_path / "data", *served) as running, connect_blocking(running.target) as client:
        purpose = "adoption_visualisation.team_dashboard"
        decision = client.plan(*arguments, dialect="postgres", purpose=purpose, receipt="proof").decision
        verify_receipt_proof(decision, (running.data / "book" / "vkey").read_text())

        assert decision.receipt is not None
        assert decision.receipt.checkpoint


def test_the_client_verifies_and_remembers(server: RunningServer, tmp_path: Path) -> None:
    """A receipt verifies with the key of the book and no other; its checkpoint continues what is remembered."""
    vkey = str(key_of(server.data))
    memory = CheckpointMemory(tmp_path / "seen", vkey)
    with connect_blocking(server.target, timeout_seconds=SECONDS_MAX) as client:
        first = client.check(*QUESTION, receipt="proof")
        second = client.check(*QUESTION, receipt="proof")
        kept = []
        for decision in (first, second, first):
            old, new = memory.wants_proof_of(decision)
            kept.append(
                memory.take_receipt(decision, client.consistency_proof(old, new_size=new) if new else None).size
            )
    proof = receipt_proof_file(second)

    assert first.allowed
    assert kept[0] < kept[1] == kept[2] == memory.size
    assert kept[1] == verify_proof_file(proof, second.raw.receipt.entry_bytes, vkey).size
    other = vkey.replace(ORIGIN, "other.test/book")
    for wrong in (other, str(key_of_stranger())):
        with pytest.raises(VerificationError):
            verify_receipt_proof(first, wrong)


def key_of_stranger() -> object:
    """Returns a key of the same name."""
    from gatebook.tlog.keys import SigningKey  # noqa: PLC0415  # one test needs it

    return SigningKey.generate(ORIGIN).verifier


@pytest.mark.parametrize("change", ["hash", "checkpoint", "leaf", "index", "none"])
def test_a_changed_proof_does_not_verify(server: RunningServer, change: str) -> None:
    """A proof with another hash, checkpoint, leaf or index, or without a checkpoint, is refused."""
    with connect_blocking(server.target, timeout_seconds=SECONDS_MAX) as client:
        decision = client.check(*QUESTION, receipt="proof").raw
    receipt = decision.receipt
    if change == "hash":
        receipt.proof.hashes[0] = bytes(32)
    elif change == "checkpoint":
        receipt.proof.checkpoint = receipt.proof.checkpoint.replace("\n", "\n1", 1)
    elif change == "leaf":
        receipt.leaf_hash = bytes(32)
    elif change == "index":
        receipt.index -= 1
    else:
        receipt.ClearField("proof")

    with pytest.raises(VerificationError):
        verify_receipt_proof(decision, str(key_of(server.data)))


def test_a_history_of_another_book_is_a_contradiction(tmp_path: Path) -> None:
    """A receipt of a second history under the same key is found out by what is remembered."""
    data, old = tmp_path / "data", tmp_path / "old"
    with serving(data, *SERVED):
        pass
    shutil.copytree(data, old)
    memory = CheckpointMemory(tmp_path / "seen", str(key_of(data)))
    for folder in (data, old):
        with serving(folder, *SERVED) as other, connect_blocking(other.target, timeout_seconds=SECONDS_MAX) as client:
            decision = client.check(*QUESTION, receipt="proof")
            client.check(*QUESTION, receipt="proof")
            verify_receipt_proof(decision, str(key_of(data)))
            if folder == data:
                memory.take_receipt(decision)
            else:
                with pytest.raises(ContradictionError):
                    memory.take_receipt(decision)


async def test_many_who_wait_share_publications(server: RunningServer) -> None:
    """Of many calls that wait for a proof at once, each has one, and the checkpoints are few."""
    began = time.monotonic()
    async with gatebook_client.connect(server.target, timeout_seconds=SECONDS_MAX) as client:
        asked = [client.check(f"person-{n}", "read", "report:weekly", receipt="proof") for n in range(400)]
        answers = await asyncio.gather(*asked)
    spent = time.monotonic() - began
    for decision in answers:
        verify_receipt_proof(decision, str(key_of(server.data)))

    assert len({decision.raw.receipt.index for decision in answers}) == len(answers)
    assert len({decision.raw.receipt.proof.checkpoint for decision in answers}) <= spent / HASTENED_SECONDS + 2


def test_what_is_not_published_in_time_is_no_answer(server: RunningServer) -> None:
    """The error names the entry, before the deadline of the call; the entry is in the book and provable later."""
    vkey = str(key_of(server.data))
    with server.channel() as channel, connect_blocking(server.target, timeout_seconds=SECONDS_MAX) as client:
        stub = AccessServiceStub(channel)
        request = pb.CheckAccessRequest(access=access(), receipt_level=PROOF)
        with held(server):
            with pytest.raises(grpc.RpcError) as raised:
                stub.CheckAccess(request, timeout=1.5)
            batch = pb.BatchCheckAccessRequest(items=[pb.CheckItem(access=access())] * 2, receipt_level=PROOF)
            results = stub.BatchCheckAccess(batch, timeout=1.5).results
            basic = client.check(*QUESTION)
        code, told = refusal_of(raised.value)
        proof = client.inclusion_proof(int(told.metadata["index"]))
        entry = client.entry(int(told.metadata["index"]))

    assert (grpc.StatusCode.DEADLINE_EXCEEDED, "RECEIPT_PENDING", ORIGIN) == (
        code,
        told.reason,
        told.metadata["origin"],
    )
    assert basic.allowed, "who asks for no proof does not wait"
    assert ["error", "error"] == [one.WhichOneof("outcome") for one in results]
    assert ["RECEIPT_PENDING"] * 2 == [info_of(one.error).reason for one in results]
    verify_inclusion(bytes.fromhex(told.metadata["leaf_hash"]), int(told.metadata["index"]), proof, vkey)
    assert entry.entry.decision.decision_id == told.metadata["decision_id"]
    assert verify_proof_file(proof_file(proof), entry.entry_bytes, vkey).size > entry.index


def test_a_client_denies_without_the_proof(server: RunningServer) -> None:
    """A client that asked for a proof and is told that it is pending does not allow."""
    with held(server), connect_blocking(server.target, retries=ONCE, timeout_seconds=1.5) as client:
        with pytest.raises(GatebookClientError) as raised:
            client.check(*QUESTION, receipt="proof")
        [one] = client.check_many([CHECK], receipt="proof")

    assert raised.value.reason == "RECEIPT_PENDING"
    assert (False, "RECEIPT_PENDING") == (one.allowed, one.reason)


def test_a_cancelled_call_leaves_nothing_behind(server: RunningServer) -> None:
    """Who goes away while waiting is forgotten; the entry stays, and others are answered."""
    request = pb.CheckAccessRequest(access=access(), receipt_level=PROOF)
    with server.channel() as channel, connect_blocking(server.target, timeout_seconds=SECONDS_MAX) as client:
        stub = AccessServiceStub(channel)
        with held(server):
            calls = [stub.CheckAccess.future(request, timeout=SECONDS_MAX) for _ in range(50)]
            stub.CheckAccess(pb.CheckAccessRequest(access=access()), timeout=SECONDS_MAX)  # which began behind them
            for call in calls:
                call.cancel()
        proved = client.check(*QUESTION, receipt="proof")
        gone = [line for line in list(server.lines) if line.get("code") == "CANCELLED" and "decision_id" in line]
        written = [client.entry(decision_id=line["decision_id"]).entry.decision for line in gone]

    assert all(call.cancelled() for call in calls)
    assert gone
    assert {types_pb2.EFFECT_ALLOW} == {decision.effect for decision in written}
    verify_receipt_proof(proved, str(key_of(server.data)))


def test_a_closing_server_proves_or_says_why_not(tmp_path: Path) -> None:
    """A server that is stopped answers who waits for a proof, with the proof or without the decision."""
    with serving(tmp_path / "data", *SERVED) as running:

        def ask(number: int) -> object:
            with connect_blocking(running.target, retries=ONCE, timeout_seconds=SECONDS_MAX) as client:
                try:
                    return client.check(f"person-{number}", "read", "report:weekly", receipt="proof")
                except GatebookClientError as error:
                    return error

        with ThreadPoolExecutor(20) as threads:
            asked = [threads.submit(ask, number) for number in range(20)]
            while not any(one.done() for one in asked):
                time.sleep(0.01)
            again = [threads.submit(ask, number) for number in range(20)]
            code = running.stop()
            answers = [one.result() for one in (*asked, *again)]
        vkey = (running.data / "book" / "vkey").read_text()

    assert code == 0
    for answer in answers:
        if isinstance(answer, GatebookClientError):
            assert answer.reason in {"DRAINING", "UNREACHABLE", "RECEIPT_PENDING"}
        else:
            verify_receipt_proof(answer, vkey)  # type: ignore[arg-type]  # it is a decision


@pytest.mark.parametrize("level", [WITNESSED, 17])
def test_a_level_that_cannot_be_given_is_refused_at_once(server: RunningServer, level: int) -> None:
    """Where nobody is asked to cosign, and of a level that nobody knows, nothing is decided."""
    with server.channel() as channel, connect_blocking(server.target) as client:
        stub = AccessServiceStub(channel)
        before = client.checkpoint(refresh=True).size
        request = pb.CheckAccessRequest(access=access("nobody-asked", "read", "x"))
        batch = pb.BatchCheckAccessRequest(items=[pb.CheckItem(access=access("nobody-asked", "read", "x"))])
        request.receipt_level = batch.receipt_level = level  # type: ignore[assignment]  # on purpose
        for ask in (
            lambda: stub.CheckAccess(request, timeout=SECONDS_MAX),
            lambda: stub.BatchCheckAccess(batch, timeout=SECONDS_MAX),
        ):
            with pytest.raises(grpc.RpcError) as raised:
                ask()
            code, told = refusal_of(raised.value)
            assert (grpc.StatusCode.INVALID_ARGUMENT, "receipt_level") == (code, told.metadata["field"])

        assert list(client.entries(subject_id="nobody-asked", start_index=before)) == []


def test_the_command_verifies(server: RunningServer, tmp_path: Path) -> None:
    """`gatebook check --receipt proof` verifies, remembers, and keeps a proof that stands alone."""
    vkey, kept = str(server.data / "book" / "vkey"), tmp_path / "answer.tlog-proof"
    command = ("check", *QUESTION, "--target", server.target, "--receipt", "proof", "--vkey")
    seen = ("--remember", str(tmp_path / "seen"))
    done = gatebook(*command, vkey, *seen, "--proof-file", str(kept))
    again = gatebook(*command, vkey, *seen, "--json")
    stranger = tmp_path / "stranger"
    stranger.write_text(f"{key_of_stranger()}\n")
    refused = gatebook(*command, str(stranger), "--remember", str(tmp_path / "other"))
    proof = kept.read_bytes().decode()
    entry = base64.b64decode(json.loads(again.stdout)["decision"]["receipt"]["entry_bytes"])

    assert [0, 0, 1] == [done.returncode, again.returncode, refused.returncode], (done.stderr, again.stderr)
    assert "is in the checkpoint of" in done.stdout
    assert "NOT VERIFIED" in refused.stderr
    assert proof.startswith("c2sp.org/tlog-proof@v1\nindex ")
    assert entry
    for wrong in (("--receipt", "basic", "--vkey", vkey), ("--receipt", "full", "--proof-file", str(kept))):
        assert gatebook("check", *QUESTION, "--target", server.target, *wrong).returncode == 2


def test_each_worker_proves_from_its_own_book(tmp_path: Path) -> None:
    """With several workers a receipt is of the book of the worker that answered, and is proved by that book's key."""
    with serving(tmp_path / "data", [POLICIES / "basic"], "--origin", ORIGIN, "--workers", "2") as running:
        origins: set[str] = set()
        deadline = time.monotonic() + SECONDS_MAX
        while len(origins) < 2 and time.monotonic() < deadline:  # the kernel spreads connections as it likes
            with connect_blocking(running.target, timeout_seconds=SECONDS_MAX) as client:
                decision = client.check(*QUESTION, receipt="proof")
            origin = decision.raw.receipt.origin
            home = running.data if origin == ORIGIN else running.data / "workers" / origin.rpartition("/")[2]
            verify_receipt_proof(decision, (home / "book" / "vkey").read_text())
            origins.add(origin)

    assert {ORIGIN, f"{ORIGIN}/worker/1"} == origins


@asynccontextmanager
async def witnessed_server(folder: Path) -> AsyncIterator[tuple[RunningServer, list[RunningWitness]]]:
    """Runs a server with two witnesses, of which one is needed."""
    with serving(folder / "data", *SERVED):
        pass
    key = str(key_of(folder / "data"))
    with ExitStack() as stack:
        for name in ("w1", "w2"):
            create(folder / name, f"witness.test/{name}")
        witnesses = [stack.enter_context(witnessing(folder / name, "--origin", key)) for name in ("w1", "w2")]
        stated = [word for each in witnesses for word in ("--witness", f"http://{each.address}={each.key}")]
        server = stack.enter_context(serving(folder / "data", *SERVED, *stated, "--witnesses-needed", "1"))
        yield server, witnesses


async def test_a_receipt_can_wait_for_witnesses(tmp_path: Path) -> None:
    """With enough witnesses the checkpoint of a receipt is cosigned; without, there is no answer, but a plain proof."""
    async with witnessed_server(tmp_path) as (server, witnesses):
        vkey, keys = str(key_of(server.data)), [str(each.key) for each in witnesses]
        async with gatebook_client.connect(server.target, retries=ONCE, timeout_seconds=SECONDS_MAX) as client:
            decision = await client.check(*QUESTION, receipt="witnessed")
            require_proved(decision.raw.receipt, server)
            verify_receipt_proof(decision, vkey, witnesses=keys, witnesses_needed=1)
            command = ("check", *QUESTION, "--receipt", "witnessed", "--vkey", vkey, "--target", server.target)
            told = gatebook(*command, *(word for key in keys[:1] for word in ("--witness", key)))
            witnesses[0].stop()
            other = await client.check(*QUESTION, receipt="witnessed")
            verify_receipt_proof(other, vkey, witnesses=keys[1:])
            witnesses[1].stop()
            began = time.monotonic()
            with pytest.raises(GatebookClientError) as raised:
                await client.check(*QUESTION, receipt="witnessed")
            spent = time.monotonic() - began
            proved = await client.check(*QUESTION, receipt="proof")

    assert decision.allowed
    assert told.returncode in {0, 1}, told.stderr
    assert ("cosigned by" in told.stdout) == (told.returncode == 0)
    assert raised.value.reason == "RECEIPT_PENDING"
    assert "cosigned" in raised.value.message
    assert spent < SECONDS_MAX, "there is a limit beside the deadline of the call"
    verify_receipt(proved, vkey)
    assert proved.allowed
