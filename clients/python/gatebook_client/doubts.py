"""What makes this client doubt an allow.

Owns the fail-closed reading of an answer. An allow counts only if none of the `DOUBTS` applies;
the first that does becomes the local reason of a denial (all begin with `CLIENT_`). A doubt can
never turn a denial into anything else. Read the tuple at the end from top to bottom. Those in
`_ABOUT_PARTS` cannot apply to an allow without columns and obligations, as plain sets give it, and
are left out for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from gatebook.v1 import types_pb2

SHA256_BYTES = 32
NANOS = 1_000_000_000

_REASONS = frozenset(types_pb2.ReasonCode.values()) - {types_pb2.REASON_CODE_UNSPECIFIED}
_EFFECTS = frozenset({types_pb2.EFFECT_ALLOW, types_pb2.EFFECT_DENY})
_MASK_KINDS = frozenset(types_pb2.MaskKind.values()) - {types_pb2.MASK_KIND_UNSPECIFIED}
_OBLIGATIONS = frozenset(types_pb2.ObligationKind.values()) - {types_pb2.OBLIGATION_KIND_UNSPECIFIED}


class Asked(NamedTuple):
    """What was asked, as far as the answer has to fit it.

    `sent_clock` is the reading of the client's clock before the request was sent, in seconds. A `plan` is about all
    rows, of which its answer may leave some out.
    """

    columns: tuple[str, ...] = ()
    row: Mapping[str, Any] | None = None
    allow_partial: bool = False
    masks: frozenset[int] = frozenset()
    obligations: frozenset[int] = frozenset()
    receipt: int = types_pb2.RECEIPT_LEVEL_BASIC
    sent_clock: float = 0.0
    plan: bool = False


def lifetime_seconds(answer: types_pb2.Decision) -> float:
    """Returns how long an allow may be used, by the service's own clock alone."""
    decided, expires = answer.decide_time, answer.expires_time
    return (expires.seconds - decided.seconds) + (expires.nanos - decided.nanos) / NANOS


def doubt(answer: types_pb2.Decision, asked: Asked) -> str:
    """Returns the local reason to deny, or an empty text when the allow is beyond doubt."""
    has_parts = bool(answer.columns or answer.must_apply) or answer.HasField("minimum_group")
    for reason, applies in DOUBTS if has_parts else _OF_THE_WHOLE:
        if applies(answer, asked):
            return reason
    return ""


def _effect_is_unknown(answer: types_pb2.Decision, _asked: Asked) -> bool:
    return answer.effect not in _EFFECTS


def _columns_effect_is_unknown(answer: types_pb2.Decision, _asked: Asked) -> bool:
    return any(c.effect not in _EFFECTS for c in answer.columns)


def _reason_is_unknown(answer: types_pb2.Decision, _asked: Asked) -> bool:
    return answer.reason not in _REASONS


def _columns_reason_is_unknown(answer: types_pb2.Decision, _asked: Asked) -> bool:
    return any(c.reason not in _REASONS for c in answer.columns)


def _reason_contradicts_effect(answer: types_pb2.Decision, _asked: Asked) -> bool:
    return answer.effect == types_pb2.EFFECT_ALLOW and answer.reason != types_pb2.REASON_CODE_ALLOWED


def _columns_reason_contradicts_effect(answer: types_pb2.Decision, _asked: Asked) -> bool:
    allowed = types_pb2.EFFECT_ALLOW, types_pb2.REASON_CODE_ALLOWED
    return any((c.effect == allowed[0]) != (c.reason == allowed[1]) for c in answer.columns)


def _identity_is_missing(answer: types_pb2.Decision, _asked: Asked) -> bool:
    return not answer.decision_id or not answer.policy_revision.digest


def _receipt_is_missing(answer: types_pb2.Decision, asked: Asked) -> bool:
    receipt = answer.receipt
    if not receipt.origin or len(receipt.leaf_hash) != SHA256_BYTES or not receipt.HasField("entry_time"):
        return True
    if asked.receipt >= types_pb2.RECEIPT_LEVEL_FULL and not (receipt.entry_bytes and receipt.signature):
        return True
    return asked.receipt >= types_pb2.RECEIPT_LEVEL_PROOF and not receipt.proof.checkpoint


def _receipt_is_of_another_entry(answer: types_pb2.Decision, _asked: Asked) -> bool:
    entry = answer.receipt.entry_bytes
    # RFC 6962 section 2.1: the hash of a leaf is SHA-256(0x00 || entry).
    return bool(entry) and hashlib.sha256(b"\x00" + entry).digest() != answer.receipt.leaf_hash


def _obligation_is_unknown(answer: types_pb2.Decision, _asked: Asked) -> bool:
    return any(kind not in _OBLIGATIONS for kind in answer.must_apply)


def _obligation_was_not_declared(answer: types_pb2.Decision, asked: Asked) -> bool:
    return any(kind not in asked.obligations for kind in answer.must_apply)


def _mask_is_unknown(answer: types_pb2.Decision, _asked: Asked) -> bool:
    return any(mask.kind not in _MASK_KINDS for column in answer.columns for mask in column.masks)


def _mask_was_not_declared(answer: types_pb2.Decision, asked: Asked) -> bool:
    known = asked.masks | {types_pb2.MASK_KIND_NONE}
    return any(mask.kind not in known for mask in _masks_to_apply(answer))


