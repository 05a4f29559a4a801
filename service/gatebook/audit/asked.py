"""Requests that are ready to be written, whatever is decided about them.

Owns the encoding of the personal part of a request, and its limit: what no entry can hold is
refused here, before anything is decided.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import msgspec
from google.protobuf.message import Message

from gatebook.audit.wire import delimited, tag, text
from gatebook.errors import LimitExceededError
from gatebook.v1 import entry_pb2, types_pb2
from gatebook.values import AccessRequest, Enforcer, Entity

ENFORCERS_CACHED_MAX = 1_024
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


class Asked(msgspec.Struct, frozen=True):
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
    personal = _sealed_request(request, caller_request_id)
    row = None if request.row is None else _json(request.row)
    size = len(personal) + (0 if row is None else len(row))
    if size > PERSONAL_BYTES_MAX:
        raise LimitExceededError(
            f"the request takes {size} bytes in the book, over {PERSONAL_BYTES_MAX}: send fewer attributes",
            limit="personal_bytes",
        )
    return Asked(request, personal, row, trace_id)


def _sealed_request(request: AccessRequest, caller_request_id: str) -> bytes:
    """Returns an encoded `SealedRequest`."""
    action = text(_ACTION_NAME, request.action) + _object(_ACTION_PROPERTIES, request.action_properties)
    return b"".join(
        (
            delimited(_SUBJECT, _entity(request.subject)),
            b"" if request.actor is None else delimited(_ACTOR, _entity(request.actor)),
            delimited(_ACTION, action),
            delimited(_RESOURCE, _resource(request)),
            text(_PURPOSE, request.purpose),
            _object(_CONTEXT, request.context),
            delimited(_ENFORCER, _enforcer(request.enforcer)),
            text(_REQUEST_ID, caller_request_id),
        )
    )


def _entity(entity: Entity) -> bytes:
    named = text(_ENTITY_TYPE, entity.type) + text(_ENTITY_ID, entity.id)
    return named + _object(_ENTITY_PROPERTIES, entity.properties)


def _resource(request: AccessRequest) -> bytes:
    columns = [delimited(_COLUMNS, column.encode()) for column in request.columns]
    named = text(_RESOURCE_TYPE, request.resource_type) + text(_RESOURCE_ID, request.resource)
    return b"".join((named, *columns, _object(_RESOURCE_PROPERTIES, request.resource_properties)))


@functools.lru_cache(maxsize=ENFORCERS_CACHED_MAX)
def _enforcer(enforcer: Enforcer) -> bytes:
    return types_pb2.Enforcer(
        id=enforcer.id,
        supported_masks=sorted(enforcer.supported_masks),  # type: ignore[arg-type]  # the numbers are equal
        supported_obligations=sorted(enforcer.supported_obligations),  # type: ignore[arg-type]  # as above
    ).SerializeToString()


def _object(before: bytes, values: Mapping[str, Any]) -> bytes:
    return delimited(before, _json(values)) if values else b""
