"""Erasures that a restored book does not know of: those of the book that went on, or of another worker's.

A backup from before an erasure has the key of whoever was erased. Owns finding such erasures in the copy of a book
that knows them, and carrying them out in the restored one:

1. of a book with the same `people.key` every erasure counts that the restored store does not know, by its
   pseudonyms. Its tag goes into the suppression list even where nobody in the store is concerned;
2. of a book with another one, as another worker's is, those count that are later than the restored book: whoever was
   erased is found by the tag of each id that the store has. That needs the other `people.key`;
3. entries say that they are begun before a key goes, and others that they are completed. What a kill leaves in
   between the next start completes;
4. what cannot be read is an error: nobody is given back because a copy was damaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from gatebook.audit.book import Book
from gatebook.audit.chain import Entries, control_links
from gatebook.audit.control_entry import encode_erasure, encode_erasure_elsewhere
from gatebook.audit.copied import CopiedBook
from gatebook.audit.entry import Stamp, decode, from_timestamp
from gatebook.audit.forgotten import Tags
from gatebook.audit.keyfile import read_key
from gatebook.audit.lost_book import LostBook
from gatebook.audit.opening import Layout
from gatebook.audit.people import People
from gatebook.audit.publish import Publisher
from gatebook.audit.verify_copy import Copy
from gatebook.errors import BookRefusedError, VerificationError
from gatebook.tlog.keys import VerifierKey
from gatebook.v1 import entry_pb2

CALLER = "gatebook"
AT_ONCE = 256


class ErasedElsewhere(msgspec.Struct, frozen=True, kw_only=True):
    """An erasure as another book tells of it, and where."""

    origin: str
    index: int
    time: datetime
    pseudonyms: tuple[bytes, ...]
    suppression: bytes


class OtherBook(msgspec.Struct, frozen=True, kw_only=True):
    """The copy of a book that knows of erasures."""

    path: Path
    origin: str
    size: int
    """How many entries its key has signed for."""
    erasures: tuple[ErasedElsewhere, ...]
    people_key: Path


class Missed(msgspec.Struct, frozen=True):
    """An erasure that the restored store is to carry out."""

    pseudonyms: tuple[bytes, ...]
    tag: bytes
    reason: str


def read_other(path: Path, origin: str, key: VerifierKey) -> OtherBook:
    """Reads a copied book, or data directory; one of this origin must be signed by this key.

    Raises:
        BookRefusedError: its checkpoints contradict each other.
        BookCorruptError: bytes of it are not what was written.
        VerificationError: it is not signed, or signed by another key.
        OSError: it cannot be read.
    """
    copy = Copy.at(path)
    home = path if copy.book != path else path.parent
    other = VerifierKey.parse((copy.book / Layout(home).vkey.name).read_text("utf-8"))
    if other.name == origin and other != key:
        raise VerificationError(f"`{path}` is signed by `{other}`, which is not the key of `{origin}`")
    whole = copy.wal is not None and Layout(home).checkpoints.exists()
    book = LostBook.at(home, other) if whole else CopiedBook(copy.book, other)
    return OtherBook(
        path=path,
        origin=other.name,
        size=book.signed.checkpoint.size if isinstance(book, LostBook) else book.size,
        erasures=tuple(_told(book, other.name))[::-1],
        people_key=home / "keys" / "people.key",
    )


def _told(book: Entries, origin: str) -> Iterator[ErasedElsewhere]:
    """Yields the erasures of a book and of those before it, the newest first."""
    for index, found in control_links(book):
        inherited = found.HasField("carried")
        entry = decode(found.carried.entry_bytes, index) if inherited else found
        if entry.erasure.step == entry_pb2.ERASURE_STEP_BEGUN:
            yield ErasedElsewhere(
                origin=found.carried.origin if inherited else origin,
                index=found.carried.index if inherited else index,
                time=from_timestamp(entry.entry_time),
                pseudonyms=tuple(entry.erasure.pseudonyms),
                suppression=entry.erasure.suppression,
            )


def missed(people: People, others: Sequence[OtherBook], backup_ends: datetime) -> list[Missed]:
    """Returns the erasures that a store does not know, of a book whose last entry has this time.

    Raises:
        BookRefusedError: the key of another store is needed, and is not there or is not that key.
    """
    found: dict[bytes, Missed] = {}
    for other in others:
        by_id = None if not other.erasures or _is_of(people, other.erasures[-1]) else _Ids(people, other)
        for told in other.erasures:
            if by_id is None:
                tag, pseudonyms = people.forgotten.open_tag(told.suppression), told.pseudonyms
                known = people.forgotten.knows(pseudonyms, tag)
            else:
                tag, pseudonyms = by_id.find(told.suppression)
                known = told.time <= backup_ends or not pseudonyms
            if not known:
                earlier = found[tag].pseudonyms if tag in found else ()
                everybody = tuple(dict.fromkeys([*earlier, *pseudonyms]))
                found[tag] = Missed(everybody, tag, f"as entry {told.index} of {told.origin} says")
    return list(found.values())


def _is_of(people: People, told: ErasedElsewhere) -> bool:
    """Tells whether an erasure was written with the key of a store."""
    try:
        people.forgotten.open_tag(told.suppression)
    except BookRefusedError:
        return False
    return True


class _Ids:
    """Everybody in a store, by the tags of another one."""

    def __init__(self, people: People, other: OtherBook) -> None:
        if not other.people_key.exists():
            raise BookRefusedError(
                f"the erasures in `{other.path}` were written with another `people.key`: "
                f"name a copy of the data directory, with its keys"
            )
        self._theirs, self._ours = Tags(read_key(other.people_key)), people.forgotten
        self._by_tag: dict[bytes, tuple[bytes, tuple[bytes, ...]]] = {}
        for pseudonym, subject_id in people.ids():
            tag = self._theirs.tag(subject_id)
            _, before = self._by_tag.get(tag, (b"", ()))
            self._by_tag[tag] = (self._ours.tag(subject_id), (*before, pseudonym))

    def find(self, sealed: bytes) -> tuple[bytes, tuple[bytes, ...]]:
        """Returns our tag and the pseudonyms of who was erased there; without any where we do not know the id."""
        return self._by_tag.get(self._theirs.open_tag(sealed), (b"", ()))


def carry_out(book: Book, people: People, erasures: Sequence[Missed], time: datetime, link: int) -> None:
    """Erases, between entries that say so, of which the first has this link to an older one; publishes all.

    Raises:
        BookUnavailableError: it could not be written.
    """
    publisher = Publisher(book)
    for start in range(0, len(erasures), AT_ONCE):
        some = erasures[start : start + AT_ONCE]
        first = book.size
        begun = []
        for erasure in some:
            body = entry_pb2.ErasureEntry(
                step=entry_pb2.ERASURE_STEP_BEGUN,
                pseudonyms=erasure.pseudonyms,
                suppression=people.forgotten.seal_tag(erasure.tag),
            )
            stamp = Stamp.of(time, CALLER, link)
            begun.append(encode_erasure_elsewhere(body, stamp, book.origin, people.stranger, erasure.reason))
            link = first + len(begun)
        book.append_group(begun)
        publisher.publish_now()
        # From here on the erasures count, and a verification finds why keys are missing: a start does what is left.
        for index, erasure in enumerate(some, first):
            people.make_void(erasure.pseudonyms)
            people.erase(erasure.pseudonyms, erasure.tag, index)
        people.forgotten.scrub()
        completed = []
        for index in range(first, first + len(some)):
            body = entry_pb2.ErasureEntry(step=entry_pb2.ERASURE_STEP_COMPLETED, begun_index=index)
            completed.append(encode_erasure(body, Stamp.of(time, CALLER, link), book.origin))
            link = first + len(some) + len(completed)
        book.append_group(completed)
    publisher.publish_now()
