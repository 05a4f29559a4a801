"""What can be asked: checks, subjects, and what the application enforces.

Owns the conversion of Python values to requests. Attributes travel as JSON bytes (`*_json`), in
which integers of any size stay exact; a `google.protobuf.Struct` would round them beyond 2^53.
"""

from __future__ import annotations

import datetime as dt
import decimal
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from gatebook.v1 import types_pb2

ReceiptName = Literal["basic", "full", "proof", "witnessed"]

RECEIPT_LEVELS: Final[dict[str, types_pb2.ReceiptLevel.ValueType]] = {
    "basic": types_pb2.RECEIPT_LEVEL_BASIC,
    "full": types_pb2.RECEIPT_LEVEL_FULL,
    "proof": types_pb2.RECEIPT_LEVEL_PROOF,
    "witnessed": types_pb2.RECEIPT_LEVEL_WITNESSED,
}
_TEXT_TYPES = (dt.date, dt.time, uuid.UUID, decimal.Decimal)


@dataclass(frozen=True, slots=True)
class Subject:
    """Names who wants access, or who acts for whom, by type and id.

    `properties` count only where the policy set names the caller as their source.
    """

    id: str
    type: str = "user"
    properties: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Action:
    """Names what the subject wants to do, with parameters such as the `audience` of `share`."""

    name: str
    properties: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Resource:
    """Names what the subject wants to reach. Type and properties are read by plain sets only."""

    id: str
    type: str = ""
    properties: Mapping[str, Any] | None = None


SubjectLike = str | tuple[str, str] | Subject
"""A user's id, a `(type, id)` pair, or a `Subject`."""
ActionLike = str | Action
"""A word of the policy set's vocabulary, such as `read`, or an `Action`."""
ResourceLike = str | Resource
"""The id of a dataset, such as `mci.prompts`, or a `Resource`."""


@dataclass(frozen=True, slots=True)
class Enforcer:
    """Says what the application will really do with an allow.

    Declare only what it does: the service denies what the enforcer cannot apply, and this client
    denies an answer with an obligation that was not declared.
    """

    id: str = ""
    masks: frozenset[int] = frozenset()
    obligations: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Check:
    """One question: may this subject do this to that, for this purpose?

    `columns` empty means every column. `row` None means unknown; a mapping means complete.
    """

    subject: SubjectLike
    action: ActionLike
    resource: ResourceLike
    columns: Sequence[str] = ()
    purpose: str = ""
    context: Mapping[str, Any] | None = None
    row: Mapping[str, Any] | None = None
    actor: SubjectLike | None = None
    allow_partial: bool = False


def access_request(check: Check, enforcer: types_pb2.Enforcer | None) -> types_pb2.AccessRequest:
    """Converts a check to a message.

    Raises:
        ValueError: an argument cannot be sent as it is; the message names it.
    """
    if isinstance(check.columns, str):
        raise ValueError(f"columns: `{check.columns}` is one text; pass a list of column names")  # noqa: TRY004  # one error type for every bad argument
    request = types_pb2.AccessRequest(
        subject=_subject(check.subject, "subject"),
        action=_action(check.action),
        resource=_resource(check.resource, check.columns),
        purpose=check.purpose,
        enforcer=enforcer,
    )
    if check.context:
        request.context_json = as_json(check.context, "context")
    if check.row is not None:
        request.row_json = as_json(check.row, "row")
    if check.actor is not None:
        request.actor.CopyFrom(_subject(check.actor, "actor"))
    return request


def _subject(subject: SubjectLike, name: str) -> types_pb2.Subject:
    """Converts a subject or actor."""
    if isinstance(subject, str):
        return types_pb2.Subject(type="user", id=subject)
    if isinstance(subject, tuple):
        kind, identity = subject
        return types_pb2.Subject(type=kind, id=identity)
    message = types_pb2.Subject(type=subject.type, id=subject.id)
    if subject.properties:
        message.properties_json = as_json(subject.properties, f"{name}.properties")
    return message


def _action(action: ActionLike) -> types_pb2.Action:
    """Converts an action."""
    if isinstance(action, str):
        return types_pb2.Action(name=action)
    message = types_pb2.Action(name=action.name)
    if action.properties:
        message.properties_json = as_json(action.properties, "action.properties")
    return message


def _resource(resource: ResourceLike, columns: Sequence[str]) -> types_pb2.Resource:
    """Converts a resource."""
    if isinstance(resource, str):
        return types_pb2.Resource(id=resource, columns=columns)
    message = types_pb2.Resource(id=resource.id, type=resource.type, columns=columns)
    if resource.properties:
        message.properties_json = as_json(resource.properties, "resource.properties")
    return message


def as_json(values: Mapping[str, Any], name: str) -> bytes:
    """Returns one JSON object in UTF-8. Times become ISO 8601 text, decimals and UUIDs text.

    Raises:
        ValueError: a value has no JSON form.
    """
    try:
        return _JSON.encode(dict(values)).encode()
    except (TypeError, ValueError, RecursionError) as err:
        raise ValueError(f"{name}: cannot be sent as JSON: {err}") from err


def _as_text(value: object) -> str:
    """Returns the text of a value that JSON has no type for."""
    if isinstance(value, _TEXT_TYPES):
        return value.isoformat() if isinstance(value, dt.date | dt.time) else str(value)
    raise TypeError(f"a value of type `{type(value).__name__}` has no JSON form")


_JSON = json.JSONEncoder(default=_as_text, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
