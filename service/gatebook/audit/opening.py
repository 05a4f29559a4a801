"""What must be true before a book is opened, and how a new one is made.

Owns the parts of a data directory that are not the log itself: the key, the checkpoint database and
the published checkpoint. A new book is made in such an order that the key's name comes last: without
a key there is no book yet, and without anything worth keeping a half-made one is made again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gatebook.audit.checkpoints import Checkpoints, Signed
from gatebook.audit.files import Files
from gatebook.audit.limits import BookLimits
from gatebook.audit.recovery import begin
from gatebook.audit.segment import HEADER_BYTES, blank
from gatebook.audit.signer import read_signing_key, write_signing_key
from gatebook.audit.signing_elsewhere import BookKey
from gatebook.audit.tile_folder import TileFolder
from gatebook.errors import BookCorruptError, BookRefusedError, VerificationError
from gatebook.tlog.checkpoint import Checkpoint
from gatebook.tlog.keys import SigningKey, VerifierKey
from gatebook.tlog.merkle import EMPTY_ROOT
from gatebook.tlog.note import NOTE_BYTES_MAX
from gatebook.tlog.proof import open_checkpoint

_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are in a data directory."""

    data: Path

    @property
    def lock(self) -> Path:
        """The file that the one writer holds."""
        return self.data / "book.lock"

    @property
    def book(self) -> Path:
        """The published tlog-tiles directory."""
        return self.data / "book"

    @property
    def checkpoint(self) -> Path:
        """The published checkpoint."""
        return self.book / "checkpoint"

    @property
    def vkey(self) -> Path:
        """The verifier key, for whoever copies the directory. Who verifies must have it from elsewhere."""
        return self.book / "vkey"

    @property
    def wal(self) -> Path:
        """The write-ahead log."""
        return self.data / "wal"

    @property
    def checkpoints(self) -> Path:
        """The checkpoint database."""
        return self.data / "checkpoints.db"

    @property
    def key(self) -> Path:
        """The signing key."""
        return self.data / "keys" / "book.key"

    @property
    def temporary(self) -> Path:
        """Files that have no name in the book yet."""
        return self.data / "book.new"


def sign(key: BookKey, size: int, root: bytes, time_ns: int) -> Signed:
    """Returns a signed checkpoint. The caller vouches for size and root."""
    checkpoint = Checkpoint(key.name, size, root)
    return Signed(checkpoint, key.sign_note(checkpoint.text()).format(), time_ns)


def create_book(
    layout: Layout, origin: str, time_ns: int, files: Files, limits: BookLimits, key: BookKey | None = None
) -> None:
    """Makes a new, empty book where there is none, or only a half-made one; with its key, where that is made already.

    Raises:
        BookRefusedError: there is a book, but not its key.
        OSError: it could not be made.
    """
    _require_nothing_to_lose(layout)
    for folder in (layout.key.parent, layout.book, layout.wal, layout.temporary):
        files.make_directories(folder)
    layout.key.parent.chmod(0o700)
    for stale in layout.wal.iterdir():
        files.remove(stale)
    try:
        key = key or SigningKey.generate(origin)
    except VerificationError as err:
        raise BookRefusedError(f"`{origin}` cannot be the origin of a book: {err}") from err
    first = sign(key, 0, EMPTY_ROOT, time_ns)
    Checkpoints(layout.checkpoints).create(first)
    files.replace_content(layout.checkpoint, first.note, layout.temporary / "checkpoint")
    files.replace_content(layout.vkey, f"{key.verifier}\n".encode(), layout.temporary / "vkey")
    files.sync_directory(layout.book)
    files.sync_directory(layout.data)
    begin(layout.wal, first.checkpoint, files, limits)
    write_signing_key(layout.key, key, files)


def _require_nothing_to_lose(layout: Layout) -> None:
    lost = BookRefusedError(f"the signing key `{layout.key}` of an existing book is missing: restore it from a backup")
    if (layout.book / "tile").exists():
        raise lost
    if Checkpoints(layout.checkpoints).holds_size():
        raise lost
    for path in layout.wal.glob("*") if layout.wal.is_dir() else ():
        if not blank(path.read_bytes(), HEADER_BYTES):
            raise lost


def check_book(layout: Layout, origin: str, time_ns: int, files: Files, limits: BookLimits) -> tuple[BookKey, Signed]:
    """Returns the key and the newest checkpoint, once key, database, clock and published tiles agree.

    Raises:
        BookRefusedError: they do not.
        BookCorruptError: the published tiles are not what was signed.
        OSError: the published checkpoint could not be brought up to date.
    """
    key = read_signing_key(layout.key, origin)
    stored = _stored(layout, key.verifier)
    behind = (stored.time_ns - time_ns) / _NANOSECONDS
    if behind > limits.clock_tolerance_seconds:
        raise BookRefusedError(f"the clock is {behind:.0f} s behind the last checkpoint: set it right")
    _check_published(layout, key.verifier, stored.checkpoint)
    files.make_directories(layout.temporary)
    _replace_if_other(layout.vkey, f"{key.verifier}\n".encode(), layout, files)
    _replace_if_other(layout.checkpoint, stored.note, layout, files)
    return key, stored


def check_signed(layout: Layout, key: VerifierKey) -> Signed:
    """Returns the newest checkpoint of a book that nobody signs for any more, once what is published agrees with it.

    Raises:
        BookRefusedError: database and published checkpoint do not agree.
        BookCorruptError: the published tiles are not what was signed.
    """
    stored = _stored(layout, key)
    _check_published(layout, key, stored.checkpoint)
    return stored


def _stored(layout: Layout, key: VerifierKey) -> Signed:
    stored = Checkpoints(layout.checkpoints).newest()
    checkpoint = _open(stored.note, key, layout.checkpoints.name)
    if (checkpoint.size, checkpoint.root) != (stored.size, stored.root):
        raise BookRefusedError(f"`{layout.checkpoints.name}` contradicts itself: restore the book from a backup")
    return Signed(checkpoint, stored.note, stored.time_ns)


def _check_published(layout: Layout, key: VerifierKey, newest: Checkpoint) -> None:
    """Checks the tiles against the newest checkpoint, and the published checkpoint against both."""
    tiles = TileFolder(layout.book)
    if tiles.frontier(newest.size, newest.size).root() != newest.root:
        raise BookCorruptError(f"the tiles do not lead to the root that was signed for size {newest.size}")
    if layout.vkey.exists() and layout.vkey.read_bytes() != f"{key}\n".encode():
        raise BookRefusedError(f"`{layout.vkey}` is the key of another book")
    if not layout.checkpoint.exists():
        return
    published = _open(_read_note(layout.checkpoint), key, layout.checkpoint.name)
    if published.size > newest.size:
        raise BookRefusedError(
            f"the published checkpoint has size {published.size}, the newest in `{layout.checkpoints.name}` "
            f"{newest.size}: that database was put back from an older copy"
        )
    if tiles.frontier(published.size, newest.size).root() != published.root:
        raise BookRefusedError(f"two roots are signed for size {published.size}: the book was rewritten")


def _open(note: bytes, key: VerifierKey, name: str) -> Checkpoint:
    try:
        return open_checkpoint(note, key)
    except VerificationError as err:
        raise BookRefusedError(f"the checkpoint in `{name}` is not one of this book: {err}") from err


def _read_note(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(NOTE_BYTES_MAX + 1)


def _replace_if_other(path: Path, content: bytes, layout: Layout, files: Files) -> None:
    if not path.exists() or path.read_bytes() != content:
        files.replace_content(path, content, layout.temporary / path.name)
        files.sync_directory(path.parent)
