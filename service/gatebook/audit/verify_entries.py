"""Verification of what entries say: about each other, and about people.

`verify` shows that the bytes are those that were signed. This shows that their writer kept the rules:

1. every entry is one, of a kind that this version knows, with its salt and time;
2. times never go backwards;
3. every control link names the newest policy or control entry before it;
4. where the store of people is at hand, every pseudonym is in it, and what is sealed opens: keys that
   were deleted to hide a reader are noticed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import msgspec

from gatebook.audit.chain import Entries
from gatebook.audit.entry import decode, is_control, nanoseconds
from gatebook.audit.people import People
from gatebook.audit.sealing import open_sealed
from gatebook.errors import BookCorruptError, VerificationError
from gatebook.v1 import entry_pb2

ENTRIES_AT_ONCE = 256


class EntryReport(msgspec.Struct, frozen=True):
    """What was found: how many entries of each kind (`decision`, `policy`, ...), and of how many people."""

    kinds: Mapping[str, int]
    people: int


def verify_entries(
    book: Entries, origin: str, *, people: People | None = None, progress: Callable[[int, int], None] | None = None
) -> EntryReport:
    """Checks every entry of a book whose bytes are verified already.

    Raises:
        VerificationError: an entry breaks a rule; `index` is the first that does.
    """
    verifier = EntryVerifier(origin, people)
    size = book.size
    for start in range(0, size, ENTRIES_AT_ONCE):
        for index, raw in enumerate(book.read(start, min(start + ENTRIES_AT_ONCE, size)), start):
            verifier.add(index, raw)
        if progress is not None:
            progress(min(start + ENTRIES_AT_ONCE, size), size)
    return verifier.report()


class EntryVerifier:
    """One pass over the entries of a book, in order."""

    def __init__(self, origin: str, people: People | None) -> None:
        """Takes the store of people, where it is at hand."""
        self._origin = origin
        self._people = people
        self._time = 0
        self._link = 0
        self._kinds: Counter[str] = Counter()
        self._pseudonyms: set[bytes] = set()

    def report(self) -> EntryReport:
        """Returns what was found so far."""
        return EntryReport(dict(self._kinds), len(self._pseudonyms))

    def add(self, index: int, raw: bytes) -> None:
        """Checks the next entry.

        Raises:
            VerificationError: it breaks a rule.
        """
        try:
            entry = decode(raw, index)
        except BookCorruptError as err:
            raise VerificationError(err.message, index) from err
        time = nanoseconds(entry.entry_time)
        if time < self._time:
            raise VerificationError(f"entry {index} is earlier than the one before it", index)
        if entry.control_link != self._link:
            raise VerificationError(f"entry {index} does not name the newest control entry before it", index)
        if entry.kind not in entry_pb2.EntryKind.values()[1:]:
            raise VerificationError(f"entry {index} is of kind {entry.kind}, which this version does not know", index)
        self._time = time
        self._link = index + 1 if is_control(entry) else self._link
        self._kinds[entry_pb2.EntryKind.Name(entry.kind).removeprefix("ENTRY_KIND_").lower()] += 1
        for sealed in entry.sealed:
            self._check_sealed(sealed, index)

    def _check_sealed(self, sealed: entry_pb2.Sealed, index: int) -> None:
        self._pseudonyms.update(sealed.pseudonyms)
        if self._people is None:
            return
        try:
            plaintext = open_sealed(sealed, self._origin, self._people)
        except BookCorruptError as err:
            raise VerificationError(f"entry {index}: {err.message}", index) from err
        if plaintext is None:
            message = f"entry {index} is sealed for a person who is missing from the store, and nothing says why"
            raise VerificationError(message, index)
