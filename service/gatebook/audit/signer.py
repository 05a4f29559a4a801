"""The signing key of a book, in a file that only its owner may read.

The file is the last thing that is made of a new book, so that its name marks the book as complete.
"""

from __future__ import annotations

import os
from pathlib import Path

from gatebook.audit.files import Files
from gatebook.audit.signing_elsewhere import BookKey, parse_book_key
from gatebook.errors import BookRefusedError, VerificationError
from gatebook.tlog.cosignature import WitnessSigningKey

_KEY_FILE_BYTES_MAX = 4_096


def read_signing_key(path: Path, origin: str) -> BookKey:
    """Returns the signing key of the book with this origin, or who holds it.

    Raises:
        BookRefusedError: the file may be read by others, cannot be read, or holds no key of this book.
    """
    try:
        key = parse_book_key(read_secret(path))
    except VerificationError as err:
        raise BookRefusedError(f"`{path}` holds no signing key: restore it from a backup") from err
    if key.name != origin:
        message = f"the book is `{key.name}`, not `{origin}`: leave out --origin, or name another --data for a new book"
        raise BookRefusedError(message)
    return key


def read_secret(path: Path) -> str:
    """Returns the text of a key file.

    Raises:
        BookRefusedError: the file may be read by others, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_KEY_FILE_BYTES_MAX)
    except OSError as err:
        raise BookRefusedError(f"cannot read the signing key `{path}`: {err.strerror}") from err
    if mode & 0o077:
        raise BookRefusedError(f"the signing key `{path}` may be read by others: run `chmod 600 {path}`")
    return text.decode("utf-8", "replace")


def write_signing_key(path: Path, key: BookKey | WitnessSigningKey, files: Files) -> None:
    """Puts the key in its file, durably and readable by its owner alone.

    Raises:
        OSError: it could not be written.
    """
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    files.replace_content(path, key.serialize().encode(), temporary, 0o600)
    files.sync_directory(path.parent)
