"""Verification of what lies before the entries that are read, where a verification begins at a vouched checkpoint.

Owns what is asked about entries that are not read: earlier checkpoints, and receipts. Each is answered by a standard
proof, made from hashes of the copy and held against the vouched root, so that nothing in the copy has to be believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gatebook.audit.tile_folder import TileFolder
from gatebook.errors import BookCorruptError, ContradictionError, VerificationError
from gatebook.tlog.checkpoint import Checkpoint
from gatebook.tlog.merkle import verify_consistency, verify_inclusion


@dataclass(frozen=True, slots=True)
class Seen:
    """A checkpoint with the note that states it."""

    note: bytes
    checkpoint: Checkpoint


def check_seen_before(tiles: TileFolder, size: int, vouched: Seen, earlier: Iterable[Seen]) -> None:
    """Checks that the vouched checkpoint continues earlier ones.

    Raises:
        ContradictionError: it does not.
    """
    now = vouched.checkpoint
    for seen in earlier:
        then = seen.checkpoint
        try:
            proof = tiles.consistency_proof(then.size, now.size, size)
            verify_consistency(then.size, now.size, then.root, now.root, proof)
        except (BookCorruptError, VerificationError) as err:
            message = f"size {now.size} is not proved to continue size {then.size}: {err}"
            raise ContradictionError(message, None, (seen.note, vouched.note)) from err


def check_promised_before(tiles: TileFolder, size: int, vouched: Checkpoint, promised: Mapping[int, bytes]) -> None:
    """Checks that promised leaf hashes are in the tree of the vouched checkpoint.

    Raises:
        VerificationError: one is not.
    """
    for index, leaf in sorted(promised.items()):
        try:
            proof = tiles.inclusion_proof(index, vouched.size, size)
            verify_inclusion(index, vouched.size, leaf, proof, vouched.root)
        except (BookCorruptError, VerificationError) as err:
            raise VerificationError(f"entry {index} is not the one that its receipt promises", index) from err
