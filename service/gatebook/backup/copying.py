"""One copy of a data directory on its way: every file that is written, synced, and its hash.

Owns which parts a copy has and how each is read from a directory that is in use. `take` owns the order.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from gatebook import __version__
from gatebook.audit.checkpoints import Checkpoints
from gatebook.audit.files import Files
from gatebook.audit.opening import Layout
from gatebook.audit.rotation import CLOSED
from gatebook.audit.signing_elsewhere import BookKey
from gatebook.audit.tile_folder import TileFolder
from gatebook.backup.contents import LIST_FILE, NOTE_FILE, Statement, encode_list, sign_statement
from gatebook.backup.tail import Tail, take_tail
from gatebook.errors import BookUnavailableError
from gatebook.tlog.tiles import ENTRIES, Tile, encode_bundle, new_tiles

KEYS = ("book.key", "people.key")
SHARED_KEYS = ("mask.key", "directory.key")
"""Keys that all workers of a service share; the first has them."""


def is_first(data: Path) -> bool:
    """Tells whether this is the data directory of a service's first worker, which keeps the revisions of all."""
    return (data / "revisions").is_dir()


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

    def tail(self, key: BookKey, scratch: Path) -> Tail:
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
        """Copies keys, people, revisions and directories, the last two from the first worker of a service."""
        source, target = self.source.data, self.target.data
        shared = is_first(source)
        for name in (*KEYS, *SHARED_KEYS) if shared else KEYS:
            self._put(target / "keys" / name, (source / "keys" / name).read_bytes(), 0o600)
        self._people(source / "people.db", target / "people.db")
        for folder in ("revisions", "directory") if shared else ():
            self._folder(target / folder)
            for path in _plain_files(source / folder):
                self._put(target / path.relative_to(source), path.read_bytes(), 0o600)

    def closed_books(self) -> None:
        """Copies the books that this one succeeds: whole, since nothing changes in them any more, and without a key."""
        source = self.source.data
        for path in _plain_files(source / CLOSED):
            if path.parent.name != "keys":
                self._put(self.target.data / path.relative_to(source), path.read_bytes(), 0o600)

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

    def tiles(self, tail: Tail, progress: Callable[[int, int], None]) -> None:
        """Copies the tiles and bundles of the checkpoint, but for the bundles that are pruned."""
        size = tail.signed.checkpoint.size
        found = TileFolder(self.source.book)
        begins = found.first_bundle(size)
        wanted = [tile for tile in new_tiles(0, size) if tile.level != ENTRIES or tile.number >= begins]
        for number, tile in enumerate(wanted, start=1):
            self._put(self.target.book / tile.path, _content(found, tile, size), 0o644, listed=False)
            progress(number, len(wanted))

    def finish(self, tail: Tail, key: BookKey, *, keys: bool) -> None:
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


def _content(tiles: TileFolder, tile: Tile, size: int) -> bytes:
    if tile.level == ENTRIES:
        return encode_bundle(tiles.bundle(tile.number, size))
    return b"".join(tiles.hashes(tile.level, tile.number, size))


def _plain_files(folder: Path) -> Iterator[Path]:
    """Yields the files of finished revisions or directories; those on their way have names that end in `.new`."""
    for top in sorted(folder.iterdir()) if folder.is_dir() else ():
        if top.suffix != ".new":
            yield from (path for path in sorted((top, *top.rglob("*"))) if path.is_file())
