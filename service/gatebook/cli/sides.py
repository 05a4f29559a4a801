"""Where one side of a comparison comes from: a folder, a state of a git repository, or a revision of a server.

Owns the reading of the first two. A git state is read as git stores it, from its objects: nothing is checked out, and
no attribute of the repository changes a byte.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from gatebook.errors import GatebookError, LimitExceededError, PolicySetRefusedError
from gatebook.policy import bundle
from gatebook.policy.bundle import BYTES_MAX, DIRECTORY_FOLDER, FILES_MAX

GIT_SECONDS = 60.0
ACTIVE = "active"
_REVISION = re.compile(r"active|[0-9]{1,9}|[0-9a-f]{12,64}")
_LINK, _SUBMODULE = "120000", "160000"


class GitError(GatebookError):
    """Git does not give what was asked of it."""

    reason = "INVALID_REQUEST"


class Side(msgspec.Struct, frozen=True):
    """One side: its files, those of the directory beside it, and how it was named."""

    said: str
    name: str
    files: Mapping[str, bytes]
    directory: Mapping[str, bytes] | None = None


def read_side(said: str, policy_set: str) -> Side | None:
    """Returns a side that is a folder or a state of git; None where it names a revision of a server.

    Raises:
        GatebookError: it cannot be read.
    """
    folder = Path(said)
    if folder.is_dir():
        beside = bundle.directory_beside(folder)
        people = None if beside is None else bundle.read_directory_folder(beside)
        return Side(said, folder.resolve().name, bundle.read_folder(folder), people)
    if ":" in said:
        ref, _, path = said.partition(":")
        return _from_git(said, f"{ref}:{path.rstrip('/')}", Path(), path.rstrip("/").rpartition("/")[2])
    if policy_set:
        return _from_git(said, f"{said}:./", Path(policy_set), Path(policy_set).resolve().name)
    if _REVISION.fullmatch(said):
        return None
    message = (
        f"`{said}` is no folder: name one, or a state of git such as `main:policies/{said}`, or a revision of a "
        "server by its number or digest; `HEAD~1` alone needs --policy-set FOLDER"
    )
    raise PolicySetRefusedError(message)


def _from_git(said: str, tree: str, where: Path, name: str) -> Side:
    if tree.startswith("-"):
        raise GitError(f"`{said}` is no state of git")
    found = _git(where, "rev-parse", "--verify", "--quiet", "--end-of-options", tree).decode().strip()
    if not found:
        raise GitError(f"git knows no `{said}` here: name a commit, branch or tag that has this folder")
    listed = list(_listed(_git(where, "ls-tree", "--full-tree", "-r", "-z", "--long", found)))
    files: dict[str, bytes] = {}
    directory: dict[str, bytes] = {}
    prefix = f"{DIRECTORY_FOLDER}/" if any(path == bundle.CATALOGUE_FILE for path, *_ in listed) else "\0"
    size = 0
    for path, blob, length in listed:
        is_person = path.startswith(prefix) and "/" not in path.removeprefix(prefix)
        if not is_person and (path.startswith(prefix) or not bundle.is_wanted(path)):
            continue
        size += length
        if len(files) + len(directory) >= FILES_MAX or size > 2 * BYTES_MAX:
            raise LimitExceededError(f"a policy set has at most {FILES_MAX} files and {BYTES_MAX} bytes: split it")
        content = _git(where, "cat-file", "blob", blob)
        if is_person:
            directory[path.removeprefix(prefix)] = content
        else:
            files[path] = content
    if not files:
        raise GitError(f"`{said}` holds no policy set: name the folder of one")
    return Side(said, name, files, directory or None)


def _listed(listing: bytes) -> Iterator[tuple[str, str, int]]:
    """Yields path, object and size of the files that `git ls-tree --long` lists."""
    for entry in filter(None, listing.split(b"\0")):
        told, _, path = entry.partition(b"\t")
        mode, _, blob, size = told.decode().split()
        name = path.decode(errors="replace")
        if any(part.startswith(".") for part in name.split("/")) or mode == _SUBMODULE:
            continue
        if mode == _LINK and bundle.is_wanted(name):
            raise PolicySetRefusedError(f"`{name}` is a link: put the file itself there")
        if mode != _LINK:
            yield name, blob, int(size)


def _git(where: Path, *arguments: str) -> bytes:
    command = ("git", "-C", str(where), *arguments)
    try:
        done = subprocess.run(command, capture_output=True, timeout=GIT_SECONDS, check=False)  # noqa: S603  # git
    except (OSError, subprocess.TimeoutExpired) as err:
        raise GitError(f"git could not be asked: {err}") from err
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip().splitlines()
        why = f": {told[-1]}" if told else ""
        raise GitError(f"git gives no `{arguments[-1]}`{why}")
    return done.stdout
