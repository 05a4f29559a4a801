"""Backups for the tests: taken and restored by the commands, read back without the code under test."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.serving import gatebook

BUNDLE = 256


def backup(data: Path, target: Path, *options: str) -> dict[str, Any]:
    """Takes a backup, which must work; returns what the command said."""
    done = gatebook("backup", str(target), "--data", str(data), "--json", *options)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def restore(backup: Path, data: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Restores a backup; returns how that ended."""
    return gatebook("restore", str(backup), "--data", str(data), *options)


def leaves(book: Path) -> list[str]:
    """Returns the leaf hash of each entry of a published book, computed from its bundles."""
    size = int((book / "checkpoint").read_text(encoding="utf-8").splitlines()[1])
    found: list[str] = []
    for number in range((size + BUNDLE - 1) // BUNDLE):
        width = "" if number < size // BUNDLE else f".p/{size % BUNDLE}"
        name = f"{number % 1000:03d}" if number < 1000 else f"x{number // 1000:03d}/{number % 1000:03d}"
        content = (book / "tile" / "entries" / f"{name}{width}").read_bytes()
        while content:
            length = int.from_bytes(content[:2], "big")
            found.append(sha256(b"\0" + content[2 : 2 + length]).hexdigest())
            content = content[2 + length :]
    assert size == len(found)
    return found


def members(archive: Path) -> dict[str, bytes]:
    """Returns the files of an archive, in their order."""
    with tarfile.open(archive) as opened:
        return {each.name: opened.extractfile(each).read() for each in opened}  # type: ignore[union-attr]  # plain files


def write_tar(path: Path, files: Iterable[tuple[tarfile.TarInfo, bytes]], **options: Any) -> Path:  # noqa: ANN401
    """Writes an archive of any members."""
    with tarfile.open(path, "w", format=options.pop("format", tarfile.USTAR_FORMAT), **options) as archive:
        for member, content in files:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def repacked(archive: Path, target: Path, change: Callable[[dict[str, bytes]], Mapping[str, bytes] | None]) -> Path:
    """Returns an archive whose files are changed, with a change of its own to each."""
    found = members(archive)
    changed = change(found) or found
    return write_tar(target, ((tarfile.TarInfo(name), content) for name, content in changed.items()))
