"""A backup as one file: a plain tar (POSIX ustar) of plain files, in a fixed order.

Owns writing and reading. Headers are written and parsed by the standard library one block at a time, so that none
of the extensions of tar counts: a link, a device, a folder, a long name, a sparse file or any other record that is
not a plain file is refused. Nothing is compressed, so what is read is never larger than the file that it is in.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from gatebook.errors import InvalidRequestError, VerificationError

BLOCK_BYTES = tarfile.BLOCKSIZE
_END_BLOCKS = 2
"""Of zeros. Other programs fill up to a record with more of them."""
_COPIED_BYTES = 1 << 20

Member = tuple[str, Iterator[bytes]]
"""A path, and its content in parts, which are read before the next member is asked for."""


def write_archive(folder: Path, target: Path, paths: Sequence[str], progress: Callable[[int, int], None]) -> None:
    """Writes files of a folder into one archive, in this order, whole and synced.

    Raises:
        InvalidRequestError: a path is too long for an archive.
        OSError: it could not be written.
    """
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as archive:
        for number, path in enumerate(paths, start=1):
            with (folder / path).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                archive.write(_header(path, size))
                while part := file.read(_COPIED_BYTES):
                    archive.write(part)
            archive.write(bytes(-size % BLOCK_BYTES))
            progress(number, len(paths))
        archive.write(bytes(_END_BLOCKS * BLOCK_BYTES))
        archive.flush()
        os.fsync(archive.fileno())


def _header(path: str, size: int) -> bytes:
    member = tarfile.TarInfo(path)
    member.size, member.mode = size, 0o600
    try:
        return member.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
    except ValueError as err:
        raise InvalidRequestError("target", f"`{path}` does not fit an archive: back up to a folder instead") from err


def read_archive(path: Path) -> Iterator[Member]:
    """Yields the files of an archive.

    Raises:
        VerificationError: it is cut short, goes on behind its end, or holds anything but plain files.
        OSError: it could not be read.
    """
    with path.open("rb") as archive:
        while (block := _read(archive, BLOCK_BYTES)).count(0) != BLOCK_BYTES:
            member = _parse(block)
            yield member.name, _parts(archive, member)
            if any(_read(archive, -member.size % BLOCK_BYTES)):
                raise VerificationError(f"bytes follow `{member.name!a}` in the archive")
        rest = archive.read(tarfile.RECORDSIZE + 1)
        if len(rest) < BLOCK_BYTES or len(rest) > tarfile.RECORDSIZE or any(rest):
            raise VerificationError("the archive does not end where it says")


def _parse(block: bytes) -> tarfile.TarInfo:
    try:
        member = tarfile.TarInfo.frombuf(block, "ascii", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as err:
        raise VerificationError(f"the archive is not one of `gatebook backup`: {err}") from err
    if member.type != tarfile.REGTYPE or member.size < 0:
        raise VerificationError(f"`{member.name!a}` in the archive is no plain file")
    return member


def _parts(archive: BinaryIO, member: tarfile.TarInfo) -> Iterator[bytes]:
    left = member.size
    while left:
        part = _read(archive, min(left, _COPIED_BYTES))
        left -= len(part)
        yield part


def _read(archive: BinaryIO, size: int) -> bytes:
    found = archive.read(size)
    if len(found) != size:
        raise VerificationError("the archive is cut short")
    return found


def read_backup_folder(folder: Path, first: Sequence[str]) -> Iterator[Member]:
    """Yields the files of a backup that is a folder, those named `first` before the others.

    Raises:
        VerificationError: it holds anything but plain files and folders.
        OSError: it could not be read.
    """
    for name in first:
        yield name, _file_parts(folder / name)
    for path in _walk(folder):
        name = path.relative_to(folder).as_posix()
        if name not in first:
            yield name, _file_parts(path)


def _walk(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as found:
        for each in sorted(found, key=lambda entry: entry.name):
            if each.is_dir(follow_symlinks=False):
                yield from _walk(Path(each.path))
            elif each.is_file(follow_symlinks=False):
                yield Path(each.path)
            else:
                raise VerificationError(f"`{each.name!a}` in the backup is no plain file")


def _file_parts(path: Path) -> Iterator[bytes]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as err:
        raise VerificationError(f"`{path.name}` is missing: this is no whole backup") from err
    with os.fdopen(descriptor, "rb") as file:
        while part := file.read(_COPIED_BYTES):
            yield part
