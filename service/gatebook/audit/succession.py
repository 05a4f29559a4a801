"""What binds a book to the one that succeeds it: entries in both, and the control entries that go on.

Owns the meaning of these entries, and writes and reads no file. Rules:

1. the last entry of a closed book names its successor: origin and verifier key. Nothing follows it;
2. the first entry of the successor names its predecessor: origin, verifier key, and the final signed checkpoint with
   size and root, which covers the closure;
3. behind it stand the control entries that count, oldest first and byte for byte, so that a start needs one book;
4. what is bound is checked in both directions. A predecessor that is shorter, longer or another is a broken link.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec

from gatebook import __version__
from gatebook.audit.chain import Entries, control_entries
from gatebook.audit.checkpoints import Signed
from gatebook.audit.entry import Stamp, decode, finish
from gatebook.errors import VerificationError
from gatebook.tlog.checkpoint import Checkpoint
from gatebook.tlog.keys import VerifierKey
from gatebook.tlog.proof import open_checkpoint
from gatebook.v1 import entry_pb2

CARRIED_MAX = 1_000
"""Activations that go on into a successor: the newest ones, and the newest of each set however old it is."""
REASON_BYTES_MAX = 512
ACTIVATING = frozenset({entry_pb2.POLICY_STEP_ACTIVATED, entry_pb2.POLICY_STEP_DIRECTORY_ACTIVATED})
CALLER = "gatebook"


class Carried(msgspec.Struct, frozen=True):
    """A control entry that goes on: from which book, where it stood, and its exact bytes."""

    origin: str
    index: int
    entry_bytes: bytes


def closure(successor: VerifierKey, reason: str, time: datetime, control_link: int) -> bytes:
    """Returns the last entry of a book."""
    bound = entry_pb2.Succession(origin=successor.name, verifier_key=str(successor), reason=reason)
    return _entry(entry_pb2.SYSTEM_EVENT_CLOSED, bound, time, control_link)


def birth(predecessor: VerifierKey, final: Signed, reason: str, time: datetime) -> bytes:
    """Returns the first entry of the successor of a book that is closed."""
    bound = _named(predecessor, final, reason)
    return _entry(entry_pb2.SYSTEM_EVENT_SUCCEEDED, bound, time, 0)


def birth_without_key(
    predecessor: VerifierKey, final: Signed, end: tuple[int, bytes], reason: str, time: datetime
) -> bytes:
    """Returns the first entry of the successor of a book whose key was lost; `end` is its size and root in all."""
    bound = _named(predecessor, final, reason)
    bound.key_lost = True
    bound.unsigned_size, bound.unsigned_root = end
    return _entry(entry_pb2.SYSTEM_EVENT_SUCCEEDED, bound, time, 0)


def _named(predecessor: VerifierKey, final: Signed, reason: str) -> entry_pb2.Succession:
    return entry_pb2.Succession(
        origin=predecessor.name,
        verifier_key=str(predecessor),
        checkpoint=final.note.decode(),
        size=final.checkpoint.size,
        root=final.checkpoint.root,
        reason=reason,
    )


def _entry(
    event: entry_pb2.SystemEvent.ValueType, bound: entry_pb2.Succession, time: datetime, control_link: int
) -> bytes:
    body = entry_pb2.SystemEntry(event=event, version=__version__, succession=bound)
    return finish(
        Stamp.of(time, CALLER, control_link), entry_pb2.AuditEntry(kind=entry_pb2.ENTRY_KIND_SYSTEM, system=body)
    )


def carried(book: Entries, origin: str) -> list[Carried]:
    """Returns the control entries of a book that count in its successor, the oldest first.

    Raises:
        BookCorruptError: the chain of control entries is broken.
    """
    found: list[Carried] = []
    seen: set[str] = set()
    activations = 0
    for index, told, raw in control_entries(book):
        one = Carried(origin, index, raw)
        if told.HasField("carried"):
            one = Carried(told.carried.origin or origin, told.carried.index, told.carried.entry_bytes)
        entry = decode(one.entry_bytes, index)
        if entry.HasField("policy"):
            if entry.policy.step not in ACTIVATING:
                continue
            activations += 1
            if activations > CARRIED_MAX and entry.policy.policy_set in seen:
                continue
            seen.add(entry.policy.policy_set)
        elif not _counts(entry):
            continue
        found.append(one)
    return found[::-1]


def _counts(entry: entry_pb2.AuditEntry) -> bool:
    """Tells whether a control entry that is no activation counts in a successor: not where a book was pruned, say."""
    match entry.WhichOneof("body"):
        case "erasure":
            return entry.erasure.step == entry_pb2.ERASURE_STEP_BEGUN
        case "retention":
            return entry.retention.step == entry_pb2.RETENTION_STEP_POLICY
        case "system":
            return False  # the first entry of a pruned book, which says what came before that one
        case _:
            return True


def encode_carried(each: Sequence[Carried], time: datetime, first_index: int) -> list[bytes]:
    """Returns the entries that restate others, to be written from an index on; each links to the one before.

    Raises:
        LimitExceededError: one does not fit an entry.
    """
    entries: list[bytes] = []
    for number, one in enumerate(each):
        body = entry_pb2.CarriedEntry(index=one.index, entry_bytes=one.entry_bytes, origin=one.origin)
        stamp = Stamp.of(time, CALLER, first_index + number if number else 0)
        entries.append(finish(stamp, entry_pb2.AuditEntry(kind=entry_pb2.ENTRY_KIND_CONTROL, carried=body)))
    return entries


def succession_in(
    entry_bytes: bytes, index: int, event: entry_pb2.SystemEvent.ValueType
) -> entry_pb2.Succession | None:
    """Returns what an entry binds, if it is a closure or a birth, as `event` says."""
    entry = decode(entry_bytes, index)
    return entry.system.succession if entry.system.event == event else None


def predecessor_of(book: Entries) -> entry_pb2.Succession | None:
    """Returns what the first entry of a book says about its predecessor, if it has one.

    Raises:
        BookCorruptError: the entry is malformed.
    """
    if book.size == 0:
        return None
    # Of a pruned book the first entry was carried forward, and so is among the control entries.
    first = next((raw for index, _, raw in control_entries(book) if index == 0), None)
    return succession_in(first or book.read(0, 1)[0], 0, entry_pb2.SYSTEM_EVENT_SUCCEEDED)


def successor_of(book: Entries) -> entry_pb2.Succession | None:
    """Returns what the last entry of a book says about its successor, if it is closed.

    Raises:
        BookCorruptError: the entry is malformed.
    """
    last = book.size - 1
    return None if last < 0 else succession_in(book.read(last, last + 1)[0], last, entry_pb2.SYSTEM_EVENT_CLOSED)


def require_bound(
    birth: entry_pb2.Succession, successor: VerifierKey, older: Entries, final: Checkpoint
) -> VerifierKey:
    """Requires that two verified books are bound to each other; returns the key of the older one.

    Args:
        birth: What the first entry of the successor says.
        successor: The key by which the successor was verified.
        older: The entries of the predecessor, verified up to `final`.
        final: The newest checkpoint of the predecessor.

    Raises:
        VerificationError: they are not; its `index` is the first entry of the predecessor that is not as it should be.
    """
    key = require_birth(birth)
    if final.origin != key.name:
        raise VerificationError(f"the predecessor is `{key.name}`, not `{final.origin}`")
    if final.size < birth.size:
        message = f"the book ends at {final.size}, but its successor says that it was closed at {birth.size}"
        raise VerificationError(message, final.size)
    if final.size > birth.size:
        message = f"the book has {final.size} entries, but its successor says that it was closed at {birth.size}"
        raise VerificationError(message, birth.size)
    if final.root != birth.root:
        raise VerificationError(f"the book has another root than its successor says, at size {birth.size}")
    told = successor_of(older)
    if told is None and not birth.key_lost:
        raise VerificationError("the book is not closed: its last entry names no successor", final.size - 1)
    if told is not None and (told.origin, told.verifier_key) != (successor.name, str(successor)):
        message = f"the book was closed for another successor: `{told.verifier_key}`"
        raise VerificationError(message, final.size - 1)
    return key


def require_birth(birth: entry_pb2.Succession) -> VerifierKey:
    """Requires that what a first entry says agrees with itself; returns the key of the predecessor.

    Raises:
        VerificationError: its checkpoint is not signed by the key that it names, or is of another size or root.
    """
    key = VerifierKey.parse(birth.verifier_key)
    named = open_checkpoint(birth.checkpoint.encode(), key)
    if key.name != birth.origin or (named.size, named.root) != (birth.size, birth.root):
        raise VerificationError("what the first entry says about the predecessor contradicts itself", 0)
    return key


def require_carried(book: Entries, older: Entries, birth: entry_pb2.Succession) -> int:
    """Requires that what a successor restates of its direct predecessor stands there; returns how many entries it is.

    What was beyond the last checkpoint of a predecessor whose key was lost is on the successor's word alone.

    Raises:
        VerificationError: an entry is not one of the predecessor; its `index` is that in the successor.
    """
    count = 0
    known = {index: raw for index, _, raw in control_entries(older)}
    for index, told in _carried_entries(book):
        if told.origin != birth.origin:
            continue  # of a book before that one, which vouched for it
        if birth.key_lost and older.size <= told.index < birth.unsigned_size:
            continue
        if known.get(told.index) != told.entry_bytes:
            raise VerificationError(f"entry {index} restates what is not entry {told.index} of `{birth.origin}`", index)
        count += 1
    return count


def _carried_entries(book: Entries) -> Iterator[tuple[int, entry_pb2.CarriedEntry]]:
    found = [(index, entry.carried) for index, entry, _ in control_entries(book) if entry.HasField("carried")]
    yield from sorted(found, key=lambda each: each[0])
