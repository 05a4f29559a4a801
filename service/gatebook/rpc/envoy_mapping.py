"""Makes an access request of what Envoy asks: the mapping of docs/envoy.md.

Owns which word of an HTTP request counts as what. Rules:

1. the route says what is asked, in `context_extensions`, which end clients cannot reach. A word of the
   client's counts only where the route names the place that it is taken from;
2. a route that leaves something out, says something twice or says a word that is not known is refused:
   a misspelt `purpose` must not become a request without one;
3. a path is taken as a resource only in the one form in which no two readers understand it differently.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from gatebook.envoy import external_auth_pb2 as envoy
from gatebook.errors import InvalidRequestError
from gatebook.v1 import types_pb2
from gatebook.values import MaskKind, ObligationKind

JWT_FILTER = "envoy.filters.http.jwt_authn"
JWT_PAYLOAD = "jwt_payload"
"""What `payload_in_metadata` of that filter must be set to, unless the route names another."""
SUBJECT_TYPE = "user"
CONTEXT = "context."
WHO, PATH = "subject", "path"
"""The fields of a refusal that is the client's own fault."""
KEYS = frozenset(
    {
        "policy_set",
        "subject_from",
        "subject_type",
        "jwt_payload",
        "action",
        "action_from",
        "resource",
        "resource_from",
        "columns",
        "purpose",
        "purpose_from",
        "enforcer",
        "obligations",
        "masks",
    }
)
_SEGMENT = re.compile(
    r"(?!\.{1,2}(?:/|$))(?:[A-Za-z0-9._~!$&'()*+,=:@-]|%(?!2[EeFf5]|5[Cc]|3[Bb]|[01]|7[Ff])[0-9A-Fa-f]{2})+"
)
"""RFC 3986 s3.3 without dot segments, without `;`, and without an encoded `.`, `/`, `%`, `\\`, `;` or control."""
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,128}")


class RouteRefusedError(InvalidRequestError):
    """The configuration of the route cannot be understood; the operator of Envoy must correct it."""


class NobodyError(InvalidRequestError):
    """The request does not say who asks, where the route looks for it."""


class PathRefusedError(InvalidRequestError):
    """The path is not in normal form."""


class Mapped(msgspec.Struct, frozen=True):
    """What a route and a request ask for."""

    policy_set: str
    access: types_pb2.AccessRequest
    declares: bool
    """Whether the route says that the upstream applies decisions, so that it is to be given them."""


def mapped(attributes: envoy.AttributeContext) -> Mapped:
    """Returns what a request asks for.

    Raises:
        RouteRefusedError: the route does not say what is asked.
        NobodyError: the request does not say who asks.
        PathRefusedError: the path is the resource, and is not in normal form.
    """
    route = attributes.context_extensions
    unknown = sorted(key for key in route if key not in KEYS and not key.startswith(CONTEXT))
    if unknown:
        raise RouteRefusedError(f"context_extensions.{unknown[0]}", "is no key that this version knows")
    http = attributes.request.http
    access = types_pb2.AccessRequest(
        subject=types_pb2.Subject(type=route.get("subject_type", SUBJECT_TYPE), id=subject_of(attributes)),
        action=types_pb2.Action(name=one_of(route, "action", {"method": lambda: http.method})),
        resource=types_pb2.Resource(
            id=one_of(route, "resource", {"path": lambda: normal_path(http.path)}), columns=words(route, "columns")
        ),
        purpose=purpose_of(attributes),
        context_json=msgspec.json.encode(context_of(attributes)),
    )
    declares = bool(route.get("enforcer"))
    if declares:
        access.enforcer.id = route["enforcer"]
        access.enforcer.supported_obligations.extend(kinds(route, "obligations", ObligationKind))
        access.enforcer.supported_masks.extend(kinds(route, "masks", MaskKind))
    elif "obligations" in route or "masks" in route:
        raise RouteRefusedError("context_extensions.enforcer", "must name who applies the obligations")
    return Mapped(route.get("policy_set", ""), access, declares)


