"""Signed notes, keys, checkpoints, proofs and receipts: what is written is what is read."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from gatebook.backup.contents import Statement
from gatebook.errors import VerificationError
from gatebook.tlog.checkpoint import SIZE_MAX, Checkpoint, parse_checkpoint
from gatebook.tlog.keys import SigningKey, VerifierKey
from gatebook.tlog.merkle import leaf_hash, node_hash, verify_consistency, verify_inclusion
from gatebook.tlog.note import Note, Signature, parse_note
from gatebook.tlog.proof import Proof, open_checkpoint, parse_proof, verify_proof
from gatebook.tlog.receipt import Receipt, verify_receipt
from gatebook.tlog.tiles import ENTRIES, Tile, decode_bundle

VECTORS = sorted((Path(__file__).parents[2] / "vectors" / "tlog").glob("*.json"))
KEY = SigningKey.parse("PRIVATE+KEY+gatebook.test/book+b4fd313f+AQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f")
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def signed(size: int, entries: list[bytes]) -> bytes:
    """A signed checkpoint of a tree of two entries."""
    root = node_hash(*map(leaf_hash, entries))
    return KEY.sign_note(Checkpoint(KEY.name, size, root).text()).format()


def test_a_note_of_the_reference_implementation_verifies() -> None:
    """A note that Go's `sumdb/note` signed verifies with its key."""
    note = VerifierKey.parse(GO_KEY).open_note(GO_NOTE.encode())

    assert GO_NOTE.encode() == note.format()


def test_keys_survive_their_text() -> None:
    """Both halves of a key come back from their text, and the private one is in no repr."""
    assert KEY.verifier == SigningKey.parse(KEY.serialize()).verifier == VerifierKey.parse(str(KEY.verifier))
    assert KEY.serialize().rpartition("+")[2].strip() not in repr(KEY)


def test_a_note_comes_back() -> None:
    """A note with blank lines in its text keeps text and signatures."""
    note = KEY.sign_note("one\n\n\ntwo\n")

    assert note == parse_note(note.format())


def test_unknown_signatures_are_ignored() -> None:
    """A verifier takes at least 16 signatures, and minds only those of its key, by name and id."""
    mine = KEY.sign_note("text\n")
    key_id = KEY.verifier.key_id
    others = [Signature(f"witness{at}", key_id, bytes(64)) for at in range(20)] + [
        Signature(KEY.name, b"\x00\x01\x02\x03", bytes(64))
    ]
    note = Note(mine.text, (*others, *mine.signatures))

    assert note == KEY.verifier.open_note(note.format())


def test_one_bad_signature_of_a_known_key_rejects_the_note() -> None:
    """A note with a good and a bad signature of one key is rejected, in either order."""
    good = KEY.sign_note("text\n")
    bad = Signature(KEY.name, KEY.verifier.key_id, bytes(64))
    for signatures in ((bad, *good.signatures), (*good.signatures, bad)):
        with pytest.raises(VerificationError, match="not that of"):
            KEY.verifier.open_note(Note(good.text, signatures).format())


def test_a_checkpoint_comes_back() -> None:
    """A checkpoint survives its text; extension lines are allowed."""
    checkpoint = Checkpoint("example.com/log", 20_852_163, leaf_hash(b"root"))

    assert checkpoint == parse_checkpoint(checkpoint.text())
    assert checkpoint == parse_checkpoint(checkpoint.text() + "extension\n")


