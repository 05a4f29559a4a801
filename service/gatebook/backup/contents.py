"""What a backup says about itself, and which files may be in one.

Owns two files at the top of every backup:

1. `files`: one line `<SHA-256>  <path>` for each file that no checkpoint covers, as `sha256sum -c` reads it;
2. `backup`: a C2SP signed note of the book's key, which vouches for `files`, and for the last acknowledged entry.

The rest lies as in a data directory. Entries and tiles are not in `files`: the checkpoint covers them.
A path that is not written here in full, or is not one of a backup, is never made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

import msgspec

from gatebook.audit.signing_elsewhere import BookKey
from gatebook.errors import VerificationError
from gatebook.tlog import base64
from gatebook.tlog.keys import VerifierKey
from gatebook.tlog.note import parse_note
from gatebook.tlog.tiles import parse_path

NOTE_FILE, LIST_FILE = "backup", "files"
FILES_MAX = 1_000_000
LIST_BYTES_MAX = 320 * FILES_MAX

_FIRST_LINE = "gatebook/backup/v1"
_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9._/-]{1,300})")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_TOP = frozenset({"book", "wal", "keys", "revisions", "directory", "people.db", "checkpoints.db", "closed"})
_WITH_KEYS, _WITHOUT_KEYS = "with keys", "without keys"


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """What the note of a backup says. True only once its signature is checked."""

    origin: str
    size: int
    """Entries that were durable when the backup was taken; all of them are in it."""
    root: bytes
    """The root over that many entries."""
    files_hash: str
    """SHA-256 of `files`, in hexadecimal."""
    keys: bool
    """Whether the keys are in it, so that it can be served."""
    time: str
    version: str

    def text(self) -> str:
        """Returns the text that is signed."""
        keys = _WITH_KEYS if self.keys else _WITHOUT_KEYS
        root = base64.encode(self.root)
        lines = (_FIRST_LINE, self.origin, str(self.size), root, self.files_hash, keys, self.time, self.version)
        return "".join(f"{line}\n" for line in lines)


def sign_statement(statement: Statement, key: BookKey) -> bytes:
    """Returns the note of a backup."""
    return key.sign_note(statement.text()).format()


def open_statement(note: bytes, key: VerifierKey | None) -> Statement:
    """Returns what a note says; with a key, only if the key signed it, else unchecked.

    Raises:
        VerificationError: it is no note of a backup, or not signed by the key.
    """
    parsed = parse_note(note) if key is None else key.open_note(note)
    lines = parsed.text.splitlines()
    if len(lines) != len(Statement.__struct_fields__) + 1 or lines[0] != _FIRST_LINE:
        raise VerificationError(f"`{NOTE_FILE}` is not the note of a backup that this version knows")
    _, origin, size, root, files_hash, keys, time, version = lines
    if not _NUMBER.fullmatch(size) or keys not in {_WITH_KEYS, _WITHOUT_KEYS}:
        raise VerificationError(f"`{NOTE_FILE}` is malformed")
    if key is not None and origin != key.name:
        raise VerificationError(f"the backup is of `{origin}`, not of `{key.name}`")
    return Statement(
        origin=origin,
        size=int(size),
        root=base64.decode_hash(root, "the root in the backup's note"),
        files_hash=files_hash,
        keys=keys == _WITH_KEYS,
        time=time,
        version=version,
    )


def encode_list(hashes: Mapping[str, str]) -> bytes:
    """Returns the list of files."""
    return "".join(f"{digest}  {path}\n" for path, digest in sorted(hashes.items())).encode()


def decode_list(content: bytes) -> dict[str, str]:
    """Returns the SHA-256 of each listed file by its path.

    Raises:
        VerificationError: a line is malformed, or names what is no file of a backup.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(content.decode("ascii", "replace").splitlines(), start=1):
        match = _LINE.fullmatch(line)
        if match is None or number > FILES_MAX or match[2] in found:
            raise VerificationError(f"line {number} of `{LIST_FILE}` is malformed")
        require_safe(match[2])
        found[match[2]] = match[1]
    return found


def require_safe(path: str) -> None:
    """Refuses a path that does not stay within a data directory, or is none of its files.

    Raises:
        VerificationError: it is refused.
    """
    parts = path.split("/")
    if not {"", ".", ".."}.isdisjoint(parts) or parts[0] not in _TOP or PurePosixPath(path).is_absolute():
        raise VerificationError(f"`{path!a}` is not the path of a file in a backup")


def is_tile(path: str) -> bool:
    """Tells whether this is the path of a tile or bundle, which the checkpoint covers."""
    try:
        parse_path(path.removeprefix("book/"))
    except VerificationError:
        return False
    return path.startswith("book/")
