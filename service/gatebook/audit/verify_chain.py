"""Verification of the books that a book succeeds: each is what its successor says that it was, to its last entry.

Owns the way from a verified book back through its predecessors, as far as they are at hand: in the folders that are
named, and in `closed` beside the book. Each is verified as any other, by the key that its successor names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from gatebook.audit.chain import Entries, control_chain
from gatebook.audit.succession import predecessor_of, require_birth, require_bound, require_carried, successor_of
from gatebook.audit.tile_folder import TileFolder
from gatebook.audit.verify import Report, verify_book
from gatebook.audit.verify_copy import Copy
from gatebook.audit.verify_range import Meaning
from gatebook.errors import VerificationError
from gatebook.tlog.checkpoint import Checkpoint, parse_checkpoint
from gatebook.tlog.keys import VerifierKey
from gatebook.tlog.note import NOTE_BYTES_MAX, parse_note
from gatebook.v1 import entry_pb2

CHAIN_MAX = 1_000
FOLDERS_MAX = 10_000
Progress = Callable[[int, int], None]


class Published(msgspec.Struct, frozen=True):
    """The entries of a copied book, up to its checkpoint."""

    tiles: TileFolder
    size: int

    def read(self, start: int, end: int) -> list[bytes]:
        """Returns the bytes of [start, end)."""
        return self.tiles.entries(start, end, self.size)


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A book that another one succeeds."""

    origin: str
    verifier_key: str
    size: int
    """At which size it was closed."""
    reason: str
    key_lost: bool
    book: Path | None
    """Where it was verified; None where it is not at hand."""


class Chain(msgspec.Struct, frozen=True):
    """The books around a verified one."""

    predecessors: tuple[Link, ...]
    """The nearest first. All are verified but perhaps the last."""
    successor: entry_pb2.Succession | None
    """What its last entry says, if the book is closed."""


def verify_chain(copy: Copy, key: VerifierKey, report: Report, named: Sequence[Path], jobs: int) -> Chain:
    """Verifies the predecessors of a verified book, as far as they are at hand.

    Raises:
        VerificationError: one is not what its successor says; the message names it, and `index` is in it.
    """
    book = copy.book
    entries = Published(TileFolder(book), report.size)
    successor = successor_of(entries) if report.size else None
    meaning = Meaning(key.name, copy.data, _erased_in(entries))
    return Chain(tuple(_predecessors(book, entries, key, named, jobs, meaning)), successor)


def _erased_in(book: Entries) -> frozenset[bytes]:
    """Returns the pseudonyms that a book says were erased, its predecessors' erasures among them: they go on in it."""
    return frozenset(one for _, entry in control_chain(book) for one in entry.erasure.pseudonyms)


def _predecessors(
    book: Path, entries: Entries, key: VerifierKey, named: Sequence[Path], jobs: int, newest: Meaning
) -> Iterator[Link]:
    folders = [Copy.at(path).book for path in named] + sorted(book.parent.glob("closed/*/book"))[:FOLDERS_MAX]
    for _ in range(CHAIN_MAX):
        birth = predecessor_of(entries)
        if birth is None:
            return
        older_key = require_birth(birth)
        found = next((folder for folder in folders if _is_of(folder, older_key)), None)
        yield Link(
            origin=birth.origin,
            verifier_key=birth.verifier_key,
            size=birth.size,
            reason=birth.reason,
            key_lost=birth.key_lost,
            book=found,
        )
        if found is None:
            return
        # The store of people counts for all books of a data directory, and so do the newest one's erasures.
        meaning = msgspec.structs.replace(newest, origin=older_key.name)
        entries = _verified(found, older_key, birth, key, entries, jobs, meaning)
        key = older_key
    raise VerificationError(f"more than {CHAIN_MAX} books succeed each other")


def _verified(
    book: Path,
    key: VerifierKey,
    birth: entry_pb2.Succession,
    successor: VerifierKey,
    newer: Entries,
    jobs: int,
    meaning: Meaning,
) -> Entries:
    """Returns the entries of a predecessor, once it is verified and bound to its successor."""
    try:
        report = verify_book(book, key, meaning=meaning, jobs=jobs)
        older = Published(TileFolder(book), report.size)
        require_bound(birth, successor, older, Checkpoint(key.name, report.size, report.root))
    except VerificationError as err:
        raise VerificationError(f"the chain of books is broken at `{book}`: {err.message}", err.index) from err
    require_carried(newer, older, birth)
    return older


def _is_of(book: Path, key: VerifierKey) -> bool:
    """Tells whether a folder holds a book with this origin; whether it is signed by the key is found out later."""
    try:
        with (book / "checkpoint").open("rb") as file:
            return parse_checkpoint(parse_note(file.read(NOTE_BYTES_MAX + 1)).text).origin == key.name
    except (OSError, VerificationError):
        return False
