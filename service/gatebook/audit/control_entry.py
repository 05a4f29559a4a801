"""The entries of erasures and of retention.

Owns what of them is written, and where: in clear stand the service's own numbers and pseudonyms; the two
people who are named are sealed each under a key of their own, so that each can be erased. The reason and
the text of a policy are sealed for the stranger: they are to outlive those who are named, and so must
name nobody.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from gatebook.audit.entry import Stamp, finish
from gatebook.audit.people import Person
from gatebook.audit.sealing import seal
from gatebook.v1 import entry_pb2


class Two(msgspec.Struct, frozen=True, kw_only=True):
    """The two people who are named in an entry, and why it was done."""

    requested_by: str
    approved_by: str
    reason: str
    requester: Person
    approver: Person
    stranger: Person


def encode_erasure(body: entry_pb2.ErasureEntry, stamp: Stamp, origin: str, named: Two | None = None) -> bytes:
    """Returns the entry of a step of an erasure."""
    entry = entry_pb2.AuditEntry(kind=entry_pb2.ENTRY_KIND_CONTROL, erasure=body)
    if named is not None:
        entry.erasure.requested_by_pseudonym = named.requester.pseudonym
        entry.erasure.approved_by_pseudonym = named.approver.pseudonym
        for part in _sealed(named, origin):
            entry.sealed.add().MergeFromString(part)
    return finish(stamp, entry)


def encode_erasure_elsewhere(
    body: entry_pb2.ErasureEntry, stamp: Stamp, origin: str, stranger: Person, reason: str
) -> bytes:
    """Returns the entry of an erasure that another book told of: who asked for it and approved it is named there."""
    entry = entry_pb2.AuditEntry(kind=entry_pb2.ENTRY_KIND_CONTROL, erasure=body)
    sealed = seal(entry_pb2.SEALED_FIELD_REASON, origin, [stranger], msgspec.json.encode(reason))
    entry.sealed.add().MergeFromString(sealed)
    return finish(stamp, entry)


def encode_retention(
    body: entry_pb2.RetentionEntry, stamp: Stamp, origin: str, named: Two | None = None, policy: bytes = b""
) -> bytes:
    """Returns the entry of a retention policy, or of a step of pruning."""
    entry = entry_pb2.AuditEntry(kind=entry_pb2.ENTRY_KIND_CONTROL, retention=body)
    if named is not None:
        entry.retention.requested_by_pseudonym = named.requester.pseudonym
        entry.retention.approved_by_pseudonym = named.approver.pseudonym
        for part in _sealed(named, origin):
            entry.sealed.add().MergeFromString(part)
        if policy:
            sealed = seal(entry_pb2.SEALED_FIELD_POLICY, origin, [named.stranger], policy)
            entry.sealed.add().MergeFromString(sealed)
    return finish(stamp, entry)


def encode_carried(index: int, entry_bytes: bytes, stamp: Stamp) -> bytes:
    """Returns the entry that restates a control entry."""
    body = entry_pb2.CarriedEntry(index=index, entry_bytes=entry_bytes)
    return finish(stamp, entry_pb2.AuditEntry(kind=entry_pb2.ENTRY_KIND_CONTROL, carried=body))


def _sealed(named: Two, origin: str) -> Iterator[bytes]:
    for field, person, text in (
        (entry_pb2.SEALED_FIELD_REQUESTED_BY, named.requester, named.requested_by),
        (entry_pb2.SEALED_FIELD_APPROVED_BY, named.approver, named.approved_by),
        (entry_pb2.SEALED_FIELD_REASON, named.stranger, named.reason),
    ):
        yield seal(field, origin, [person], msgspec.json.encode(text))
