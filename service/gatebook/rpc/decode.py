"""Converts messages to the values of the core, and refuses what is malformed.

Rules:

1. every field has a limit, and what is over it is refused, never cut;
2. a Struct and its `_json` sibling are two ways to say the same: at most one may be sent;
3. JSON is one object of at most `json_depth_max` levels; integers stay exact;
4. an enum value that this version does not know is dropped from what an enforcer declares: not
   declaring only ever narrows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from google.protobuf import json_format

from gatebook import values
from gatebook.config import Limits
from gatebook.errors import InvalidRequestError, LimitExceededError
from gatebook.generations import Generations
from gatebook.v1 import types_pb2

_decode_json = msgspec.json.Decoder().decode
MASK_KINDS = frozenset(values.MaskKind) - {values.MaskKind.UNSPECIFIED}
DECLARED_MAX = 100
ENFORCERS_BYTES_MAX = 4 << 20
"""What enforcers that are remembered may take, together."""
ENFORCER_BYTES = 1_024
"""What one takes beside its encoding, roughly."""
NO_ATTRIBUTES: Mapping[str, Any] = {}
JSON_SIBLINGS = {name: f"{name}_json" for name in ("properties", "context", "row")}
OBLIGATION_KINDS = frozenset(values.ObligationKind) - {values.ObligationKind.UNSPECIFIED}


_enforcers: Generations[tuple[bytes, int], values.Enforcer] = Generations(ENFORCERS_BYTES_MAX)


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
    columns = tuple(message.resource.columns)
    texts = (
        *(message.subject.type, message.subject.id, message.action.name),
        *(message.resource.id, message.resource.type, message.purpose),
    )
    if not _usual(texts, columns, limits) or message.HasField("actor"):
        _require_texts(message, columns, limits, field)
    subject_type, subject_id, action, resource, resource_type, purpose = texts
    return values.AccessRequest(
        subject=values.Entity(
            subject_type, subject_id, attributes(message.subject, "properties", limits, field, ".subject")
        ),
        actor=_actor(message, limits, field),
        action=action,
        action_properties=attributes(message.action, "properties", limits, field, ".action"),
        resource=resource,
        resource_type=resource_type,
        resource_properties=attributes(message.resource, "properties", limits, field, ".resource"),
        columns=columns,
        purpose=purpose,
        context=attributes(message, "context", limits, field),
        row=attributes(message, "row", limits, field) if has_row(message) else None,
        enforcer=enforcer(message.enforcer, limits, f"{field}.enforcer"),
        allow_partial=allow_partial,
    )


def _usual(texts: tuple[str, ...], columns: tuple[str, ...], limits: Limits) -> bool:
    """Tells whether nothing is wrong with the texts of a request, at one glance: nearly always."""
    together = "".join((*texts, *columns))
    _, subject_id, action, resource, _, _ = texts
    return bool(
        subject_id
        and action
        and resource
        and len(together) <= min(limits.name_bytes_max, limits.subject_id_bytes_max, limits.resource_id_bytes_max)
        and together.isascii()
        and together.isprintable()
        and all(columns)
        and len(columns) <= limits.columns_max
        and len(set(columns)) == len(columns)
    )


def _require_texts(message: types_pb2.AccessRequest, columns: tuple[str, ...], limits: Limits, field: str) -> None:
    """Looks at each text of a request by itself."""
    name_max = limits.name_bytes_max
    for role in ("subject", "actor") if message.HasField("actor") else ("subject",):
        named: types_pb2.Subject = getattr(message, role)
        text(named.type, name_max, f"{field}.{role}.type")
        required_text(named.id, limits.subject_id_bytes_max, f"{field}.{role}.id")
    if len(columns) > limits.columns_max:
        raise over_limit(f"{field}.resource.columns", "columns", limits.columns_max, len(columns))
    for position, column in enumerate(columns):
        required_text(column, name_max, f"{field}.resource.columns[{position}]")
    if len(set(columns)) != len(columns):
        raise InvalidRequestError(f"{field}.resource.columns", "a column is named twice")
    required_text(message.action.name, name_max, f"{field}.action.name")
    required_text(message.resource.id, limits.resource_id_bytes_max, f"{field}.resource.id")
    text(message.resource.type, name_max, f"{field}.resource.type")
    text(message.purpose, name_max, f"{field}.purpose")


def _actor(message: types_pb2.AccessRequest, limits: Limits, field: str) -> values.Entity | None:
    if not message.HasField("actor"):
        return None
    actor = message.actor
    return values.Entity(actor.type, actor.id, attributes(actor, "properties", limits, field, ".actor"))


def has_row(message: types_pb2.AccessRequest) -> bool:
    """Tells whether the caller stated the row; an empty one counts as stated."""
    return message.HasField("row") or bool(message.row_json)


def enforcer(message: types_pb2.Enforcer, limits: Limits, field: str) -> values.Enforcer:
    """Returns what an enforcer declares, which the same few declare with every request."""
    key = (message.SerializeToString(), limits.subject_id_bytes_max)
    declared = _enforcers.get(key)
    if declared is None:
        declared = _declared(message, limits, field)
        _enforcers.put(key, declared, ENFORCER_BYTES + len(key[0]))
    return declared


def _declared(message: types_pb2.Enforcer, limits: Limits, field: str) -> values.Enforcer:
    """Reads what an enforcer declares; kinds that this version does not know are left out."""
    id_ = text(message.id, limits.subject_id_bytes_max, f"{field}.id")
    for name in ("supported_masks", "supported_obligations"):
        count = len(getattr(message, name))
        if count > DECLARED_MAX:
            raise over_limit(f"{field}.{name}", "kinds", DECLARED_MAX, count)
    masks: Iterable[int] = message.supported_masks
    obligations: Iterable[int] = message.supported_obligations
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
    inner: str = "",
) -> Mapping[str, Any]:
    """Returns the attributes in the Struct `name` or in its sibling `<name>_json`, of the field and its inner one."""
    as_json: bytes = getattr(message, JSON_SIBLINGS[name])
    given = message.HasField(name)  # type: ignore[arg-type]  # the field name is one of the four messages' own
    if not as_json and not given:
        return NO_ATTRIBUTES
    field = f"{field}{inner}.{name}"
    if as_json and given:
        raise InvalidRequestError(f"{field}_json", f"`{name}` is set as well; send one of the two")
    if given:
        try:
            found: Any = json_format.MessageToDict(getattr(message, name))
        except ValueError as err:  # NaN or infinity
            raise InvalidRequestError(field, f"not JSON: {err}") from err
    else:
        try:
            found = _decode_json(as_json)
        except (ValueError, RecursionError) as err:  # malformed, or no UTF-8
            raise InvalidRequestError(f"{field}_json", f"not JSON: {err}") from err
    if not isinstance(found, dict):
        raise InvalidRequestError(f"{field}_json", "not a JSON object")
    require_depth(found, limits.json_depth_max, field)
    return found


def require_depth(value: object, levels: int, field: str) -> None:
    """Refuses JSON that nests deeper than `levels`."""
    if not isinstance(value, dict | list):
        return
    if levels == 0:
        raise LimitExceededError(f"{field}: nests too deeply", field=field, limit="json_depth_max")
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, dict | list):
            require_depth(inner, levels - 1, field)


def text(value: str, bytes_max: int, field: str) -> str:
    """Returns the text if it is within its limit and free of control characters."""
    if not value:
        return value
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


def policy_set(name: str, limits: Limits) -> str:
    """Returns the name of a policy set as it was sent: one that no set can have is refused before anything is asked."""
    return text(name, limits.name_bytes_max, "policy_set")


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
