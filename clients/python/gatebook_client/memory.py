"""What a caller remembers of a book: the newest checkpoint that it verified, in a file of its own.

Owns trust on first use. The first checkpoint that the key of the book has signed is believed; every later one must
continue it, so that a book that is put back, cut, or shown to this caller only is found out. Rules:

1. what does not continue raises `ContradictionError` with both signed notes, and what is remembered stays;
2. the file holds a signed note, whole or not at all, and is checked again whenever it is read;
3. what another process has remembered in the file meanwhile is not overwritten: who comes second asks again;
4. where witnesses are named, a checkpoint without enough cosignatures is not believed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gatebook.errors import VerificationError
from gatebook.tlog.checkpoint import Checkpoint
from gatebook.tlog.cosignature import WitnessKey
from gatebook.tlog.history import needs_proof, require_continued
from gatebook.tlog.keys import VerifierKey
from gatebook.tlog.note import NOTE_BYTES_MAX, parse_note
from gatebook.tlog.policy import any_of
from gatebook.tlog.proof import open_checkpoint
from gatebook.v1 import audit_service_pb2 as audit_pb2
from gatebook.v1 import types_pb2
from gatebook_client.decision import Decision


class CheckpointMemory:
    """Remembers one book. One thread uses it at a time."""

    def __init__(
        self,
        path: str | Path,
        verifier_key: str,
        *,
        witnesses: Sequence[str] = (),
        witnesses_needed: int | None = None,
    ) -> None:
        """Takes the file, the key of the book, and whose cosignatures are needed: all of these, or so many.

        Raises:
            VerificationError: a key is malformed, or what is remembered is not signed by it.
        """
        self._path = Path(path)
        self._key = VerifierKey.parse(verifier_key)
        self._witnesses = any_of((WitnessKey.parse(each) for each in witnesses), witnesses_needed).require_apart(
            self._key
        )
        self._kept = self._read()

    @property
    def size(self) -> int:
        """The size that is remembered; 0 where nothing is."""
        return open_checkpoint(self._kept, self._key).size if self._kept else 0

    def wants_proof(self, answer: audit_pb2.GetCheckpointResponse) -> int:
        """Returns the new size of the consistency proof from `size` that `take` needs; 0 where it needs none.

        Raises:
            ContradictionError: the book does not continue what is remembered, whatever is proved.
            VerificationError: the checkpoint is not signed, or has too few cosignatures.
        """
        note = self._chosen(answer)
        if not self._kept or not needs_proof(self._kept, note, self._key):
            return 0
        return open_checkpoint(note, self._key).size

    def take(
        self, answer: audit_pb2.GetCheckpointResponse, proof: audit_pb2.GetConsistencyProofResponse | None = None
    ) -> Checkpoint:
        """Returns the checkpoint of an answer and remembers it durably, once it continues what is remembered.

        Raises:
            ContradictionError: it does not, or that is not proved; both notes are in the error.
            VerificationError: the checkpoint is not signed, or has too few cosignatures; or another process has
                remembered one meanwhile, with which a new answer is to be compared.
            OSError: it cannot be remembered.
        """
        note = self._chosen(answer)
        shown = open_checkpoint(note, self._key)
        if self._kept:
            require_continued(self._kept, note, self._key, [] if proof is None else list(proof.hashes))
        path = self._path.resolve()  # where a link leads, the file is replaced
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".new")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(note)
                file.flush()
                os.fsync(file.fileno())
            self._require_last(note)
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
        self._kept = note
        return shown

    def wants_proof_of(self, decision: Decision | types_pb2.Decision) -> tuple[int, int]:
        """Returns the sizes of the consistency proof that `take_receipt` needs; both 0 where it needs none.

        Raises:
            ContradictionError: the receipt's checkpoint and what is remembered cannot be of one book.
            VerificationError: the receipt has no proof, or its checkpoint is not signed or has too few cosignatures.
        """
        older, newer = self._in_order(decision)
        if not older or not needs_proof(older, newer, self._key):
            return 0, 0
        return open_checkpoint(older, self._key).size, open_checkpoint(newer, self._key).size

    def take_receipt(
        self, decision: Decision | types_pb2.Decision, proof: audit_pb2.GetConsistencyProofResponse | None = None
    ) -> Checkpoint:
        """Returns the newer of the receipt's checkpoint and what is remembered, and remembers that.

        The receipt itself is checked by `verify_receipt_proof`, before.

        Raises:
            ContradictionError: they are not of one history, or that is not proved; both notes are in the error.
            VerificationError, OSError: as `take`.
        """
        older, newer = self._in_order(decision)
        if newer != self._kept:
            return self.take(audit_pb2.GetCheckpointResponse(checkpoint=newer.decode()), proof)
        return require_continued(older, newer, self._key, [] if proof is None else list(proof.hashes))

    def _in_order(self, decision: Decision | types_pb2.Decision) -> tuple[bytes, bytes]:
        """Returns the checkpoint of a receipt and what is remembered, the smaller first."""
        raw = decision.raw if isinstance(decision, Decision) else decision
        note = raw.receipt.proof.checkpoint
        if not note:
            raise VerificationError('the receipt has no proof: check with `receipt="proof"`', raw.receipt.index)
        shown = self._chosen(audit_pb2.GetCheckpointResponse(checkpoint=note))
        if open_checkpoint(shown, self._key).size < self.size:
            return shown, self._kept
        return self._kept, shown

    def _require_last(self, note: bytes) -> None:
        """Requires that nobody has remembered another checkpoint since; a file that went, or was put back, counts less.

        Raises:
            VerificationError: somebody has; it counts from now on.
            ContradictionError: it is of the same size and has another root.
        """
        meanwhile = self._read()
        if meanwhile in {b"", self._kept, note} or open_checkpoint(meanwhile, self._key).size < self.size:
            return
        if not self._kept or needs_proof(self._kept, meanwhile, self._key):
            self._kept = meanwhile
            raise VerificationError(f"another process has remembered a checkpoint in `{self._path}`: ask for a new one")

    def _read(self) -> bytes:
        """Returns what is remembered in the file, which the key must have signed; nothing where there is no file."""
        try:
            with self._path.open("rb") as file:
                kept = file.read(NOTE_BYTES_MAX + 1)
        except FileNotFoundError:
            if self._path.is_symlink():
                raise  # a link that leads nowhere is no file that was never there
            return b""
        open_checkpoint(kept, self._key)
        return kept

    def _chosen(self, answer: audit_pb2.GetCheckpointResponse) -> bytes:
        """Returns the newest checkpoint of an answer with enough cosignatures."""
        newest = answer.checkpoint.encode()
        for note in (newest, answer.witnessed_checkpoint.encode()):
            if note:
                open_checkpoint(note, self._key)
                cosigned = {each.name for each in self._witnesses.cosigners(parse_note(note))}
                if self._witnesses.satisfied_by(cosigned):
                    return note
        self._witnesses.require(parse_note(newest))
        return newest
