"""Verification of what entries say: about each other, and about people.

`verify` shows that the bytes are those that were signed. This shows that their writer kept the rules:

1. every entry is one, of a kind that this version knows, with its salt and time;
2. times never go backwards;
3. every control link names the newest policy or control entry before it;
4. where the store of people is at hand, every pseudonym is in it, and what is sealed opens: keys that
   were deleted to hide a reader are noticed;
5. nothing follows the entry that closes the book, and none but the first says which book this one succeeds.

Entries are read in ranges, by several processes where there are some. So what a range says is a value, an
`EntryPart`, and `EntryJoin` takes the parts in order and decides what none of them can know alone.
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
AFTER_CLOSURE = "follows the one that closed the book"
_KINDS = frozenset(entry_pb2.EntryKind.values()) - {entry_pb2.ENTRY_KIND_UNSPECIFIED}


class EntryReport(msgspec.Struct, frozen=True):
    """What was found: how many entries of each kind (`decision`, `policy`, ...), and of how many people."""

    kinds: Mapping[str, int]
    people: int


class Fault(msgspec.Struct, frozen=True):
    """A broken rule, and the entry that breaks it."""

    index: int
    message: str


class EntryPart(msgspec.Struct, frozen=True):
    """What the entries of one range say, up to its first fault."""

    first_index: int
    count: int
    """How many entries keep the rules among themselves; the times and links below are theirs."""
    first_time: int
    """In nanoseconds since 1970, as the other."""
    last_time: int
    first_link: int
    """What the first entry names as the newest control entry before it."""
    link: int
    """What the entry after the last one must name."""
    kinds: Mapping[entry_pb2.EntryKind.ValueType, int]
    pseudonyms: frozenset[bytes]
    missing: Mapping[bytes, int]
    """Pseudonyms that are not in the store, and the first entry that has each."""
    fault: Fault | None
    closed: bool = False
    """Whether the last entry closes the book."""


def verify_entries(
    book: Entries, origin: str, *, people: People | None = None, progress: Callable[[int, int], None] | None = None
) -> EntryReport:
    """Checks every entry of a book whose bytes are verified already.

    Raises:
        VerificationError: an entry breaks a rule; `index` is the first that does.
    """
    verifier = EntryVerifier(origin, people, 0)
    size = book.size
    for start in range(0, size, ENTRIES_AT_ONCE):
        verifier.add(book.read(start, min(start + ENTRIES_AT_ONCE, size)))
        if progress is not None:
            progress(min(start + ENTRIES_AT_ONCE, size), size)
    joined = EntryJoin()
    joined.add(verifier.part())
    return joined.report()


class EntryVerifier:
    """One pass over adjacent entries, in order."""

    def __init__(self, origin: str, people: People | None, first_index: int) -> None:
        """Takes the store of people, where it is at hand."""
        self._origin = origin
        self._people = people
        self._first_index = self._index = first_index
        self._first_time = self._time = self._first_link = self._link = 0
        self._kinds: Counter[entry_pb2.EntryKind.ValueType] = Counter()
        self._pseudonyms: set[bytes] = set()
        self._missing: dict[bytes, int] = {}
        self._closed = False
        self._fault: Fault | None = None

    def add(self, entries: list[bytes]) -> None:
        """Checks the next entries. What comes after a fault is not looked at."""
        if self._fault is not None:
            return
        try:
            for raw in entries:
                self._check(raw)
                self._index += 1
        except BookCorruptError as err:
            self._fault = Fault(self._index, err.message)

    def part(self) -> EntryPart:
        """Returns what was found so far."""
        return EntryPart(
            first_index=self._first_index,
            count=self._index - self._first_index,
            first_time=self._first_time,
            last_time=self._time,
            first_link=self._first_link,
            link=self._link,
            kinds=dict(self._kinds),
            pseudonyms=frozenset(self._pseudonyms),
            missing=self._missing,
            fault=self._fault,
            closed=self._closed,
        )

    def _check(self, raw: bytes) -> None:
        index = self._index
        entry = decode(raw, index)
        time, link, kind = nanoseconds(entry.entry_time), entry.control_link, entry.kind
        if index == self._first_index:
            self._first_time = self._time = time
            self._first_link = self._link = link
        if time < self._time:
            raise BookCorruptError(f"entry {index} is earlier than the one before it")
        if link != self._link:
            raise BookCorruptError(f"entry {index} does not name the newest control entry before it")
        if kind not in _KINDS:
            raise BookCorruptError(f"entry {index} is of kind {kind}, which this version does not know")
        if self._closed:
            raise BookCorruptError(f"entry {index} {AFTER_CLOSURE}")
        if index and entry.system.event == entry_pb2.SYSTEM_EVENT_SUCCEEDED:
            raise BookCorruptError(f"entry {index} says that the book begins with it")
        for sealed in entry.sealed:
            self._check_sealed(sealed, index)
        self._closed = entry.system.event == entry_pb2.SYSTEM_EVENT_CLOSED
        self._time = time
        self._link = index + 1 if is_control(entry) else link
        self._kinds[kind] += 1

    def _check_sealed(self, sealed: entry_pb2.Sealed, index: int) -> None:
        pseudonyms = sealed.pseudonyms
        self._pseudonyms.update(pseudonyms)
        if self._people is None:
            return
        try:
            plaintext = open_sealed(sealed, self._origin, self._people)
        except BookCorruptError as err:
            raise BookCorruptError(f"entry {index}: {err.message}") from err
        if plaintext is None:
            absent = [each for each in pseudonyms if self._people.by_pseudonym(each) is None]
            if not absent:
                raise BookCorruptError(f"entry {index} is sealed for nobody")
            for each in absent:
                self._missing.setdefault(each, index)


class EntryJoin:
    """Takes what the ranges of a book say, in order, and holds the rules that reach over their ends."""

    def __init__(self, *, whole: bool = True) -> None:
        """Begins before the first entry of a book, or where what comes before is verified already."""
        self._known = whole
        self._time = self._link = 0
        self._kinds: Counter[entry_pb2.EntryKind.ValueType] = Counter()
        self._pseudonyms: set[bytes] = set()
        self._closed = False
        self._fault: Fault | None = None

    def add(self, part: EntryPart) -> None:
        """Takes the next part. What comes after a fault is not looked at."""
        if self._fault is not None:
            return
        self._fault = self._first_fault(part)
        self._known, self._time, self._link = True, part.last_time, part.link
        self._closed = part.closed
        self._kinds.update(part.kinds)
        self._pseudonyms |= part.pseudonyms

    def report(self) -> EntryReport:
        """Returns what all parts together say.

        Raises:
            VerificationError: an entry breaks a rule; `index` is the first that does.
        """
        if self._fault is not None:
            raise VerificationError(self._fault.message, self._fault.index)
        names = entry_pb2.EntryKind.Name
        kinds = {names(kind).removeprefix("ENTRY_KIND_").lower(): count for kind, count in self._kinds.items()}
        return EntryReport(kinds, len(self._pseudonyms))

    def _first_fault(self, part: EntryPart) -> Fault | None:
        found = [] if part.fault is None else [part.fault]
        index = part.first_index
        if part.count and self._closed:
            found.append(Fault(index, f"entry {index} {AFTER_CLOSURE}"))
        if part.count and self._known:
            if part.first_time < self._time:
                found.append(Fault(index, f"entry {index} is earlier than the one before it"))
            elif part.first_link != self._link:
                found.append(Fault(index, f"entry {index} does not name the newest control entry before it"))
        if part.missing:
            index = min(part.missing.values())
            message = f"entry {index} is sealed for a person who is missing from the store, and nothing says why"
            found.append(Fault(index, message))
        return min(found, key=lambda fault: fault.index, default=None)
