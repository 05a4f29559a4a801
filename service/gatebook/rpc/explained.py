"""Converts what is told of a decision of the book to messages."""

from __future__ import annotations

import msgspec

from gatebook import __version__
from gatebook.audit.entry import to_timestamp
from gatebook.replay.again import Again
from gatebook.replay.changes import Change
from gatebook.replay.explaining import Explained
from gatebook.replay.story import ExplainedColumn, ExplainedRule
from gatebook.rpc import encode
from gatebook.tlog.proof import Proof
from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import types_pb2
from gatebook.values import AccessRequest, Entity

WITHHELD = (
    "rules that did not decide, and the changes that would allow it: they are told to who may read the policy set"
)


def response(found: Explained, verifier_key: str, *, may_read: bool) -> pb.ExplainDecisionResponse:
    """Returns the answer; who may not read the policy set is told of it what decided, and no more."""
    return pb.ExplainDecisionResponse(
        decision=decision(found),
        explanation=explanation(found, verifier_key, may_read=may_read),
        replayed=replayed(found.again),
    )


def decision(found: Explained) -> types_pb2.Decision:
    """Returns the decision as deciding again gives it, with its place in the book, proved."""
    again, record = found.again, found.record
    made = again.decision
    message = encode.outcome(made.outcome)
    message.decision_id = record.entry.decision.decision_id
    message.decide_time.CopyFrom(to_timestamp(made.decide_time))
    if made.expires_time is not None:
        message.expires_time.CopyFrom(to_timestamp(made.expires_time))
    message.row_filter.kind = encode.row_filter_kind(made.outcome, row_given=made.row_given)
    if again.row_filter is not None:
        message.row_filter.kind = types_pb2.ROW_FILTER_KIND_CONDITIONAL
        message.row_filter.expression.CopyFrom(encode.expression(again.row_filter))
    message.receipt.origin, message.receipt.index = record.origin, record.index
    message.receipt.leaf_hash, message.receipt.entry_bytes = record.leaf_hash, record.entry_bytes
    message.receipt.entry_time.CopyFrom(record.entry.entry_time)
    message.receipt.proof.hashes.extend(found.proof.hashes)
    message.receipt.proof.checkpoint = found.proof.checkpoint.decode()
    return message


def replayed(again: Again) -> pb.Replayed:
    """Returns whether deciding again gives what is written."""
    return pb.Replayed(
        equal=not again.differences,
        differences=[
            pb.FieldDifference(field=one.field, written=one.written, replayed=one.replayed) for one in again.differences
        ],
        version=__version__,
        decide_time=to_timestamp(again.time),
    )


def explanation(found: Explained, verifier_key: str, *, may_read: bool) -> pb.DecisionExplanation:
    """Returns what the decision rests on."""
    story, asked, record = found.story, found.asked, found.record
    message = pb.DecisionExplanation(
        policy_set=asked.past.policy_set,
        caller=asked.caller,
        access=access(asked.request),
        allow_partial=asked.request.allow_partial,
        rules=[rule(one) for one in story.rules],
        columns=[column(one) for one in story.columns],
        roles=found.roles,
        purpose_lineage=story.purpose_lineage,
        notice_purposes=story.notice_purposes,
        notice_description=story.notice_description,
        proof=Proof(record.index, tuple(found.proof.hashes), found.proof.checkpoint).format().decode(),
        verifier_key=verifier_key,
    )
    if found.again.decision.allowed:
        return message
    if may_read:
        near = found.near_rules
        message.near_rules.extend(types_pb2.NearRule(rule=encode.rule_ref(n.rule), lacked=n.lacked) for n in near)
        message.changes.extend(map(change, found.changes.changes))
        message.changes_left_out.extend(found.changes.left_out)
    else:
        message.withheld.append(WITHHELD)
    return message


def change(value: Change) -> pb.SuggestedChange:
    """Returns a change that would allow a denial."""
    return pb.SuggestedChange(
        edits=[
            pb.Edit(
                kind=int(one.kind),  # type: ignore[arg-type]  # the numbers are equal, see the contract test
                text=one.text,
                file=one.file,
                line=one.line,
                before=one.before,
                after=one.after,
                in_directory=one.in_directory,
            )
            for one in value.edits
        ],
        access=access(value.request),
        refused=bool(value.findings),
        findings=[encode.finding(finding) for finding in value.findings],
    )


def access(request: AccessRequest) -> types_pb2.AccessRequest:
    """Returns a request as a message."""
    message = types_pb2.AccessRequest(
        subject=_entity(request.subject),
        action=types_pb2.Action(name=request.action, properties_json=_json(request.action_properties)),
        resource=types_pb2.Resource(
            type=request.resource_type,
            id=request.resource,
            columns=request.columns,
            properties_json=_json(request.resource_properties),
        ),
        purpose=request.purpose,
        context_json=_json(request.context),
        enforcer=types_pb2.Enforcer(
            id=request.enforcer.id,
            supported_masks=[int(k) for k in sorted(request.enforcer.supported_masks)],  # type: ignore[misc]  # numbers are equal
            supported_obligations=[int(k) for k in sorted(request.enforcer.supported_obligations)],  # type: ignore[misc]  # as above
        ),
    )
    if request.actor is not None:
        message.actor.CopyFrom(_entity(request.actor))
    if request.row is not None:
        message.row_json = msgspec.json.encode(dict(request.row))
    return message


def _entity(entity: Entity) -> types_pb2.Subject:
    return types_pb2.Subject(type=entity.type, id=entity.id, properties_json=_json(entity.properties))


def _json(found: object) -> bytes:
    return msgspec.json.encode(found) if found else b""


def rule(value: ExplainedRule) -> pb.ExplainedRule:
    """Returns a rule that shaped the decision."""
    return pb.ExplainedRule(
        rule=encode.rule_ref(value.rule),
        columns=value.columns,
        subject_path=[encode.path_step(step) for step in value.subject_path],
        resource_path=[encode.path_step(step) for step in value.resource_path],
        purpose_path=[encode.path_step(step) for step in value.purpose_path],
    )


def column(value: ExplainedColumn) -> pb.ExplainedColumn:
    """Returns a column of the decision."""
    return pb.ExplainedColumn(
        column=value.column,
        effect=int(value.effect),  # type: ignore[arg-type]  # the numbers are equal, see the contract test
        reason=int(value.reason),  # type: ignore[arg-type]  # as above
        type=value.type,
        tags=value.tags,
        mask_tags=value.mask_tags,
        masks=[
            pb.ExplainedMask(mask=encode.mask(one.mask), rule=None if one.rule is None else encode.rule_ref(one.rule))
            for one in value.masks
        ],
    )
