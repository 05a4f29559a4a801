"""Reads of decision entries what the index keeps, without parsing again what many of them have in common.

Owns the short way to what stands in an entry, for entries as this service writes nearly all of them:

    entry     time | stamp | salt | kind | sealed parts | decision
    decision  id | what stands in clear | pseudonym of the subject | when it expires, if it does | trace, if any

The stamp is that of many entries, and what stands in clear that of all decisions alike; each is parsed once, by the
generated messages, and found again by its bytes. That is as good as to parse the whole: a message is its fields, one
after the other, so that what begins with whole fields that are known goes on with a field. What does not look so is
left to who parses, and so is a text in clear that comes for the first time; where little comes again, nothing is
looked at for a while. What is sealed, and when a decision expires, is passed over unread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from gatebook.audit.entry import nanoseconds
from gatebook.audit.people import PSEUDONYM_BYTES
from gatebook.audit.wire import DELIMITED, VARINT, head, tag, varint
from gatebook.v1 import entry_pb2

ID_CHARACTERS = 32
SALT_BYTES = TRACE_ID_BYTES = 16
KNOWN_MAX = 16_384
"""Texts in clear that are known; then they are forgotten."""
SEEN_MAX = 65_536
"""Texts in clear that came once, of which the hash is kept."""
LOOKS = 1_024
"""Entries after which it is judged whether looking pays: where it finds less than one part in `WORTH`, it does not."""
WORTH = 2
REST = 8 * LOOKS
"""Entries that are then not looked at."""
EXPIRY_BYTES_MAX = 16
LONG = 0x80
FIELDS_MAX = 1_000
"""Fields of what stands in clear that are looked through for its end."""

_TIME = tag(entry_pb2.AuditEntry, "entry_time")
LEAST_BYTES = len(_TIME) + 1
_SALT_HEAD = head(entry_pb2.AuditEntry, "salt", SALT_BYTES)
_KIND = tag(entry_pb2.AuditEntry, "kind") + varint(entry_pb2.ENTRY_KIND_DECISION)
_SEALED, _DECISION = tag(entry_pb2.AuditEntry, "sealed")[0], tag(entry_pb2.AuditEntry, "decision")[0]
_ID_HEAD = head(entry_pb2.DecisionEntry, "decision_id", ID_CHARACTERS)
_SUBJECT_HEAD = head(entry_pb2.DecisionEntry, "subject_pseudonym", PSEUDONYM_BYTES)
_TRACE_HEAD = head(entry_pb2.DecisionEntry, "trace_id", TRACE_ID_BYTES)
_TRACE_BYTES = len(_TRACE_HEAD) + TRACE_ID_BYTES
_EXPIRES = tag(entry_pb2.DecisionEntry, "expires_time")
_ID_END = len(_ID_HEAD) + ID_CHARACTERS
_TOLD_APART = ("decision_id", "subject_pseudonym", "actor_pseudonym")

OfStamp = TypeVar("OfStamp")
OfClear = TypeVar("OfClear")


class Skimmed(NamedTuple, Generic[OfStamp, OfClear]):
    """What was read of an entry."""

    nanoseconds: int
    """Since 1970, when the entry was made."""
    of_stamp: OfStamp
    of_clear: OfClear
    decision_id: str
    subject: bytes
    """The pseudonym; there is no actor."""


class Skimming(Generic[OfStamp, OfClear]):
    """What is known of the last stamp and of texts in clear."""

    def __init__(
        self,
        of_stamp: Callable[[entry_pb2.AuditEntry], OfStamp],
        of_clear: Callable[[entry_pb2.DecisionEntry], OfClear],
    ) -> None:
        """Takes what makes of either what is wanted of it."""
        self._of_stamp = of_stamp
        self._of_clear = of_clear
        self._time_field, self._nanoseconds = b"", 0
        self._stamp = b""
        self._known_of_stamp: OfStamp | None = None
        self._clear: dict[bytes, OfClear] = {}
        self._seen: set[int] = set()
        self._looks = self._found = self._rest = 0

    def forget(self) -> None:
        """Forgets what is known."""
        self._known_of_stamp = None
        self._clear.clear()

    def read(self, entry: bytes) -> Skimmed[OfStamp, OfClear] | None:
        """Returns what stands in an entry, or None where it has to be parsed."""
        if self._rest:
            self._rest -= 1
            return None
        found = self._read(entry)
        self._looks += 1
        self._found += found is not None
        if self._looks == LOOKS:
            self._rest = 0 if self._found * WORTH >= LOOKS else REST
            self._looks = self._found = 0
        return found

    def _read(self, entry: bytes) -> Skimmed[OfStamp, OfClear] | None:
        if not (self._time_field and entry.startswith(self._time_field)) and not self._learn_time(entry):
            return None
        stamp = len(self._time_field)
        salt, of_stamp = stamp + len(self._stamp), self._known_of_stamp
        if of_stamp is None or not (entry.startswith(self._stamp, stamp) and entry.startswith(_SALT_HEAD, salt)):
            salt = _end_of_fields(entry, stamp, _SALT_HEAD)
            if salt < 0 or (of_stamp := self._learn_stamp(entry[stamp:salt])) is None:
                return None
        body = _decision_in(entry, salt + len(_SALT_HEAD) + SALT_BYTES)
        if not body.startswith(_ID_HEAD):
            return None
        end = body.find(_SUBJECT_HEAD, _ID_END)
        clear = body[_ID_END:end]
        of_clear = self._clear.get(clear)
        if of_clear is None:
            if not self._came_before(clear):
                return None
            end = _end_of_fields(body, _ID_END, _SUBJECT_HEAD)
            if end < 0 or (of_clear := self._learn_clear(body[_ID_END:end])) is None:
                return None
        subject = end + len(_SUBJECT_HEAD)
        expiry = subject + PSEUDONYM_BYTES
        left = len(body) - expiry
        if body[-_TRACE_BYTES:].startswith(_TRACE_HEAD):
            left -= _TRACE_BYTES
        if left and not (
            len(_EXPIRES) < left <= EXPIRY_BYTES_MAX
            and body.startswith(_EXPIRES, expiry)
            and left == len(_EXPIRES) + 1 + body[expiry + len(_EXPIRES)]
        ):
            return None
        id_ = body[len(_ID_HEAD) : _ID_END]
        return (
            Skimmed(self._nanoseconds, of_stamp, of_clear, id_.decode(), body[subject:expiry])
            if id_.isalnum()
            else None
        )

    def _learn_time(self, entry: bytes) -> bool:
        """Reads the time that an entry begins with, which many have in common; tells whether it does."""
        if not entry.startswith(_TIME) or len(entry) < LEAST_BYTES or (length := entry[len(_TIME)]) >= LONG:
            return False
        time = _parsed(Timestamp(), entry[LEAST_BYTES : LEAST_BYTES + length])
        if time is None or len(entry) < LEAST_BYTES + length:
            return False
        self._time_field, self._nanoseconds = entry[: LEAST_BYTES + length], nanoseconds(time)
        return True

    def _learn_stamp(self, stamp: bytes) -> OfStamp | None:
        parsed = _parsed(entry_pb2.AuditEntry(), stamp)
        if parsed is None or parsed.kind or parsed.salt or parsed.WhichOneof("body") or parsed.HasField("entry_time"):
            return None
        self._stamp, self._known_of_stamp = stamp, self._of_stamp(parsed)
        return self._known_of_stamp

    def _came_before(self, clear: bytes) -> bool:
        """Tells whether a text came once; if not, it has now."""
        seen = hash(clear)
        if seen in self._seen:
            return True
        if len(self._seen) >= SEEN_MAX:
            self._seen.clear()
        self._seen.add(seen)
        return False

    def _learn_clear(self, clear: bytes) -> OfClear | None:
        parsed = _parsed(entry_pb2.DecisionEntry(), clear)
        if parsed is None or any(getattr(parsed, name) for name in _TOLD_APART):
            return None
        if len(self._clear) >= KNOWN_MAX:
            self._clear.clear()
        found = self._clear[clear] = self._of_clear(parsed)
        return found


Parsed = TypeVar("Parsed", entry_pb2.AuditEntry, entry_pb2.DecisionEntry, Timestamp)


def _parsed(message: Parsed, content: bytes) -> Parsed | None:
    try:
        message.MergeFromString(content)
    except DecodeError:
        return None
    return message


def _decision_in(entry: bytes, at: int) -> bytes:
    """Returns the body of the decision that ends an entry, from its kind on; nothing where it is none."""
    if not entry.startswith(_KIND, at):
        return b""
    at += len(_KIND)
    size = len(entry)
    while at + 2 < size and ((before := entry[at]) == _SEALED or before == _DECISION):
        length, start = entry[at + 1], at + 2
        if length >= LONG:
            second = entry[start]
            if second >= LONG:
                return b""
            length, start = length - LONG + (second << 7), start + 1
        at = start + length
        if before == _DECISION:
            return entry[start:] if at == size else b""
    return b""


def _end_of_fields(content: bytes, at: int, until: bytes) -> int:
    """Returns where, behind whole fields, a field begins like this; -1 where none does."""
    for _ in range(FIELDS_MAX):
        if content.startswith(until, at):
            return at
        try:
            field, at = _varint_at(content, at)
            number, at = _varint_at(content, at)
        except IndexError:
            return -1
        if field & 7 == DELIMITED:
            at += number
        elif field & 7 != VARINT:
            return -1
    return -1


def _varint_at(content: bytes, at: int) -> tuple[int, int]:
    """Returns the number at a place, and where it ends."""
    number = shift = 0
    while content[at] >= LONG:
        number |= (content[at] - LONG) << shift
        shift, at = shift + 7, at + 1
    return number | content[at] << shift, at + 1
