"""Verification of a copied book, offline, with nothing but its verifier key.

Owns the answer to "is this what was written?" for every byte of a `<data>/book` directory:

1. the checkpoint is signed by the key, under the key's own origin;
2. every entry hashes to its leaf, every tile holds the right hashes, and all lead to the signed root;
3. no file is missing, none is there that no size of the book has, and none has a byte too many;
4. the book extends each remembered checkpoint, and holds every receipt's entry at its index;
5. where witnesses are needed, enough of them cosigned its checkpoint, or one that it extends;
6. where that is asked, entries keep the rules of entries (`verify_entries`): among them that bundles which are missing
   from the first one on were pruned, as an entry says. Their leaves are verified in any case.

With `since`, a checkpoint up to which the book was verified before, entries that it covers are not read again: that
the book extends it is shown as by any log, from the hashes at its right edge.

What fails is named by the first index that is not vouched for. Two roots say that two histories
differ but not where: then that is the end of what the largest remembered checkpoint confirms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gatebook.audit.recovery import Replay
from gatebook.audit.tile_folder import TileFolder
from gatebook.audit.verify_before import Seen, check_promised_before, check_seen_before
from gatebook.audit.verify_entries import EntryReport
from gatebook.audit.verify_files import FileVerifier
from gatebook.audit.verify_range import Meaning
from gatebook.audit.verify_tiles import TileVerifier
from gatebook.errors import BookCorruptError, BookRefusedError, ContradictionError, VerificationError
from gatebook.tlog.checkpoint import Checkpoint
from gatebook.tlog.keys import VerifierKey
from gatebook.tlog.merkle import leaf_hash
from gatebook.tlog.note import NOTE_BYTES_MAX, parse_note
from gatebook.tlog.policy import NOBODY, Cosigned, WitnessPolicy
from gatebook.tlog.proof import open_checkpoint
from gatebook.tlog.receipt import Receipt, verify_receipt

Progress = Callable[[int, int], None]
"""Is told how many entries are checked, and of how many."""

CHECKPOINT, WITNESSED = "checkpoint", "witnessed"
NO_WITNESS = (
    "no witness and no remembered checkpoint: this shows tampering by everyone but the holder of the signing key, "
    "and does not show that an old copy of the whole book was put back"
)
_NOT_READ = (
    "entries 0 to {} were not read: the book continues the checkpoint of size {}, up to which it was verified before, "
    "and whether this copy still has them whole is not shown"
)


@dataclass(frozen=True, slots=True)
class _Witnessed:
    """A checkpoint that enough witnesses cosigned."""

    seen: Seen
    cosigned: tuple[Cosigned, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What was verified. Every entry from `first_index` to `size` is what was signed, those before it were once."""

    note: bytes
    """The checkpoint, verbatim."""
    origin: str
    size: int
    root: bytes
    first_index: int
    """The first entry that was looked for: 0, but with `since`."""
    begins: int
    """The first entry that is there: what is missing before it is pruned."""
    entry_bytes: int
    files: int
    entries: EntryReport | None
    """What the entries that were read say, if that was asked."""
    remembered_size: int
    """The largest remembered checkpoint that the book extends; 0 where none was given."""
    receipts: int
    witnessed_size: int
    """The size of the checkpoint that enough witnesses cosigned; 0 where none are needed."""
    cosigned: tuple[Cosigned, ...]
    """Who cosigned it, and when."""
    unsigned_entries: int
    """Entries found beyond the checkpoint: in tiles of a publication under way, or in the write-ahead log."""
    warnings: tuple[str, ...]


