"""One pass over the members of a backup, which makes their files.

Owns what may be made at all: a member that the list or the checkpoint does not know, one that comes twice, and one
whose content is not what the list says are refused. Nothing in the backup is believed here but its own list; whether
that is signed, and whether the tiles are right, is for whoever asked.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from hashlib import sha256
from pathlib import Path

from gatebook.audit.files import Files
from gatebook.backup.archive import Member
from gatebook.backup.contents import (
    LIST_BYTES_MAX,
    LIST_FILE,
    NOTE_FILE,
    Statement,
    decode_list,
    is_tile,
    open_statement,
)
from gatebook.errors import BookRefusedError, VerificationError
from gatebook.tlog.checkpoint import parse_checkpoint
from gatebook.tlog.note import NOTE_BYTES_MAX, parse_note
from gatebook.tlog.tiles import TILE_WIDTH, parse_path, tile_count

_UNCOVERED = frozenset({"book/checkpoint", "book/vkey"})
"""Signed itself, and compared with the key."""


class Extraction:
    """One pass over the members of a backup, which makes its files."""

    def __init__(self, data: Path, files: Files) -> None:
        """Takes where they are made."""
        self._data = data
        self._files = files
        self._listed: dict[str, str] = {}
        self._made: set[str] = set()
        self.note = b""
        self.tiles: set[str] = set()

    def run(self, members: Iterator[Member]) -> Statement:
        """Makes every file; returns what the note says, with no more than the list checked against it.

        Raises:
            VerificationError: a member is missing, superfluous, unsafe, or not what the list says.
            BookRefusedError: the backup has no keys.
            OSError: a file could not be made.
        """
        self.note = _whole(members, NOTE_FILE, NOTE_BYTES_MAX)
        statement = open_statement(self.note, None)
        if not statement.keys:
            message = "the backup has no keys, so it can be verified with `gatebook audit verify` and not be served"
            raise BookRefusedError(message)
        listed = _whole(members, LIST_FILE, LIST_BYTES_MAX)
        if sha256(listed).hexdigest() != statement.files_hash:
            raise VerificationError(f"`{LIST_FILE}` is not the list that `{NOTE_FILE}` names")
        self._listed = decode_list(listed)
        for path, parts in members:
            self._make(path, parts)
        missing = min(self._listed.keys() - self._made, default=None)
        if missing is not None:
            raise VerificationError(f"`{missing}` is missing in the backup")
        folders = {
            folder for path in self._made for folder in (self._data / path).parents if folder.is_relative_to(self._data)
        }
        for folder in sorted(folders, reverse=True):
            self._files.sync_directory(folder)
        return statement

    def _make(self, path: str, parts: Iterator[bytes]) -> None:
        if path not in self._listed:
            if is_tile(path):
                self.tiles.add(path)
            elif path not in _UNCOVERED:
                raise VerificationError(f"`{path!a}` does not belong to the backup")
        if path in self._made:
            raise VerificationError(f"`{path}` is twice in the backup")
        self._made.add(path)
        public = path.startswith("book/")
        _make_folders(self._data, path, 0o755 if public else 0o700)
        hashed, offset = sha256(), 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = self._files.open(self._data / path, flags, 0o644 if public else 0o600)
        try:
            for part in parts:
                hashed.update(part)
                self._files.write(descriptor, part, offset)
                offset += len(part)
            self._files.sync(descriptor)
        finally:
            os.close(descriptor)
        if self._listed.get(path, "") not in {"", hashed.hexdigest()}:
            raise VerificationError(f"`{path}` in the backup is not what was backed up")


def require_needed(tiles: Collection[str], note: bytes) -> None:
    """Refuses tiles that the checkpoint, which is not yet verified, does not need."""
    size = parse_checkpoint(parse_note(note).text).size
    for path in sorted(tiles):
        tile = parse_path(path.removeprefix("book/"))
        left = tile_count(tile.level, size) - tile.number * TILE_WIDTH
        if tile.width != min(left, TILE_WIDTH):
            raise VerificationError(f"`{path}` does not belong to the backup")


def _whole(members: Iterator[Member], name: str, bytes_max: int) -> bytes:
    """Returns the next member, which has this name."""
    found, parts = next(members, ("", iter(())))
    if found != name:
        raise VerificationError(f"`{name}` is missing: this is no backup")
    content = bytearray()
    for part in parts:
        content += part
        if len(content) > bytes_max:
            raise VerificationError(f"`{name}` has more than {bytes_max} bytes")
    return bytes(content)


def _make_folders(data: Path, path: str, mode: int) -> None:
    folder = data
    for part in path.split("/")[:-1]:
        folder = folder / part
        folder.mkdir(mode=mode, exist_ok=True)
