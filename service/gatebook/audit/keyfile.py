"""Secret keys in files of their own.

Owns how a key comes into being and is read again: 32 random bytes in a file that only its owner
may read, written to a temporary file, synced and linked into place, so that a key is either
whole and durable or absent. A key is never replaced.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gatebook.audit.files import Files
from gatebook.errors import BookRefusedError

KEY_BYTES = 32


def read_key(path: Path) -> bytes:
    """Returns the key in a file.

    Raises:
        BookRefusedError: the file is missing, cannot be read, is readable by others, or holds no key.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            key = file.read(KEY_BYTES + 1)
    except OSError as err:
        raise BookRefusedError(f"cannot read the key `{path}`: {err.strerror}") from err
    if mode & 0o077:
        raise BookRefusedError(f"the key `{path}` may be read by others: run `chmod 600 {path}`")
    if len(key) != KEY_BYTES:
        raise BookRefusedError(f"`{path}` is not a key of {KEY_BYTES} bytes: restore it from a backup")
    return key


def create_key(path: Path, files: Files | None = None) -> bytes:
    """Creates a key durably and returns it.

    Raises:
        FileExistsError: there is one already.
        OSError: it could not be made.
    """
    files = files or Files()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = os.urandom(KEY_BYTES)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    temporary.unlink(missing_ok=True)
    descriptor = files.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        try:
            files.write(descriptor, key, 0)
            files.sync(descriptor)
        finally:
            os.close(descriptor)
        files.link(temporary, path)
    finally:
        temporary.unlink()
    files.sync_directory(path.parent)
    return key


def open_key(path: Path, *, create: bool, files: Files | None = None) -> bytes:
    """Returns the key in a file; with `create` it is made where there is none.

    What a lost key protected or named is lost with it, so a key is made for a new book alone.

    Raises:
        BookRefusedError: the file is missing, cannot be read, is readable by others, or holds no key.
    """
    return create_key(path, files) if create and not path.exists() else read_key(path)


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable."""
    Files().sync_directory(path)


def derive_key(key: bytes, purpose: str) -> bytes:
    """Derives an independent key for one purpose (RFC 5869)."""
    info = f"gatebook/{purpose}".encode()
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=info).derive(key)
