"""Converts messages to the values of the core, and refuses what is malformed.

Rules:

1. every field has a limit, and what is over it is refused, never cut;
2. a Struct and its `_json` sibling are two ways to say the same: at most one may be sent;
3. JSON is one object of at most `json_depth_max` levels; integers stay exact;
4. an enum value that this version does not know is dropped from what an enforcer declares: not
   declaring only ever narrows.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import msgspec
from google.protobuf import json_format

from gatebook import values
from gatebook.config import Limits
from gatebook.errors import InvalidRequestError, LimitExceededError
from gatebook.v1 import types_pb2

_decode_json = msgspec.json.Decoder().decode
MASK_KINDS = frozenset(values.MaskKind) - {values.MaskKind.UNSPECIFIED}
DECLARED_MAX = 100
ENFORCERS_CACHED_MAX = 1_024
OBLIGATION_KINDS = frozenset(values.ObligationKind) - {values.ObligationKind.UNSPECIFIED}


def access_request(
    message: types_pb2.AccessRequest, limits: Limits, *, allow_partial: bool, field: str = "access"
) -> values.AccessRequest:
    """Returns the request as a value.

    Raises:
        InvalidRequestError: a field is missing or malformed; `field` leads its path.
        LimitExceededError: a field is over its limit.
    """
    size = message.ByteSize()
    if size > limits.access_bytes_max:
        raise over_limit(field, "bytes", limits.access_bytes_max, size)
    subject = entity(message.subject, limits, f"{field}.subject")
    actor = entity(message.actor, limits, f"{field}.actor") if message.HasField("actor") else None
    action, resource = message.action, message.resource
    columns = tuple(resource.columns)
    if len(columns) > limits.columns_max:
        raise over_limit(f"{field}.resource.columns", "columns", limits.columns_max, len(columns))
    for position, column in enumerate(columns):
        required_text(column, limits.name_bytes_max, f"{field}.resource.columns[{position}]")
    if len(set(columns)) != len(columns):
        raise InvalidRequestError(f"{field}.resource.columns", "a column is named twice")
    return values.AccessRequest(
        subject=subject,
        actor=actor,
        action=required_text(action.name, limits.name_bytes_max, f"{field}.action.name"),
        action_properties=attributes(action, "properties", limits, f"{field}.action"),
        resource=required_text(resource.id, limits.resource_id_bytes_max, f"{field}.resource.id"),
        resource_type=text(resource.type, limits.name_bytes_max, f"{field}.resource.type"),
        resource_properties=attributes(resource, "properties", limits, f"{field}.resource"),
        columns=columns,
        purpose=text(message.purpose, limits.name_bytes_max, f"{field}.purpose"),
        context=attributes(message, "context", limits, field),
        row=attributes(message, "row", limits, field) if has_row(message) else None,
        enforcer=enforcer(message.enforcer, limits, f"{field}.enforcer"),
        allow_partial=allow_partial,
    )


def has_row(message: types_pb2.AccessRequest) -> bool:
    """Tells whether the caller stated the row; an empty one counts as stated."""
    return message.HasField("row") or bool(message.row_json)


def entity(message: types_pb2.Subject, limits: Limits, field: str) -> values.Entity:
    """Returns a subject or actor as a value."""
    return values.Entity(
        type=text(message.type, limits.name_bytes_max, f"{field}.type"),
        id=required_text(message.id, limits.subject_id_bytes_max, f"{field}.id"),
        properties=attributes(message, "properties", limits, field),
    )


def enforcer(message: types_pb2.Enforcer, limits: Limits, field: str) -> values.Enforcer:
    """Returns what an enforcer declares; kinds that this version does not know are left out."""
    id_ = text(message.id, limits.subject_id_bytes_max, f"{field}.id")
    for name in ("supported_masks", "supported_obligations"):
        count = len(getattr(message, name))
        if count > DECLARED_MAX:
            raise over_limit(f"{field}.{name}", "kinds", DECLARED_MAX, count)
    return _declared(id_, tuple(message.supported_masks), tuple(message.supported_obligations))


@functools.lru_cache(maxsize=ENFORCERS_CACHED_MAX)
def _declared(id_: str, masks: tuple[int, ...], obligations: tuple[int, ...]) -> values.Enforcer:
    """Builds what an enforcer declares, which the same few declare with every request."""
    return values.Enforcer(
        id=id_,
        supported_masks=frozenset(values.MaskKind(kind) for kind in masks if kind in MASK_KINDS),
        supported_obligations=frozenset(values.ObligationKind(k) for k in obligations if k in OBLIGATION_KINDS),
    )


def attributes(
    message: types_pb2.Subject | types_pb2.Action | types_pb2.Resource | types_pb2.AccessRequest,
    name: str,
    limits: Limits,
    field: str,
) -> Mapping[str, Any]:
    """Returns the attributes in the Struct `name` or in its sibling `<name>_json`."""
    as_json: bytes = getattr(message, f"{name}_json")
    given = message.HasField(name)  # type: ignore[arg-type]  # the field name is one of the four messages' own
    if as_json and given:
        raise InvalidRequestError(f"{field}.{name}_json", f"`{name}` is set as well; send one of the two")
    if given:
        try:
            found: Any = json_format.MessageToDict(getattr(message, name))
        except ValueError as err:  # NaN or infinity
            raise InvalidRequestError(f"{field}.{name}", f"not JSON: {err}") from err
    elif as_json:
        try:
            found = _decode_json(as_json)
        except (ValueError, RecursionError) as err:  # malformed, or no UTF-8
            raise InvalidRequestError(f"{field}.{name}_json", f"not JSON: {err}") from err
    else:
        return {}
    if not isinstance(found, dict):
        raise InvalidRequestError(f"{field}.{name}_json", "not a JSON object")
    require_depth(found, limits.json_depth_max, f"{field}.{name}")
    return found


def require_depth(value: object, levels: int, field: str) -> None:
    """Refuses JSON that nests deeper than `levels`."""
    if not isinstance(value, dict | list):
        return
    if levels == 0:
        raise LimitExceededError(f"{field}: nests too deeply", field=field, limit="json_depth_max")
    for inner in value.values() if isinstance(value, dict) else value:
        require_depth(inner, levels - 1, field)


def text(value: str, bytes_max: int, field: str) -> str:
    """Returns the text if it is within its limit and free of control characters."""
    if len(value) > bytes_max or (not value.isascii() and len(value.encode()) > bytes_max):
        raise over_limit(field, "bytes", bytes_max, len(value.encode()))
    if not value.isprintable():
        raise InvalidRequestError(field, "holds a control character")
    return value


def required_text(value: str, bytes_max: int, field: str) -> str:
    """Returns the text if it is not empty and within its limit."""
    if not value:
        raise InvalidRequestError(field, "must not be empty")
    return text(value, bytes_max, field)


def page_size(asked: int, limits: Limits) -> int:
    """Returns how many items a page holds; 0 means the default."""
    if asked < 0:
        raise InvalidRequestError("page_size", "must not be negative")
    if asked > limits.page_size_max:
        raise over_limit("page_size", "items", limits.page_size_max, asked)
    return asked or limits.page_size_default


def over_limit(field: str, unit: str, limit: int, actual: int) -> LimitExceededError:
    """Builds the error for a field over its limit."""
    return LimitExceededError(
        f"{field}: {actual} {unit}, at most {limit} are taken", field=field, limit=str(limit), actual=str(actual)
    )
