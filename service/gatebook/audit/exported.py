"""Rows of an export: what of an entry stands in which column.

Owns the names and types of the columns, which are only ever added to, and the way from an entry to its row. Every
fact of an entry has a typed column. Rules:

1. without being asked for, a row has nothing that is about a person: no pseudonym, no id, no exact bytes, which name
   pseudonyms;
2. `index` and `leaf_hash` are in every row, so that whether rows are missing can be checked against the tree.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gatebook.audit.entry import nanoseconds
from gatebook.v1 import audit_service_pb2, entry_pb2, types_pb2

PLAIN: Final[Mapping[str, str]] = {
    "index": "BIGINT",
    "leaf_hash": "BLOB",
    "time": "TIMESTAMPTZ",
    "kind": "VARCHAR",
    "caller": "VARCHAR",
    "control_link": "BIGINT",
    "decision_id": "VARCHAR",
    "policy_set": "VARCHAR",
    "revision": "VARCHAR",
    "revision_number": "BIGINT",
    "directory_revision": "VARCHAR",
    "directory_revision_number": "BIGINT",
    "subject_type": "VARCHAR",
    "resource_id": "VARCHAR",
    "action": "VARCHAR",
    "purpose": "VARCHAR",
    "effect": "VARCHAR",
    "reason": "VARCHAR",
    "columns": "VARCHAR[]",
    "column_outcomes": 'STRUCT("column" VARCHAR, effect VARCHAR, reason VARCHAR, masks VARCHAR[])[]',
    "must_apply": "VARCHAR[]",
    "minimum_group": "INTEGER",
    "minimum_group_columns": "VARCHAR[]",
    "rules": "STRUCT(file VARCHAR, line INTEGER)[]",
    "notice_id": "VARCHAR",
    "expires_time": "TIMESTAMPTZ",
    "allow_partial": "BOOLEAN",
    "row_given": "BOOLEAN",
    "plan_dialect": "VARCHAR",
    "trace_id": "VARCHAR",
    "policy_step": "VARCHAR",
    "findings_count": "INTEGER",
    "tests_run": "INTEGER",
    "tests_failed": "INTEGER",
    "directory_subjects": "INTEGER",
    "read_method": "VARCHAR",
    "read_first_index": "BIGINT",
    "read_last_index": "BIGINT",
    "read_count": "INTEGER",
    "system_event": "VARCHAR",
    "system_version": "VARCHAR",
    "recovered_size": "BIGINT",
    "unclean": "BOOLEAN",
    "successor": "VARCHAR",
    "predecessor": "VARCHAR",
    "predecessor_size": "BIGINT",
    "key_lost": "BOOLEAN",
    "succession_reason": "VARCHAR",
    "erasure_step": "VARCHAR",
    "erased_keys": "INTEGER",
    "erased_entries": "BIGINT",
    "retention_step": "VARCHAR",
    "retention_policy_hash": "VARCHAR",
    "retention_policy_index": "BIGINT",
    "keep_days": "INTEGER",
    "holds": "INTEGER",
    "pruned_before_index": "BIGINT",
    "pruned_before_time": "TIMESTAMPTZ",
    "begun_index": "BIGINT",
    "carried_index": "BIGINT",
    "carried_origin": "VARCHAR",
    "derived_dataset": "VARCHAR",
    "derived_from": "VARCHAR[]",
    "derived_by_run": "VARCHAR",
    "reclassified_column": "VARCHAR",
    "reclassified_tag": "VARCHAR",
    "proposal_kind": "VARCHAR",
    "proposed_index": "BIGINT",
    "diff_digest": "VARCHAR",
    "base_revision": "VARCHAR",
    "base_revision_number": "BIGINT",
    "loosens": "BOOLEAN",
    "changes_count": "INTEGER",
    "changes": "STRUCT(direction VARCHAR, what VARCHAR, file VARCHAR, line INTEGER, in_base BOOLEAN, dataset VARCHAR)"
    "[]",
    "proposal_expires_time": "TIMESTAMPTZ",
    "approvals_count": "INTEGER",
    "bootstrap": "BOOLEAN",
}
"""The columns that every export has, each with its type in SQL."""
PSEUDONYMS: Final[Mapping[str, str]] = {
    "subject_pseudonym": "VARCHAR",
    "actor_pseudonym": "VARCHAR",
    "data_subject_pseudonyms": "VARCHAR[]",
    "read_subject_pseudonym": "VARCHAR",
    "erased_pseudonyms": "VARCHAR[]",
    "requested_by_pseudonym": "VARCHAR",
    "approved_by_pseudonym": "VARCHAR",
}
PERSONAL: Final[Mapping[str, str]] = {
    "subject_id": "VARCHAR",
    "actor_type": "VARCHAR",
    "actor_id": "VARCHAR",
    "asked_action": "VARCHAR",
    "asked_resource": "VARCHAR",
    "asked_columns": "VARCHAR[]",
    "asked_purpose": "VARCHAR",
    "request_id": "VARCHAR",
    "enforcer": "VARCHAR",
    "subject_json": "VARCHAR",
    "actor_json": "VARCHAR",
    "resource_json": "VARCHAR",
    "context_json": "VARCHAR",
    "row_json": "VARCHAR",
    "filter_json": "VARCHAR",
    "requested_by": "VARCHAR",
    "approved_by": "VARCHAR",
    "stated_reason": "VARCHAR",
    "retention_policy": "VARCHAR",
}
"""What is sealed in the book; attributes and rows, which have names and types of their callers', are JSON texts."""
EXACT: Final[Mapping[str, str]] = {"entry_bytes": "BLOB"}
BLOBS: Final = ("leaf_hash", "entry_bytes")
"""In base64 on the way into a file."""
TIMES: Final = ("time", "expires_time", "pruned_before_time", "proposal_expires_time")
"""In microseconds since 1970 on the way into a file."""


