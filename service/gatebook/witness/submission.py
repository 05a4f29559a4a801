"""What a witness is sent, and whether it may cosign that (C2SP tlog-witness v1.0.0, add-checkpoint). Pure.

The order of the checks is that of the specification, so that each answer means one thing:

1. 400: the body is not an old size, at most 63 hashes, an empty line and a checkpoint;
2. 404: nobody told the witness of this origin;
3. 403: no key that it trusts for this origin has signed the checkpoint, or a signature of one fails;
4. 400: the old size is above that of the checkpoint;
5. 409: the old size is not that of the checkpoint that was cosigned last;
6. 422: a tree of no entries has another root than that, two trees of one size differ, or the proof does not hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gatebook.errors import GatebookError, VerificationError
from gatebook.tlog import base64
from gatebook.tlog.checkpoint import SIZE_MAX, Checkpoint, parse_checkpoint
from gatebook.tlog.keys import VerifierKey
from gatebook.tlog.merkle import EMPTY_ROOT, verify_consistency
from gatebook.tlog.note import Note, parse_note

HASHES_MAX = 63
_OLD = re.compile(r"old (0|[1-9][0-9]{0,18})")


class RefusedError(GatebookError):
    """The witness does not cosign; `status` is that of HTTP."""

    reason = "INVALID_REQUEST"
    status = 400


class UnknownOriginError(RefusedError):
    """The origin is none of those that the witness was told of."""

    status = 404


class UntrustedError(RefusedError):
    """The checkpoint is not signed by a key that counts for its origin."""

    status = 403


class OtherSizeError(RefusedError):
    """The old size is not that of the checkpoint that was cosigned last, which is `size`."""

    status = 409

    def __init__(self, size: int) -> None:
        """Takes the size that was cosigned last."""
        super().__init__(f"the checkpoint that was cosigned last has size {size}")
        self.size = size


class InconsistentError(RefusedError):
    """The checkpoint is not shown to continue the one that was cosigned last."""

    status = 422


class SplitViewError(InconsistentError):
    """Two checkpoints of one size have different roots, and both are signed: that convicts the key."""

    is_new = False
    """Whether it was not shown before."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A checkpoint that somebody wants cosigned, its signature not yet checked."""

    old_size: int
    proof: tuple[bytes, ...]
    note: Note
    checkpoint: Checkpoint


def parse_submission(body: bytes) -> Submission:
    """Returns a request body in its parts.

    Raises:
        RefusedError: it is malformed.
    """
    head, blank, checkpoint = body.partition(b"\n\n")
    lines = head.split(b"\n")
    try:
        match = _OLD.fullmatch(lines[0].decode("ascii"))
        if not blank or match is None or int(match[1]) > SIZE_MAX:
            raise RefusedError("the body begins with `old <size>`, and an empty line stands before the checkpoint")
        if len(lines) > 1 + HASHES_MAX:
            raise RefusedError(f"a consistency proof has at most {HASHES_MAX} hashes")
        proof = tuple(base64.decode_hash(line.decode("ascii"), "a hash of the proof") for line in lines[1:])
        note = parse_note(checkpoint)
        return Submission(int(match[1]), proof, note, parse_checkpoint(note.text))
    except UnicodeDecodeError as err:
        raise RefusedError("the body is not ASCII before its checkpoint") from err
    except VerificationError as err:
        raise RefusedError(err.message) from err


def require_trusted(submission: Submission, origins: Mapping[str, Sequence[VerifierKey]]) -> None:
    """Requires that a key which counts for the origin has signed.

    Raises:
        UnknownOriginError: nobody told of this origin.
        UntrustedError: none of its keys has signed, or a signature of one fails.
    """
    keys = origins.get(submission.checkpoint.origin)
    if keys is None:
        raise UnknownOriginError("the origin of the checkpoint is unknown")
    signed = False
    for key in keys:
        if any((each.name, each.key_id) == (key.name, key.key_id) for each in submission.note.signatures):
            try:
                key.open_note(submission.note.format())
            except VerificationError as err:
                raise UntrustedError(err.message) from err
            signed = True
    if not signed:
        raise UntrustedError("the checkpoint is not signed by a key that is trusted for its origin")


def require_consistent(submission: Submission, last: Checkpoint) -> None:
    """Requires that the checkpoint continues the one that was cosigned last, which may be that of an empty tree.

    Raises:
        RefusedError: the old size is above that of the checkpoint.
        OtherSizeError: the old size is not that of the one cosigned last.
        InconsistentError: it does not continue, or that is not proved.
    """
    new = submission.checkpoint
    if submission.old_size > new.size:
        raise RefusedError(f"the old size {submission.old_size} is above that of the checkpoint, {new.size}")
    if submission.old_size != last.size:
        raise OtherSizeError(last.size)
    if not new.size and new.root != EMPTY_ROOT:
        raise InconsistentError("the root of a tree of no entries is the hash of nothing")
    if new.size == last.size and new.root != last.root:
        raise SplitViewError(f"another root was cosigned for size {new.size}: two histories are signed")
    if not last.size:
        if submission.proof:
            raise InconsistentError("the proof from a tree of no entries is empty")
        return
    try:
        verify_consistency(last.size, new.size, last.root, new.root, submission.proof)
    except VerificationError as err:
        raise InconsistentError(f"the proof does not hold: {err.message}") from err
