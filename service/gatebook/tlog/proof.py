"""Proofs that stand alone (C2SP tlog-proof@v1): entry index, inclusion proof and checkpoint in one text."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gatebook.errors import VerificationError
from gatebook.tlog import base64
from gatebook.tlog.checkpoint import SIZE_MAX, Checkpoint, parse_checkpoint
from gatebook.tlog.keys import VerifierKey
from gatebook.tlog.merkle import PROOF_HASHES_MAX, verify_inclusion
from gatebook.tlog.note import NOTE_BYTES_MAX, parse_note
from gatebook.tlog.policy import WitnessPolicy

_FIRST_LINE = "c2sp.org/tlog-proof@v1"
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})")
_PROOF_BYTES_MAX = NOTE_BYTES_MAX + 65_536


@dataclass(frozen=True, slots=True)
class Proof:
    """States that an entry is in the tree of a checkpoint. True only once it is verified."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    """The signed note, verbatim."""
    extra: bytes = b""
    """What the maker added. Nothing vouches for it."""

    def format(self) -> bytes:
        """Returns the proof as text, to be kept as `*.tlog-proof`."""
        lines = [_FIRST_LINE]
        if self.extra:
            lines.append(f"extra {base64.encode(self.extra)}")
        lines.append(f"index {self.index}")
        lines.extend(base64.encode(value) for value in self.hashes)
        return ("\n".join(lines) + "\n\n").encode() + self.checkpoint


def parse_proof(proof: bytes) -> Proof:
    """Returns a proof in its parts.

    Raises:
        VerificationError: the bytes are not a proof of this version.
    """
    if len(proof) > _PROOF_BYTES_MAX:
        raise VerificationError(f"a proof has at most {_PROOF_BYTES_MAX} bytes")
    head, blank, checkpoint = proof.partition(b"\n\n")
    if not blank:
        raise VerificationError("the proof has no checkpoint")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as err:
        raise VerificationError("the proof is not ASCII before its checkpoint") from err
    if lines.pop(0) != _FIRST_LINE:
        raise VerificationError(f"the first line of a proof is `{_FIRST_LINE}`")
    extra = b""
    if lines and lines[0].startswith("extra "):
        extra = base64.decode(lines.pop(0).removeprefix("extra "), "the extra data of the proof")
    match = _INDEX.fullmatch(lines.pop(0)) if lines else None
    if match is None or int(match[1]) > SIZE_MAX:
        raise VerificationError("the proof has no line `index <number>` at its place")
    if len(lines) > PROOF_HASHES_MAX:
        raise VerificationError(f"a proof has at most {PROOF_HASHES_MAX} hashes")
    hashes = tuple(base64.decode_hash(line, "a hash of the proof") for line in lines)
    return Proof(int(match[1]), hashes, checkpoint, extra)


def verify_proof(proof: bytes, leaf: bytes, key: VerifierKey, witnesses: WitnessPolicy | None = None) -> Checkpoint:
    """Returns the checkpoint of a proof, after checking that it covers the entry with this leaf hash.

    Raises:
        VerificationError: the proof is malformed, its checkpoint is not signed by the key, is that of another
            origin or has too few cosignatures, or the entry is not where it says.
    """
    parsed = parse_proof(proof)
    checkpoint = open_checkpoint(parsed.checkpoint, key)
    if witnesses is not None:
        witnesses.require(parse_note(parsed.checkpoint))
    verify_inclusion(parsed.index, checkpoint.size, leaf, parsed.hashes, checkpoint.root)
    return checkpoint


def open_checkpoint(note: bytes, key: VerifierKey) -> Checkpoint:
    """Returns the checkpoint in a note that the key has signed under its own origin.

    Raises:
        VerificationError: the note is malformed, not signed by the key, or of another origin.
    """
    checkpoint = parse_checkpoint(key.open_note(note).text)
    if checkpoint.origin != key.name:
        raise VerificationError(f"the checkpoint is of `{checkpoint.origin}`, not of `{key.name}`")
    return checkpoint
