"""Receipts, checkpoints and proofs are believed only when every part of them holds.

The book is a small one made here, with the real arithmetic and a real key. Each case below is an
attack by whoever runs the service, or the wire between; the name of the test's parameter says which.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from tests.client_cases import answer

from gatebook.tlog.checkpoint import Checkpoint
from gatebook.tlog.keys import SigningKey
from gatebook.tlog.merkle import consistency_proof, inclusion_proof, leaf_hash, root_of
from gatebook.tlog.receipt import Receipt
from gatebook.v1 import audit_service_pb2 as audit_pb2
from gatebook.v1 import entry_pb2, types_pb2
from gatebook_client.decision import denied_by
from gatebook_client.errors import UnavailableError
from gatebook_client.verify import (
    VerificationError,
    proof_file,
    verify_checkpoint,
    verify_consistency,
    verify_inclusion,
    verify_proof_file,
    verify_receipt,
)

ORIGIN = "book.example/gatebook"
KEY = SigningKey.generate(ORIGIN)
OTHER_KEY = SigningKey.generate(ORIGIN)
VERIFIER = str(KEY.verifier)
NANOS = 1_000_000_000
SIZE = 13
INDEX = 7


def entry_of(decision: types_pb2.Decision) -> entry_pb2.AuditEntry:
    """Returns what an honest book writes about a decision."""
    entry = entry_pb2.AuditEntry(
        salt=b"s" * 16, entry_time=decision.receipt.entry_time, kind=entry_pb2.ENTRY_KIND_DECISION
    )
    written = entry.decision
    written.decision_id = decision.decision_id
    written.effect, written.reason = decision.effect, decision.reason
    written.policy_revision.CopyFrom(decision.policy_revision)
    written.expires_time.CopyFrom(decision.expires_time)
    written.must_apply.extend(decision.must_apply)
    for column in decision.columns:
        written.columns.add(column=column.column, effect=column.effect, reason=column.reason)
    return entry


def sealed(decision: types_pb2.Decision, entry: bytes, key: SigningKey = KEY) -> types_pb2.Decision:
    """Gives a decision the full receipt of an entry, signed."""
    receipt = decision.receipt
    receipt.entry_bytes, receipt.leaf_hash = entry, leaf_hash(entry)
    time_ns = receipt.entry_time.seconds * NANOS + receipt.entry_time.nanos
    receipt.signature = key.sign(Receipt(receipt.origin, receipt.index, receipt.leaf_hash, time_ns).text())
    return decision


def honest() -> types_pb2.Decision:
    """Returns a decision with a full receipt that holds."""
    decision = answer()
    return sealed(decision, entry_of(decision).SerializeToString())


ENTRIES = [b"entry %d" % number for number in range(SIZE)]
ENTRIES[INDEX] = honest().receipt.entry_bytes
LEAVES = [leaf_hash(entry) for entry in ENTRIES]


def subtree(leaves: list[bytes]) -> Callable[[int, int], bytes]:
    """Returns the function that hashes complete subtrees of a book."""
    return lambda level, number: root_of(leaves[number << level : (number + 1) << level])


def checkpoint(size: int, leaves: list[bytes] = LEAVES, key: SigningKey = KEY, origin: str = ORIGIN) -> bytes:
    """Returns the signed checkpoint of a book's first entries."""
    return key.sign_note(Checkpoint(origin, size, root_of(leaves[:size])).text()).format()


def inclusion(index: int = INDEX, size: int = SIZE) -> audit_pb2.GetInclusionProofResponse:
    """Returns the service's proof that an entry is there."""
    return audit_pb2.GetInclusionProofResponse(
        index=index,
        size=size,
        leaf_hash=LEAVES[index],
        hashes=inclusion_proof(index, size, subtree(LEAVES)),
        checkpoint=checkpoint(size).decode(),
    )


def consistency(old_size: int, new_size: int = SIZE) -> audit_pb2.GetConsistencyProofResponse:
    """Returns the service's proof that the book only grew."""
    return audit_pb2.GetConsistencyProofResponse(
        old_size=old_size,
        new_size=new_size,
        hashes=consistency_proof(old_size, new_size, subtree(LEAVES)),
        checkpoint=checkpoint(new_size).decode(),
    )


def test_an_honest_receipt_holds() -> None:
    """It returns the entry that was written."""
    entry = verify_receipt(honest(), VERIFIER)

    assert "d-1" == entry.decision.decision_id


def _signed_by_another(decision: types_pb2.Decision) -> None:
    sealed(decision, decision.receipt.entry_bytes, OTHER_KEY)


def _entry_replaced(decision: types_pb2.Decision) -> None:
    decision.receipt.entry_bytes += b"\x00"


