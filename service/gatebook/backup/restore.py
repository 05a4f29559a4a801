"""Restoring a backup: into an empty directory, verified, and held until somebody releases it.

Rules:

1. the first thing written is the mark of an unfinished restore (`audit.hold`), so that whatever a kill leaves is
   not served, and the last is the mark of a finished one. A restore that is refused leaves the directory empty;
2. only paths that the backup's list or its checkpoint knows are made, each once, as plain files;
3. the list is signed by the book's key, every listed file has its hash, every entry and tile is verified up to
   the size that the note states, and what is sealed opens;
4. a checkpoint that somebody remembers must be in the history of the backup;
5. a release writes into the book, as its next entry, that it was restored, carries out the erasures that copies of
   other books tell of, and only then takes the mark away.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gatebook import __version__
from gatebook.audit.book import Book
from gatebook.audit.chain import find_end
from gatebook.audit.entry import Stamp, encode_system
from gatebook.audit.files import Files
from gatebook.audit.hold import HOLD_FILE, Hold, read_hold, remove_hold, write_hold
from gatebook.audit.keyfile import read_key
from gatebook.audit.opening import Layout
from gatebook.audit.people import People
from gatebook.audit.recovery import Replay
from gatebook.audit.signer import read_signing_key
from gatebook.audit.tile_folder import TileFolder
from gatebook.audit.verify import verify_book
from gatebook.audit.verify_copy import Copy
from gatebook.backup.archive import read_archive, read_backup_folder
from gatebook.backup.contents import (
    LIST_FILE,
    NOTE_FILE,
    Statement,
    open_statement,
)
from gatebook.backup.copying import SHARED_KEYS, is_first
from gatebook.backup.erasures import CALLER, carry_out, missed, read_other
from gatebook.backup.extraction import Extraction, require_needed
from gatebook.backup.take import Progress
from gatebook.errors import BookRefusedError, InvalidRequestError, VerificationError
from gatebook.tlog.checkpoint import Checkpoint
from gatebook.tlog.keys import VerifierKey
from gatebook.tlog.note import NOTE_BYTES_MAX
from gatebook.tlog.proof import open_checkpoint
from gatebook.v1 import entry_pb2

_IGNORED = frozenset({"lost+found", f"{HOLD_FILE}.new"})


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What was restored and verified."""

    data: Path
    origin: str
    size: int
    published_size: int
    root: bytes
    backup_time: str
    remembered_size: int
    """The size of the remembered checkpoint that it continues; 0 where none was given."""
    key_from_elsewhere: bool
    released: bool = False
    erased: int | None = None
    """How many erasures of other books were carried out; None where none were asked for."""
    lost_size: int = 0
    """The size that a copy of the original shows to be signed, where that is beyond the backup."""


class Found(msgspec.Struct, frozen=True):
    """What a verified data directory holds."""

    size: int
    root: bytes
    published_size: int
    remembered_size: int


def restore_backup(
    backup: Path,
    data: Path,
    *,
    vkey: VerifierKey | None,
    remembered: Sequence[bytes],
    progress: Progress,
    files: Files | None = None,
) -> Restored:
    """Restores a backup into an empty directory, verifies all of it, and leaves it held.

    Raises:
        InvalidRequestError: the directory is not empty.
        BookRefusedError: the backup has no keys, or they are not those of its book.
        VerificationError: it is not what was backed up, or does not continue a remembered checkpoint; `index` is the
            first entry that is not vouched for, where one is known.
        OSError: it could not be read or written.
    """
    files = files or Files()
    _require_empty(data)
    files.make_directories(data.absolute().parent)
    data.mkdir(mode=0o700, exist_ok=True)
    files.sync_directory(data.absolute().parent)
    write_hold(data, Hold(complete=False, origin="", size=0, backup_time=""), files)
    try:
        extraction = Extraction(data, files)
        members = read_backup_folder(backup, (NOTE_FILE, LIST_FILE)) if backup.is_dir() else read_archive(backup)
        statement = extraction.run(members)
        require_needed(extraction.tiles, _read(Layout(data).checkpoint))
        key = vkey or read_signing_key(Layout(data).key, statement.origin).verifier
        open_statement(extraction.note, key)
        restored = _verified(data, statement, key, remembered, progress, key_from_elsewhere=vkey is not None)
        hold = Hold(complete=True, origin=statement.origin, size=statement.size, backup_time=statement.time)
        write_hold(data, hold, files)  # the commit point: the restore is whole
    except BaseException:
        _empty(data)
        raise
    return restored


def verify_held(data: Path, *, vkey: VerifierKey | None, remembered: Sequence[bytes], progress: Progress) -> Restored:
    """Verifies a restored directory that is held.

    Raises:
        InvalidRequestError: it is not held.
        BookRefusedError: its restore did not end, or it cannot be read.
        VerificationError: as `restore_backup`.
    """
    hold = read_hold(data)
    if hold is None:
        raise InvalidRequestError("data", f"`{data}` holds no restored book that waits for its release")
    if not hold.complete:
        raise BookRefusedError(f"a restore into `{data}` did not end: empty the directory and restore the backup again")
    key = read_signing_key(Layout(data).key, hold.origin).verifier
    if vkey not in {None, key}:
        raise VerificationError(f"the book is not signed by the key `{vkey}`")
    found = _verify(data, key, remembered, progress)
    if found.size < hold.size:
        raise VerificationError(f"the backup had {hold.size} entries, and {found.size} are left", found.size)
    return _restored(data, found, hold.origin, hold.backup_time, key_from_elsewhere=vkey is not None)


