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

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from gatebook.audit.chain import control_links
from gatebook.audit.clerk import Published
from gatebook.audit.control_state import control_state
from gatebook.audit.files import Files
from gatebook.audit.hold import require_released
from gatebook.audit.opening import Layout
from gatebook.audit.signing_elsewhere import BookKey, parse_book_key
from gatebook.audit.tile_folder import TileFolder
from gatebook.audit.verify import Report, verify_book
from gatebook.backup.archive import write_archive
from gatebook.backup.copying import Copying, is_first
from gatebook.backup.tail import Tail
from gatebook.errors import BookRefusedError, InvalidRequestError, VerificationError
from gatebook.revisions.store import RevisionStore

ARCHIVE_SUFFIX = ".tar"
_COPIED = frozenset({"book", "wal", "checkpoints.db", "people.db", "keys", "revisions", "directory", "closed"})
_KNOWN = _COPIED | {"book.lock", "book.new", "index.db", "lost+found", "workers"}
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


def take_backups(data: Path, target: Path, *, keys: bool, progress: Progress) -> list[Taken]:
    """Makes a backup of a data directory and, beside it, one of the book of each further worker.

    The first worker's, which comes first in the list, is made last: it holds every revision that the others' entries
    name, and where it has its name all are there.

    Raises:
        As `take_backup`.
    """
    homes = sorted(book.parent for book in data.glob("workers/*/book"))
    beside = [(home, target.with_name(f"{target.stem}.worker-{home.name}{target.suffix}")) for home in homes]
    for place in (target, *(place for _, place in beside)):
        _require_free(data, place)
    taken = [take_backup(home, place, keys=keys, progress=progress) for home, place in beside]
    return [take_backup(data, target, keys=keys, progress=progress), *taken]


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
    target = _require_free(data, target)
    with _temporary(target) as work:
        copy = Copying(layout, Layout(work / "copy"), files)
        tail = copy.tail(key, work / "scratch")
        if keys:
            copy.all_that_entries_name()
        copy.closed_books()
        copy.tiles(tail, progress("copying"))
        _verify(copy.target, key, tail, progress("verifying"), keys=keys)
        if keys and is_first(data):
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


def _require_free(data: Path, target: Path) -> Path:
    target = target.absolute()
    if target.exists() or target.is_symlink():
        raise InvalidRequestError("target", f"`{target}` exists: name one that does not")
    if target.is_relative_to(data.resolve()):
        raise InvalidRequestError("target", f"`{target}` lies within the data directory: name another place")
    return target


def _signing_key(layout: Layout) -> BookKey:
    """Returns the key of the book, which signs the note of the backup."""
    if not layout.key.is_file() or not layout.checkpoints.is_file():
        raise InvalidRequestError("data", f"there is no book in `{layout.data}`: name the data directory of a service")
    try:
        return parse_book_key(layout.key.read_text(encoding="utf-8"))
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


def _verify(copy: Layout, key: BookKey, tail: Tail, progress: Callable[[int, int], None], *, keys: bool) -> None:
    report = verify_book(copy.book, key.verifier, wal=copy.wal, progress=progress)
    if report.begins:
        require_pruned(copy, report)
    if report.size + report.unsigned_entries != tail.size:
        found = report.size + report.unsigned_entries
        raise VerificationError(f"the copy ends at {found} and the book at {tail.size}", found)
    if keys and parse_book_key(copy.key.read_text(encoding="utf-8")).verifier != key.verifier:
        raise VerificationError("the signing key was exchanged while it was copied")


def require_pruned(copy: Layout, report: Report) -> None:
    """Requires that entries which are missing are pruned, as an entry says.

    Raises:
        VerificationError: none says so.
    """
    begins = control_state(control_links(Published(TileFolder(copy.book), report.size))).first_index
    if begins < report.begins:
        raise VerificationError(f"entry {begins} is missing, and no retention entry says why", begins)


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
