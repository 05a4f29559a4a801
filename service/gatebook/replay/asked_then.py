"""What was asked in a decision of the book, as it was asked.

Owns the way back from an entry to the request that was decided. A request comes back whole or not at all: where a
key is gone, what the rules read is gone with it, and nothing is decided again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from gatebook.audit.entry import from_timestamp
from gatebook.errors import NotReplayableError
from gatebook.revisions.active import Past
from gatebook.v1 import audit_service_pb2, entry_pb2, types_pb2
from gatebook.values import AccessRequest, Enforcer, Entity, MaskKind, ObligationKind, Revision


class AskedThen(msgspec.Struct, frozen=True):
    """A decision of the book: what was asked, by whom and when, and under which revisions it was decided."""

    request: AccessRequest
    caller: str
    entry_time: datetime
    past: Past
    plan_dialect: str = ""


def asked_then(record: audit_service_pb2.EntryRecord) -> AskedThen:
    """Returns what was asked in a decision.

    Raises:
        NotReplayableError: the entry is no decision, or it does not open any more.
    """
    entry = record.entry
    if not entry.HasField("decision"):
        raise NotReplayableError(f"entry {record.index} is no decision", index=str(record.index))
    decision = entry.decision
    if not record.HasField("request") or (decision.row_given and not record.row_json):
        raise _closed(record)
    row = _object(record.row_json) if decision.row_given else None
    directory = decision.directory_revision if decision.HasField("directory_revision") else None
    return AskedThen(
        request=_request(record.request, row, allow_partial=decision.allow_partial),
        caller=entry.caller,
        entry_time=from_timestamp(entry.entry_time),
        past=Past(
            decision.policy_set,
            _revision(decision.policy_revision),
            None if directory is None else _revision(directory),
            from_timestamp(entry.entry_time),
        ),
        plan_dialect=decision.plan_dialect,
    )


def _closed(record: audit_service_pb2.EntryRecord) -> NotReplayableError:
    decision_id, index = record.entry.decision.decision_id, str(record.index)
    if record.erased:
        why = "somebody whom it concerns was erased, and what the rules read is gone with them"
    else:
        why = "a key that it needs no longer exists, and no erasure says why: run `gatebook audit verify`"
    message = f"decision `{decision_id}` cannot be explained: {why}; `gatebook audit show {index}` shows what is left"
    return NotReplayableError(message, decision_id=decision_id, index=index, erased=str(record.erased).lower())


def _request(sealed: entry_pb2.SealedRequest, row: Mapping[str, Any] | None, *, allow_partial: bool) -> AccessRequest:
    resource, action = sealed.resource, sealed.action
    return AccessRequest(
        subject=_entity(sealed.subject),
        actor=_entity(sealed.actor) if sealed.HasField("actor") else None,
        action=action.name,
        action_properties=_object(action.properties_json),
        resource=resource.id,
        resource_type=resource.type,
        resource_properties=_object(resource.properties_json),
        columns=tuple(resource.columns),
        purpose=sealed.purpose,
        context=_object(sealed.context_json),
        row=row,
        enforcer=Enforcer(
            id=sealed.enforcer.id,
            supported_masks=frozenset(MaskKind(kind) for kind in sealed.enforcer.supported_masks),
            supported_obligations=frozenset(ObligationKind(kind) for kind in sealed.enforcer.supported_obligations),
        ),
        allow_partial=allow_partial,
    )


def _entity(subject: types_pb2.Subject) -> Entity:
    return Entity(subject.type, subject.id, _object(subject.properties_json))


def _object(encoded: bytes) -> Mapping[str, Any]:
    return msgspec.json.decode(encoded, type=dict[str, Any]) if encoded else {}


def _revision(revision: types_pb2.Revision) -> Revision:
    return Revision(revision.digest, revision.number)
