"""Keys are rotated by closing a book and opening its successor: by the command, and as callers and auditors see it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.books import ORIGIN, key_of
from tests.serving import POLICIES, gatebook, serving
from tests.witnesses import witnessing

from gatebook.audit.book import Book
from gatebook.audit.chain import find_end
from gatebook.audit.entry import Stamp, encode_system
from gatebook.audit.publish import Publisher
from gatebook.cli.rotate import successor_origin
from gatebook.v1 import entry_pb2
from gatebook_client import connect_blocking
from gatebook_client.errors import GatebookClientError
from gatebook_client.verify import (
    VerificationError,
    verify_checkpoint,
    verify_consistency,
    verify_inclusion,
    verify_receipt_proof,
)

SERVED = ([POLICIES / "basic"], "--origin", ORIGIN)
QUESTION = ("alice", "read", "report:weekly")


def served_once(data: Path, *arguments: str, policies: bool = True) -> None:
    """Serves a data directory, and asks one question."""
    folders = [POLICIES / "basic"] if policies else []
    with serving(data, folders, *arguments) as server, connect_blocking(server.target) as client:
        assert client.check(*QUESTION).allowed


def rotate(data: Path, *arguments: str, code: int = 0) -> dict[str, str]:
    """Runs the command; returns what it says of the first book, or its error."""
    done = gatebook("keys", "rotate", "--data", str(data), "--json", *arguments)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)["rotated"][0] if code == 0 else {"error": done.stderr}


@pytest.fixture(scope="module")
def rotated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Gives a data directory whose book was closed, and what the command said; nobody changes it."""
    data = tmp_path_factory.mktemp("rotated") / "data"
    served_once(data, "--origin", ORIGIN)
    return data, rotate(data, "--reason", "once a year")


def copied(rotated: tuple[Path, dict[str, str]], folder: Path) -> tuple[Path, dict[str, str]]:
    """Returns a copy of a rotated directory."""
    data, told = rotated
    shutil.copytree(data, folder / "data")
    return folder / "data", {**told, "folder": str(folder / "data" / Path(told["folder"]).relative_to(data))}


def verify(data: Path, vkey: str, *arguments: str) -> tuple[int, str]:
    """Verifies a book, and returns the exit code and what was said."""
    done = gatebook("audit", "verify", str(data), "--vkey", vkey, *arguments)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("origin", "expected"),
    [("gate.test/a", "gate.test/a/2"), ("gate.test/a/2", "gate.test/a/3"), ("gate.test/a/0", "gate.test/a/0/2")],
)
def test_the_origin_of_a_successor(origin: str, expected: str) -> None:
    """A successor has the origin of the old book with the next number."""
    assert expected == successor_origin(origin)


