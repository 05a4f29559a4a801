"""Which entries of the book somebody sees.

Owns what the rules may read of an entry, and when a record is shown: only where the permission for its kind
and policy set says so of its facts. What a fact is missing for (a key that is gone, a stranger's name that
was never written) is unknown, and what is unknown shows nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from gatebook.engine.permission import Permission
from gatebook.v1 import audit_service_pb2, entry_pb2, types_pb2

KINDS: Final = {
    entry_pb2.ENTRY_KIND_DECISION: "decision",
    entry_pb2.ENTRY_KIND_POLICY: "policy",
    entry_pb2.ENTRY_KIND_CONTROL: "control",
    entry_pb2.ENTRY_KIND_READ: "read",
    entry_pb2.ENTRY_KIND_SYSTEM: "system",
}


class Sight(msgspec.Struct, frozen=True):
    """What somebody sees; `permission` answers for a kind of entries and a policy set, at any time anew."""

    permission: Callable[[str, str], Permission]

    def sees(self, record: audit_service_pb2.EntryRecord) -> bool:
        """Tells whether a record is shown."""
        kind = KINDS.get(record.entry.kind)
        if kind is None:
            return False
        found = self.permission(kind, policy_set_of(record.entry))
        return found is True or (found is not False and found.permits(facts(record)))

    def sees_facts(self, kind: str, policy_set: str, facts: Mapping[str, str]) -> bool:
        """Tells whether an entry of a kind, about a policy set, with these facts is shown."""
        found = self.permission(kind, policy_set)
        return found is True or (found is not False and found.permits(facts))


EVERYTHING: Final = Sight(lambda _kind, _policy_set: True)
"""What those see who have the data directory, and the service itself."""


def policy_set_of(entry: entry_pb2.AuditEntry) -> str:
    """Returns the policy set that an entry is about, or nothing."""
    match entry.WhichOneof("body"):
        case "decision":
            return entry.decision.policy_set
        case "policy":
            return entry.policy.policy_set
        case _:
            return ""


def facts(record: audit_service_pb2.EntryRecord) -> dict[str, str]:
    """Returns what the rules read as `r.row` of an entry; what is not there is left out."""
    entry, request = record.entry, record.request
    found = {"caller": entry.caller}
    if entry.HasField("decision"):
        decision = entry.decision
        found |= {"resource": decision.resource_id, "action": decision.action, "purpose": decision.purpose}
        found |= {
            "effect": types_pb2.Effect.Name(decision.effect).removeprefix("EFFECT_").lower(),
            "decision_id": decision.decision_id,
        }
        if record.HasField("request"):
            found |= {"subject_type": request.subject.type, "subject_id": request.subject.id}
            found |= {"actor_type": request.actor.type, "actor_id": request.actor.id}
    elif entry.HasField("read"):
        found["method"] = entry.read.method
    return {name: value for name, value in found.items() if value}
