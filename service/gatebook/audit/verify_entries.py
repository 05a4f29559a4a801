"""Verification of what entries say: about each other, and about people.

`verify` shows that the bytes are those that were signed. This shows that their writer kept the rules:

1. every entry is one, of a kind that this version knows, with its salt and time;
2. times never go backwards;
3. every control link names the newest policy or control entry before it;
4. where the store of people is at hand, every pseudonym is in it, and what is sealed opens: keys that
   were deleted to hide a reader are noticed. A key may be gone where a later entry says that it was erased. After
   that entry nothing is sealed under it, and once the erasure is completed the store has it no more;
5. where the book begins late, an entry says that what was before is pruned, under a policy that is an entry and keeps
   nothing of it; what was carried forward is what stood at its index;
6. nothing follows the entry that closes the book, and none but the first says which book this one succeeds.

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
from gatebook.tlog.merkle import leaf_hash
from gatebook.v1 import entry_pb2

ENTRIES_AT_ONCE = 256
AFTER_CLOSURE = "follows the one that closed the book"
NANOSECONDS_OF_A_DAY = 86_400 * 1_000_000_000
_KINDS = frozenset(entry_pb2.EntryKind.values()) - {entry_pb2.ENTRY_KIND_UNSPECIFIED}


class EntryReport(msgspec.Struct, frozen=True):
    """What was found: how many entries of each kind (`decision`, `policy`, ...), and of how many people."""

    kinds: Mapping[str, int]
    people: int
    erased: int = 0
    """Of how many of them an entry says that they are erased."""
    unfinished: tuple[int, ...] = ()
    """Entries that began an erasure that no entry says to be completed."""
    pruned_by: int = 0
    """The entry that says that what is before the first entry was pruned; 0 where all is there."""
    policy_index: int = 0
    """The entry of the policy that it names."""
    policy_hash: bytes = b""


class Fault(msgspec.Struct, frozen=True):
    """A broken rule, and the entry that breaks it."""

    index: int
    message: str


class Erased(msgspec.Struct, frozen=True):
    """An entry that begins an erasure."""

    index: int
    pseudonyms: tuple[bytes, ...]
    in_store: bool
    """Whether the store of people, where it is at hand, has one of them all the same."""


class Policy(msgspec.Struct, frozen=True):
    """An entry that puts a retention policy into force."""

    policy_hash: bytes
    keep_days: int


class Pruned(msgspec.Struct, frozen=True):
    """An entry that begins a pruning."""

    index: int
    policy_index: int
    policy: Policy
    first_index: int


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
    pseudonyms: Mapping[bytes, int]
    """Each with the first entry that has a part sealed for it."""
    missing: Mapping[bytes, int]
    """Pseudonyms that are not in the store, and the first entry that has each."""
    fault: Fault | None
    closed: bool = False
    """Whether the last entry closes the book."""
    erasures: tuple[Erased, ...] = ()
    completed: frozenset[int] = frozenset()
    """Entries that began an erasure that is completed."""
    policies: Mapping[int, Policy] = msgspec.field(default_factory=dict)
    pruned: tuple[Pruned, ...] = ()


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

    def __init__(
        self, origin: str, people: People | None, first_index: int, leaf_at: Callable[[int], bytes] | None = None
    ) -> None:
        """Takes the store of people, where it is at hand, and what tells the leaf hashes of pruned entries."""
        self._leaf_at = leaf_at
        self._origin = origin
        self._people = people
        self._first_index = self._index = first_index
        self._first_time = self._time = self._first_link = self._link = 0
        self._kinds: Counter[entry_pb2.EntryKind.ValueType] = Counter()
        self._pseudonyms: dict[bytes, int] = {}
        self._missing: dict[bytes, int] = {}
        self._closed = False
        self._fault: Fault | None = None
        self._erasures: list[Erased] = []
        self._erased: set[bytes] = set()
        self._completed: set[int] = set()
        self._policies: dict[int, Policy] = {}
        self._pruned: list[Pruned] = []

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
            pseudonyms=self._pseudonyms,
            missing=self._missing,
            fault=self._fault,
            closed=self._closed,
            erasures=tuple(self._erasures),
            completed=frozenset(self._completed),
            policies=self._policies,
            pruned=tuple(self._pruned),
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
        if kind == entry_pb2.ENTRY_KIND_CONTROL:
            self._note_control(entry, index)
        self._time = time
        self._link = index + 1 if is_control(entry) else link
        self._kinds[kind] += 1

    def _check_sealed(self, sealed: entry_pb2.Sealed, index: int) -> None:
        pseudonyms = sealed.pseudonyms
        for each in pseudonyms:
            self._pseudonyms.setdefault(each, index)
            if each in self._erased:
                raise BookCorruptError(f"entry {index} is sealed for a person who was erased before")
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

    def _note_control(self, entry: entry_pb2.AuditEntry, index: int) -> None:
        match entry.WhichOneof("body"):
            case "erasure" if entry.erasure.step == entry_pb2.ERASURE_STEP_COMPLETED:
                self._completed.add(entry.erasure.begun_index)
            case "erasure":
                self._note_erasure(entry.erasure, index)
            case "retention":
                self._note_retention(entry, index)
            case "carried" if entry.carried.origin:
                self._note_inherited(entry.carried, index)
            case "carried":
                self._note_carried(entry.carried, index)
            case _:
                pass

    def _note_erasure(self, erasure: entry_pb2.ErasureEntry, index: int) -> None:
        people, pseudonyms = self._people, tuple(erasure.pseudonyms)
        in_store = people is not None and any(people.by_pseudonym(each) is not None for each in pseudonyms)
        self._erasures.append(Erased(index, pseudonyms, in_store))
        self._erased.update(pseudonyms)

    def _note_retention(self, entry: entry_pb2.AuditEntry, index: int) -> None:
        told = entry.retention
        policy = Policy(told.policy_hash, told.keep_days)
        if told.step == entry_pb2.RETENTION_STEP_POLICY:
            self._policies[index] = policy
        elif told.step == entry_pb2.RETENTION_STEP_BEGUN:
            kept = nanoseconds(entry.entry_time) - nanoseconds(told.before_time)
            if told.keep_days < 1 or kept < told.keep_days * NANOSECONDS_OF_A_DAY or told.first_index > index:
                raise BookCorruptError(f"entry {index} prunes what its policy keeps for {told.keep_days} days")
            self._pruned.append(Pruned(index, told.policy_index, policy, told.first_index))

    def _note_carried(self, carried: entry_pb2.CarriedEntry, index: int) -> None:
        """Checks that what was carried forward is what stood at its index, and takes note of it."""
        if carried.index >= index:
            raise BookCorruptError(f"entry {index} restates a later one")
        try:
            found = None if self._leaf_at is None else self._leaf_at(carried.index)
        except VerificationError as err:
            raise BookCorruptError(f"entry {index} restates one whose leaf is not there: {err.message}") from err
        if found is not None and leaf_hash(carried.entry_bytes) != found:
            raise BookCorruptError(f"entry {index} does not restate what stood at {carried.index}")
        entry = decode(carried.entry_bytes, carried.index)
        if entry.HasField("carried"):
            self._note_inherited(entry.carried, carried.index)
        elif entry.HasField("erasure"):
            self._note_erasure(entry.erasure, carried.index)
            self._completed.add(carried.index)
        elif entry.retention.step == entry_pb2.RETENTION_STEP_POLICY:
            self._policies[carried.index] = Policy(entry.retention.policy_hash, entry.retention.keep_days)

    def _note_inherited(self, carried: entry_pb2.CarriedEntry, index: int) -> None:
        """Takes note of an erasure of a predecessor: it holds here, too, and was completed there."""
        entry = decode(carried.entry_bytes, index)
        if entry.HasField("erasure"):
            self._note_erasure(entry.erasure, index)
            self._completed.add(index)


class EntryJoin:
    """Takes what the ranges of a book say, in order, and holds the rules that reach over their ends."""

    def __init__(self, *, whole: bool = True, erased: frozenset[bytes] = frozenset()) -> None:
        """Begins before the first entry of a book, or where what comes before is verified already.

        `erased` are pseudonyms that a book which succeeds this one says were erased.
        """
        self._known = whole
        self._erased_later = erased
        self._time = self._link = 0
        self._kinds: Counter[entry_pb2.EntryKind.ValueType] = Counter()
        self._pseudonyms: set[bytes] = set()
        self._closed = False
        self._missing: dict[bytes, int] = {}
        self._erased: dict[bytes, int] = {}
        self._erasures: list[Erased] = []
        self._completed: set[int] = set()
        self._policies: dict[int, Policy] = {}
        self._pruned: list[Pruned] = []
        self._begun = False
        self._first_index = 0
        self._fault: Fault | None = None

    def add(self, part: EntryPart) -> None:
        """Takes the next part. What comes after a fault is not looked at."""
        if self._fault is not None:
            return
        if not self._begun and part.first_index:
            self._first_index = part.first_index
            self._known = False  # what comes before is verified already, or pruned
        self._fault = self._first_fault(part)
        self._begun = self._known = True
        self._time, self._link = part.last_time, part.link
        self._closed = part.closed
        self._kinds.update(part.kinds)
        self._pseudonyms |= part.pseudonyms.keys()
        for each, index in part.missing.items():
            self._missing.setdefault(each, index)
        for erasure in part.erasures:
            self._erased |= dict.fromkeys(erasure.pseudonyms, erasure.index)
        self._erasures += part.erasures
        self._completed |= part.completed
        self._policies |= part.policies
        self._pruned += part.pruned

    def report(self, begins: int = 0) -> EntryReport:
        """Returns what all parts together say, of a book whose entries before `begins` are not there.

        Raises:
            VerificationError: an entry breaks a rule; `index` is the first that does.
        """
        fault = self._fault or self._fault_of_all(begins)
        if fault is not None:
            raise VerificationError(fault.message, fault.index)
        names = entry_pb2.EntryKind.Name
        kinds = {names(kind).removeprefix("ENTRY_KIND_").lower(): count for kind, count in self._kinds.items()}
        pruned = max(self._pruned, key=lambda each: each.first_index, default=None)
        return EntryReport(
            kinds=kinds,
            people=len(self._pseudonyms),
            erased=len(self._erased.keys() & self._pseudonyms),
            unfinished=tuple(each.index for each in self._erasures if each.index not in self._completed),
            pruned_by=pruned.index if pruned is not None and begins else 0,
            policy_index=pruned.policy_index if pruned is not None and begins else 0,
            policy_hash=pruned.policy.policy_hash if pruned is not None and begins else b"",
        )

    def _fault_of_all(self, begins: int) -> Fault | None:
        """Returns the first fault that only all entries together show."""
        erased = self._erased.keys() | self._erased_later
        hidden = [index for each, index in self._missing.items() if each not in erased]
        found = []
        if hidden:
            index = min(hidden)
            message = f"entry {index} is sealed for a person who is missing from the store, and nothing says why"
            found.append(Fault(index, message))
        found += [
            Fault(each.index, f"the store has a key that entry {each.index} erased: start the server, which erases it")
            for each in self._erasures
            if each.in_store and each.index in self._completed
        ]
        for pruned in self._pruned:
            policy, index = self._policies.get(pruned.policy_index), pruned.index
            if policy != pruned.policy and (policy is not None or pruned.policy_index >= self._first_index):
                found.append(Fault(index, f"entry {index} prunes under another policy than the entry that it names"))
        permitted = max((each.first_index for each in self._pruned), default=0)
        if permitted < begins:
            message = f"the entries from {permitted} to {begins - 1} are missing, and no retention entry says why"
            found.append(Fault(permitted, message))
        return min(found, key=lambda fault: fault.index, default=None)

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
        later = [index for each, index in part.pseudonyms.items() if each in self._erased]
        if later:
            index = min(later)
            found.append(Fault(index, f"entry {index} is sealed for a person who was erased before"))
        return min(found, key=lambda fault: fault.index, default=None)
