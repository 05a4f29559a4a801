"""The mapping of docs/envoy.md: what of an HTTP request counts as what, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gatebook.envoy import external_auth_pb2 as envoy
from gatebook.errors import InvalidRequestError
from gatebook.rpc.envoy_mapping import NobodyError, PathRefusedError, RouteRefusedError, mapped, normal_path
from gatebook.v1 import types_pb2

ROUTE = {"subject_from": "principal", "action_from": "method", "resource_from": "path"}
PRINCIPAL = "spiffe://corp.example/trino"


def asked(route: dict[str, str], path: str = "/reports/weekly", **headers: str) -> envoy.AttributeContext:
    """Builds what Envoy sends of `GET path`, from a client with a certificate and a verified token."""
    attributes = envoy.AttributeContext(context_extensions=route)
    attributes.source.principal = PRINCIPAL
    attributes.source.address.socket_address.address = "192.0.2.7"
    http = attributes.request.http
    http.method, http.path, http.host = "GET", path, "reports.example"
    for name, value in headers.items():
        http.headers[name.replace("_", "-")] = value
    token = attributes.metadata_context.filter_metadata["envoy.filters.http.jwt_authn"]
    token.update({"jwt_payload": {"sub": "kai", "groups": ["admin"], "level": 3}})
    return attributes


def test_a_route_that_takes_all_from_the_request() -> None:
    """Subject, action and resource come from where the route says, and circumstances from what Envoy saw."""
    found = mapped(asked(ROUTE, "/reports/weekly?as=csv", x_user="mallory"))
    access = found.access
    assert ("user", PRINCIPAL) == (access.subject.type, access.subject.id)
    assert ("GET", "/reports/weekly", "") == (access.action.name, access.resource.id, access.purpose)
    seen = {"method": "GET", "host": "reports.example", "path": "/reports/weekly", "source_ip": "192.0.2.7"}
    assert seen == json.loads(access.context_json)
    assert ("", False) == (found.policy_set, found.declares)


def test_a_route_that_states_everything() -> None:
    """What the route states is what is asked, whatever the client sends."""
    route = {
        "policy_set": "telemetry",
        "subject_from": "jwt:sub",
        "subject_type": "person",
        "action": "read",
        "resource": "ai_usage.team_daily",
        "columns": "team_id, tool",
        "purpose": "cost_management",
        "enforcer": "usage-api",
        "obligations": "masks,minimum_group",
        "masks": "redact, nullify",
        "context.network": "corp",
        "context.method": "any",
    }
    found = mapped(asked(route, "/../anything", purpose="billing"))
    access = found.access
    assert ("person", "kai") == (access.subject.type, access.subject.id)
    assert ("read", "ai_usage.team_daily") == (access.action.name, access.resource.id)
    assert (["team_id", "tool"], "cost_management") == (list(access.resource.columns), access.purpose)
    context = json.loads(access.context_json)
    assert ("corp", "any") == (context["network"], context["method"])
    kinds = [types_pb2.OBLIGATION_KIND_MASKS, types_pb2.OBLIGATION_KIND_MINIMUM_GROUP]
    assert kinds == list(access.enforcer.supported_obligations)
    assert [types_pb2.MASK_KIND_REDACT, types_pb2.MASK_KIND_NULLIFY] == list(access.enforcer.supported_masks)
    assert ("telemetry", "usage-api", True) == (found.policy_set, access.enforcer.id, found.declares)


def test_headers_count_only_where_the_route_names_them() -> None:
    """A header names the subject or the purpose where the route says so."""
    route = ROUTE | {"subject_from": "header:x-user", "purpose_from": "header:x-purpose"}
    access = mapped(asked(route, x_user="alice", x_purpose="billing")).access
    assert ("alice", "billing") == (access.subject.id, access.purpose)


@pytest.mark.parametrize(
    "change",
    [
        {"subject_from": ""},
        {"subject_from": "anybody"},
        {"subject_from": "principal:x"},
        {"subject_from": "jwt"},
        {"subject_from": "header:X-User"},
        {"action": "read"},
        {"action_from": ""},
        {"action_from": "header:x-action"},
        {"resource": "report:weekly"},
        {"resource_from": "host"},
        {"purpose_from": "query:why"},
        {"purpose_from": "header:x-purpose", "purpose": "billing"},
        {"purpos": "billing"},
        {"obligations": "masks"},
        {"masks": "redact"},
        {"enforcer": "api", "obligations": "all"},
        {"enforcer": "api", "masks": "blur"},
    ],
    ids=str,
)
def test_a_route_that_cannot_be_understood(change: dict[str, str]) -> None:
    """A route that leaves something out, says it twice or says an unknown word is refused, and nothing is guessed."""
    with pytest.raises(RouteRefusedError):
        mapped(asked(ROUTE | change, x_user="alice", x_purpose="billing"))


@pytest.mark.parametrize(
    ("subject_from", "headers"),
    [
        ("header:x-user", {}),
        ("header:x-user", {"x_user": ""}),
        ("header:x-user", {"x_user": "alice,root"}),
        ("header:x-user", {"x_users": "alice"}),
        ("jwt:email", {"email": "alice"}),
        ("jwt:groups", {}),
        ("jwt:level", {}),
    ],
)
def test_who_does_not_say_who_they_are(subject_from: str, headers: dict[str, str]) -> None:
    """A subject that is missing, sent twice or no text is nobody."""
    with pytest.raises(NobodyError):
        mapped(asked(ROUTE | {"subject_from": subject_from}, **headers))


def test_a_token_that_was_not_verified_does_not_count() -> None:
    """Only what Envoy's own filter verified is a token, under the name that the route expects."""
    route = ROUTE | {"subject_from": "jwt:sub"}
    other = asked(route | {"jwt_payload": "another"})
    unverified: Any = asked(route, authorization="Bearer e30.eyJzdWIiOiJrYWkifQ.")
    unverified.metadata_context.Clear()
    elsewhere = asked(route)
    elsewhere.metadata_context.Clear()
    elsewhere.metadata_context.filter_metadata["envoy.lb"].update({"jwt_payload": {"sub": "kai"}})
    for attributes in (other, unverified, elsewhere):
        with pytest.raises(NobodyError):
            mapped(attributes)


