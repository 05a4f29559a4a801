"""A backup of a data directory, whether a service writes it or not.

Owns the order of copying, which makes the copy whole:

1. the end of the book first (`tail`): the newest checkpoint, and all that was acknowledged after it;
2. then what entries name, which was durable before they were: people, revisions, directories. So nobody and
   nothing that a copied entry names is missing;
3. tiles and bundles of that checkpoint at any time: they never change;
4. the copy is verified, byte by byte, before it gets its name.

A backup is made under a temporary name beside the final one, and renamed when it is whole and synced.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import msgspec

from gatebook import __version__
from gatebook.audit.checkpoints import Checkpoints
from gatebook.audit.files import Files
from gatebook.audit.hold import require_released
from gatebook.audit.opening import Layout
from gatebook.audit.tile_folder import TileFolder
from gatebook.audit.verify import verify_book
from gatebook.backup.archive import write_archive
from gatebook.backup.contents import LIST_FILE, NOTE_FILE, Statement, encode_list, sign_statement
from gatebook.backup.tail import Tail, take_tail
from gatebook.errors import BookRefusedError, BookUnavailableError, InvalidRequestError, VerificationError
from gatebook.revisions.store import RevisionStore
from gatebook.tlog.keys import SigningKey
from gatebook.tlog.tiles import ENTRIES, Tile, encode_bundle, new_tiles

ARCHIVE_SUFFIX = ".tar"
KEYS = ("book.key", "people.key", "mask.key", "directory.key")
_KNOWN = frozenset(
    ("book", "book.lock", "book.new", "wal", "checkpoints.db", "people.db", "index.db")
    + ("keys", "revisions", "directory", "lost+found")
)
_DERIVED_SUFFIXES = ("-wal", "-shm", "-journal")

Progress = Callable[[str], Callable[[int, int], None]]
"""Begins a stage of a name, and is then told how much of it is done, and of how much."""


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds."""

    path: Path
    origin: str
    size: int
    """Entries in it; all that were acknowledged before it was begun."""
    published_size: int
    root: bytes
    files: int
    size_bytes: int
    keys: bool
    left_out: tuple[str, ...]
    """Names in the data directory that this version does not know."""


def take_backup(data: Path, target: Path, *, keys: bool, progress: Progress, files: Files | None = None) -> Taken:
    """Makes a backup of a data directory: a folder, or one archive where the name ends in `.tar`.

    Raises:
        InvalidRequestError: there is no data directory, or something has the name of the backup.
        BookRefusedError: this is not the data directory of a book that may be served.
        BookCorruptError, VerificationError: a byte is not what was written; `index` says where.
        BookUnavailableError: it could not be copied now.
        OSError: it could not be written.
    """
    layout, files = Layout(data), files or Files()
    key = _signing_key(layout)
    require_released(data)
    target = target.absolute()
    if target.exists() or target.is_symlink():
        raise InvalidRequestError("target", f"`{target}` exists: name one that does not")
    if target.is_relative_to(data.resolve()):
        raise InvalidRequestError("target", f"`{target}` lies within the data directory: name another place")
    with _temporary(target) as work:
        copy = Copying(layout, Layout(work / "copy"), files)
        tail = copy.tail(key, work / "scratch")
        if keys:
            copy.all_that_entries_name()
        copy.tiles(tail, key, progress("copying"))
        _verify(copy.target, key, tail, progress("verifying"), keys=keys)
        if keys:
            _require_revisions(copy.target.data)
        copy.finish(tail, key, keys=keys)
        whole = copy.target.data
        if target.suffix == ARCHIVE_SUFFIX:
            whole = work / "archive"
            write_archive(copy.target.data, whole, copy.paths, progress("archiving"))
        files.rename(whole, target)  # the commit point: from here on there is a backup
        files.sync_directory(target.parent)
    return Taken(
        path=target,
        origin=key.name,
        size=tail.size,
        published_size=tail.signed.checkpoint.size,
        root=tail.root,
        files=len(copy.paths),
        size_bytes=copy.size_bytes,
        keys=keys,
        left_out=_unknown(data),
    )