def test_what_is_active_goes_on(rotated: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    """The successor decides by the same revisions, with another origin and key; nothing is published again."""
    data, told = copied(rotated, tmp_path)
    with serving(data) as server, connect_blocking(server.target) as client:
        decision = client.check(*QUESTION, receipt="proof")
        revisions = gatebook("policy", "list", "--target", server.target).stdout
        records = list(client.entries(oldest_first=True))
        subjects = [record.index for record in client.entries(subject_id="alice")]
    steps = [record.entry.system.event for record in records if record.entry.HasField("system")]

    assert decision.allowed
    assert f"{ORIGIN}/2" == decision.raw.receipt.origin
    verify_receipt_proof(decision, told["new"])
    with pytest.raises(VerificationError):
        verify_receipt_proof(decision, told["old"])
    assert ["basic", "gatebook"] == sorted(line.split()[0] for line in revisions.splitlines()[1:] if line.strip())
    assert [entry_pb2.SYSTEM_EVENT_SUCCEEDED, entry_pb2.SYSTEM_EVENT_STARTED] == steps
    assert not [record for record in records if record.entry.HasField("policy")]
    assert [decision.raw.receipt.index] == subjects


def test_both_books_verify_as_a_chain(rotated: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    """The successor verifies with its predecessor, and the closed book alone by its own key, naming the successor."""
    data, told = rotated
    new, old = verify(data, told["new"]), verify(Path(told["folder"]) / "book", told["old"])
    alone = tmp_path / "alone"
    shutil.copytree(data / "book", alone)
    without = verify(alone, told["new"])
    named = verify(alone, told["new"], "--predecessor", told["folder"])

    assert (0, 0, 0, 0) == (new[0], old[0], without[0], named[0])
    assert f"succeeds     {ORIGIN}, verified to its last of {told['size']} entries" in new[1]
    assert f"goes on as {told['new']}" in old[1]
    assert "not checked" in without[1]
    assert "name it with --predecessor" in without[1]
    assert "succeeds" in named[1]


def test_a_chain_of_three(rotated: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    """Rotated again, all three books verify, and what is active has gone on twice."""
    data, _ = copied(rotated, tmp_path)
    told = rotate(data)
    served_once(data, policies=False)
    code, said = verify(data, told["new"], "--json")

    assert code == 0, said
    assert [f"{ORIGIN}/2", ORIGIN] == [link["origin"] for link in json.loads(said)["predecessors"]]
    assert all(link["verified"] for link in json.loads(said)["predecessors"])


def forge(folder: Path, key: str, entries: int) -> None:
    """Has the old key, which somebody kept, write on in a closed book."""
    path = folder / "keys" / "book.key"
    path.write_text(key)
    path.chmod(0o600)
    book = Book.open(folder, origin=ORIGIN, create=False)
    try:
        end = find_end(book)
        stamp = Stamp.of(end.last_entry_time, "gatebook", end.control_link)
        book.append_group([encode_system(entry_pb2.SYSTEM_EVENT_STARTED, stamp, version="1") for _ in range(entries)])
        Publisher(book).publish_now()
    finally:
        book.close()


def test_broken_chains_are_findings(tmp_path: Path) -> None:
    """A predecessor with more or fewer entries, another one, or none that is closed, is reported as a broken link."""
    data, before = tmp_path / "data", tmp_path / "before"
    served_once(data, "--origin", ORIGIN)
    shutil.copytree(data, before)
    key = (data / "keys" / "book.key").read_text()
    told = rotate(data)
    folder, alone = Path(told["folder"]), tmp_path / "alone"
    shutil.copytree(data / "book", alone)
    longer = tmp_path / "longer"
    shutil.copytree(folder, longer)
    forge(longer, key, 3)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(before, elsewhere)
    rotate(elsewhere, "--origin", "gate.test/elsewhere")
    other = next((elsewhere / "closed").iterdir())

    for wrong, what in ((longer, "follows the one that closed"), (before, "ends at"), (other, "another root")):
        code, said = verify(alone, told["new"], "--predecessor", str(wrong))
        assert code == 1, said
        assert "the chain of books is broken at" in said
        assert what in said


def test_a_closed_book_is_not_served(rotated: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    """Neither the closed book nor the successor under the old origin is served."""
    data, told = copied(rotated, tmp_path)
    refused = gatebook("serve", "--data", str(data), "--listen", "127.0.0.1:0", "--origin", ORIGIN)
    assert refused.returncode == 1
    assert f"the book is `{ORIGIN}/2`" in refused.stderr
    assert not (Path(told["folder"]) / "keys" / "book.key").exists()


def test_a_served_book_is_not_closed(tmp_path: Path) -> None:
    """While a service has it open, the command changes nothing."""
    data = tmp_path / "data"
    with serving(data, *SERVED) as server:
        error = rotate(data, code=1)["error"]
        with connect_blocking(server.target) as client:
            assert client.check(*QUESTION).allowed
    assert "stop it first" in error
    assert not (data / "rotation.json").exists()


def test_wrong_wishes_change_nothing(tmp_path: Path) -> None:
    """An origin that cannot be, a reason that is too long, a key that is not lost: each is refused before anything."""
    data = tmp_path / "data"
    served_once(data, "--origin", ORIGIN)
    for wish in (("--origin", ORIGIN), ("--origin", "a b"), ("--reason", "x" * 513), ("--key-lost",)):
        rotate(data, *wish, code=1)
    assert not (data / "rotation.json").exists()
    assert not (data / "closed").exists()
    served_once(data, policies=False)


def test_books_of_workers_are_closed_together(tmp_path: Path) -> None:
    """The books of all workers get successors, beneath the new origin."""
    data = tmp_path / "data"
    served_once(data, "--origin", ORIGIN, "--workers", "2")
    done = json.loads(gatebook("keys", "rotate", "--data", str(data), "--json", check=True).stdout)["rotated"]
    with serving(data, [], "--workers", "2") as server, connect_blocking(server.target) as client:
        assert client.check(*QUESTION).allowed
        finals = [client.checkpoint(origin=f"{ORIGIN}{beneath}") for beneath in ("", "/worker/1")]
        proof = client.inclusion_proof(0, origin=f"{ORIGIN}/worker/1")
        with pytest.raises(GatebookClientError, match="name one of the books"):
            client.checkpoint(origin="nobody.test/book")
    for each, final in zip(done, finals, strict=True):
        assert (each["old"], each["size"]) == (final.verifier_key, final.size)
    verify_inclusion(proof.leaf_hash, 0, proof, done[1]["old"])

    assert [f"{ORIGIN}/2", f"{ORIGIN}/2/worker/1"] == [name_in(each["new"]) for each in done]
    for home, each in zip((data, data / "workers" / "1"), done, strict=True):
        code, said = verify(home, each["new"])
        assert code == 0, said
        assert "succeeds" in said


def name_in(vkey: str) -> str:
    """Returns the name in a verifier key."""
    return vkey.partition("+")[0]


def test_a_backup_holds_both_books(rotated: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    """What a backup restores verifies as a chain, and is held as any restored book."""
    data, told = rotated
    backup, restored = tmp_path / "backup", tmp_path / "restored"
    gatebook("backup", str(backup), "--data", str(data), check=True)
    done = gatebook("restore", str(backup), "--data", str(restored), "--vkey", told["new"])
    assert done.returncode == 0, done.stderr
    refused = rotate(restored, code=1)["error"]
    code, said = verify(restored, told["new"])

    assert "gatebook restore --continue" in refused
    assert code == 0, said
    assert f"succeeds     {ORIGIN}, verified" in said


def test_a_lost_key_has_a_successor_that_says_so(tmp_path: Path) -> None:
    """Without its key a book gets a successor that says how far it was signed; verification tells it."""
    data = tmp_path / "data"
    served_once(data, "--origin", ORIGIN)
    old = key_of(data)
    (data / "keys" / "book.key").unlink()
    assert "missing" in gatebook("serve", "--data", str(data), "--listen", "127.0.0.1:0", "--origin", ORIGIN).stderr
    told = rotate(data, "--key-lost", "--reason", "the disk of the key died")
    served_once(data, policies=False)
    code, said = verify(data, told["new"])

    assert str(old) == told["old"]
    assert code == 0, said
    assert "whose key was lost" in said


def test_a_closed_book_still_proves_its_receipts(tmp_path: Path) -> None:
    """Whoever holds a receipt of a closed book gets its proof from the service, and its final checkpoint."""
    data = tmp_path / "data"
    with serving(data, *SERVED) as server, connect_blocking(server.target) as client:
        receipt = client.check(*QUESTION).raw.receipt
        kept = client.checkpoint(refresh=True).checkpoint
    told = rotate(data)
    with serving(data) as server, connect_blocking(server.target) as client:
        proof = client.inclusion_proof(receipt.index, origin=ORIGIN)
        final = client.checkpoint(origin=ORIGIN)
        old_size = verify_checkpoint(kept, told["old"]).size
        grown = verify_consistency(kept, client.consistency_proof(old_size, origin=ORIGIN), told["old"])
        written = gatebook("audit", "proof", str(receipt.index), "--origin", ORIGIN, "--target", server.target)
        with pytest.raises(GatebookClientError) as unknown:
            client.checkpoint(origin="nobody.test/book")
        with pytest.raises(GatebookClientError) as beyond:
            client.inclusion_proof(int(told["size"]), origin=ORIGIN)

    assert int(told["size"]) == final.size == grown.size
    assert told["old"] == final.verifier_key
    verify_inclusion(receipt.leaf_hash, receipt.index, proof, told["old"])
    assert written.stdout.startswith("c2sp.org/tlog-proof@v1"), written.stderr
    assert ("INVALID_REQUEST", "ENTRY_NOT_FOUND") == (unknown.value.reason, beyond.value.reason)


def test_witnesses_cosign_a_closure(tmp_path: Path) -> None:
    """A witness that is asked cosigns the final checkpoint, which the successor then names with the cosignature."""
    data = tmp_path / "data"
    served_once(data, "--origin", ORIGIN)
    with witnessing(tmp_path / "w1", "--origin", str(key_of(data))) as witness:
        key = str(witness.key)
        told = rotate(data, "--witness", f"http://{witness.address}={key}")
    folder = Path(told["folder"])
    code, said = verify(folder, told["old"], "--witness", key)
    with serving(data) as server, connect_blocking(server.target) as client:
        birth = client.entry(0).entry.system.succession

    assert ["witness.test/w1"] == list(told["cosigned"])
    assert code == 0, said
    assert f"witnessed    up to {told['size']} by witness.test/w1" in said
    assert int(told["size"]) == verify_checkpoint(birth.checkpoint, told["old"], witnesses=[key]).size