def _entry_of_a_denial(decision: types_pb2.Decision) -> None:
    entry = entry_of(decision)
    entry.decision.effect = types_pb2.EFFECT_DENY
    sealed(decision, entry.SerializeToString())


def _entry_of_another_reason(decision: types_pb2.Decision) -> None:
    entry = entry_of(decision)
    entry.decision.reason = types_pb2.REASON_CODE_DENIED_BY_RULE
    sealed(decision, entry.SerializeToString())


def _entry_of_another_decision(decision: types_pb2.Decision) -> None:
    entry = entry_of(decision)
    entry.decision.decision_id = "d-2"
    sealed(decision, entry.SerializeToString())


def _entry_of_another_revision(decision: types_pb2.Decision) -> None:
    entry = entry_of(decision)
    entry.decision.policy_revision.digest = "another"
    sealed(decision, entry.SerializeToString())


def _entry_with_fewer_columns(decision: types_pb2.Decision) -> None:
    entry = entry_of(decision)
    del entry.decision.columns[-1]
    sealed(decision, entry.SerializeToString())


def _entry_without_obligations(decision: types_pb2.Decision) -> None:
    entry = entry_of(decision)
    del entry.decision.must_apply[:]
    sealed(decision, entry.SerializeToString())


def _entry_of_another_time(decision: types_pb2.Decision) -> None:
    entry = entry_of(decision)
    entry.entry_time.seconds -= 1
    sealed(decision, entry.SerializeToString())


def _entry_of_another_kind(decision: types_pb2.Decision) -> None:
    entry = entry_of(decision)
    entry.kind = entry_pb2.ENTRY_KIND_READ
    sealed(decision, entry.SerializeToString())


def _entry_that_is_none(decision: types_pb2.Decision) -> None:
    sealed(decision, b"\xff\xff\xff")


def _index_moved(decision: types_pb2.Decision) -> None:
    decision.receipt.index += 1


def _time_moved(decision: types_pb2.Decision) -> None:
    decision.receipt.entry_time.nanos += 1


def _origin_changed(decision: types_pb2.Decision) -> None:
    decision.receipt.origin = "book.example/other"
    sealed(decision, decision.receipt.entry_bytes)


def _signature_dropped(decision: types_pb2.Decision) -> None:
    decision.receipt.ClearField("signature")


def _entry_dropped(decision: types_pb2.Decision) -> None:
    decision.receipt.ClearField("entry_bytes")


def _receipt_dropped(decision: types_pb2.Decision) -> None:
    decision.ClearField("receipt")


def _answer_turned_into_an_allow(decision: types_pb2.Decision) -> None:
    _entry_of_a_denial(decision)
    decision.effect = types_pb2.EFFECT_ALLOW


@pytest.mark.parametrize(
    "attack",
    [
        _signed_by_another,
        _entry_replaced,
        _entry_of_a_denial,
        _entry_of_another_reason,
        _entry_of_another_decision,
        _entry_of_another_revision,
        _entry_with_fewer_columns,
        _entry_without_obligations,
        _entry_of_another_time,
        _entry_of_another_kind,
        _entry_that_is_none,
        _index_moved,
        _time_moved,
        _origin_changed,
        _signature_dropped,
        _entry_dropped,
        _receipt_dropped,
        _answer_turned_into_an_allow,
    ],
    ids=lambda attack: attack.__name__.strip("_"),
)
def test_a_receipt_that_was_tampered_with_is_refused(attack: Callable[[types_pb2.Decision], None]) -> None:
    """No part of a receipt, its entry or its decision can be changed unseen."""
    decision = honest()
    attack(decision)

    with pytest.raises(VerificationError):
        verify_receipt(decision, VERIFIER)


def test_an_error_has_no_receipt() -> None:
    """The denial that stands for an error proves nothing."""
    with pytest.raises(VerificationError, match='receipt="full"'):
        verify_receipt(denied_by(UnavailableError("no", reason="UNREACHABLE")), VERIFIER)


def test_a_checkpoint_is_believed_from_its_key_alone() -> None:
    """Another key and another origin are refused."""
    assert SIZE == verify_checkpoint(checkpoint(SIZE), VERIFIER).size
    for wrong in (checkpoint(SIZE, key=OTHER_KEY), checkpoint(SIZE, origin="book.example/other"), b"", b"\n\n"):
        with pytest.raises(VerificationError):
            verify_checkpoint(wrong, VERIFIER)


@pytest.mark.parametrize("index", range(SIZE))
def test_every_entry_is_proved(index: int) -> None:
    """A proof of any entry holds, online and as a file."""
    proof = inclusion(index)

    assert SIZE == verify_inclusion(LEAVES[index], index, proof, VERIFIER).size
    assert SIZE == verify_proof_file(proof_file(proof), ENTRIES[index], VERIFIER).size