def release(restored: Restored, others: Sequence[Path] = ()) -> Restored:
    """Writes into the book that it was restored, erases whom other books erased, publishes that, and lets it be served.

    From here on the original must never be served again: two histories would be signed under one origin.

    Raises:
        BookRefusedError: the book or another one cannot be opened.
        BookUnavailableError: it could not be written; it stays held.
        VerificationError: another book is not what was signed.
        OSError: another book cannot be read, or the mark not be removed; it stays held.
    """
    book = Book.open(restored.data, origin=restored.origin, create=False)
    try:
        found = [read_other(path, restored.origin, book.key.verifier) for path in others]
        end = find_end(book)
        if end.closed:
            raise BookRefusedError("the book in the backup is closed: restore the backup of its successor")
        time = max(datetime.now(UTC), end.last_entry_time)
        people = People.open(restored.data, create=False, files=book.files)
        try:
            erasures = missed(people, found, end.last_entry_time)
            stamp = Stamp.of(time, CALLER, end.control_link)
            event = entry_pb2.SYSTEM_EVENT_RESTORED
            book.append_group([encode_system(event, stamp, version=__version__, recovered_size=end.size)])
            carry_out(book, people, erasures, time, end.control_link)
        finally:
            people.close()
        remove_hold(restored.data, book.files)
    finally:
        book.close()
    signed = max((each.size for each in found if each.origin == restored.origin), default=0)
    return msgspec.structs.replace(
        restored,
        released=True,
        erased=len(erasures) if others else None,
        lost_size=signed if signed > restored.size else 0,
    )


def _verified(
    data: Path,
    statement: Statement,
    key: VerifierKey,
    remembered: Sequence[bytes],
    progress: Progress,
    *,
    key_from_elsewhere: bool,
) -> Restored:
    """Checks a complete extraction against its note."""
    found = _verify(data, key, remembered, progress)
    if (found.size, found.root) != (statement.size, statement.root):
        bad = min(found.size, statement.size)
        raise VerificationError(f"the backup ends at entry {found.size}, and its note states {statement.size}", bad)
    if read_signing_key(Layout(data).key, statement.origin).verifier != key:
        raise BookRefusedError("the signing key in the backup is not that of its book")
    for name in ("people.key", *(SHARED_KEYS if is_first(data) else ())):
        read_key(data / "keys" / name)
    return _restored(data, found, statement.origin, statement.time, key_from_elsewhere=key_from_elsewhere)


def _restored(data: Path, found: Found, origin: str, backup_time: str, *, key_from_elsewhere: bool) -> Restored:
    return Restored(
        data=data,
        origin=origin,
        size=found.size,
        published_size=found.published_size,
        root=found.root,
        backup_time=backup_time,
        remembered_size=found.remembered_size,
        key_from_elsewhere=key_from_elsewhere,
    )


def _verify(data: Path, key: VerifierKey, remembered: Sequence[bytes], progress: Progress) -> Found:
    """Verifies every byte of a data directory, what it says, and that it continues what is remembered."""
    layout = Layout(data)
    known = [open_checkpoint(note, key) for note in remembered]
    published = open_checkpoint(_read(layout.checkpoint), key)
    older = [note for note, each in zip(remembered, known, strict=True) if each.size <= published.size]
    meaning = Copy.at(data).meaning(key.name)
    verify_book(layout.book, key, remembered=older, wal=layout.wal, meaning=meaning, progress=progress("verifying"))
    size, root = _check_tail(layout, published, [each for each in known if each.size > published.size])
    return Found(size, root, published.size, max((each.size for each in known), default=0))


def _check_tail(layout: Layout, published: Checkpoint, known: Sequence[Checkpoint]) -> tuple[int, bytes]:
    """Checks remembered checkpoints that are newer than the published one; returns how far the book is durable."""
    tiles = TileFolder(layout.book)
    replay = Replay(layout.wal, published, lambda at: tiles.frontier(at, published.size))
    roots = {group.size_after: group.root_after for group in replay.groups()}
    size = replay.frontier.size
    for each in known:
        if each.size > size:
            message = (
                f"the backup ends at {size}, but a checkpoint of size {each.size} was signed after it was made: "
                f"take a newer backup"
            )
            raise VerificationError(message, size)
        if roots.get(each.size) != each.root:
            message = f"the entries from {published.size} on are not those that were signed at size {each.size}"
            raise VerificationError(message, published.size)
    return size, replay.frontier.root()


def _require_empty(data: Path) -> None:
    if data.is_symlink() or (data.exists() and not data.is_dir()):
        raise InvalidRequestError("data", f"`{data}` is no directory")
    if data.is_dir() and any(path.name not in _IGNORED for path in data.iterdir()):
        raise InvalidRequestError("data", f"`{data}` is not empty: a backup is restored into an empty directory")


def _empty(data: Path) -> None:
    """Takes away what a refused restore made, its mark last."""
    made = [path for path in data.iterdir() if path.name not in _IGNORED]
    for path in sorted(made, key=lambda path: path.name == HOLD_FILE):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(NOTE_BYTES_MAX + 1)
