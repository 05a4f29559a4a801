"""AuthZEN requests as the values of the core.

Owns where what Gatebook asks for beyond AuthZEN stands in a request (docs/authzen.md):

    context.purpose               the purpose
    resource.properties.columns   of a dataset: the columns; none means every column
    context.gatebook              our own: `enforcer`, `actor`, `row`, `allow_partial`, in the JSON mapping of the proto

Rules:

1. what is required and missing, or of the wrong type, is refused with the path of the member;
2. members that AuthZEN does not know are ignored, below `context.gatebook` they are refused: a misspelt `enforcer`
   must not pass for one that declares nothing;
3. lengths are limited as over gRPC, and what is over a limit is refused, never cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gatebook.config import Limits
from gatebook.engine.candidates import Kind
from gatebook.errors import InvalidRequestError
from gatebook.rpc.decode import DECLARED_MAX, over_limit, required_text, text
from gatebook.search import ANY
from gatebook.values import AccessRequest, Enforcer, Entity, MaskKind, ObligationKind

Object = Mapping[str, Any]
EXTENSION = "gatebook"
MASKS = {f"MASK_KIND_{kind.name}": kind for kind in MaskKind if kind is not MaskKind.UNSPECIFIED}
OBLIGATIONS = {
    f"OBLIGATION_KIND_{kind.name}": kind for kind in ObligationKind if kind is not ObligationKind.UNSPECIFIED
}

_REQUIRED = {"subject": ("type", "id"), "action": ("name",), "resource": ("type", "id")}


def access_request(
    asked: Object, limits: Limits, *, governed: bool, at: str = "", sought: Kind | None = None
) -> AccessRequest:
    """Returns an evaluation as a value.

    Args:
        asked: The object with `subject`, `action`, `resource` and perhaps `context`.
        limits: How long a member may be.
        governed: Whether the set has a catalogue, so that `columns` and `purpose` are not for its rules to read.
        at: The path of the object, such as `evaluations[2].`.
        sought: What a search looks for, which the request leaves out.

    Raises:
        InvalidRequestError: a member is missing or malformed.
        LimitExceededError: a member is over its limit.
    """
    subject = _entity(asked, "subject", at, limits, sought=sought is Kind.SUBJECTS)
    resource = _entity(asked, "resource", at, limits, sought=sought is Kind.RESOURCES)
    action_name, action_properties = ANY, {}
    if sought is not Kind.ACTIONS:
        action = required_object(asked, "action", at)
        action_name = required_text(
            member_text(action, "name", f"{at}action"), limits.name_bytes_max, f"{at}action.name"
        )
        action_properties = dict(optional_object(action, "properties", f"{at}action."))
    context = dict(optional_object(asked, "context", at))
    own = optional_object(context, EXTENSION, f"{at}context.")
    context.pop(EXTENSION, None)
    where = f"{at}context.{EXTENSION}."
    known_only(own, ("enforcer", "actor", "row", "allow_partial"), where)
    purpose = context.get("purpose")
    if governed:
        context.pop("purpose", None)
        purpose = "" if purpose is None else _is_text(purpose, f"{at}context.purpose")
    properties = dict(resource.properties)
    return AccessRequest(
        subject=subject,
        action=action_name,
        action_properties=action_properties,
        resource=resource.id,
        resource_type=resource.type,
        columns=_columns(properties.pop("columns", None), limits, f"{at}resource.properties.columns")
        if governed
        else (),
        resource_properties=properties,
        purpose=text(purpose, limits.name_bytes_max, f"{at}context.purpose") if isinstance(purpose, str) else "",
        context=context,
        row=optional_object(own, "row", where) if "row" in own else None,
        enforcer=_enforcer(optional_object(own, "enforcer", where), limits, f"{where}enforcer"),
        actor=_entity(own, "actor", where, limits) if "actor" in own else None,
        allow_partial=_truth(own.get("allow_partial", False), f"{where}allow_partial"),
    )


def people_of(
    asked: Object, limits: Limits, *, at: str = "", sought: Kind | None = None
) -> tuple[Entity, Entity | None]:
    """Returns whom an evaluation is about, and who acts on their behalf, whatever the set.

    Raises:
        InvalidRequestError: a member is missing or malformed.
        LimitExceededError: a member is over its limit.
    """
    subject = _entity(asked, "subject", at, limits, sought=sought is Kind.SUBJECTS)
    own = optional_object(optional_object(asked, "context", at), EXTENSION, f"{at}context.")
    return subject, _entity(own, "actor", f"{at}context.{EXTENSION}.", limits) if "actor" in own else None


def with_defaults(asked: Object, defaults: Object) -> Object:
    """Returns an evaluation of a batch, completed from the top level.

    What stands in the evaluation replaces the default as a whole, but for a required member that it lacks
    (Authorization API 1.0, Default values; certification scenario, Batch with default value merging).
    """
    completed = {key: defaults[key] for key in ("subject", "action", "resource", "context") if key in defaults}
    for key in ("subject", "action", "resource", "context"):
        if key not in asked:
            continue
        own, default = asked[key], completed.get(key)
        if isinstance(own, dict) and isinstance(default, dict):
            own = {**{name: default[name] for name in _REQUIRED.get(key, ()) if name in default}, **own}
        completed[key] = own
    return completed


def required_object(parent: Object, name: str, at: str) -> Object:
    """Returns a member that must be an object."""
    if name not in parent:
        raise InvalidRequestError(f"{at}{name}", "is missing")
    return _is_object(parent[name], f"{at}{name}")


def optional_object(parent: Object, name: str, at: str) -> Object:
    """Returns a member that may be left out and is an object."""
    return _is_object(parent[name], f"{at}{name}") if name in parent else {}


def member_text(parent: Object, name: str, at: str) -> str:
    """Returns a member that must be a text."""
    if name not in parent:
        raise InvalidRequestError(f"{at}.{name}", "is missing")
    return _is_text(parent[name], f"{at}.{name}")


def known_only(own: Object, names: tuple[str, ...], at: str) -> None:
    """Refuses members with other names."""
    for name in own:
        if name not in names:
            raise InvalidRequestError(f"{at}{name[:64]}", f"is not known here; known are {', '.join(names)}")


def _entity(asked: Object, name: str, at: str, limits: Limits, *, sought: bool = False) -> Entity:
    found = required_object(asked, name, at)
    where = f"{at}{name}"
    type_ = required_text(member_text(found, "type", where), limits.name_bytes_max, f"{where}.type")
    id_ = ANY
    if not sought:
        bytes_max = limits.resource_id_bytes_max if name == "resource" else limits.subject_id_bytes_max
        id_ = required_text(member_text(found, "id", where), bytes_max, f"{where}.id")
    return Entity(type_, id_, optional_object(found, "properties", f"{where}."))


def _columns(value: object, limits: Limits, at: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InvalidRequestError(at, "is not a list of columns")
    if len(value) > limits.columns_max:
        raise over_limit(at, "columns", limits.columns_max, len(value))
    columns = tuple(
        required_text(_is_text(column, f"{at}[{position}]"), limits.name_bytes_max, f"{at}[{position}]")
        for position, column in enumerate(value)
    )
    if not columns:
        raise InvalidRequestError(at, "is empty: name columns, or leave it out for every column")
    if len(set(columns)) != len(columns):
        raise InvalidRequestError(at, "a column is named twice")
    return columns


def _enforcer(declared: Object, limits: Limits, at: str) -> Enforcer:
    known_only(declared, ("id", "supported_masks", "supported_obligations"), f"{at}.")
    id_ = text(_is_text(declared.get("id", ""), f"{at}.id"), limits.subject_id_bytes_max, f"{at}.id")
    # A kind that this version does not know is left out: not declaring only ever narrows.
    masks, obligations = (
        _kinds(declared.get(name, []), f"{at}.{name}") for name in ("supported_masks", "supported_obligations")
    )
    return Enforcer(
        id_,
        frozenset(MASKS[kind] for kind in masks if kind in MASKS),
        frozenset(OBLIGATIONS[kind] for kind in obligations if kind in OBLIGATIONS),
    )


def _kinds(value: object, at: str) -> list[str]:
    if not isinstance(value, list):
        raise InvalidRequestError(at, "is not a list of kinds")
    if len(value) > DECLARED_MAX:
        raise over_limit(at, "kinds", DECLARED_MAX, len(value))
    return [_is_text(kind, f"{at}[{position}]") for position, kind in enumerate(value)]


def _truth(value: object, at: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequestError(at, "is neither true nor false")
    return value


def _is_object(value: object, at: str) -> Object:
    if not isinstance(value, dict):
        raise InvalidRequestError(at, "is not an object")
    return value


def _is_text(value: object, at: str) -> str:
    if not isinstance(value, str):
        raise InvalidRequestError(at, "is not a text")
    return value