def test_every_flipped_bit_of_a_checkpoint_is_seen() -> None:
    """A signed checkpoint with any one bit flipped is rejected."""
    note = signed(2, [b"a", b"b"])
    for at in range(len(note) * 8):
        flipped = bytearray(note)
        flipped[at // 8] ^= 1 << at % 8
        with pytest.raises(VerificationError):
            open_checkpoint(bytes(flipped), KEY.verifier)


def test_a_proof_verifies() -> None:
    """A proof comes back from its text, with extra data or without, and gives its checkpoint."""
    for extra in (b"", b"from the archive"):
        proof = Proof(1, (leaf_hash(b"a"),), signed(2, [b"a", b"b"]), extra)

        assert proof == parse_proof(proof.format())
        assert verify_proof(proof.format(), leaf_hash(b"b"), KEY.verifier).size == 2


def test_a_proof_is_the_text_of_the_specification() -> None:
    """The text of a proof is that of C2SP tlog-proof, line by line."""
    checkpoint = signed(2, [b"a", b"b"])
    text = Proof(0, (leaf_hash(b"b"),), checkpoint).format()

    hash_line = b64encode(leaf_hash(b"b"))
    assert b"c2sp.org/tlog-proof@v1\nindex 0\n" + hash_line + b"\n\n" + checkpoint == text


def test_a_receipt_verifies() -> None:
    """A signed receipt verifies, and its text is the one of the API."""
    receipt = Receipt(KEY.name, 7, leaf_hash(b"entry"), 1_700_000_000_000_000_001, b"entry")
    text = f"gatebook/receipt/v1\n{KEY.name}\n7\n{leaf_hash(b'entry').hex()}\n1700000000000000001\n"

    assert text.encode() == receipt.text()
    verify_receipt(receipt, KEY.verifier)
    whole = Receipt(KEY.name, 7, receipt.leaf_hash, receipt.time_ns, b"entry", KEY.sign(receipt.text()))
    verify_receipt(whole, KEY.verifier)


@pytest.mark.parametrize("origin", ["example.com/log", "0", "7", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="])
@pytest.mark.parametrize("index", [0, 7, SIZE_MAX])
def test_what_else_the_key_signs_is_no_checkpoint(origin: str, index: int) -> None:
    """No receipt and no note of a backup can be read as a checkpoint, whatever the origin: one key signs all three."""
    receipt = Receipt(origin, index, leaf_hash(b"entry"), index, b"").text().decode()
    backup = Statement(
        origin=origin,
        size=index,
        root=leaf_hash(b""),
        files_hash="ab" * 32,
        keys=True,
        time="2026-01-01T00:00:00Z",
        version="1",
    ).text()
    for text in (receipt, backup):
        assert text.startswith("gatebook/")
        with pytest.raises(VerificationError):
            parse_checkpoint(text)


def run(vector: dict[str, Any]) -> None:
    """Does what the attacker hopes for."""
    given = vector["given"]
    match vector["kind"]:
        case "inclusion":
            proof = [bytes.fromhex(each) for each in given["proof"]]
            leaf, root = bytes.fromhex(given["leaf"]), bytes.fromhex(given["root"])
            verify_inclusion(given["index"], given["size"], leaf, proof, root)
        case "consistency":
            proof = [bytes.fromhex(each) for each in given["proof"]]
            roots = [bytes.fromhex(given[each]) for each in ("old_root", "new_root")]
            verify_consistency(given["old_size"], given["new_size"], roots[0], roots[1], proof)
        case "checkpoint":
            open_checkpoint(given["note"].encode("utf-8", "surrogateescape"), VerifierKey.parse(given["key"]))
        case "key":
            VerifierKey.parse(given["key"])
        case "proof":
            verify_proof(given["proof"].encode(), bytes.fromhex(given["leaf"]), VerifierKey.parse(given["key"]))
        case "receipt":
            fields = {name: bytes.fromhex(given[name]) for name in ("leaf_hash", "entry", "signature")}
            receipt = Receipt(given["origin"], given["index"], time_ns=given["time_ns"], **fields)
            verify_receipt(receipt, VerifierKey.parse(given["key"]))
        case "bundle":
            decode_bundle(bytes.fromhex(given["bundle"]), Tile(ENTRIES, 0, given["width"]))
        case kind:
            raise AssertionError(kind)


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_an_attack_fails(path: Path) -> None:
    """Each vector is named after an attack, which is refused for the reason that it states."""
    vector = json.loads(path.read_text("utf-8"))

    with pytest.raises(VerificationError, match=vector["refused"]):
        run(vector)


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_an_attack_differs_from_something_true(path: Path) -> None:
    """What each attack was made from is accepted, so that the refusal is about the attack alone."""
    vector = json.loads(path.read_text("utf-8"))

    run({"kind": vector["kind"], "given": vector["given"] | vector["honest"]})
