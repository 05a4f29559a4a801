"""The key of a book with another program: it signs, is away, refuses, answers wrongly or not at all."""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.books import ORIGIN
from tests.serving import POLICIES, RunningServer, gatebook, serving
from tests.signers import Signer, signing

from gatebook_client import BlockingConnection, Check, Decision, RetryPolicy, connect_blocking
from gatebook_client.errors import GatebookClientError
from gatebook_client.verify import verify_checkpoint, verify_receipt, verify_receipt_proof

QUESTION = ("alice", "read", "report:weekly")
ONCE = RetryPolicy(attempts_max=1)
SECONDS_MAX = 60.0


@pytest.fixture
def signer(tmp_path: Path) -> Iterator[Signer]:
    """Gives a signer that is honest at first."""
    with signing(tmp_path / "signer.sock") as running:
        yield running


@contextlib.contextmanager
def served(folder: Path) -> Iterator[RunningServer]:
    """Serves a new book whose key is with the signer."""
    with serving(
        folder / "data", [POLICIES / "basic"], "--origin", ORIGIN, "--signer", str(folder / "signer.sock")
    ) as one:
        yield one


def test_a_book_without_a_key_of_its_own(signer: Signer, tmp_path: Path) -> None:
    """Checkpoints and receipts verify by the signer's key, and no file of the data directory holds a private one."""
    with served(tmp_path) as server, connect_blocking(server.target, timeout_seconds=SECONDS_MAX) as client:
        vkey = str(signer.keys[ORIGIN].verifier)
        full, proved = (client.check(*QUESTION, receipt=level) for level in ("full", "proof"))
        batch = client.check_many([Check("alice", "read", f"report:{n}") for n in range(300)], receipt="full")
        verify_checkpoint(client.checkpoint(refresh=True).checkpoint, vkey)
    with serving(tmp_path / "data") as again, connect_blocking(again.target) as client:  # which remembers the signer
        assert client.check(*QUESTION).allowed
    backup, restored = tmp_path / "backup", tmp_path / "restored"
    gatebook("backup", str(backup), "--data", str(tmp_path / "data"), check=True)
    done = gatebook("restore", str(backup), "--data", str(restored), "--vkey", vkey, "--continue", "--no-erasures")

    verify_receipt(full, vkey)
    verify_receipt_proof(proved, vkey)
    for decision in batch:
        verify_receipt(decision, vkey)
    assert done.returncode == 0, done.stderr
    assert gatebook("audit", "verify", str(restored), "--vkey", vkey).returncode == 0
    assert f"{vkey}\nsigner {tmp_path / 'signer.sock'}\n" == (tmp_path / "data" / "keys" / "book.key").read_text()
    seed = base64.b64decode(signer.keys[ORIGIN].serialize().strip().split("+", 4)[4])[1:]
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        content = path.read_bytes()
        assert seed not in content
        assert base64.b64encode(b"\x01" + seed) not in content
    assert all(text.startswith((ORIGIN.encode(), b"gatebook/")) for text in signer.texts)


