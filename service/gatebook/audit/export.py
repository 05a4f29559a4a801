"""The export of a book as a folder of Parquet files, a part for each day.

Owns the folder: `day=YYYY-MM-DD/part-FIRST-END.parquet` with the entries [FIRST, END), and `_manifest.json`, which
names every part with its digest and the checkpoint that covers them. What it promises:

1. the parts in the manifest hold every entry of [first_index, size), each once, in order; its day is that
   of `time` in UTC;
2. a part is complete and durable before the manifest names it; what else is there of one is taken away;
3. an export goes on where the one before it ended, whether that came to its end or not, and changes no part;
4. an export that came to its end led to the root of a checkpoint, which is in the manifest verbatim;
5. an export of a pruned book begins where that does. Its manifest has the maximal subtrees over what is pruned, which
   with all rows lead to the root, too. Entries that were exported before they were pruned stay.

`verify_export` checks all that without trusting anything here.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gatebook.audit.entry import nanoseconds
from gatebook.audit.exported import Shape, row_of
from gatebook.audit.files import Files
from gatebook.audit.parquet import Parquet, digest
from gatebook.errors import BookCorruptError, BookRefusedError, BookUnavailableError
from gatebook.tlog.checkpoint import Checkpoint
from gatebook.tlog.merkle import Frontier
from gatebook.v1 import audit_service_pb2

MANIFEST = "_manifest.json"
MANIFEST_BYTES_MAX = 256 << 20
FORMAT = 1
PART_ENTRIES_MAX = 65_536
ROWS_AT_ONCE = 1_024
DAY_NANOSECONDS = 86_400 * 10**9
_NEW = "_new"
"""Files that have no name in the export yet; readers of such folders pass over what begins with an underscore."""

Progress = Callable[[int, int], None]


class Part(msgspec.Struct, frozen=True):
    """A file with the entries [first_index, end_index), all of one day."""

    file: str
    first_index: int
    end_index: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What is in an export."""

    format: int
    origin: str
    size: int
    """Where the parts end: how many entries they have, with those before `first_index`."""
    checkpoint: str
    """The checkpoint that the last export that came to its end led to: a signed note; empty before there is one."""
    frontier: tuple[str, ...]
    """The maximal subtrees over all entries, from which the next export goes on."""
    shape: Shape
    columns: dict[str, str]
    parts: tuple[Part, ...]
    first_index: int = 0
    """Where the parts begin: what is before it was pruned when the export began."""
    pruned: tuple[str, ...] = ()
    """The maximal subtrees over that."""


def read_manifest(folder: Path) -> Manifest | None:
    """Returns the manifest of an export, or None where there is none.

    Raises:
        BookRefusedError: it is not one that this version knows.
        BookUnavailableError: it cannot be read.
    """
    path = folder / MANIFEST
    try:
        with path.open("rb") as file:
            manifest = msgspec.json.decode(file.read(MANIFEST_BYTES_MAX), type=Manifest)
    except FileNotFoundError:
        return None
    except OSError as err:
        raise BookUnavailableError(f"cannot read `{path}`: {err.strerror}") from err
    except msgspec.MsgspecError as err:
        raise BookRefusedError(f"`{path}` is no manifest of an export: {err}") from err
    if manifest.format != FORMAT:
        raise BookRefusedError(f"`{path}` has format {manifest.format} and this Gatebook knows {FORMAT}")
    return manifest