@pytest.mark.parametrize("path", ["/", "/a", "/a/", "/a/b.json", "/a/...", "/%C3%A4", "/a:b@c,d=e/~f", "/a/.hidden"])
def test_paths_in_normal_form(path: str) -> None:
    """A path in normal form is the resource as it came, without the query."""
    assert path == normal_path(path) == normal_path(f"{path}?next=/../x")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a",
        "*",
        "http://other.example/a",
        "//a",
        "/a//b",
        "/a/../b",
        "/a/..",
        "/./a",
        "/a/.",
        "/a/%2e%2e/b",
        "/a/%2E./b",
        "/a%2fb",
        "/a%2Fb",
        "/a%5cb",
        "/a\\b",
        "/a;b=1",
        "/a%3Bb",
        "/a%00",
        "/a%0d%0ab",
        "/a%7F",
        "/a%252e",
        "/a%c0%afb",
        "/a%e0%80%afb",
        "/a%ff",
        "/a%",
        "/a%4",
        "/a%zz",
        "/a b",
        "/ä",
        "/a#b",
        "/a\n",
        "/a\t",
    ],
)
def test_paths_that_two_readers_may_take_for_two(path: str) -> None:
    """A path that another reader may take for another one is refused: a rule would be asked about the wrong one."""
    with pytest.raises(PathRefusedError):
        normal_path(path)


def test_refusals_are_errors_of_the_request() -> None:
    """Each refusal is an invalid request to whoever counts and logs."""
    kinds = (RouteRefusedError, NobodyError, PathRefusedError)
    assert all(issubclass(kind, InvalidRequestError) and kind.reason == "INVALID_REQUEST" for kind in kinds)
