"""Decisions as AuthZEN responses.

Owns what stands in the `context` of a response (Authorization API 1.0, Decision):

    id             the id of the decision, which is that of its entry in the book
    reason         of a denial: its reason code
    reason_admin   of a denial: what it says; not for the user
    gatebook       the whole decision with its receipt, as the JSON mapping of `gatebook.v1.Decision` has it,
                   without the fields that are above

A caller that reads nothing but `decision` is safe: what needs an obligation that it did not declare is denied.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from google.protobuf import json_format

from gatebook.audit.recorder import Written
from gatebook.authorize import Answer
from gatebook.rpc import encode
from gatebook.v1 import types_pb2
from gatebook.values import ColumnOutcome, Decision, Effect, Mask, Reason, Revision, RuleRef

REASON_CODES = {reason: f"REASON_CODE_{reason.name}" for reason in Reason}
EFFECTS = {effect: f"EFFECT_{effect.name}" for effect in Effect}
REMEMBERED_MAX = 1_024
ROW_FILTERS = {number: name for name, number in types_pb2.RowFilterKind.items()}


def evaluation(answer: Answer, origin: str) -> dict[str, Any]:
    """Returns a written decision as the response to an evaluation."""
    decision = answer.decision
    context: dict[str, Any] = {"id": answer.decision_id}
    if not decision.allowed:
        context["reason"] = decision.reason.name
        context["reason_admin"] = {"en": decision.message}
    context["gatebook"] = members(decision, answer.written, origin)
    return {"decision": decision.allowed, "context": context}


def failed(status: int, message: str, reason: str) -> dict[str, Any]:
    """Returns the response to one evaluation of a batch that is no question: the answer is no."""
    return {"decision": False, "context": {"error": {"status": status, "message": message, "reason": reason}}}


def members(decision: Decision, written: Written, origin: str) -> dict[str, Any]:
    """Returns the decision as JSON; what is empty is left out."""
    told: dict[str, Any] = {
        "effect": EFFECTS[decision.effect],
        "reason": REASON_CODES[decision.reason],
        "policy_revision": _revision(decision.policy_revision),
        "row_filter": {"kind": ROW_FILTERS[encode.row_filter_kind(decision.outcome, row_given=decision.row_given)]},
        "receipt": {
            "origin": origin,
            "index": str(written.index),
            "leaf_hash": base64.b64encode(written.leaf_hash).decode(),
            "entry_time": _time(written.entry_time),
        },
        "decide_time": _time(decision.decide_time),
    }
    if decision.directory_revision is not None:
        told["directory_revision"] = _revision(decision.directory_revision)
    if decision.columns:
        told["columns"] = [_column(column) for column in decision.columns]
    if decision.must_apply:
        told["must_apply"] = [f"OBLIGATION_KIND_{kind.name}" for kind in decision.must_apply]
    if decision.minimum_group is not None:
        group = decision.minimum_group
        told["minimum_group"] = {"k": group.k, "entity_columns": list(group.entity_columns)}
    if decision.rules:
        told["rules"] = _rules(tuple(decision.rules))
    if decision.expires_time is not None:
        told["expires_time"] = _time(decision.expires_time)
    if decision.notice_id:
        told["notice_id"] = decision.notice_id
    return told


@functools.lru_cache(maxsize=REMEMBERED_MAX)
def _rules(rules: tuple[RuleRef, ...]) -> tuple[Mapping[str, Any], ...]:
    """Returns rules as JSON; the same few come again and again."""
    fields = ("rule", "file", "line", "effect")
    told = ({field: getattr(rule, field) for field in fields} for rule in rules)
    return tuple({key: value for key, value in one.items() if value} for one in told)


@functools.lru_cache(maxsize=REMEMBERED_MAX)
def _revision(revision: Revision) -> Mapping[str, str]:
    return {"digest": revision.digest, "number": str(revision.number)}


def _column(outcome: ColumnOutcome) -> dict[str, Any]:
    told: dict[str, Any] = {
        "column": outcome.column,
        "effect": EFFECTS[outcome.effect],
        "reason": REASON_CODES[outcome.reason],
    }
    if outcome.masks:
        told["masks"] = [_mask(mask) for mask in outcome.masks]
    return told


def _mask(mask: Mask) -> dict[str, Any]:
    if not mask.parameters and mask.condition is None:
        told: dict[str, Any] = {"kind": f"MASK_KIND_{mask.kind.name}"}
        if mask.key_id:
            told["key_id"] = mask.key_id
        return told
    found: dict[str, Any] = json_format.MessageToDict(encode.mask(mask), preserving_proto_field_name=True)
    return found


@functools.lru_cache(maxsize=REMEMBERED_MAX)
def _time(time: datetime) -> str:
    """Returns a time, which a whole batch shares, as the JSON mapping has it: UTC, 0, 3 or 6 digits of a second."""
    text = time.replace(tzinfo=None).isoformat(timespec="auto")
    if text.endswith("000") and time.microsecond:
        text = text[:-3]
    return f"{text}Z"