def verify_book(  # noqa: PLR0913  # each is a thing to check with, asked for apart
    book: Path,
    key: VerifierKey,
    *,
    remembered: Sequence[bytes] = (),
    receipts: Sequence[Receipt] = (),
    witnesses: WitnessPolicy | None = None,
    wal: Path | None = None,
    since: bytes | None = None,
    meaning: Meaning | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Report:
    """Verifies a copied book directory and says what it is.

    Takes the verifier key from somewhere else than the copy, checkpoints that were seen earlier (signed notes),
    receipts, which witnesses must have cosigned, and the write-ahead log where the whole data directory was copied.
    Reads only what is new since a checkpoint (a signed note) up to which it was verified before, in so many processes.

    Raises:
        BookRefusedError: the store of people, which `meaning` names, cannot be opened.
        BookUnavailableError: a process of several ended before it was done.
        ContradictionError: the book does not continue a checkpoint that was remembered or witnessed.
        VerificationError: the book is not what was signed, remembered or promised; `index` is the first
            entry that is not vouched for, where one is known.
    """
    note = _read_note(book, CHECKPOINT)
    checkpoint = open_checkpoint(note, key)
    _check_vkey(book, key)
    witnessed = _witnessed(book, note, key, witnesses)
    known, vouched = _remembered(remembered, key), _remembered([] if since is None else [since], key)
    promised = _promised(receipts, key)
    shown, seen = Seen(note, checkpoint), [*known, *vouched, *([witnessed.seen] if witnessed else [])]
    _check_seen(shown, [each for each in vouched if each.checkpoint.size > checkpoint.size], {})
    sizes, vouched_size = {each.checkpoint.size for each in seen}, vouched[0].checkpoint.size if vouched else 0
    tiles = TileVerifier(book, checkpoint.size, sizes, promised, meaning=meaning, vouched_size=vouched_size)
    tiles.verify(progress or _nobody, jobs)
    if tiles.first_index:
        _check_before(TileFolder(book), checkpoint.size, vouched[0], tiles.first_index, seen, promised)
    _check_history(shown, [each for each in seen if not 0 < each.checkpoint.size <= tiles.first_index], tiles.roots)
    files = FileVerifier(book, checkpoint.size, tiles.first_index)
    unsigned, warnings = files.verify(), [] if seen else [NO_WITNESS]
    if tiles.first_index:
        warnings.append(_NOT_READ.format(tiles.first_index - 1, vouched_size))
    if tiles.begins > tiles.first_index and meaning is None:
        warnings.append(f"the entries before {tiles.begins} are not there, and whether one says why is not shown")
    if witnessed and (later := checkpoint.size - witnessed.seen.checkpoint.size):
        warnings.append(f"the last {later} entries are not yet witnessed: the key of the book alone vouches for them")
    promised = {index: leaf for index, leaf in promised.items() if index >= checkpoint.size}
    if wal is not None:
        unsigned = _verify_wal(wal, book, checkpoint, promised, warnings)
    elif unsigned:
        warnings.append(f"{unsigned} entries lie beyond the checkpoint: no signature vouches for them yet")
    if promised:
        index = min(promised)
        raise VerificationError(f"there is a receipt for entry {index}, but the book ends before it", index)
    return Report(
        note=note,
        origin=checkpoint.origin,
        size=checkpoint.size,
        root=checkpoint.root,
        first_index=tiles.first_index,
        begins=tiles.begins,
        entry_bytes=tiles.entry_bytes,
        files=files.files,
        entries=tiles.entry_report() if meaning is not None else None,
        remembered_size=known[-1].checkpoint.size if known else 0,
        receipts=len(receipts),
        witnessed_size=witnessed.seen.checkpoint.size if witnessed else 0,
        cosigned=witnessed.cosigned if witnessed else (),
        unsigned_entries=unsigned,
        warnings=tuple(warnings),
    )


def _nobody(_done: int, _total: int) -> None:
    """Is told of the progress when nobody wants to know."""


def _read_note(book: Path, name: str) -> bytes:
    try:
        with (book / name).open("rb") as file:
            return file.read(NOTE_BYTES_MAX + 1)
    except OSError as err:
        raise VerificationError(f"cannot read the {name} in `{book}`: {err.strerror}") from err


def _witnessed(book: Path, note: bytes, key: VerifierKey, witnesses: WitnessPolicy | None) -> _Witnessed | None:
    """Returns the newest checkpoint in the copy that enough witnesses cosigned, if any are needed."""
    if witnesses is None or witnesses.quorum == NOBODY:
        return None
    try:
        return _Witnessed(Seen(note, open_checkpoint(note, key)), witnesses.require(parse_note(note)))
    except VerificationError:
        if not (book / WITNESSED).exists():
            raise
    # The newest checkpoint may have been copied before its cosignatures came: then this one has them.
    earlier = _read_note(book, WITNESSED)
    return _Witnessed(Seen(earlier, open_checkpoint(earlier, key)), witnesses.require(parse_note(earlier)))


def _check_vkey(book: Path, key: VerifierKey) -> None:
    """Checks the key that the copy names, if any. It vouches for nothing, but a false one misleads."""
    path = book / "vkey"
    if path.exists() and path.read_bytes() != f"{key}\n".encode():
        raise VerificationError(f"`{path}` is not the key that the book is verified with")


def _remembered(notes: Sequence[bytes], key: VerifierKey) -> list[Seen]:
    return sorted((Seen(note, open_checkpoint(note, key)) for note in notes), key=lambda seen: seen.checkpoint.size)


def _check_before(
    tiles: TileFolder, size: int, vouched: Seen, first_index: int, seen: Iterable[Seen], promised: Mapping[int, bytes]
) -> None:
    check_seen_before(tiles, size, vouched, [each for each in seen if 0 < each.checkpoint.size <= first_index])
    before = {index: leaf for index, leaf in promised.items() if index < first_index}
    check_promised_before(tiles, size, vouched.checkpoint, before)


def _promised(receipts: Sequence[Receipt], key: VerifierKey) -> dict[int, bytes]:
    """Returns the leaf hash that each receipt promises at its index."""
    promised: dict[int, bytes] = {}
    for receipt in receipts:
        verify_receipt(receipt, key)
        if promised.setdefault(receipt.index, receipt.leaf_hash) != receipt.leaf_hash:
            raise VerificationError(f"two receipts promise different entries {receipt.index}", receipt.index)
    return promised


def _check_history(shown: Seen, known: Iterable[Seen], roots: Mapping[int, bytes]) -> None:
    """Checks that the book continues what was seen of it, and leads to its own signed root."""
    confirmed = _check_seen(shown, known, roots)
    if roots[shown.checkpoint.size] != shown.checkpoint.root:
        message = f"the entries from {confirmed} on do not lead to the root that is signed"
        raise VerificationError(message, confirmed)


def _check_seen(shown: Seen, known: Iterable[Seen], roots: Mapping[int, bytes]) -> int:
    """Checks that the book continues what was seen of it; returns up to where that confirms it."""
    checkpoint, confirmed = shown.checkpoint, 0
    for seen in sorted(known, key=lambda seen: seen.checkpoint.size):
        each, evidence = seen.checkpoint, (seen.note, shown.note)
        if each.size > checkpoint.size:
            message = f"the book ends at {checkpoint.size}, but a checkpoint of size {each.size} was signed"
            raise ContradictionError(message, checkpoint.size, evidence)
        if roots[each.size] != each.root:
            message = f"the entries from {confirmed} on are not those that were signed at size {each.size}"
            raise ContradictionError(message, confirmed, evidence)
        confirmed = each.size
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
