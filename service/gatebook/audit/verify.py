"""Verification of a copied book, offline, with nothing but its verifier key.

Owns the answer to "is this what was written?" for every byte of a `<data>/book` directory:

1. the checkpoint is signed by the key, under the key's own origin;
2. every entry hashes to its leaf, every tile holds the right hashes, and all lead to the signed root;
3. no file is missing, none is there that no size of the book has, and none has a byte too many;
4. the book extends each remembered checkpoint, and holds every receipt's entry at its index.

What fails is named by the first index that is not vouched for. Two roots say that two histories
differ but not where: then that is the end of what the largest remembered checkpoint confirms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gatebook.audit.recovery import Replay
from gatebook.audit.tile_folder import TileFolder
from gatebook.audit.verify_tiles import TileVerifier
from gatebook.errors import BookCorruptError, BookRefusedError, VerificationError
from gatebook.tlog.checkpoint import Checkpoint
from gatebook.tlog.keys import VerifierKey
from gatebook.tlog.merkle import leaf_hash
from gatebook.tlog.note import NOTE_BYTES_MAX
from gatebook.tlog.proof import open_checkpoint
from gatebook.tlog.receipt import Receipt, verify_receipt

Progress = Callable[[int, int], None]
"""Is told how many entries are checked, and of how many."""

NO_WITNESS = (
    "no witness and no remembered checkpoint: this shows tampering by everyone but the holder of the signing key, "
    "and does not show that an old copy of the whole book was put back"
)


@dataclass(frozen=True, slots=True)
class Report:
    """What was verified. Every entry below `size` is what was signed."""

    origin: str
    size: int
    root: bytes
    entry_bytes: int
    files: int
    remembered_size: int
    """The largest remembered checkpoint that the book extends; 0 where none was given."""
    receipts: int
    unsigned_entries: int
    """Entries found beyond the checkpoint: in tiles of a publication under way, or in the write-ahead log."""
    warnings: tuple[str, ...]


def verify_book(
    book: Path,
    key: VerifierKey,
    *,
    remembered: Sequence[bytes] = (),
    receipts: Sequence[Receipt] = (),
    wal: Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Verifies a copied book directory and says what it is.

    Takes the verifier key from somewhere else than the copy, checkpoints that were seen earlier
    (signed notes), receipts, and the write-ahead log where the whole data directory was copied.

    Raises:
        VerificationError: the book is not what was signed, remembered or promised; `index` is the first
            entry that is not vouched for, where one is known.
    """
    checkpoint = _checkpoint(book, key)
    _check_vkey(book, key)
    known = _remembered(remembered, key)
    promised = _promised(receipts, key)
    tiles = TileVerifier(book, checkpoint.size, {each.size for each in known}, promised)
    tiles.verify(progress or _nobody)
    confirmed = _check_history(checkpoint, known, tiles.roots)
    unsigned, warnings = tiles.verify_files(), [] if known else [NO_WITNESS]
    if wal is not None:
        unsigned = _verify_wal(wal, book, checkpoint, promised, warnings)
    elif unsigned:
        warnings.append(f"{unsigned} entries lie beyond the checkpoint: no signature vouches for them yet")
    if promised:
        index = min(promised)
        raise VerificationError(f"there is a receipt for entry {index}, but the book ends before it", index)
    return Report(
        origin=checkpoint.origin,
        size=checkpoint.size,
        root=checkpoint.root,
        entry_bytes=tiles.entry_bytes,
        files=tiles.files,
        remembered_size=confirmed,
        receipts=len(receipts),
        unsigned_entries=unsigned,
        warnings=tuple(warnings),
    )


def _nobody(_done: int, _total: int) -> None:
    """Is told of the progress when nobody wants to know."""


def _checkpoint(book: Path, key: VerifierKey) -> Checkpoint:
    try:
        with (book / "checkpoint").open("rb") as file:
            note = file.read(NOTE_BYTES_MAX + 1)
    except OSError as err:
        raise VerificationError(f"cannot read the checkpoint in `{book}`: {err.strerror}") from err
    return open_checkpoint(note, key)


def _check_vkey(book: Path, key: VerifierKey) -> None:
    """Checks the key that the copy names, if any. It vouches for nothing, but a false one misleads."""
    path = book / "vkey"
    if path.exists() and path.read_bytes() != f"{key}\n".encode():
        raise VerificationError(f"`{path}` is not the key that the book is verified with")


def _remembered(notes: Sequence[bytes], key: VerifierKey) -> list[Checkpoint]:
    return sorted((open_checkpoint(note, key) for note in notes), key=lambda checkpoint: checkpoint.size)


def _promised(receipts: Sequence[Receipt], key: VerifierKey) -> dict[int, bytes]:
    """Returns the leaf hash that each receipt promises at its index."""
    promised: dict[int, bytes] = {}
    for receipt in receipts:
        verify_receipt(receipt, key)
        if promised.setdefault(receipt.index, receipt.leaf_hash) != receipt.leaf_hash:
            raise VerificationError(f"two receipts promise different entries {receipt.index}", receipt.index)
    return promised


def _check_history(checkpoint: Checkpoint, known: Iterable[Checkpoint], roots: Mapping[int, bytes]) -> int:
    """Returns up to where remembered checkpoints confirm the book, once it leads to its own signed root."""
    confirmed = 0
    for each in known:
        if each.size > checkpoint.size:
            message = f"the book ends at {checkpoint.size}, but a checkpoint of size {each.size} was signed"
            raise VerificationError(message, checkpoint.size)
        if roots[each.size] != each.root:
            message = f"the entries from {confirmed} on are not those that were signed at size {each.size}"
            raise VerificationError(message, confirmed)
        confirmed = each.size
    if roots[checkpoint.size] != checkpoint.root:
        message = f"the entries from {confirmed} on do not lead to the root that is signed"
        raise VerificationError(message, confirmed)
    return confirmed


def _verify_wal(wal: Path, book: Path, checkpoint: Checkpoint, promised: dict[int, bytes], warnings: list[str]) -> int:
    """Checks what is acknowledged and not yet published; returns how many entries that is."""
    tiles, size = TileFolder(book), checkpoint.size
    try:
        replay = Replay(wal, checkpoint, lambda at: tiles.frontier(at, size))
        for group in replay.groups():
            for index, entry in enumerate(group.entries, group.first_index):
                if promised.pop(index, leaf := leaf_hash(entry)) != leaf:
                    raise VerificationError(f"entry {index} is not the one that its receipt promises", index)
    except BookCorruptError as err:
        raise VerificationError(err.message, err.index) from err
    except (BookRefusedError, OSError) as err:
        raise VerificationError(f"cannot verify the write-ahead log: {err}") from err
    if unsigned := replay.frontier.size - size:
        warnings.append(f"{unsigned} entries are not yet published: checksums vouch for them, no signature does")
    if replay.torn_bytes:
        warnings.append(f"the write-ahead log ends in {replay.torn_bytes} bytes of a group that was never acknowledged")
    return unsigned
