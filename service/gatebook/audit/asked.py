"""Requests that are ready to be written, whatever is decided about them.

Owns the encoding of the personal part of a request, and its limit: what no entry can hold is
refused here, before anything is decided.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gatebook.errors import LimitExceededError
from gatebook.v1 import entry_pb2, types_pb2
from gatebook.values import AccessRequest, Entity

PERSONAL_BYTES_MAX = 20_480
"""The request and the row, as they are sealed. See the sum in `decision_entry`."""


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
    personal = _sealed_request(request, caller_request_id).SerializeToString()
    row = None if request.row is None else _json(request.row)
    size = len(personal) + (0 if row is None else len(row))
    if size > PERSONAL_BYTES_MAX:
        raise LimitExceededError(
            f"the request takes {size} bytes in the book, over {PERSONAL_BYTES_MAX}: send fewer attributes",
            limit="personal_bytes",
        )
    return Asked(request, personal, row, trace_id)


def _sealed_request(request: AccessRequest, caller_request_id: str) -> entry_pb2.SealedRequest:
    enforcer = request.enforcer
    return entry_pb2.SealedRequest(
        subject=_subject(request.subject),
        actor=None if request.actor is None else _subject(request.actor),
        action=types_pb2.Action(name=request.action, properties_json=_object(request.action_properties)),
        resource=types_pb2.Resource(
            type=request.resource_type,
            id=request.resource,
            columns=request.columns,
            properties_json=_object(request.resource_properties),
        ),
        purpose=request.purpose,
        context_json=_object(request.context),
        enforcer=types_pb2.Enforcer(
            id=enforcer.id,
            supported_masks=enforcer.supported_masks,  # type: ignore[arg-type]  # the numbers are equal
            supported_obligations=enforcer.supported_obligations,  # type: ignore[arg-type]  # as above
        ),
        request_id=caller_request_id,
    )


def _subject(entity: Entity) -> types_pb2.Subject:
    return types_pb2.Subject(type=entity.type, id=entity.id, properties_json=_object(entity.properties))


def _object(values: Mapping[str, Any]) -> bytes:
    return _json(values) if values else b""
