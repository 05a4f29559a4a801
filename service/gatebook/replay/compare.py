"""Whether deciding again gives what is written, field by field.

Owns the comparison. What is compared is what an entry would say, made by the very code that writes entries, so that
nothing which stands in clear is left out; what follows from chance or from the moment alone (id, salt, pseudonyms,
trace, when it was written) is not compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from gatebook.audit.asked import ask
from gatebook.audit.decision_entry import Decided, clear_of
from gatebook.audit.entry import to_timestamp
from gatebook.v1 import entry_pb2
from gatebook.values import AccessRequest, Decision

NOT_COMPARED = frozenset(("decision_id", "subject_pseudonym", "actor_pseudonym", "data_subject_pseudonyms", "trace_id"))
DIFFERENCES_MAX = 100
TEXT_MAX = 400


class FieldDifference(msgspec.Struct, frozen=True):
    """A field of an entry, as it is written and as deciding again gives it."""

    field: str
    written: str
    replayed: str


def as_written(request: AccessRequest, decision: Decision) -> entry_pb2.DecisionEntry:
    """Returns what an entry would say of a decision, without what is not compared."""
    entry = entry_pb2.DecisionEntry.FromString(clear_of(Decided(ask(request), decision, "")).fields)
    entry.allow_partial = request.allow_partial
    entry.row_given = request.row is not None
    entry.plan_dialect = decision.plan_dialect
    if decision.expires_time is not None:
        entry.expires_time.CopyFrom(to_timestamp(decision.expires_time))
    return entry


def differences(written: entry_pb2.DecisionEntry, replayed: entry_pb2.DecisionEntry) -> tuple[FieldDifference, ...]:
    """Returns the fields that differ, at most 100, in the order of the message."""
    found: list[FieldDifference] = []
    for one in _differences("", written, replayed):
        found.append(one)
        if len(found) == DIFFERENCES_MAX:
            break
    return tuple(found)


def _differences(within: str, written: Message, replayed: Message) -> Iterator[FieldDifference]:
    fields: Sequence[Any] = written.DESCRIPTOR.fields  # of whichever implementation of protobuf there is
    for field in fields:
        name = f"{within}{field.name}"
        one, other = getattr(written, field.name), getattr(replayed, field.name)
        if name in NOT_COMPARED or one == other:
            continue
        if field.is_repeated and field.type == FieldDescriptor.TYPE_MESSAGE and len(one) == len(other):
            for place, (left, right) in enumerate(zip(one, other, strict=True)):
                yield from _differences(f"{name}[{place}].", left, right)
        elif not field.is_repeated and field.type == FieldDescriptor.TYPE_MESSAGE and _both(field, written, replayed):
            yield from _differences(f"{name}.", one, other)
        else:
            yield FieldDifference(name, _text(field, written), _text(field, replayed))


def _both(field: Any, written: Message, replayed: Message) -> bool:  # noqa: ANN401  # as above
    plain = field.message_type.full_name == "google.protobuf.Timestamp"
    return not plain and written.HasField(field.name) and replayed.HasField(field.name)


def _text(field: Any, message: Message) -> str:  # noqa: ANN401  # as above
    """Returns one field of a message as JSON, without what stands around it; empty where it has none."""
    told = json_format.MessageToDict(message, preserving_proto_field_name=True).get(field.name)
    if told is None:
        return ""
    text = told if isinstance(told, str) else msgspec.json.encode(told).decode()
    return text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}..."


def names_of(found: Sequence[FieldDifference]) -> str:
    """Returns the names of fields, in words."""
    return ", ".join(f"`{one.field}`" for one in found)