def _proof_of_another_entry(proof: audit_pb2.GetInclusionProofResponse) -> None:
    proof.CopyFrom(inclusion(INDEX + 1))


def _other_leaf_at_the_index(proof: audit_pb2.GetInclusionProofResponse) -> None:
    proof.leaf_hash = LEAVES[INDEX + 1]


def _size_beyond_the_checkpoint(proof: audit_pb2.GetInclusionProofResponse) -> None:
    proof.size += 1


def _checkpoint_of_another_size(proof: audit_pb2.GetInclusionProofResponse) -> None:
    proof.checkpoint = checkpoint(SIZE - 1).decode()


def _checkpoint_of_another_key(proof: audit_pb2.GetInclusionProofResponse) -> None:
    proof.checkpoint = checkpoint(SIZE, key=OTHER_KEY).decode()


def _checkpoint_left_out(proof: audit_pb2.GetInclusionProofResponse) -> None:
    proof.checkpoint = ""


def _hash_dropped(proof: audit_pb2.GetInclusionProofResponse) -> None:
    del proof.hashes[-1]


def _hash_added(proof: audit_pb2.GetInclusionProofResponse) -> None:
    proof.hashes.append(bytes(32))


def _hash_cut(proof: audit_pb2.GetInclusionProofResponse) -> None:
    proof.hashes[0] = proof.hashes[0][:-1]


@pytest.mark.parametrize(
    "attack",
    [
        _proof_of_another_entry,
        _other_leaf_at_the_index,
        _size_beyond_the_checkpoint,
        _checkpoint_of_another_size,
        _checkpoint_of_another_key,
        _checkpoint_left_out,
        _hash_dropped,
        _hash_added,
        _hash_cut,
    ],
    ids=lambda attack: attack.__name__.strip("_"),
)
def test_a_false_proof_of_inclusion_is_refused(attack: Callable[[audit_pb2.GetInclusionProofResponse], None]) -> None:
    """Only a proof of this very entry, to a checkpoint of the key, holds."""
    proof = inclusion()
    attack(proof)

    with pytest.raises(VerificationError):
        verify_inclusion(LEAVES[INDEX], INDEX, proof, VERIFIER)


@pytest.mark.parametrize("old_size", range(SIZE + 1))
def test_growth_is_proved_from_every_size(old_size: int) -> None:
    """A kept checkpoint of any size leads to the newest one."""
    assert SIZE == verify_consistency(checkpoint(old_size), consistency(old_size), VERIFIER).size


def test_a_rewritten_history_is_refused() -> None:
    """A checkpoint that was kept convicts a book whose older entries changed, whatever the proof says."""
    rewritten = [leaf_hash(b"another"), *LEAVES[1:]]
    proof = consistency(5)
    proof.checkpoint = checkpoint(SIZE, rewritten).decode()
    proof.hashes[:] = consistency_proof(5, SIZE, subtree(rewritten))

    with pytest.raises(VerificationError):
        verify_consistency(checkpoint(5), proof, VERIFIER)


def test_a_shrunken_book_is_refused() -> None:
    """A book that lost its tail cannot extend a checkpoint that was kept."""
    proof = consistency(5, 9)
    proof.old_size = SIZE

    with pytest.raises(VerificationError):
        verify_consistency(checkpoint(SIZE), proof, VERIFIER)


def test_a_proof_for_other_sizes_is_refused() -> None:
    """The sizes of a proof are those of the signed checkpoints."""
    with pytest.raises(VerificationError):
        verify_consistency(checkpoint(6), consistency(5), VERIFIER)


@pytest.mark.parametrize(
    "content",
    [b"", b"c2sp.org/tlog-proof@v1\n", b"c2sp.org/tlog-proof@v2\n" + proof_file(inclusion()).partition(b"\n")[2]],
    ids=["empty", "first line only", "another version"],
)
def test_a_file_that_is_no_proof_is_refused(content: bytes) -> None:
    """A proof file is of this form and version, or nothing."""
    with pytest.raises(VerificationError):
        verify_proof_file(content, ENTRIES[INDEX], VERIFIER)


def test_a_proof_file_of_another_entry_is_refused() -> None:
    """The file proves the entry whose bytes are given, and no other."""
    with pytest.raises(VerificationError):
        verify_proof_file(proof_file(inclusion()), ENTRIES[INDEX + 1], VERIFIER)


def test_without_cryptography_the_error_names_the_extra() -> None:
    """The base install can ask and enforce; verifying says what to install."""
    program = (
        "import sys\n"
        "sys.modules['cryptography'] = None\n"
        "import gatebook_client\n"
        "try:\n"
        "    import gatebook_client.verify\n"
        "except ModuleNotFoundError as err:\n"
        "    print(err)\n"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "checking signatures needs the package cryptography: `pip install gatebook[verify]`\n" == finished.stdout
