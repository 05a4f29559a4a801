"""The files of a policy set or directory: read from a folder, digested, kept as a revision.

Owns which files belong to a set, and how a revision lies on disk. Rules:

1. a set is `gatebook.yaml model.conf catalogue.yaml purposes.yaml guardrails.yaml policy.csv`,
   `policy/*.csv` and `tests/*.yaml`, as far as they exist, and, without a catalogue, `directory/*.jsonl`
   and `resources/*.jsonl`; a directory is every `*.csv` and `*.jsonl` in its folder. The `directory/` beside
   a catalogue is no part of the set, but published on its own;
2. another YAML, CSV or CONF file is taken along, so that loading refuses it: it may be a misspelt
   one. Any other file is left alone and named by `ignored_files`;
3. links are refused, and so is a folder with too many files or bytes;
4. a revision is either whole and durable under its digest or absent, and is checked whenever it is
   read. Nothing is ever changed in it.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from gatebook.errors import BookRefusedError, LimitExceededError, PolicySetRefusedError, RevisionNotFoundError
from gatebook.values import Finding, Severity

FILES_MAX = 1_000
BYTES_MAX = 48 * 1024 * 1024
"""More than a million lines."""
SYNC_BYTES = 256 * 1024
"""How much is written before it is synced."""
PATH_CHARACTERS_MAX = 200
SCANNED_MAX = 10_000
"""How many entries of a folder are looked at, belonging to the set or not."""

MODEL_FILE = "model.conf"
POLICY_FILE = "policy.csv"
SETTINGS_FILE = "gatebook.yaml"
CATALOGUE_FILE = "catalogue.yaml"
PURPOSES_FILE = "purposes.yaml"
GUARDRAILS_FILE = "guardrails.yaml"
README_FILE = "README.md"
DIRECTORY_FOLDER = "directory"
RESOURCES_FOLDER = "resources"

_DIGEST_TAG = b"gatebook files v1\n"
_SINGLE_FILES = frozenset((MODEL_FILE, POLICY_FILE, SETTINGS_FILE, CATALOGUE_FILE, PURPOSES_FILE, GUARDRAILS_FILE))
_FOLDERS = {
    "policy": (".csv",),
    "tests": (".yaml",),
    DIRECTORY_FOLDER: (".jsonl",),
    RESOURCES_FOLDER: (".jsonl",),
}
_SUSPECT_SUFFIXES = frozenset((".yaml", ".yml", ".csv", ".conf", ".jsonl"))
_DIRECTORY_SUFFIXES = frozenset((".csv", ".jsonl"))
_PATH_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def belongs(path: str) -> bool:
    """Tells whether a file of this path is part of a policy set."""
    folder, _, name = path.rpartition("/")
    return path in _SINGLE_FILES or (folder in _FOLDERS and name.endswith(_FOLDERS[folder]))


def is_wanted(path: str) -> bool:
    """Tells whether a file of this path is read with a policy set: as a part of it, or to be found to be none."""
    return belongs(path) or _is_suspect(path)


def rule_files(files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Returns the paths that hold rules, in the order in which they are read."""
    return tuple(
        sorted(path for path in files if path == POLICY_FILE or (path.startswith("policy/") and belongs(path)))
    )