class Copying:
    """One copy on its way: what is written, and the hash of what no checkpoint covers."""

    def __init__(self, source: Layout, target: Layout, files: Files) -> None:
        """Takes from where and to where."""
        self.source = source
        self.target = target
        self.paths: list[str] = []
        self.size_bytes = 0
        self._files = files
        self._hashes: dict[str, str] = {}
        self._folders: set[Path] = set()
        self._folder(target.data)

    def tail(self, key: SigningKey, scratch: Path) -> Tail:
        """Copies the end of the book."""
        target = self.target
        self._folder(target.wal)
        tail = take_tail(self.source, key.verifier, target.wal, scratch, self._files)
        shutil.rmtree(scratch)
        tail.segment.chmod(0o600)
        self._note(tail.segment)
        self._folder(target.book, 0o755)
        self._put(target.checkpoint, tail.signed.note, 0o644, listed=False)
        self._put(target.vkey, f"{key.verifier}\n".encode(), 0o644, listed=False)
        return tail

    def all_that_entries_name(self) -> None:
        """Copies keys, people, revisions and directories."""
        source, target = self.source.data, self.target.data
        for name in KEYS:
            self._put(target / "keys" / name, (source / "keys" / name).read_bytes(), 0o600)
        self._people(source / "people.db", target / "people.db")
        for folder in ("revisions", "directory"):
            self._folder(target / folder)
            for path in _plain_files(source / folder):
                self._put(target / path.relative_to(source), path.read_bytes(), 0o600)

    def _people(self, source: Path, target: Path) -> None:
        """Copies the store of people as it is at one moment."""
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        original = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
        copy = sqlite3.connect(target)
        try:
            original.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.Error as err:
            raise BookUnavailableError(f"the people store cannot be copied: {err}") from err
        finally:
            copy.close()
            original.close()
        self._sync(target)
        self._note(target)

    def tiles(self, tail: Tail, key: SigningKey, progress: Callable[[int, int], None]) -> None:
        """Copies the tiles and bundles of the checkpoint, and makes its database."""
        del key
        size = tail.signed.checkpoint.size
        found, wanted = TileFolder(self.source.book), list(new_tiles(0, size))
        for number, tile in enumerate(wanted, start=1):
            self._put(self.target.book / tile.path, _content(found, tile, size), 0o644, listed=False)
            progress(number, len(wanted))

    def finish(self, tail: Tail, key: SigningKey, *, keys: bool) -> None:
        """Says what is in it, last of all, and makes the names durable."""
        if keys:
            Checkpoints(self.target.checkpoints).create(tail.signed)
            self.target.checkpoints.chmod(0o600)
            self._note(self.target.checkpoints)
        listed = encode_list(self._hashes)
        statement = Statement(
            origin=key.name,
            size=tail.size,
            root=tail.root,
            files_hash=sha256(listed).hexdigest(),
            keys=keys,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            version=__version__,
        )
        self.paths.sort()
        data = self.target.data
        self._put(data / LIST_FILE, listed, 0o600, listed=False)
        self._put(data / NOTE_FILE, sign_statement(statement, key), 0o600, listed=False)
        self.paths = [NOTE_FILE, LIST_FILE, *(path for path in self.paths if path not in {NOTE_FILE, LIST_FILE})]
        for folder in sorted(self._folders, reverse=True):
            self._files.sync_directory(folder)

    def _put(self, path: Path, content: bytes, mode: int, *, listed: bool = True) -> None:
        book = self.target.book
        self._folder(path.parent, 0o755 if path.is_relative_to(book) else 0o700)
        descriptor = self._files.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            self._files.write(descriptor, content, 0)
            self._files.sync(descriptor)
        finally:
            os.close(descriptor)
        self._note(path, sha256(content).hexdigest() if listed else "", len(content))

    def _note(self, path: Path, digest: str | None = None, size: int | None = None) -> None:
        """Takes note of a file that is written; its hash is empty where a checkpoint or the note covers it."""
        name = path.relative_to(self.target.data).as_posix()
        self.paths.append(name)
        self.size_bytes += path.stat().st_size if size is None else size
        if digest is None:
            digest = sha256(path.read_bytes()).hexdigest()
        if digest:
            self._hashes[name] = digest

    def _folder(self, path: Path, mode: int = 0o700) -> None:
        if path in self._folders:
            return
        if path != self.target.data:
            self._folder(path.parent, mode if path.parent.is_relative_to(self.target.book) else 0o700)
        path.mkdir(mode=mode)
        self._folders.add(path)

    def _sync(self, path: Path) -> None:
        descriptor = self._files.open(path, os.O_RDWR)
        try:
            self._files.sync(descriptor)
        finally:
            os.close(descriptor)


def _signing_key(layout: Layout) -> SigningKey:
    """Returns the key of the book, which signs the note of the backup."""
    if not layout.key.is_file() or not layout.checkpoints.is_file():
        raise InvalidRequestError("data", f"there is no book in `{layout.data}`: name the data directory of a service")
    try:
        return SigningKey.parse(layout.key.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, VerificationError) as err:
        raise BookRefusedError(f"`{layout.key}` holds no signing key: restore it from a backup") from err


@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """Gives a folder beside the target, on the same file system; what is left in it goes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.unfinished-", dir=target.parent))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _content(tiles: TileFolder, tile: Tile, size: int) -> bytes:
    if tile.level == ENTRIES:
        return encode_bundle(tiles.bundle(tile.number, size))
    return b"".join(tiles.hashes(tile.level, tile.number, size))


def _plain_files(folder: Path) -> Iterator[Path]:
    """Yields the files of finished revisions or directories; those on their way have names that end in `.new`."""
    for top in sorted(folder.iterdir()) if folder.is_dir() else ():
        if top.suffix != ".new":
            yield from (path for path in sorted((top, *top.rglob("*"))) if path.is_file())


def _verify(copy: Layout, key: SigningKey, tail: Tail, progress: Callable[[int, int], None], *, keys: bool) -> None:
    report = verify_book(copy.book, key.verifier, wal=copy.wal, progress=progress)
    if report.size + report.unsigned_entries != tail.size:
        found = report.size + report.unsigned_entries
        raise VerificationError(f"the copy ends at {found} and the book at {tail.size}", found)
    if keys and SigningKey.parse(copy.key.read_text(encoding="utf-8")).verifier != key.verifier:
        raise VerificationError("the signing key was exchanged while it was copied")


def _require_revisions(data: Path) -> None:
    """Reads every revision of a copy, which checks it."""
    store = RevisionStore(data, create=False)
    for path in sorted((data / "revisions").iterdir()):
        store.get_policy_set(path.name)
    for path in sorted((data / "directory").iterdir()):
        store.get_directory(path.name)


def _unknown(data: Path) -> tuple[str, ...]:
    """Returns the names in a data directory that belong to no version that this one knows."""
    names = sorted(path.name for path in data.iterdir())
    return tuple(
        name
        for name in names
        if name.removesuffix(next((s for s in _DERIVED_SUFFIXES if name.endswith(s)), "")) not in _KNOWN
    )
