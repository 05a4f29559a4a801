"""Whether one signed checkpoint continues another: what everybody who remembers checkpoints asks. Pure.

Two notes of one key that contradict each other are the finding, so they are in the error.
"""

from __future__ import annotations

from collections.abc import Sequence

from gatebook.errors import ContradictionError, VerificationError
from gatebook.tlog.checkpoint import Checkpoint
from gatebook.tlog.keys import VerifierKey
from gatebook.tlog.merkle import verify_consistency
from gatebook.tlog.proof import open_checkpoint


def needs_proof(kept: bytes, shown: bytes, key: VerifierKey) -> bool:
    """Tells whether a proof is needed to know that what is shown continues what was kept.

    Raises:
        ContradictionError: it does not: it ends earlier, or has another root at the same size.
        VerificationError: a note is not one of this key.
    """
    old, new = open_checkpoint(kept, key), open_checkpoint(shown, key)
    if new.size < old.size:
        message = f"the book ends at {new.size}, but a checkpoint of size {old.size} was signed"
        raise ContradictionError(message, new.size, (kept, shown))
    if new.size == old.size and new.root != old.root:
        message = f"two roots are signed for size {old.size}: the book has two histories"
        raise ContradictionError(message, None, (kept, shown))
    return 0 < old.size < new.size


def require_continued(kept: bytes, shown: bytes, key: VerifierKey, proof: Sequence[bytes]) -> Checkpoint:
    """Returns the checkpoint that is shown, once it is proved to continue the one that was kept.

    Raises:
        ContradictionError: it does not continue it, or that is not proved.
        VerificationError: a note is not one of this key.
    """
    old, new = open_checkpoint(kept, key), open_checkpoint(shown, key)
    if needs_proof(kept, shown, key):
        try:
            verify_consistency(old.size, new.size, old.root, new.root, proof)
        except VerificationError as err:
            message = f"size {new.size} is not proved to continue size {old.size}: {err.message}"
            raise ContradictionError(message, None, (kept, shown)) from err
    return new