def policy_test_files(files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Returns the paths that hold policy tests, in order."""
    return tuple(sorted(path for path in files if path.startswith("tests/") and belongs(path)))


def entity_files(files: Mapping[str, bytes], folder: str) -> tuple[str, ...]:
    """Returns the paths in a folder of known entities, in order."""
    return tuple(sorted(path for path in files if path.startswith(f"{folder}/") and belongs(path)))


def directory_beside(folder: Path) -> Path | None:
    """Returns the directory that lies in the folder of a governed set and is published on its own."""
    beside = folder / DIRECTORY_FOLDER
    return beside if beside.is_dir() and _has_directory_beside(folder) else None


def read_folder(folder: Path) -> dict[str, bytes]:
    """Returns the files of a policy set by their paths within it.

    Raises:
        PolicySetRefusedError: there is no such folder, or it holds a link or an odd name.
        LimitExceededError: it holds too many files or bytes.
    """
    return _read(folder, is_wanted)


def read_directory_folder(folder: Path) -> dict[str, bytes]:
    """Returns the files of a directory snapshot by their paths within the folder.

    Raises:
        PolicySetRefusedError: there is no such folder, or it holds a link or an odd name.
        LimitExceededError: it holds too many files or bytes.
    """
    return _read(folder, lambda path: PurePosixPath(path).suffix in _DIRECTORY_SUFFIXES)


def ignored_files(folder: Path) -> tuple[Finding, ...]:
    """Returns a warning for each file of a policy set's folder that is no part of the set, but for its README."""
    message = "this file is no part of a policy set and is not published"
    return tuple(
        Finding(path, 0, 0, "IGNORED_FILE", message, Severity.WARNING)
        for path, _ in _walk(folder)
        if not belongs(path) and not _is_suspect(path) and path != README_FILE
    )


def check_size(files: Mapping[str, bytes]) -> list[Finding]:
    """Returns a finding when a policy set has too many files or bytes."""
    findings = []
    if len(files) > FILES_MAX:
        message = f"a policy set has at most {FILES_MAX:,} files, not {len(files):,}; split it"
        findings.append(Finding("", 0, 0, "TOO_MANY_FILES", message))
    size = sum(len(content) for content in files.values())
    if size > BYTES_MAX:
        message = f"a policy set has at most {BYTES_MAX:,} bytes, not {size:,}; split it"
        findings.append(Finding("", 0, 0, "TOO_LARGE", message))
    return findings


def check_names(files: Mapping[str, bytes]) -> list[Finding]:
    """Returns a finding for each file that is no part of a policy set, or has an unsafe name."""
    findings = []
    for path in files:
        if not belongs(path):
            message = "no such file belongs to a policy set; rename or remove it"
            findings.append(Finding(path, 0, 0, "UNKNOWN_FILE", message))
        elif not is_safe(path):
            findings.append(Finding(path, 0, 0, "UNSAFE_PATH", "name files with letters, digits, `_`, `-` and `.`"))
    return findings


def is_safe(path: str) -> bool:
    """Tells whether a path stays within its folder and means the same on every system."""
    return len(path) <= PATH_CHARACTERS_MAX and all(_PATH_PART.fullmatch(part) for part in path.split("/"))


def digest(files: Mapping[str, bytes]) -> str:
    """Returns the digest of files: SHA-256 in lower-case hexadecimal over their canonical form.

    The canonical form is the bytes `gatebook files v1` and a line feed, then for each file, sorted
    by the UTF-8 bytes of its path: the length of the path as 8 bytes, big-endian; the path in
    UTF-8 with `/` between its parts; the length of the content as 8 bytes, big-endian; the content.
    """
    hashed = hashlib.sha256(_DIGEST_TAG)
    for path, content in sorted((path.encode(), content) for path, content in files.items()):
        for part in (path, content):
            hashed.update(len(part).to_bytes(8, "big"))
            hashed.update(part)
    return hashed.hexdigest()


def store_revision(root: Path, files: Mapping[str, bytes]) -> str:
    """Stores files under `root/<digest>/` and returns the digest once they are durable.

    Raises:
        PolicySetRefusedError: a path would leave the folder.
        BookRefusedError: the digest is stored already, and its files are damaged.
    """
    unsafe = [path for path in files if not is_safe(path)]
    if unsafe:
        raise PolicySetRefusedError(
            f"the path `{unsafe[0]}` is not safe: name files with letters, digits, `_`, `-` and `.`"
        )
    name = digest(files)
    if (root / name).is_dir():
        read_revision(root, name)
        _sync(root)  # whoever stored it may not have come to that
        return name
    temporary = root / f".{name}.{secrets.token_hex(8)}.new"
    temporary.mkdir(mode=0o700)
    try:
        for path, content in files.items():
            _write(temporary / path, content)
        for folder in {temporary, *(temporary / parent for path in files for parent in PurePosixPath(path).parents)}:
            _sync(folder)
        _publish(temporary, root / name)
        _sync(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return name


def read_revision(root: Path, name: str) -> dict[str, bytes]:
    """Returns the files stored under a digest.

    Raises:
        RevisionNotFoundError: there is no such revision.
        BookRefusedError: its files are not those of the digest.
    """
    if not _DIGEST.fullmatch(name) or not (root / name).is_dir():
        raise RevisionNotFoundError(f"no revision `{name}`", digest=name)
    try:
        files = _read(root / name, lambda _: True)
    except (PolicySetRefusedError, LimitExceededError, OSError) as err:
        raise BookRefusedError(f"the revision `{name}` is damaged: restore it from a backup: {err}") from err
    if digest(files) != name:
        raise BookRefusedError(f"the revision `{name}` is damaged: restore it from a backup")
    return files


def _publish(temporary: Path, final: Path) -> None:
    try:
        temporary.rename(final)  # the commit point: the revision is whole
    except OSError:
        # Another writer was first. A revision is what its digest says, so theirs is ours.
        if not final.is_dir():
            raise


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("xb", buffering=0) as file:
        write_durably(file, content)


def write_durably(file: io.FileIO, content: bytes) -> None:
    """Writes all content, and returns once it is durable.

    It does so in parts, since a sync of much at once holds up those of others on the same disk: a book's.
    """
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest[:SYNC_BYTES]) :]
        if rest:
            os.fdatasync(file.fileno())
    os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _has_directory_beside(folder: Path) -> bool:
    return (folder / CATALOGUE_FILE).is_file()


def _is_suspect(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in _SUSPECT_SUFFIXES


def _read(folder: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    if not folder.is_dir():
        raise PolicySetRefusedError(f"there is no folder `{folder.name}`: name the folder of a policy set")
    files: dict[str, bytes] = {}
    size = 0
    for path, entry in _walk(folder):
        is_link = stat.S_ISLNK(entry.lstat().st_mode)
        if not wanted(path) and not (is_link and path in _FOLDERS):
            continue
        if is_link or not entry.is_file():
            finding = Finding(path, 0, 0, "LINK", "this is a link, not a file; put the file itself there")
            raise PolicySetRefusedError(f"`{path}` is a link: put the file itself there", [finding])
        content = _read_file(entry, BYTES_MAX - size + 1)
        size += len(content)
        files[path] = content
        if len(files) > FILES_MAX or size > BYTES_MAX:
            raise LimitExceededError(f"a policy set has at most {FILES_MAX} files and {BYTES_MAX} bytes: split it")
    return files


def _read_file(path: Path, bytes_max: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(bytes_max)


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yields the files and links below a folder, sorted; not those of hidden or linked folders.

    Nor those of the `directory` beside a catalogue.
    """
    left_out = DIRECTORY_FOLDER if _has_directory_beside(folder) else ""
    pending = [folder]
    scanned = 0
    while pending:
        here = pending.pop()
        for entry in sorted(here.iterdir(), reverse=True):
            scanned += 1
            if scanned > SCANNED_MAX:
                raise LimitExceededError(
                    f"the folder `{folder.name}` has more than {SCANNED_MAX} entries: it is no policy set"
                )
            path = entry.relative_to(folder).as_posix()
            if entry.name.startswith(".") or path == left_out:
                continue
            if entry.is_dir() and not entry.is_symlink():
                pending.append(entry)
            else:
                yield path, entry
