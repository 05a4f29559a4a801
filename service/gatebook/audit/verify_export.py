"""Verification of an export: that no entry is missing, none was added, and that rows say what entries say.

Trusts nothing in the folder. Rules:

1. the checkpoint in the manifest is signed by the key of the book, and the leaf hashes of all rows lead to its root,
   with the subtrees over what was pruned before the export began;
2. every part is the file that the manifest names, with the rows that it names, in order, of the day in its path;
3. no other Parquet file is there, and no link to a place that may have some;
4. where the exact bytes of entries are at hand, in the rows or in a copied book, each is that of its leaf, and every
   plain column of its row is what follows from it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gatebook.audit.copied import CopiedBook, Rooted
from gatebook.audit.entry import decode
from gatebook.audit.export import DAY_NANOSECONDS, MANIFEST, Manifest, Part, day_of, read_manifest
from gatebook.audit.exported import BLOBS, PERSONAL, Shape, row_of
from gatebook.audit.parquet import digest, read_rows
from gatebook.errors import BookCorruptError, BookRefusedError, VerificationError
from gatebook.tlog.keys import VerifierKey
from gatebook.tlog.merkle import HASH_BYTES, leaf_hash
from gatebook.tlog.proof import open_checkpoint
from gatebook.v1 import audit_service_pb2

PART = re.compile(r"day=(\d{4}-\d\d-\d\d)/part-(\d{12,})-(\d{12,})\.parquet")
NEEDED = ("index", "leaf_hash", "time")
DAY_MICROSECONDS = DAY_NANOSECONDS // 1_000


class ExportReport(msgspec.Struct, frozen=True):
    """What was verified."""

    origin: str
    size: int
    """The size of the checkpoint: every entry below it is there, from `first_index` on."""
    first_index: int
    """Where the export begins: what is before was pruned."""
    root: bytes
    files: int
    beyond: int
    """Rows of an export that was broken off, for which no checkpoint vouches yet."""
    rows_compared: int
    """Rows of which every plain column was compared with the exact bytes of the entry."""


def verify_export(
    folder: Path,
    key: VerifierKey,
    *,
    remembered: Sequence[bytes] = (),
    book: CopiedBook | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> ExportReport:
    """Verifies an export. With a copied book, rows are compared with its entries.

    Raises:
        VerificationError: it is not what the checkpoint says, or there is none; `index` is the first bad row, if known.
        BookUnavailableError: DuckDB is not installed.
    """
    manifest = _manifest(folder, key)
    note = manifest.checkpoint.encode()
    checkpoint = open_checkpoint(note, key)
    if checkpoint.size > manifest.size:
        raise VerificationError(f"the export ends at {manifest.size}, before its checkpoint", manifest.size)
    if book is not None and book.checkpoint.size < checkpoint.size:
        raise VerificationError(f"the copied book ends at {book.checkpoint.size}, before the export: copy it again")
    _check_files(folder, manifest)
    rooted = Rooted(note, key, remembered)
    size = manifest.first_index
    rooted.begin(size, _pruned(manifest))
    verifier = _Rows(manifest, None if book is None else _entries(book, size), 0 if book is None else book.first_index)
    for part in manifest.parts:
        for rows in verifier.verified(folder / part.file, part, size):
            rooted.add([leaf for index, leaf in rows if index < checkpoint.size])
        size = part.end_index
        progress(size, manifest.size)
    if size != manifest.size:
        raise VerificationError(f"the parts end at {size}, and the manifest says {manifest.size}", size)
    rooted.require_root()
    return ExportReport(
        checkpoint.origin,
        checkpoint.size,
        manifest.first_index,
        checkpoint.root,
        len(manifest.parts),
        size - checkpoint.size,
        verifier.compared,
    )


def _manifest(folder: Path, key: VerifierKey) -> Manifest:
    try:
        manifest = read_manifest(folder)
    except BookRefusedError as err:
        raise VerificationError(err.message) from err
    if manifest is None:
        raise VerificationError(f"there is no `{MANIFEST}` in `{folder}`")
    if not manifest.checkpoint:
        raise VerificationError(f"the export in `{folder}` never came to its end: run it again")
    if manifest.origin != key.name:
        raise VerificationError(f"the export is of `{manifest.origin}`, not of `{key.name}`")
    if not set(manifest.shape.columns) <= set(manifest.columns):
        raise VerificationError(f"`{MANIFEST}` lacks columns that every export has")
    return manifest


def _check_files(folder: Path, manifest: Manifest) -> None:
    named = {part.file for part in manifest.parts}
    for part in manifest.parts:
        found = PART.fullmatch(part.file)
        if found is None or (int(found[2]), int(found[3])) != (part.first_index, part.end_index):
            raise VerificationError(f"`{part.file}` is not the name of a part", part.first_index)
    for path in folder.rglob("*"):
        # Who reads `*/*.parquet` follows a link, which no walk here does.
        if (path.is_symlink() or path.suffix == ".parquet") and path.relative_to(folder).as_posix() not in named:
            raise VerificationError(
                f"`{path.relative_to(folder)}` is in no manifest: who reads the folder reads it, too"
            )


def _pruned(manifest: Manifest) -> list[bytes]:
    """Returns the maximal subtrees over what was pruned before the export began."""
    try:
        hashes = [bytes.fromhex(each) for each in manifest.pruned]
    except ValueError:
        hashes = []
    if manifest.first_index < 0 or [len(each) for each in hashes] != [HASH_BYTES] * manifest.first_index.bit_count():
        raise VerificationError(f"`{MANIFEST}` does not say what was pruned before {manifest.first_index}")
    return hashes


def _entries(book: CopiedBook, start: int) -> Iterator[audit_service_pb2.EntryRecord]:
    for batch in book.batches(start):
        yield from batch


class _Rows:
    """Checks the rows of parts, one after the other."""

    def __init__(
        self, manifest: Manifest, entries: Iterator[audit_service_pb2.EntryRecord] | None, begins: int
    ) -> None:
        """Takes the entries of a copied book, if there is one, and where that begins."""
        self._entries = entries
        self._begins = begins
        self._shape = Shape(pseudonyms=manifest.shape.pseudonyms or manifest.shape.personal)
        self._exact = manifest.shape.exact
        compared = [name for name in self._shape.columns if name not in PERSONAL]
        extra = ["entry_bytes"] if self._exact else []
        self._names = [*compared, *extra] if self._exact or entries is not None else list(NEEDED)
        self.compared = 0

    def verified(self, path: Path, part: Part, size: int) -> Iterator[list[tuple[int, bytes]]]:
        """Yields index and leaf hash of the rows of a part, which follows on `size` rows.

        Raises:
            VerificationError: one is not what it must be.
        """
        if part.first_index != size or part.end_index <= size:
            raise VerificationError(f"`{part.file}` does not follow on entry {size}", size)
        try:
            if digest(path) != part.sha256:
                raise VerificationError(f"`{part.file}` is not the file that was exported", size)
        except OSError as err:
            raise VerificationError(f"cannot read `{part.file}`: {err.strerror}", size) from err
        day = part.file[len("day=") : len("day=2026-01-01")]
        for rows in read_rows(path, self._names):
            found = []
            for values in rows:
                row = dict(zip(self._names, values, strict=True))
                self._check(row, size, day)
                found.append((size, row["leaf_hash"]))
                size += 1
            yield found
        if size != part.end_index:
            raise VerificationError(f"`{part.file}` ends before entry {part.end_index}", size)

    def _check(self, row: dict[str, Any], index: int, day: str) -> None:
        if row["index"] != index:
            raise VerificationError(f"entry {row['index']} stands where entry {index} should", index)
        if not isinstance(row["leaf_hash"], bytes) or len(row["leaf_hash"]) != HASH_BYTES:
            raise VerificationError(f"entry {index} has no leaf hash", index)
        if not isinstance(row["time"], int) or _day_of(row["time"]) != day:
            raise VerificationError(f"entry {index} is in the part of another day", index)
        raw = row.pop("entry_bytes", None)
        if self._entries is not None and index >= self._begins:
            entry = next(self._entries, None)
            if entry is None:
                raise VerificationError(f"the book ends before entry {index}: compare with a newer copy", index)
            if self._exact and raw != entry.entry_bytes:
                raise VerificationError(f"entry {index} has other bytes than in the book", index)
            raw = entry.entry_bytes
        if raw is not None:
            self._compare(row, index, raw)

    def _compare(self, row: dict[str, Any], index: int, raw: bytes) -> None:
        """Compares a row with what follows from the bytes of its entry."""
        if leaf_hash(raw) != row["leaf_hash"]:
            raise VerificationError(f"entry {index} does not hash to its leaf", index)
        try:
            record = audit_service_pb2.EntryRecord(index=index, leaf_hash=row["leaf_hash"], entry=decode(raw, index))
        except BookCorruptError as err:
            raise VerificationError(err.message, index) from err
        expected = row_of(record, self._shape)
        for name in self._names:
            stated, follows = row.get(name), expected.get(name)
            if name in BLOBS and isinstance(stated, bytes):
                stated = base64.b64encode(stated).decode()
            if name != "entry_bytes" and stated != follows:
                raise VerificationError(f"entry {index} has another `{name}` than its row", index)
        self.compared += 1


def _day_of(microseconds: int) -> str:
    record = audit_service_pb2.EntryRecord()
    record.entry.entry_time.seconds = microseconds // 1_000_000
    return day_of(record)
