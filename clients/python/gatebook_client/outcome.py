"""The parts of a decision, as frozen values.

Owns their reading from messages. Kinds and reasons are texts: the names of the proto enum's values
without prefix, such as `REDACT` or `PURPOSE_NOT_GRANTED`; a number without a name is `UNKNOWN_<n>`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format

from gatebook.v1 import types_pb2


@dataclass(frozen=True, slots=True)
class Mask:
    """One mask of a column; it applies where `condition` is true or unknown (None: always)."""

    kind: str
    parameters: Mapping[str, Any]
    key_id: str
    condition: types_pb2.Expression | None


@dataclass(frozen=True, slots=True)
class Column:
    """The outcome for one column. `allowed` is False for every column of a denial."""

    name: str
    allowed: bool
    reason: str
    masks: tuple[Mask, ...]


@dataclass(frozen=True, slots=True)
class MinimumGroup:
    """The least number of distinct data subjects that may be shown, and the columns that name them."""

    k: int
    entity_columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy line that decided, known by file and line."""

    text: str
    file: str
    line: int
    effect: str


@dataclass(frozen=True, slots=True)
class NearRule:
    """A rule that came near, and the parts of its matcher that were not true."""

    rule: Rule
    lacked: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Revision:
    """An immutable state of a policy set or the directory: SHA-256 in hexadecimal, and a number from 1."""

    digest: str
    number: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where in the book the decision is written. `entry_time` is cut to microseconds."""

    origin: str
    index: int
    leaf_hash: bytes
    entry_time: dt.datetime
    entry_bytes: bytes
    signature: bytes
    proof: tuple[bytes, ...] = ()
    """The inclusion proof in the tree of `checkpoint`; of a tree of one entry it is empty."""
    checkpoint: str = ""


def reason_name(code: int) -> str:
    """Returns the name of a reason code."""
    value = types_pb2.ReasonCode.DESCRIPTOR.values_by_number.get(code)
    return value.name.removeprefix("REASON_CODE_") if value else f"UNKNOWN_{code}"


def obligation_name(kind: int) -> str:
    """Returns the name of an obligation."""
    value = types_pb2.ObligationKind.DESCRIPTOR.values_by_number.get(kind)
    return value.name.removeprefix("OBLIGATION_KIND_") if value else f"UNKNOWN_{kind}"


def mask_name(kind: int) -> str:
    """Returns the name of a mask kind."""
    value = types_pb2.MaskKind.DESCRIPTOR.values_by_number.get(kind)
    return value.name.removeprefix("MASK_KIND_") if value else f"UNKNOWN_{kind}"


def read_column(message: types_pb2.ColumnOutcome, *, granted: bool) -> Column:
    """Reads the outcome for one column; `granted` tells whether the decision as a whole allows."""
    return Column(
        name=message.column,
        allowed=granted and message.effect == types_pb2.EFFECT_ALLOW,
        reason=reason_name(message.reason),
        masks=tuple(_read_mask(mask) for mask in message.masks),
    )


def _read_mask(message: types_pb2.Mask) -> Mask:
    """Reads a mask."""
    return Mask(
        kind=mask_name(message.kind),
        parameters=json_format.MessageToDict(message.parameters),
        key_id=message.key_id,
        condition=message.condition if message.HasField("condition") else None,
    )


def read_rule(message: types_pb2.RuleRef) -> Rule:
    """Reads a reference to a rule."""
    return Rule(text=message.rule, file=message.file, line=message.line, effect=message.effect)


def read_receipt(message: types_pb2.Receipt) -> Receipt:
    """Reads a receipt."""
    return Receipt(
        origin=message.origin,
        index=message.index,
        leaf_hash=message.leaf_hash,
        entry_time=message.entry_time.ToDatetime(dt.UTC),
        entry_bytes=message.entry_bytes,
        signature=message.signature,
        proof=tuple(message.proof.hashes),
        checkpoint=message.proof.checkpoint,
    )
