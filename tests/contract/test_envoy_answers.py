"""What Envoy is answered: every way out but a written allow is an answer that denies, and never an error of the RPC."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tests.certificates import authority, leaf, tls_options
from tests.serving import POLICIES, RunningServer, serving

from gatebook.envoy import external_auth_pb2 as envoy
from gatebook.envoy.external_auth_pb2_grpc import AuthorizationStub

SECONDS = 30
ROUTE = {"subject_from": "principal", "action": "read", "resource": "report:weekly"}


@pytest.fixture(scope="module")
def basic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of the plain set `basic`."""
    with serving(tmp_path_factory.mktemp("envoy") / "data", [POLICIES / "basic"]) as server:
        yield server


def asked(principal: str = "alice", path: str = "/", **route: str) -> envoy.CheckRequest:
    """Builds a request of Envoy's."""
    attributes = envoy.AttributeContext(context_extensions=ROUTE | route)
    attributes.source.principal = principal
    attributes.request.http.method, attributes.request.http.path = "GET", path
    return envoy.CheckRequest(attributes=attributes)


def outcome(answer: envoy.CheckResponse) -> tuple[int, str]:
    """Returns the HTTP status and the reason of an answer that denies; 200 of one that allows."""
    if answer.HasField("ok_response"):
        assert 0 == answer.status.code
        return 200, ""
    assert answer.status.code
    return answer.denied_response.status.code, json.loads(answer.denied_response.body)["reason"]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (asked(), (200, "")),
        (asked("mallory"), (403, "NO_MATCHING_RULE")),
        (asked(""), (401, "INVALID_REQUEST")),
        (asked("a" * 300), (400, "LIMIT_EXCEEDED")),
        (asked(path="/../x", resource="", resource_from="path"), (400, "INVALID_REQUEST")),
        (asked(policy_set="absent"), (503, "UNAVAILABLE")),
        (asked(purpos="billing"), (503, "UNAVAILABLE")),
        (asked(action=""), (503, "UNAVAILABLE")),
        (asked(columns="a"), (503, "UNAVAILABLE")),
        (envoy.CheckRequest(), (503, "UNAVAILABLE")),
    ],
    ids=range(10),
)
def test_every_request_is_answered(
    basic: RunningServer, request_: envoy.CheckRequest, expected: tuple[int, str]
) -> None:
    """A request is allowed, denied or refused by an answer, and what is the operator's fault is not told."""
    with basic.channel() as channel:
        assert expected == outcome(AuthorizationStub(channel).Check(request_, timeout=SECONDS))


def test_refusals_at_the_door_are_answers(basic: RunningServer, tmp_path: Path) -> None:
    """An Envoy that is nobody, or may not call, gets an answer that denies: an error would leave it to a setting."""
    with basic.channel() as channel:
        metadata = (("authorization", "Bearer forged"),)
        answer = AuthorizationStub(channel).Check(asked(), timeout=SECONDS, metadata=metadata)
    assert (503, "UNAVAILABLE") == outcome(answer)
    ca = authority()
    stranger = leaf(ca, uris=["spiffe://corp.example/stranger"])
    credentials = grpc.ssl_channel_credentials(ca.pem, stranger.key_pem, stranger.pem)
    with (
        serving(tmp_path / "data", [POLICIES / "basic"], *tls_options(tmp_path, ca)) as server,
        grpc.secure_channel(server.target, credentials) as channel,
    ):
        answer = AuthorizationStub(channel).Check(asked(), timeout=SECONDS)
    assert (403, "PERMISSION_DENIED") == outcome(answer)
