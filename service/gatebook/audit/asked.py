"""Requests that are ready to be written, whatever is decided about them.

Owns the encoding of the personal part of a request, and its limit: what no entry can hold is
refused here, before anything is decided.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import msgspec
from google.protobuf.message import Message

from gatebook.audit.wire import delimited, tag, text
from gatebook.errors import LimitExceededError
from gatebook.v1 import entry_pb2, types_pb2
from gatebook.values import AccessRequest, Enforcer, Entity

ENFORCERS_CACHED_MAX = ACTIONS_CACHED_MAX = 1_024
PERSONAL_BYTES_MAX = 20_480
"""The request and the row, as they are sealed. See the sum in `decision_entry`."""


def _tags(message: type[Message], *names: str) -> list[bytes]:
    return [tag(message, name) for name in names]


_SUBJECT, _ACTOR, _ACTION, _RESOURCE, _PURPOSE, _CONTEXT, _ENFORCER, _REQUEST_ID = _tags(
    entry_pb2.SealedRequest,
    "subject",
    "actor",
    "action",
    "resource",
    "purpose",
    "context_json",
    "enforcer",
    "request_id",
)
_ENTITY_TYPE, _ENTITY_ID, _ENTITY_PROPERTIES = _tags(types_pb2.Subject, "type", "id", "properties_json")
_ACTION_NAME, _ACTION_PROPERTIES = _tags(types_pb2.Action, "name", "properties_json")
_RESOURCE_TYPE, _RESOURCE_ID, _COLUMNS, _RESOURCE_PROPERTIES = _tags(
    types_pb2.Resource, "type", "id", "columns", "properties_json"
)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value)} is not JSON")


_json = msgspec.json.Encoder(enc_hook=_plain).encode


class Asked(msgspec.Struct, frozen=True, gc=False):
    """A request that is ready to be written, whatever is decided."""

    request: AccessRequest
    personal: bytes
    row: bytes | None
    trace_id: bytes


def ask(request: AccessRequest, caller_request_id: str = "", trace_id: bytes = b"") -> Asked:
    """Prepares a request for the book. Comes before the decision.

    Raises:
        LimitExceededError: no entry can hold it.
    """
    row = None if request.row is None else _json(request.row)
    return sent(Asked(request, _sealed_request(request), row, b""), named(caller_request_id), trace_id)


def named(caller_request_id: str) -> bytes:
    """Returns what the personal part of each request of a call ends with, which its caller gave an id or not."""
    return delimited(_REQUEST_ID, caller_request_id.encode()) if caller_request_id else b""


def sent(asked: Asked, name: bytes, trace_id: bytes) -> Asked:
    """Returns a request that was prepared without an id, as one call sends it; `name` is made by `named`.

    Raises:
        LimitExceededError: no entry can hold it.
    """
    personal, row = asked.personal + name, asked.row
    size = len(personal) + (0 if row is None else len(row))
    if size > PERSONAL_BYTES_MAX:
        raise LimitExceededError(
            f"the request takes {size} bytes in the book, over {PERSONAL_BYTES_MAX}: send fewer attributes",
            limit="personal_bytes",
        )
    return Asked(asked.request, personal, row, trace_id)


def _sealed_request(request: AccessRequest) -> bytes:
    """Returns an encoded `SealedRequest`, without the id that a caller gave it."""
    if request.action_properties:
        properties = delimited(_ACTION_PROPERTIES, _json(request.action_properties))
        action = delimited(_ACTION, text(_ACTION_NAME, request.action) + properties)
    else:
        action = _named_action(request.action)
    parts = [
        delimited(_SUBJECT, _entity(request.subject)),
        action,
        delimited(_RESOURCE, _resource(request)),
        _enforcer(request.enforcer),
    ]
    if request.actor is not None:
        parts.append(delimited(_ACTOR, _entity(request.actor)))
    if request.purpose:
        parts.append(delimited(_PURPOSE, request.purpose.encode()))
    if request.context:
        parts.append(delimited(_CONTEXT, _json(request.context)))
    return b"".join(parts)


def _entity(entity: Entity) -> bytes:
    named = text(_ENTITY_TYPE, entity.type) + text(_ENTITY_ID, entity.id)
    return named + delimited(_ENTITY_PROPERTIES, _json(entity.properties)) if entity.properties else named


def _resource(request: AccessRequest) -> bytes:
    parts = [text(_RESOURCE_TYPE, request.resource_type), text(_RESOURCE_ID, request.resource)]
    parts += [delimited(_COLUMNS, column.encode()) for column in request.columns]
    if request.resource_properties:
        parts.append(delimited(_RESOURCE_PROPERTIES, _json(request.resource_properties)))
    return b"".join(parts)


@functools.lru_cache(maxsize=ACTIONS_CACHED_MAX)
def _named_action(action: str) -> bytes:
    return delimited(_ACTION, text(_ACTION_NAME, action))


@functools.lru_cache(maxsize=ENFORCERS_CACHED_MAX)
def _enforcer(enforcer: Enforcer) -> bytes:
    message = types_pb2.Enforcer(
        id=enforcer.id,
        supported_masks=sorted(enforcer.supported_masks),  # type: ignore[arg-type]  # the numbers are equal
        supported_obligations=sorted(enforcer.supported_obligations),  # type: ignore[arg-type]  # as above
    )
    return delimited(_ENFORCER, message.SerializeToString())