def _obligation_is_not_listed(answer: types_pb2.Decision, _asked: Asked) -> bool:
    """Tells whether masks or a minimum group are there without the obligation to apply them, or the reverse."""
    listed = frozenset(answer.must_apply)
    masked = any(mask.kind != types_pb2.MASK_KIND_NONE for mask in _masks_to_apply(answer))
    if masked != (types_pb2.OBLIGATION_KIND_MASKS in listed):
        return True
    grouped = answer.HasField("minimum_group")
    return grouped != (types_pb2.OBLIGATION_KIND_MINIMUM_GROUP in listed)


def _masks_to_apply(answer: types_pb2.Decision) -> Iterator[types_pb2.Mask]:
    """Yields the masks of the columns that may be returned."""
    for column in answer.columns:
        if column.effect == types_pb2.EFFECT_ALLOW:
            yield from column.masks


def _minimum_group_is_malformed(answer: types_pb2.Decision, _asked: Asked) -> bool:
    if not answer.HasField("minimum_group"):
        return False
    return answer.minimum_group.k < 1 or not answer.minimum_group.entity_columns


def _rows_are_not_those_asked(answer: types_pb2.Decision, asked: Asked) -> bool:
    """Tells whether the allow covers other rows than were asked about, or a filter that this version cannot apply."""
    kind = answer.row_filter.kind
    if asked.plan and kind == types_pb2.ROW_FILTER_KIND_CONDITIONAL:
        return False
    about_one = types_pb2.ROW_FILTER_KIND_ASKED_ROW
    return kind != (types_pb2.ROW_FILTER_KIND_ALL_ROWS if asked.row is None else about_one)


def _row_filter_is_not_listed(answer: types_pb2.Decision, _asked: Asked) -> bool:
    """Tells whether there is a condition on rows without the obligation to apply it, or the reverse."""
    conditional = answer.row_filter.kind == types_pb2.ROW_FILTER_KIND_CONDITIONAL
    return conditional != (types_pb2.OBLIGATION_KIND_ROW_FILTER in answer.must_apply)


def _columns_are_not_those_asked(answer: types_pb2.Decision, asked: Asked) -> bool:
    """Tells whether outcomes are missing, strange, out of order or repeated. A plain set sends none."""
    names = tuple(column.column for column in answer.columns)
    if not names:
        return False
    if asked.columns:
        return names != asked.columns
    return "" in names or len(frozenset(names)) != len(names)


def _column_is_denied(answer: types_pb2.Decision, asked: Asked) -> bool:
    """Tells whether a column is withheld that was not asked for in part, or all of them are."""
    if not answer.columns:
        return False
    allowed = [column.effect == types_pb2.EFFECT_ALLOW for column in answer.columns]
    return not any(allowed) or not (asked.allow_partial or all(allowed))


def _lifetime_is_over(answer: types_pb2.Decision, _asked: Asked) -> bool:
    stated = answer.HasField("decide_time") and answer.HasField("expires_time")
    return not stated or lifetime_seconds(answer) <= 0


DOUBTS: tuple[tuple[str, Callable[[types_pb2.Decision, Asked], bool]], ...] = (
    ("CLIENT_UNKNOWN_EFFECT", _effect_is_unknown),
    ("CLIENT_UNKNOWN_EFFECT", _columns_effect_is_unknown),
    ("CLIENT_UNKNOWN_REASON", _reason_is_unknown),
    ("CLIENT_UNKNOWN_REASON", _columns_reason_is_unknown),
    ("CLIENT_CONTRADICTION", _reason_contradicts_effect),
    ("CLIENT_CONTRADICTION", _columns_reason_contradicts_effect),
    ("CLIENT_MALFORMED_DECISION", _identity_is_missing),
    ("CLIENT_RECEIPT_MISSING", _receipt_is_missing),
    ("CLIENT_RECEIPT_MISMATCH", _receipt_is_of_another_entry),
    ("CLIENT_UNKNOWN_OBLIGATION", _obligation_is_unknown),
    ("CLIENT_OBLIGATION_NOT_DECLARED", _obligation_was_not_declared),
    ("CLIENT_UNKNOWN_MASK", _mask_is_unknown),
    ("CLIENT_MASK_NOT_DECLARED", _mask_was_not_declared),
    ("CLIENT_COLUMNS_MISMATCH", _columns_are_not_those_asked),
    ("CLIENT_CONTRADICTION", _obligation_is_not_listed),
    ("CLIENT_MALFORMED_DECISION", _minimum_group_is_malformed),
    ("CLIENT_ROW_FILTER", _rows_are_not_those_asked),
    ("CLIENT_CONTRADICTION", _row_filter_is_not_listed),
    ("CLIENT_CONTRADICTION", _column_is_denied),
    ("CLIENT_EXPIRED", _lifetime_is_over),
)

_ABOUT_PARTS = frozenset(
    {
        _columns_effect_is_unknown,
        _columns_reason_is_unknown,
        _columns_reason_contradicts_effect,
        _obligation_is_unknown,
        _obligation_was_not_declared,
        _mask_is_unknown,
        _mask_was_not_declared,
        _columns_are_not_those_asked,
        _obligation_is_not_listed,
        _minimum_group_is_malformed,
        _column_is_denied,
    }
)
_OF_THE_WHOLE = tuple(pair for pair in DOUBTS if pair[1] not in _ABOUT_PARTS)
