"""Proofs: what the book promised, checked without trusting the service.

Owns the checks that a caller, or an auditor with a copy, makes by itself. All it takes on trust is the
verifier key, which must come from elsewhere than the service that is checked (the operator, a wiki, a
configuration). Rules:

1. every function raises `VerificationError` or returns what was verified; none returns False;
2. hashes and proofs are those of RFC 6962 and RFC 9162, notes and proof files those of C2SP;
3. a size is believed only from a checkpoint that the key has signed.

Needs the package cryptography: `pip install gatebook[verify]`.
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import DecodeError

from gatebook.errors import ContradictionError, VerificationError
from gatebook.v1 import audit_service_pb2 as audit_pb2
from gatebook.v1 import entry_pb2, types_pb2
from gatebook_client.decision import Decision

try:
    from gatebook.tlog import merkle
    from gatebook.tlog.checkpoint import Checkpoint
    from gatebook.tlog.cosignature import WitnessKey
    from gatebook.tlog.keys import VerifierKey
    from gatebook.tlog.note import parse_note
    from gatebook.tlog.policy import WitnessPolicy, any_of
    from gatebook.tlog.proof import Proof, open_checkpoint
    from gatebook.tlog.proof import verify_proof as verify_tlog_proof
    from gatebook.tlog.receipt import Receipt
    from gatebook.tlog.receipt import verify_receipt as verify_tlog_receipt
    from gatebook_client.memory import CheckpointMemory
except ModuleNotFoundError as err:
    if (err.name or "").partition(".")[0] != "cryptography":
        raise
    message = "checking signatures needs the package cryptography: `pip install gatebook[verify]`"
    raise ModuleNotFoundError(message, name=err.name) from err

__all__ = [
    "Checkpoint",
    "CheckpointMemory",
    "ContradictionError",
    "VerificationError",
    "proof_file",
    "receipt_proof_file",
    "verify_checkpoint",
    "verify_consistency",
    "verify_inclusion",
    "verify_proof_file",
    "verify_receipt",
    "verify_receipt_proof",
]

NANOS = 1_000_000_000


def verify_receipt(decision: Decision | types_pb2.Decision, verifier_key: str) -> entry_pb2.AuditEntry:
    """Checks the full receipt of a decision, allow or deny; returns the entry that was written about it.

    The receipt's entry has its leaf hash, the book's key has signed index, leaf hash and time, and the
    entry tells of this decision: id, effect, reason, policy revision, columns and obligations. Where the receipt
    has a proof, that is checked as well; `verify_receipt_proof` requires one.

    Raises:
        VerificationError: it is no full receipt, or one of these does not hold.
    """
    raw = decision.raw if isinstance(decision, Decision) else decision
    if raw.receipt.HasField("proof"):
        _verify_proof(raw.receipt, VerifierKey.parse(verifier_key), any_of((), None))
    receipt = _receipt(raw.receipt)
    if not receipt.entry or not receipt.signature:
        raise VerificationError('the receipt has no entry or no signature: check with `receipt="full"`')
    verify_tlog_receipt(receipt, VerifierKey.parse(verifier_key))
    try:
        entry = entry_pb2.AuditEntry.FromString(receipt.entry)
    except DecodeError as err:
        raise VerificationError("the receipt's bytes are no entry", receipt.index) from err
    _compare(raw, entry, receipt)
    return entry


def verify_receipt_proof(
    decision: Decision | types_pb2.Decision,
    verifier_key: str,
    *,
    witnesses: Sequence[str] = (),
    witnesses_needed: int | None = None,
) -> Checkpoint:
    """Checks all that `verify_receipt` does, and that the entry is in the published book; returns its checkpoint.

    Witnesses are as in `verify_checkpoint`. To compare the checkpoint with what is remembered of the book, hand the
    decision to `CheckpointMemory.take_receipt`.

    Raises:
        VerificationError: it is no receipt with a proof (`receipt="proof"`), or one of these does not hold.
    """
    raw = decision.raw if isinstance(decision, Decision) else decision
    verify_receipt(raw, verifier_key)
    key = VerifierKey.parse(verifier_key)
    policy = any_of((WitnessKey.parse(each) for each in witnesses), witnesses_needed).require_apart(key)
    return _verify_proof(raw.receipt, key, policy)


def _verify_proof(receipt: types_pb2.Receipt, key: VerifierKey, witnesses: WitnessPolicy) -> Checkpoint:
    if not receipt.proof.checkpoint:
        raise VerificationError('the receipt has no proof: check with `receipt="proof"`', receipt.index)
    note = receipt.proof.checkpoint.encode()
    covering = open_checkpoint(note, key)
    witnesses.require(parse_note(note))
    hashes = list(receipt.proof.hashes)
    merkle.verify_inclusion(receipt.index, covering.size, receipt.leaf_hash, hashes, covering.root)
    return covering


def verify_checkpoint(
    note: str | bytes, verifier_key: str, *, witnesses: Sequence[str] = (), witnesses_needed: int | None = None
) -> Checkpoint:
    """Returns the checkpoint in a note, after checking origin, signature, and the cosignatures of witnesses.

    Args:
        note: the checkpoint.
        verifier_key: the key of the book.
        witnesses: the keys of witnesses that must have cosigned it.
        witnesses_needed: how many of them must have; None means all.

    Raises:
        VerificationError: the note is malformed, of another origin, not signed by the key, or too few cosigned it.
    """
    key = VerifierKey.parse(verifier_key)
    policy = any_of((WitnessKey.parse(each) for each in witnesses), witnesses_needed).require_apart(key)
    checkpoint = open_checkpoint(_as_bytes(note), key)
    policy.require(parse_note(_as_bytes(note)))
    return checkpoint


def verify_inclusion(
    leaf_hash: bytes,
    index: int,
    proof: audit_pb2.GetInclusionProofResponse,
    verifier_key: str,
    *,
    checkpoint: str | bytes = "",
) -> Checkpoint:
    """Checks that the entry of a receipt is in the book; returns the checkpoint that covers it.

    Args:
        leaf_hash: the leaf hash in the receipt, never that in the proof.
        index: the index in the receipt.
        proof: the answer of `inclusion_proof`.
        verifier_key: the key of the book.
        checkpoint: the checkpoint of the proof's size; empty takes the one in the proof.

    Raises:
        VerificationError: the entry is not proved to be there.
    """
    covering = verify_checkpoint(checkpoint or proof.checkpoint, verifier_key)
    if covering.size != proof.size:
        raise VerificationError(f"the proof is for size {proof.size}, the checkpoint has {covering.size}", index)
    if proof.index != index:
        raise VerificationError(f"the proof is of entry {proof.index}, not of {index}", index)
    if proof.leaf_hash != leaf_hash:
        raise VerificationError(f"entry {index} of the book is not the one in the receipt", index)
    merkle.verify_inclusion(index, covering.size, leaf_hash, list(proof.hashes), covering.root)
    return covering


def verify_consistency(
    old_checkpoint: str | bytes,
    proof: audit_pb2.GetConsistencyProofResponse,
    verifier_key: str,
    *,
    new_checkpoint: str | bytes = "",
) -> Checkpoint:
    """Checks that the book only grew since an older checkpoint; returns the newer one.

    Args:
        old_checkpoint: the checkpoint that was kept.
        proof: the answer of `consistency_proof` for its size.
        verifier_key: the key of the book.
        new_checkpoint: the checkpoint of the proof's newer size; empty takes the one in the proof.

    Raises:
        VerificationError: the newer book is not proved to extend the older one.
    """
    old = verify_checkpoint(old_checkpoint, verifier_key)
    new = verify_checkpoint(new_checkpoint or proof.checkpoint, verifier_key)
    if (old.size, new.size) != (proof.old_size, proof.new_size):
        stated = f"sizes {proof.old_size} and {proof.new_size}"
        raise VerificationError(f"the proof is for {stated}, the checkpoints have {old.size} and {new.size}")
    merkle.verify_consistency(old.size, new.size, old.root, new.root, list(proof.hashes))
    return new


def receipt_proof_file(decision: Decision | types_pb2.Decision) -> bytes:
    """Returns the proof in a receipt as a C2SP `tlog-proof@v1` text, to be kept and checked offline.

    Raises:
        VerificationError: the receipt has none.
    """
    receipt = decision.raw.receipt if isinstance(decision, Decision) else decision.receipt
    if not receipt.proof.checkpoint:
        raise VerificationError('the receipt has no proof: check with `receipt="proof"`', receipt.index)
    return Proof(receipt.index, tuple(receipt.proof.hashes), receipt.proof.checkpoint.encode()).format()


def proof_file(proof: audit_pb2.GetInclusionProofResponse, *, checkpoint: str | bytes = "") -> bytes:
    """Returns a proof as a C2SP `tlog-proof@v1` text, to be kept and checked offline."""
    return Proof(proof.index, tuple(proof.hashes), _as_bytes(checkpoint or proof.checkpoint)).format()


def verify_proof_file(
    content: bytes,
    entry: bytes,
    verifier_key: str,
    *,
    witnesses: Sequence[str] = (),
    witnesses_needed: int | None = None,
) -> Checkpoint:
    """Checks a `tlog-proof@v1` text for an entry's exact bytes, offline; returns its checkpoint.

    Witnesses are as in `verify_checkpoint`.

    Raises:
        VerificationError: the text is malformed, its checkpoint is not the key's or has too few cosignatures, or the
            entry is not there.
    """
    key = VerifierKey.parse(verifier_key)
    policy = any_of((WitnessKey.parse(each) for each in witnesses), witnesses_needed).require_apart(key)
    return verify_tlog_proof(content, merkle.leaf_hash(entry), key, policy)


def _receipt(receipt: types_pb2.Receipt) -> Receipt:
    """Converts a receipt to the value that `tlog` checks."""
    return Receipt(
        origin=receipt.origin,
        index=receipt.index,
        leaf_hash=receipt.leaf_hash,
        time_ns=receipt.entry_time.seconds * NANOS + receipt.entry_time.nanos,
        entry=receipt.entry_bytes,
        signature=receipt.signature,
    )


def _compare(answer: types_pb2.Decision, entry: entry_pb2.AuditEntry, receipt: Receipt) -> None:
    """Refuses an entry that tells of anything else than the answer did."""
    written = entry.decision
    claims = {
        "kind": (entry_pb2.ENTRY_KIND_DECISION, entry.kind),
        "entry time": (receipt.time_ns, entry.entry_time.seconds * NANOS + entry.entry_time.nanos),
        "decision id": (answer.decision_id, written.decision_id),
        "effect": (answer.effect, written.effect),
        "reason": (answer.reason, written.reason),
        "policy revision": (answer.policy_revision.digest, written.policy_revision.digest),
        "columns": ([(c.effect, c.reason) for c in answer.columns], [(c.effect, c.reason) for c in written.columns]),
        "obligations": (list(answer.must_apply), list(written.must_apply)),
        "time of expiry": (answer.expires_time, written.expires_time),
    }
    for name, (answered, booked) in claims.items():
        if answered != booked:
            raise VerificationError(f"entry {receipt.index} tells another {name} than the answer", receipt.index)


def _as_bytes(note: str | bytes) -> bytes:
    """Returns a note as the bytes that were signed."""
    return note.encode() if isinstance(note, str) else note