@pytest.mark.parametrize("mode", ["refusing", "wrong", "garbage", "silent", "gone"])
def test_a_signer_that_does_not_sign(tmp_path: Path, mode: str) -> None:
    """Checks go on, no receipt and no checkpoint is wrong, and when it signs again nothing is lost."""
    path = tmp_path / "signer.sock"
    with contextlib.ExitStack() as stack:
        signer = stack.enter_context(signing(path))
        server = stack.enter_context(served(tmp_path))
        client = stack.enter_context(connect_blocking(server.target, retries=ONCE, timeout_seconds=SECONDS_MAX))
        vkey = str(signer.keys[ORIGIN].verifier)
        before = client.checkpoint(refresh=True)
        if mode == "gone":
            signer.shutdown()
            signer.server_close()
            path.unlink()
        else:
            signer.mode = mode
        basic = client.check(*QUESTION)
        with pytest.raises(GatebookClientError) as raised:
            client.check(*QUESTION, receipt="full")
        [failed] = client.check_many([Check(*QUESTION)], receipt="full")
        with pytest.raises(GatebookClientError) as unproved:
            client.check(*QUESTION, receipt="proof")
        with pytest.raises(GatebookClientError) as unpublished:
            client.checkpoint(refresh=True)
        shown = (tmp_path / "data" / "book" / "checkpoint").read_bytes()
        wait_for(lambda: any(line["event"] == "signer away" for line in list(server.lines)))
        with contextlib.ExitStack() as second:
            if mode == "gone":
                second.enter_context(signing(path, signer.keys))
            signer.mode = "honest"
            signer.resumed.set()
            proved = asked_again(client)
            wait_for(lambda: any(line["event"] == "signer back" for line in list(server.lines)))
            entry = client.entry(int(raised.value.metadata["index"]), origin=ORIGIN)
            code = server.stop()
        if mode == "gone":
            path.touch()  # which the signer's end removes

    assert basic.allowed
    assert ("SIGNER_UNAVAILABLE", ORIGIN) == (raised.value.reason, raised.value.metadata["origin"])
    assert (False, "SIGNER_UNAVAILABLE") == (failed.allowed, failed.reason)
    assert "SIGNER_UNAVAILABLE" == unproved.value.reason
    assert "BOOK_UNAVAILABLE" == unpublished.value.reason
    assert verify_checkpoint(shown, vkey).size >= before.size
    assert entry.entry.decision.decision_id == raised.value.metadata["decision_id"]
    verify_receipt_proof(proved, vkey)
    assert code == 0


def wait_for(found: Callable[[], bool]) -> None:
    """Waits until something is so."""
    deadline = time.monotonic() + SECONDS_MAX
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def asked_again(client: BlockingConnection) -> Decision:
    """Asks until there is a receipt with a proof again."""
    deadline = time.monotonic() + SECONDS_MAX
    while True:
        try:
            return client.check(*QUESTION, receipt="proof")
        except GatebookClientError:
            assert time.monotonic() < deadline


def test_a_key_in_a_file_goes_to_a_signer_by_rotation(signer: Signer, tmp_path: Path) -> None:
    """A book with a key of its own is refused with a signer; its successor has its key there."""
    data = tmp_path / "data"
    with serving(data, [POLICIES / "basic"], "--origin", ORIGIN):
        pass
    path = str(tmp_path / "signer.sock")
    refused = gatebook("serve", "--data", str(data), "--listen", "127.0.0.1:0", "--signer", path)
    done = gatebook("keys", "rotate", "--data", str(data), "--signer", path, "--json")
    told = json.loads(done.stdout)["rotated"][0]
    with serving(data) as server, connect_blocking(server.target, timeout_seconds=SECONDS_MAX) as client:
        proved = client.check(*QUESTION, receipt="proof")

    assert refused.returncode == 1
    assert "gatebook keys rotate --signer" in refused.stderr
    assert str(signer.keys[f"{ORIGIN}/2"].verifier) == told["new"]
    verify_receipt_proof(proved, told["new"])
    assert gatebook("audit", "verify", str(data), "--vkey", told["new"]).returncode == 0


def test_no_book_is_begun_without_its_signer(tmp_path: Path) -> None:
    """Where nobody signs, a new book is not made, and the command says why."""
    arguments = ("--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0", "--policies", str(POLICIES / "basic"))
    done = gatebook("serve", *arguments, "--origin", ORIGIN, "--signer", str(tmp_path / "nobody.sock"))

    assert done.returncode == 1
    assert "from the signer" in done.stderr
    assert not (tmp_path / "data" / "keys" / "book.key").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    """Also behind a symbolic link, what counts are the permissions of the file itself."""
    data = tmp_path / "data"
    with serving(data, [POLICIES / "basic"], "--origin", ORIGIN):
        pass
    key, real = data / "keys" / "book.key", tmp_path / "real.key"
    key.rename(real)
    key.symlink_to(real)
    with serving(data):
        pass
    real.chmod(mode)
    done = gatebook("serve", "--data", str(data), "--listen", "127.0.0.1:0")

    assert done.returncode == 1
    assert "may be read by others" in done.stderr
