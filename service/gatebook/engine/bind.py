"""Binds a request to the tokens of a plain set's model.

Owns the usual binding: `sub` is the subject, `obj` the resource, `act` the action, `dom` is
`context.dom`, and any other token `t` is `context.t`; the key `request` of `gatebook.yaml` overrides it.
A bound token compares and hashes as its id (or name, or plain value); `.id`, `.type`, `.name` and the
properties are its attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from gatebook.compiler.program import Program
from gatebook.errors import TokenMissingError
from gatebook.expression.environment import Named
from gatebook.expression.moments import NOW, Moment
from gatebook.values import AccessRequest, Entity

USUAL: Mapping[str, str] = {"sub": "subject", "obj": "resource", "act": "action"}
CONTEXT = "context."


def bind(program: Program, request: AccessRequest) -> dict[str, Any]:
    """Returns the value of every token.

    Raises:
        TokenMissingError: the request does not supply a token that the model needs.
    """
    tokens = {}
    for token in program.tokens:
        source = program.bindings.get(token) or USUAL.get(token) or f"{CONTEXT}{token}"
        value = _value(source, request)
        if value is None:
            message = f"the model needs the token `{token}`: send `{_field(source)}`"
            raise TokenMissingError(message, token=token, field=_field(source))
        tokens[token] = value
    return tokens


def moment_of(program: Program, now: datetime) -> Moment | None:
    """Returns the time as a program reads it, if it does."""
    return Moment(now) if program.timed else None


def at(tokens: Mapping[str, Any], moment: Moment | None) -> Mapping[str, Any]:
    """Returns the tokens of a request at a moment."""
    return tokens if moment is None else {**tokens, NOW: moment}


def _value(source: str, request: AccessRequest) -> object:
    match source:
        case "subject":
            return _entity(request.subject)
        case "actor":
            return None if request.actor is None else _entity(request.actor)
        case "resource":
            named = {"id": request.resource, "type": request.resource_type}
            return _named(request.resource, request.resource_properties, named)
        case "action":
            return _named(request.action, request.action_properties, {"name": request.action})
        case "purpose":
            return request.purpose or None
        case _:
            return request.context.get(source.removeprefix(CONTEXT))


def _entity(entity: Entity) -> Named:
    return _named(entity.id, entity.properties, {"id": entity.id, "type": entity.type})


def _named(text: str, properties: Mapping[str, Any], own: Mapping[str, str]) -> Named:
    # What the request itself says outranks a property of the same name.
    return Named(text, {**properties, **own})


def _field(source: str) -> str:
    return source if source == "purpose" or source.startswith(CONTEXT) else f"access.{source}"
