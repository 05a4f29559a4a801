"""What the service acknowledged, and the proof that all of it is in the book.

Owns the list of receipts, kept on disk as they come: 56 bytes each, index, decision id and leaf hash. The
book is read by a few lines of our own (C2SP tlog-tiles, Log Entries), not by what wrote it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from gatebook.v1 import entry_pb2, types_pb2

INDEX_BYTES = 8
ID_BYTES = 16
RECEIPT_BYTES = INDEX_BYTES + ID_BYTES + 32
BUNDLE_ENTRIES = 256


class Receipts:
    """The receipts of a run, in a file."""

    def __init__(self, path: Path) -> None:
        """Begins an empty file."""
        self._path = path
        self._file = path.open("wb")
        self.count = 0

    def __enter__(self) -> Self:
        """Gives itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the file."""
        self._file.close()

    def keep(self, decision: types_pb2.Decision) -> None:
        """Keeps the receipt of a decision that was answered."""
        receipt = decision.receipt
        told = receipt.index.to_bytes(INDEX_BYTES, "big") + bytes.fromhex(decision.decision_id) + receipt.leaf_hash
        if len(told) != RECEIPT_BYTES:
            raise RuntimeError(f"no decision with a receipt: {decision}")
        self._file.write(told)
        self.count += 1

    def missing(self, book: Path) -> list[str]:
        """Returns what is acknowledged and not in the book at its index, or stands at an index twice."""
        self._file.flush()
        held = self._path.read_bytes()
        told = sorted(held[at : at + RECEIPT_BYTES] for at in range(0, len(held), RECEIPT_BYTES))
        wrong: list[str] = []
        entries = entries_of(book)
        at, found = -1, b""
        last = -1
        for receipt in told:
            index = int.from_bytes(receipt[:INDEX_BYTES], "big")
            while at < index and (entry := next(entries, None)) is not None:
                at, found = at + 1, entry
            if index == last:
                wrong.append(f"two decisions were told index {index}")
            elif at != index or receipt[INDEX_BYTES:] != identity(found):
                wrong.append(f"decision {receipt[INDEX_BYTES : INDEX_BYTES + ID_BYTES].hex()} is not entry {index}")
            last = index
        return wrong


def identity(entry: bytes) -> bytes:
    """Returns the decision id and the leaf hash (RFC 6962 s2.1) of an entry."""
    decision_id = entry_pb2.AuditEntry.FromString(entry).decision.decision_id
    return bytes.fromhex(decision_id) + hashlib.sha256(b"\0" + entry).digest()


def entries_of(book: Path) -> Iterator[bytes]:
    """Yields every published entry, in order."""
    number = 0
    while True:
        digits = f"{number:09d}"
        name = "/".join(f"x{digits[at : at + 3]}" for at in range(0, 6, 3) if int(digits[: at + 3])) or ""
        full = book / "tile" / "entries" / name / digits[6:]
        partial = sorted((full.parent / f"{full.name}.p").glob("*"), key=lambda path: int(path.name))
        path = full if full.is_file() else partial[-1] if partial else None
        if path is None:
            return
        yield from entries_in(path.read_bytes())
        number += 1


def entries_in(bundle: bytes) -> Iterator[bytes]:
    """Yields the entries of a bundle: each with its length in two bytes before it."""
    at = 0
    while at < len(bundle):
        end = at + 2 + int.from_bytes(bundle[at : at + 2], "big")
        yield bundle[at + 2 : end]
        at = end