def one_of(route: Mapping[str, str], key: str, sources: Mapping[str, Callable[[], str]]) -> str:
    """Returns what the route says itself, or what it says is to be taken from the request."""
    source = route.get(f"{key}_from", "")
    if bool(route.get(key)) == bool(source):
        raise RouteRefusedError(f"context_extensions.{key}", f"the route must say either `{key}` or `{key}_from`")
    if not source:
        return route[key]
    if source not in sources:
        raise RouteRefusedError(f"context_extensions.{key}_from", f"must be one of: {', '.join(sources)}")
    return sources[source]()


def subject_of(attributes: envoy.AttributeContext) -> str:
    """Returns who asks, from the one place that the route names."""
    source, _, name = attributes.context_extensions.get("subject_from", "").partition(":")
    match source:
        case "principal" if not name:
            found = attributes.source.principal
        case "jwt" if name:
            found = claim_of(attributes, name)
        case "header" if _HEADER_NAME.fullmatch(name):
            found = header_of(attributes, name)
        case _:
            raise RouteRefusedError(
                "context_extensions.subject_from", "must be `principal`, `jwt:CLAIM` or `header:NAME` in lower case"
            )
    if not found:
        raise NobodyError(WHO, f"the request has no {source} that says who asks")
    return found


def claim_of(attributes: envoy.AttributeContext, claim: str) -> str:
    """Returns a claim of the token that Envoy has verified; nothing where there is none, or no text."""
    payload = attributes.context_extensions.get("jwt_payload", JWT_PAYLOAD)
    found = attributes.metadata_context.filter_metadata.get(JWT_FILTER)
    if found is None or payload not in found.fields:
        return ""
    return found.fields[payload].struct_value.fields[claim].string_value


def header_of(attributes: envoy.AttributeContext, name: str) -> str:
    """Returns a header that came once; Envoy joins several of one name by commas, and of those none counts."""
    found = attributes.request.http.headers.get(name, "")
    return "" if "," in found else found


def purpose_of(attributes: envoy.AttributeContext) -> str:
    """Returns the purpose that the route states, or lets the client claim; only a rule grants it."""
    route = attributes.context_extensions
    source, _, name = route.get("purpose_from", "").partition(":")
    if not source:
        return route.get("purpose", "")
    if "purpose" in route or source != "header" or not _HEADER_NAME.fullmatch(name):
        message = "must be `header:NAME` in lower case, and stand without `purpose`"
        raise RouteRefusedError("context_extensions.purpose_from", message)
    return header_of(attributes, name)


def normal_path(path: str) -> str:
    """Returns the path without its query, as it came; it is not decoded.

    Raises:
        PathRefusedError: another reader may take it for another path.
    """
    path = path.partition("?")[0]
    root, *segments = path.split("/")
    last = segments.pop() if segments else None
    if root or last is None or not all(map(_SEGMENT.fullmatch, filter(None, (*segments, last)))) or "" in segments:
        raise PathRefusedError(PATH, "the path is not in normal form")
    try:
        unquote_to_bytes(path).decode()
    except UnicodeDecodeError as err:
        raise PathRefusedError(PATH, "the path is no UTF-8") from err
    return path


def context_of(attributes: envoy.AttributeContext) -> dict[str, str]:
    """Returns the circumstances: those of the route, and of the request those that Envoy itself vouches for."""
    http = attributes.request.http
    seen = {
        "method": http.method,
        "host": http.host,
        "path": http.path.partition("?")[0],
        "source_ip": attributes.source.address.socket_address.address,
    }
    route = attributes.context_extensions
    stated = {key.removeprefix(CONTEXT): value for key, value in route.items() if key.startswith(CONTEXT)}
    return {**seen, **stated}


def words(route: Mapping[str, str], key: str) -> list[str]:
    """Returns the words of a list with commas."""
    return [word.strip() for word in route[key].split(",")] if route.get(key) else []


def kinds(route: Mapping[str, str], key: str, known: type[MaskKind | ObligationKind]) -> list[Any]:
    """Returns the numbers of the kinds that the route names."""
    numbers = {kind.name.lower(): int(kind) for kind in known if kind}
    named = words(route, key)
    if unknown := [word for word in named if word not in numbers]:
        raise RouteRefusedError(f"context_extensions.{key}", f"`{unknown[0]}` is not one of {', '.join(numbers)}")
    return [numbers[word] for word in named]