class Export:
    """An export under way. One at a time may have a folder."""

    def __init__(self, folder: Path, origin: str, shape: Shape, files: Files | None = None) -> None:
        """Opens the folder of a new export, or of one that goes on.

        Raises:
            BookRefusedError: it has something else, or an export of another book or with other columns.
            BookUnavailableError: it cannot be written.
        """
        self._folder = folder
        self._files = files or Files()
        found = read_manifest(folder)
        if found is None and folder.is_dir() and any(each.name != _NEW for each in folder.iterdir()):
            raise BookRefusedError(f"`{folder}` is not empty and has no `{MANIFEST}`: name another folder")
        self.manifest = found or Manifest(FORMAT, origin, 0, "", (), shape, shape.columns, ())
        if self.manifest.origin != origin:
            raise BookRefusedError(f"`{folder}` is an export of `{self.manifest.origin}`, not of `{origin}`")
        if (self.manifest.shape, self.manifest.columns) != (shape, shape.columns):
            raise BookRefusedError(f"the export in `{folder}` has other columns: name another folder")
        self._frontier = Frontier(self.manifest.size, map(bytes.fromhex, self.manifest.frontier))

    def begin_at(self, first_index: int, subtrees: Sequence[bytes]) -> None:
        """Begins an export of a pruned book, whose entries before an index are gone; one that goes on is past it.

        `subtrees` are the maximal ones over what is gone, the largest first: the root shows whether they hold.

        Raises:
            BookRefusedError: the export ended before, so that it cannot go on.
        """
        if self.manifest.size >= first_index:
            return
        if self.manifest.parts:
            message = f"entries {self.manifest.size} to {first_index - 1} were pruned before they were exported"
            raise BookRefusedError(f"{message}: name another folder")
        self._frontier = Frontier(first_index, subtrees)
        pruned = tuple(each.hex() for each in self._frontier.hashes)
        self.manifest = msgspec.structs.replace(
            self.manifest, size=first_index, frontier=pruned, first_index=first_index, pruned=pruned
        )

    def run(
        self,
        batches: Iterable[Sequence[audit_service_pb2.EntryRecord]],
        checkpoint: Checkpoint,
        note: bytes,
        progress: Progress,
    ) -> None:
        """Adds the entries from `size` on to that of a checkpoint, in order, whose signature is checked elsewhere.

        Raises:
            BookRefusedError: the export has more than the checkpoint.
            BookCorruptError: they do not lead to the root of the checkpoint; the export stays without it.
            BookUnavailableError: something cannot be written, or DuckDB is not installed.
        """
        if self.manifest.size > checkpoint.size:
            message = f"the export has {self.manifest.size} entries and the checkpoint {checkpoint.size}"
            raise BookRefusedError(f"{message}: the book was put back, or this is another one")
        try:
            self._begin()
            with Parquet(self.manifest.columns) as parquet:
                records = itertools.chain.from_iterable(batches)
                for _, of_day in itertools.groupby(records, key=_day):
                    while self._add(itertools.islice(of_day, PART_ENTRIES_MAX), parquet):
                        progress(self.manifest.size, checkpoint.size)
            if (self._frontier.size, self._frontier.root()) != (checkpoint.size, checkpoint.root):
                message = (
                    f"{self._frontier.size} entries were exported, which do not lead to the root of the checkpoint"
                )
                raise BookCorruptError(f"{message} of size {checkpoint.size}: run `gatebook audit verify`")
            self._put(msgspec.structs.replace(self.manifest, checkpoint=note.decode()))
            (self._folder / _NEW).rmdir()
        except OSError as err:
            raise BookUnavailableError(f"cannot write the export in `{self._folder}`: {err.strerror}") from err

    def _begin(self) -> None:
        """Says whose folder this is, and takes away what an export that was broken off has left behind."""
        self._files.make_directories(self._folder / _NEW)
        if not self.manifest.parts:
            self._put(self.manifest)
        known = {part.file for part in self.manifest.parts}
        for path in [*self._folder.glob("day=*/part-*.parquet"), *(self._folder / _NEW).iterdir()]:
            if path.relative_to(self._folder).as_posix() not in known:
                self._files.remove(path)

    def _add(self, records: Iterator[audit_service_pb2.EntryRecord], parquet: Parquet) -> bool:
        """Adds a part, of entries of one day; returns whether there was one."""
        first = end = self.manifest.size
        day = ""
        while chunk := list(itertools.islice(records, ROWS_AT_ONCE)):
            for record in chunk:
                if record.index != end:
                    raise BookRefusedError(f"entry {end} did not come: an export is for those who see every entry")
                end += 1
            day = day or day_of(chunk[0])
            parquet.add([row_of(record, self.manifest.shape) for record in chunk])
            self._frontier.extend([record.leaf_hash for record in chunk])
        if not day:
            return False
        part = self._store(f"day={day}/part-{first:012}-{end:012}.parquet", first, end, parquet)
        frontier = tuple(each.hex() for each in self._frontier.hashes)
        stored = (*self.manifest.parts, part)
        self._put(msgspec.structs.replace(self.manifest, size=end, frontier=frontier, parts=stored))
        return True

    def _store(self, name: str, first: int, end: int, parquet: Parquet) -> Part:
        """Puts a part in place, whole and durable."""
        temporary, path = self._folder / _NEW / "part", self._folder / name
        parquet.write(temporary)
        descriptor = self._files.open(temporary, os.O_RDONLY)
        try:
            self._files.sync(descriptor)
        finally:
            os.close(descriptor)
        part = Part(name, first, end, digest(temporary))
        self._files.make_directories(path.parent)
        self._files.rename(temporary, path)
        self._files.sync_directory(path.parent)
        return part

    def _put(self, manifest: Manifest) -> None:
        """Replaces the manifest: the commit point of a part."""
        content = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
        self._files.replace_content(self._folder / MANIFEST, content, self._folder / _NEW / "manifest")
        self._files.sync_directory(self._folder)
        self.manifest = manifest


def day_of(record: audit_service_pb2.EntryRecord) -> str:
    """Returns the day of an entry in UTC, such as `2026-06-22`."""
    return datetime.fromtimestamp(record.entry.entry_time.seconds, UTC).date().isoformat()


def _day(record: audit_service_pb2.EntryRecord) -> int:
    return nanoseconds(record.entry.entry_time) // DAY_NANOSECONDS