class Shape(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which columns an export has beside the plain ones."""

    pseudonyms: bool = False
    personal: bool = False
    exact: bool = False

    @property
    def columns(self) -> dict[str, str]:
        """Returns the columns, each with its type."""
        chosen = [PLAIN]
        chosen += [PSEUDONYMS] if self.pseudonyms or self.personal else []
        chosen += [PERSONAL] if self.personal else []
        chosen += [EXACT] if self.exact else []
        return {name: kind for columns in chosen for name, kind in columns.items()}


def _names(enum: Any, prefix: str) -> dict[int, str]:  # noqa: ANN401  # generated enums have no common type
    return {number: name.removeprefix(prefix).lower() for name, number in enum.items()}


_KINDS = _names(entry_pb2.EntryKind, "ENTRY_KIND_")
_EFFECTS = _names(types_pb2.Effect, "EFFECT_")
_REASONS = _names(types_pb2.ReasonCode, "REASON_CODE_")
_MASKS = _names(types_pb2.MaskKind, "MASK_KIND_")
_OBLIGATIONS = _names(types_pb2.ObligationKind, "OBLIGATION_KIND_")
_STEPS = _names(entry_pb2.PolicyStep, "POLICY_STEP_")
_PROPOSALS = _names(types_pb2.ProposalKind, "PROPOSAL_KIND_")
_DIRECTIONS = _names(types_pb2.ChangeDirection, "CHANGE_DIRECTION_")
_EVENTS = _names(entry_pb2.SystemEvent, "SYSTEM_EVENT_")
_ERASURE_STEPS = _names(entry_pb2.ErasureStep, "ERASURE_STEP_")
_RETENTION_STEPS = _names(entry_pb2.RetentionStep, "RETENTION_STEP_")


def row_of(record: audit_service_pb2.EntryRecord, shape: Shape) -> dict[str, Any]:
    """Returns the row of an entry, ready to be written as JSON; what is not there is left out."""
    entry = record.entry
    row: dict[str, Any] = {
        "index": record.index,
        "leaf_hash": base64.b64encode(record.leaf_hash).decode(),
        "time": nanoseconds(entry.entry_time) // 1_000,
        "kind": _KINDS.get(entry.kind, str(entry.kind)),
        "caller": entry.caller,
        "control_link": entry.control_link,
    }
    row |= _of_body(entry)
    if shape.pseudonyms or shape.personal:
        row |= _pseudonyms(entry)
    if shape.personal:
        row |= _personal(record)
    if shape.exact:
        row["entry_bytes"] = base64.b64encode(record.entry_bytes).decode()
    return row


def _of_body(entry: entry_pb2.AuditEntry) -> dict[str, Any]:
    """Returns what the body of an entry says."""
    match entry.WhichOneof("body"):
        case "decision":
            return _decision(entry.decision)
        case "policy":
            return _policy(entry.policy)
        case "read":
            return _read(entry.read)
        case "system":
            return _system(entry.system)
        case "erasure":
            return _erasure(entry.erasure)
        case "retention":
            return _retention(entry.retention)
        case "carried":
            return {"carried_index": entry.carried.index, "carried_origin": entry.carried.origin or None}
        case "lineage":
            return _lineage(entry.lineage)
        case "reclassification":
            told = entry.reclassification
            column = f"{told.dataset}.{told.column}"
            return {"policy_set": told.policy_set, "reclassified_column": column, "reclassified_tag": told.tag}
        case _:
            return {}


def _decision(decision: entry_pb2.DecisionEntry) -> dict[str, Any]:
    policy = decision.policy_revision
    row: dict[str, Any] = {
        "decision_id": decision.decision_id,
        "policy_set": decision.policy_set,
        "revision": policy.digest,
        "revision_number": policy.number,
        "subject_type": decision.subject_type or None,
        "resource_id": decision.resource_id or None,
        "action": decision.action or None,
        "purpose": decision.purpose or None,
        "effect": _EFFECTS.get(decision.effect, str(decision.effect)),
        "reason": _REASONS.get(decision.reason, str(decision.reason)),
        "columns": [column.column for column in decision.columns if column.column],
        "column_outcomes": [
            {
                "column": column.column,
                "effect": _EFFECTS.get(column.effect, str(column.effect)),
                "reason": _REASONS.get(column.reason, str(column.reason)),
                "masks": [_MASKS.get(mask, str(mask)) for mask in column.masks],
            }
            for column in decision.columns
        ],
        "must_apply": [_OBLIGATIONS.get(kind, str(kind)) for kind in decision.must_apply],
        "rules": [{"file": rule.file, "line": rule.line} for rule in decision.rules],
        "notice_id": decision.notice_id or None,
        "allow_partial": decision.allow_partial,
        "row_given": decision.row_given,
        "plan_dialect": decision.plan_dialect or None,
        "trace_id": decision.trace_id.hex() or None,
    }
    if decision.HasField("directory_revision"):
        row["directory_revision"] = decision.directory_revision.digest
        row["directory_revision_number"] = decision.directory_revision.number
    if decision.HasField("minimum_group"):
        row["minimum_group"] = decision.minimum_group.k
        row["minimum_group_columns"] = list(decision.minimum_group.entity_columns)
    if decision.HasField("expires_time"):
        row["expires_time"] = nanoseconds(decision.expires_time) // 1_000
    return row


def _policy(policy: entry_pb2.PolicyEntry) -> dict[str, Any]:
    proposal = _proposal(policy.proposal) if policy.HasField("proposal") else {}
    return proposal | {
        "policy_step": _STEPS.get(policy.step, str(policy.step)),
        "policy_set": policy.policy_set or None,
        "revision": policy.revision.digest or None,
        "revision_number": policy.revision.number,
        "findings_count": policy.findings_count,
        "tests_run": policy.tests_run,
        "tests_failed": policy.tests_failed,
        "directory_subjects": policy.subjects,
    }


def _proposal(proposal: entry_pb2.ProposalEntry) -> dict[str, Any]:
    if proposal.bootstrap:
        return {"bootstrap": True}
    row: dict[str, Any] = {
        "proposal_kind": _PROPOSALS.get(proposal.kind, str(proposal.kind)),
        "proposed_index": proposal.proposed_index or None,
        "diff_digest": proposal.diff_digest,
        "loosens": proposal.loosens,
        "approvals_count": proposal.approvals_count,
        "bootstrap": False,
    }
    if proposal.HasField("base"):
        row |= {"base_revision": proposal.base.digest, "base_revision_number": proposal.base.number}
    if proposal.HasField("expires_time"):
        row["proposal_expires_time"] = nanoseconds(proposal.expires_time) // 1_000
    if not proposal.proposed_index:
        row["changes_count"] = proposal.changes_count
        row["changes"] = [
            {
                "direction": _DIRECTIONS.get(change.direction, str(change.direction)),
                "what": change.what,
                "file": change.file,
                "line": change.line,
                "dataset": change.dataset or None,
                "in_base": change.in_base,
            }
            for change in proposal.changes
        ]
    return row


def _read(read: entry_pb2.ReadEntry) -> dict[str, Any]:
    row: dict[str, Any] = {"read_method": read.method, "read_count": read.count}
    if read.HasField("first_index"):
        row |= {"read_first_index": read.first_index, "read_last_index": read.last_index}
    return row


def _system(system: entry_pb2.SystemEntry) -> dict[str, Any]:
    row: dict[str, Any] = {
        "system_event": _EVENTS.get(system.event, str(system.event)),
        "system_version": system.version,
        "recovered_size": system.recovered_size,
        "unclean": system.unclean,
    }
    if system.HasField("succession"):
        bound = system.succession
        closes = system.event == entry_pb2.SYSTEM_EVENT_CLOSED
        row |= {"successor" if closes else "predecessor": bound.origin, "succession_reason": bound.reason or None}
        row |= {} if closes else {"predecessor_size": bound.size, "key_lost": bound.key_lost}
    return row


def _lineage(lineage: entry_pb2.LineageEntry) -> dict[str, Any]:
    return {
        "derived_dataset": lineage.name,
        "derived_from": [one.name for one in lineage.inputs],
        "derived_by_run": lineage.run_id,
    }


def _erasure(erasure: entry_pb2.ErasureEntry) -> dict[str, Any]:
    row: dict[str, Any] = {"erasure_step": _ERASURE_STEPS.get(erasure.step, str(erasure.step))}
    if erasure.step == entry_pb2.ERASURE_STEP_COMPLETED:
        return row | {"begun_index": erasure.begun_index}
    return row | {"erased_keys": len(erasure.pseudonyms), "erased_entries": erasure.entries_count}


def _retention(retention: entry_pb2.RetentionEntry) -> dict[str, Any]:
    row: dict[str, Any] = {"retention_step": _RETENTION_STEPS.get(retention.step, str(retention.step))}
    if retention.step != entry_pb2.RETENTION_STEP_POLICY:
        row["pruned_before_index"] = retention.first_index
    if retention.step == entry_pb2.RETENTION_STEP_COMPLETED:
        return row | {"begun_index": retention.begun_index}
    if retention.HasField("before_time"):
        row["retention_policy_index"] = retention.policy_index
        row["pruned_before_time"] = nanoseconds(retention.before_time) // 1_000
    hashed = retention.policy_hash.hex() or None
    return row | {
        "retention_policy_hash": hashed,
        "keep_days": retention.keep_days,
        "holds": len(retention.holds),
    }


def _pseudonyms(entry: entry_pb2.AuditEntry) -> dict[str, Any]:
    decision = entry.decision
    named: entry_pb2.ErasureEntry | entry_pb2.PolicyEntry | entry_pb2.RetentionEntry = entry.retention
    if entry.HasField("erasure") or entry.HasField("policy"):
        named = entry.erasure if entry.HasField("erasure") else entry.policy
    return {
        "subject_pseudonym": decision.subject_pseudonym.hex() or None,
        "actor_pseudonym": decision.actor_pseudonym.hex() or None,
        "data_subject_pseudonyms": [one.hex() for one in decision.data_subject_pseudonyms] or None,
        "read_subject_pseudonym": entry.read.subject_pseudonym.hex() or None,
        "erased_pseudonyms": [one.hex() for one in entry.erasure.pseudonyms] or None,
        "requested_by_pseudonym": named.requested_by_pseudonym.hex() or None,
        "approved_by_pseudonym": named.approved_by_pseudonym.hex() or None,
    }


def _personal(record: audit_service_pb2.EntryRecord) -> dict[str, Any]:
    row: dict[str, Any] = {
        "row_json": _text(record.row_json),
        "filter_json": _text(record.filter_json),
        "requested_by": record.requested_by or None,
        "approved_by": record.approved_by or None,
        "stated_reason": record.stated_reason or None,
        "retention_policy": _text(record.policy_text),
    }
    if not record.HasField("request"):
        return row
    request = record.request
    return row | {
        "subject_id": request.subject.id or None,
        "actor_type": request.actor.type or None,
        "actor_id": request.actor.id or None,
        "asked_action": request.action.name or None,
        "asked_resource": request.resource.id or None,
        "asked_columns": list(request.resource.columns),
        "asked_purpose": request.purpose or None,
        "request_id": request.request_id or None,
        "enforcer": request.enforcer.id or None,
        "subject_json": _text(request.subject.properties_json),
        "actor_json": _text(request.actor.properties_json),
        "resource_json": _text(request.resource.properties_json),
        "context_json": _text(request.context_json),
    }


def _text(content: bytes) -> str | None:
    return content.decode("utf-8", "replace") or None
