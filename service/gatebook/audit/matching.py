"""What a filter means, for an entry at hand: the definition that the index is held against.

Owns no state and trusts no index. Who asked stands in an entry by pseudonym only, so that whoever has the keys of
people, or was told the pseudonym, says whether an entry is about the person of the filter.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from gatebook.audit.conditions import ANY_PURPOSE
from gatebook.audit.entry import nanoseconds
from gatebook.audit.index import mentioned
from gatebook.audit.people import People
from gatebook.audit.record import open_request
from gatebook.v1 import audit_service_pb2, entry_pb2

About = Callable[[int, entry_pb2.AuditEntry], bool]
"""Tells whether an entry with this index concerns the person of a filter."""


def about_pseudonyms(pseudonyms: Collection[bytes]) -> About:
    """Returns what knows people by their pseudonyms alone."""

    def about(_index: int, entry: entry_pb2.AuditEntry) -> bool:
        return not pseudonyms_of(entry).isdisjoint(pseudonyms)

    return about


def about_person(subject_id: str, people: People, origin: str) -> About:
    """Returns what knows people with an id, strangers included, by the store of people."""
    known = {person.pseudonym for person in people.find(subject_id)}
    stranger = people.stranger.pseudonym

    def about(index: int, entry: entry_pb2.AuditEntry) -> bool:
        found = pseudonyms_of(entry)
        if not found.isdisjoint(known):
            return True
        if stranger not in found:
            return False
        request, decision = open_request(entry, index, origin, people), entry.decision
        return request is not None and (
            (decision.subject_pseudonym == stranger and request.subject.id == subject_id)
            or (decision.actor_pseudonym == stranger and request.actor.id == subject_id)
        )

    return about


def pseudonyms_of(entry: entry_pb2.AuditEntry) -> set[bytes]:
    """Returns the pseudonyms of all whom an entry concerns: subject and actor of a decision, and who else it names."""
    return {entry.decision.subject_pseudonym, entry.decision.actor_pseudonym, *mentioned(entry)} - {b""}


def matches(
    index: int, entry: entry_pb2.AuditEntry, wanted: audit_service_pb2.EntryFilter, about: About | None
) -> bool:
    """Tells whether an entry matches a valid filter; with nobody who knows people, apart from its subject."""
    decision, time = entry.decision, nanoseconds(entry.entry_time)
    return (
        index >= wanted.start_index
        and (not wanted.end_index or index < wanted.end_index)
        and (not wanted.kind or wanted.kind == entry.kind)
        and (not wanted.caller or wanted.caller == entry.caller)
        and (not wanted.effect or wanted.effect == decision.effect)
        and (not wanted.reason or wanted.reason == decision.reason)
        and (not wanted.resource_id or wanted.resource_id == decision.resource_id)
        and (not wanted.action or wanted.action == decision.action)
        and (not wanted.decision_id or wanted.decision_id == decision.decision_id)
        and (not wanted.purpose or _has_purpose(decision.purpose, wanted.purpose))
        and (not wanted.revision or wanted.revision in {decision.policy_revision.digest, entry.policy.revision.digest})
        and (not wanted.column or any(wanted.column == each.column for each in decision.columns))
        and (not wanted.HasField("start_time") or time >= nanoseconds(wanted.start_time))
        and (not wanted.HasField("end_time") or time < nanoseconds(wanted.end_time))
        and (not wanted.subject_id or about is None or about(index, entry))
    )


def _has_purpose(purpose: str, wanted: str) -> bool:
    """Tells whether a purpose is the one that is wanted, or a child of it."""
    return bool(purpose) if wanted == ANY_PURPOSE else purpose == wanted or purpose.startswith(f"{wanted}.")
