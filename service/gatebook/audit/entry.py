"""The exact bytes of entries.

Owns how values become the bytes of an `AuditEntry`; `decision_entry` does the same for decisions.
Rules:

1. the bytes are made once and never again: they are the leaf of the tree;
2. what is in clear is vocabulary of the policy set, the service's own ids and times; what names
   or describes people is in sealed parts;
3. an entry is at most 65,535 bytes (the length in a C2SP entry bundle has 16 bits);
4. times are aware UTC datetimes, exact to the microsecond.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Self

import msgspec
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from gatebook.audit.people import Person
from gatebook.audit.random_pieces import RandomPieces
from gatebook.audit.sealing import seal
from gatebook.audit.wire import delimited, head, tag, varint
from gatebook.errors import BookCorruptError, LimitExceededError
from gatebook.v1 import entry_pb2, types_pb2
from gatebook.values import Finding, Revision, foremost

ENTRY_BYTES_MAX = 65_535
SALT_BYTES = 16
FINDINGS_WRITTEN_MAX = 100
FILE_BYTES_MAX = 128
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_salts = RandomPieces(SALT_BYTES)
_SALT_HEAD, _ENTRY_TIME = head(entry_pb2.AuditEntry, "salt", SALT_BYTES), tag(entry_pb2.AuditEntry, "entry_time")
_SECONDS, _NANOS = tag(Timestamp, "seconds"), tag(Timestamp, "nanos")


class Stamp(msgspec.Struct, frozen=True, gc=False):
    """What the entries of one group have in common; `head` is its encoding."""

    entry_time: datetime
    caller: str
    control_link: int
    head: bytes

    @classmethod
    def of(cls, entry_time: datetime, caller: str, control_link: int) -> Self:
        """Returns the stamp of entries made at one time by one caller."""
        return cls(
            entry_time,
            caller,
            control_link,
            delimited(_ENTRY_TIME, encode_time(entry_time)) + _head(caller, control_link),
        )


@functools.lru_cache(maxsize=1_024)
def _head(caller: str, control_link: int) -> bytes:
    return entry_pb2.AuditEntry(caller=caller, control_link=control_link).SerializeToString()


class Named(msgspec.Struct, frozen=True):
    """A person who is named in an entry: the id, and under whose key it is sealed."""

    id: str
    person: Person


class PolicyEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A step in the life of a policy set or directory, as it will be written."""

    step: entry_pb2.PolicyStep.ValueType
    revision: Revision
    policy_set: str = ""
    findings: Sequence[Finding] = ()
    tests_run: int = 0
    tests_failed: int = 0
    subjects: int = 0
    request_id_hash: bytes = b""
    requested_by: Named | None = None
    approved_by: Named | None = None
    proposal: entry_pb2.ProposalEntry | None = None


class ReadEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A read of the book, or a search, as it will be written."""

    method: str
    indexes: tuple[int, int] | None = None
    """The first and the last index returned."""
    count: int = 0
    filter_json: bytes = b""
    people: tuple[Person, ...] = ()
    """Under whose keys the filter is sealed: the first is the person that it names."""


def _named(findings: Sequence[Finding]) -> Sequence[Finding]:
    if len(findings) <= FINDINGS_WRITTEN_MAX:
        return findings
    return sorted(foremost(findings)[:FINDINGS_WRITTEN_MAX])


def encode_policy(event: PolicyEvent, stamp: Stamp, origin: str = "") -> bytes:
    """Returns the entry of a step in the life of a policy set or directory.

    Of the findings 100 are named, of each kind the first before all others, and all are counted. A file name over
    128 bytes is left out.
    """
    body = entry_pb2.PolicyEntry(
        step=event.step,
        policy_set=event.policy_set,
        revision=types_pb2.Revision(digest=event.revision.digest, number=event.revision.number),
        findings_count=len(event.findings),
        findings=[_finding(finding) for finding in _named(event.findings)],
        tests_run=event.tests_run,
        tests_failed=event.tests_failed,
        subjects=event.subjects,
        request_id_hash=event.request_id_hash,
        proposal=event.proposal,
    )
    entry = entry_pb2.AuditEntry(kind=entry_pb2.ENTRY_KIND_POLICY, policy=body)
    if event.requested_by is not None:
        entry.policy.requested_by_pseudonym = event.requested_by.person.pseudonym
        _seal_name(entry, entry_pb2.SEALED_FIELD_REQUESTED_BY, origin, event.requested_by)
    if event.approved_by is not None:
        entry.policy.approved_by_pseudonym = event.approved_by.person.pseudonym
        _seal_name(entry, entry_pb2.SEALED_FIELD_APPROVED_BY, origin, event.approved_by)
    return finish(stamp, entry)


def _seal_name(entry: entry_pb2.AuditEntry, field: entry_pb2.SealedField.ValueType, origin: str, named: Named) -> None:
    entry.sealed.add().MergeFromString(seal(field, origin, [named.person], msgspec.json.encode(named.id)))


def encode_read(event: ReadEvent, stamp: Stamp, origin: str) -> bytes:
    """Returns the entry of a read of the book, or of a search."""
    body = entry_pb2.ReadEntry(method=event.method, count=event.count)
    if event.indexes is not None:
        body.first_index, body.last_index = event.indexes
    entry = entry_pb2.AuditEntry(kind=entry_pb2.ENTRY_KIND_READ, read=body)
    if event.filter_json:
        field = entry_pb2.SEALED_FIELD_FILTER
        entry.sealed.add().MergeFromString(seal(field, origin, event.people, event.filter_json))
        entry.read.subject_pseudonym = event.people[0].pseudonym
    return finish(stamp, entry)


def encode_system(
    event: entry_pb2.SystemEvent.ValueType,
    stamp: Stamp,
    *,
    version: str,
    recovered_size: int = 0,
    unclean: bool = False,
) -> bytes:
    """Returns the entry of a start or stop of the service."""
    body = entry_pb2.SystemEntry(event=event, version=version, recovered_size=recovered_size, unclean=unclean)
    return finish(stamp, entry_pb2.AuditEntry(kind=entry_pb2.ENTRY_KIND_SYSTEM, system=body))


def finish(stamp: Stamp, entry: entry_pb2.AuditEntry) -> bytes:
    """Returns the exact bytes of an entry: its stamp, a fresh salt and the rest.

    Raises:
        LimitExceededError: it is over 65,535 bytes.
    """
    return join(stamp, entry.SerializeToString())


def join(stamp: Stamp, *parts: bytes) -> bytes:
    """Returns the exact bytes of an entry of encoded parts, which have no field in common.

    Encodings of messages, one after the other, are an encoding of all of them together.

    Raises:
        LimitExceededError: it is over 65,535 bytes.
    """
    encoded = b"".join((stamp.head, _SALT_HEAD, _salts.draw(), *parts))
    if len(encoded) > ENTRY_BYTES_MAX:
        raise LimitExceededError(
            f"the entry would be {len(encoded)} bytes, over {ENTRY_BYTES_MAX}: ask for fewer columns at once",
            limit="entry_bytes",
        )
    return encoded


def decode(entry_bytes: bytes, index: int | None = None) -> entry_pb2.AuditEntry:
    """Returns an entry, parsed.

    Raises:
        BookCorruptError: these are not the bytes of an entry.
    """
    try:
        entry = entry_pb2.AuditEntry.FromString(entry_bytes)
    except DecodeError as err:
        raise BookCorruptError(f"entry {index} is not an AuditEntry: {err}", index) from err
    if len(entry.salt) != SALT_BYTES or not entry.HasField("entry_time") or entry.WhichOneof("body") is None:
        raise BookCorruptError(f"entry {index} lacks its salt, time or body", index)
    return entry


def is_control(entry: entry_pb2.AuditEntry) -> bool:
    """Tells whether the state of the service depends on this entry, so that the chain leads to it."""
    return entry.kind in (entry_pb2.ENTRY_KIND_POLICY, entry_pb2.ENTRY_KIND_CONTROL)


def to_timestamp(time: datetime) -> Timestamp:
    """Returns an aware time as a message."""
    since = time - EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1_000)


@functools.lru_cache(maxsize=64)
def encode_time(time: datetime) -> bytes:
    """Returns an aware time as an encoded `Timestamp`; a few are the same for all of a group."""
    since = time - EPOCH
    seconds = since.days * 86_400 + since.seconds
    if seconds < 0 or not since.microseconds:
        return to_timestamp(time).SerializeToString()
    return _SECONDS + varint(seconds) + _NANOS + varint(since.microseconds * 1_000)


def from_timestamp(timestamp: Timestamp) -> datetime:
    """Returns a message as an aware time in UTC, cut to microseconds."""
    return EPOCH + timedelta(seconds=timestamp.seconds, microseconds=timestamp.nanos // 1_000)


def nanoseconds(timestamp: Timestamp) -> int:
    """Returns the nanoseconds since 1970."""
    return timestamp.seconds * 1_000_000_000 + timestamp.nanos


def short_name(file: str) -> str:
    """Returns the name of a file of a policy set, or nothing where it is over 128 bytes."""
    return file if len(file.encode()) <= FILE_BYTES_MAX else ""


def _finding(finding: Finding) -> entry_pb2.FindingEntry:
    return entry_pb2.FindingEntry(
        invariant=finding.invariant,
        file=short_name(finding.file),
        line=finding.line,
        column=finding.column,
        dataset=short_name(finding.dataset),
        action=short_name(finding.action),
        excess=finding.excess,
        ceiling=finding.ceiling,
    )
