"""The certification scenario of the OpenID AuthZEN working group, at every level: Basic, Batch, Search, Discovery.

The requests are in `tests/cases/authzen_certification.yaml`, from the text of the scenario; what its harness
validates of each answer is here, with the sections of that text. The fixture is `policies/records`.
"""

from __future__ import annotations

import json
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from ruamel.yaml import YAML
from tests.certificates import authority, leaf, tls_options
from tests.serving import POLICIES, ROOT, serving

CASES: dict[str, list[dict[str, Any]]] = YAML(typ="safe").load(ROOT / "tests/cases/authzen_certification.yaml")
FLAT = [(path, case) for path, cases in CASES.items() for case in cases]
URL = "https://pdp.example.com"
FIXTURE = {"subject": {"type": "user", "id": "alice"}, "action": {"name": "read"}}
RECORD_1 = {"type": "record", "id": "record-1"}
SUBJECT_SEARCH = {"subject": {"type": "user"}, "action": {"name": "read"}, "resource": RECORD_1}


@pytest.fixture(scope="module", params=["https", "http"])
def pdp(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A policy decision point with the fixture of c-1, which callers are told to reach as `URL`.

    Over HTTPS the caller shows a certificate, which a set `gatebook` of its own makes a service.
    """
    folder: Path = tmp_path_factory.mktemp(request.param)
    policies, arguments = [POLICIES / "records"], ["--http", "127.0.0.1:0", "--http-url", URL]
    verify: ssl.SSLContext | bool = True
    if request.param == "https":
        ca = authority()
        arguments += tls_options(folder, ca)
        own = folder / "gatebook"
        shutil.copytree(POLICIES / "gatebook", own)
        with (own / "policy.csv").open("a", encoding="utf-8") as file:
            file.write("g, spiffe://corp.example/tester, role:service\n")
        policies.append(own)
        verify = ssl.create_default_context(cadata=ca.pem.decode())
        verify.load_cert_chain(*leaf(ca, uris=["spiffe://corp.example/tester"]).write(folder, "tester"))
    with (
        serving(folder / "data", policies, *arguments) as server,
        httpx.Client(base_url=f"{request.param}://{server.http}", timeout=30, verify=verify) as client,
    ):
        yield client


@pytest.mark.parametrize(("path", "case"), FLAT, ids=[f"{c['section']} {c['name']}" for _, c in FLAT])
def test_scenario(pdp: httpx.Client, path: str, case: dict[str, Any]) -> None:
    """Each request of the scenario gets the answer that its harness validates (c-2 to c-4)."""
    answer = pdp.post(f"/access/v1/{path}", json=case["body"])

    expected = case["expect"]
    assert expected.get("status", 200) == answer.status_code, answer.text
    if "status" in expected:
        return
    assert answer.headers["content-type"] == "application/json"  # c-5
    body = answer.json()
    assert isinstance(body, dict)
    if "decision" in expected:
        assert body["decision"] is expected["decision"]  # c-2-3-1
        assert isinstance(body.get("context", {}), dict)  # c-2-3-2
    if "decisions" in expected:
        assert "decision" not in body  # c-3-3-4
        assert len(body["evaluations"]) == len(expected["decisions"])  # c-3-3-1
        for one, decision in zip(body["evaluations"], expected["decisions"], strict=True):  # c-3-3-2
            assert isinstance(one["decision"], bool)  # c-3-3-3
            assert decision in {None, one["decision"]}
            assert isinstance(one.get("context", {}), dict)
    if path.startswith("search/"):
        require_results(path, case["body"], body)
        for wanted in expected.get("least", ()):
            assert wanted in body["results"]
        assert expected.get("results", body["results"]) == body["results"]


def require_results(path: str, asked: dict[str, Any], body: dict[str, Any]) -> None:
    """Validates the structure of an answer to a search (c-4-2-1, c-4-3-1, c-4-4-1, c-4-5)."""
    kind = path.partition("/")[2]
    assert isinstance(body["results"], list)
    for result in body["results"]:
        if kind == "action":
            assert isinstance(result["name"], str)
        else:
            assert result["type"] == asked[kind]["type"]
            assert isinstance(result["id"], str)
    if "page" in body:
        assert isinstance(body["page"], dict)
        assert isinstance(body["page"]["next_token"], str)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""])
def test_invalid_content_type(pdp: httpx.Client, content_type: str) -> None:
    """c-2-4-3: a `Content-Type` that is not `application/json` is a bad request."""
    body = json.dumps({**FIXTURE, "resource": RECORD_1})

    answer = pdp.post("/access/v1/evaluation", content=body, headers={"content-type": content_type})

    assert answer.status_code == 400


@pytest.mark.parametrize("body", [b"", b"{", b'{"subject": }', b"null", b"[]", b"alice"])
@pytest.mark.parametrize("path", list(CASES))
def test_malformed_json(pdp: httpx.Client, path: str, body: bytes) -> None:
    """c-2-4-4, c-2-4-5: a body that is empty or not a JSON object is a bad request."""
    answer = pdp.post(f"/access/v1/{path}", content=body, headers={"content-type": "application/json"})

    assert answer.status_code == 400


@pytest.mark.parametrize(("path", "status"), [("evaluation", 200), ("evaluations", 200), ("search/subject", 400)])
def test_request_id_is_echoed(pdp: httpx.Client, path: str, status: int) -> None:
    """c-2-5-1: the same `X-Request-ID` comes back, with errors too."""
    answer = pdp.post(
        f"/access/v1/{path}",
        json={**FIXTURE, "resource": RECORD_1 if status == 200 else 1},
        headers={"X-Request-ID": "bfe9eb29 /?"},
    )

    assert (status, "bfe9eb29 /?") == (answer.status_code, answer.headers["x-request-id"])


def test_request_id_may_be_absent(pdp: httpx.Client) -> None:
    """c-2-5-2: a request without an `X-Request-ID` does not fail."""
    answer = pdp.post("/access/v1/evaluation", json={**FIXTURE, "resource": RECORD_1})

    assert (200, True) == (answer.status_code, answer.json()["decision"])


def test_idempotency(pdp: httpx.Client) -> None:
    """c-2-6: the same request gets the same decision each time."""
    answers = {
        pdp.post("/access/v1/evaluation", json={**FIXTURE, "resource": RECORD_1}).json()["decision"] for _ in range(5)
    }

    assert {True} == answers


def test_request_with_page_token(pdp: httpx.Client) -> None:
    """c-4-5-2: the token of a page, without its limit, gives the page after; the last has an empty one."""
    first = pdp.post("/access/v1/search/subject", json={**SUBJECT_SEARCH, "page": {"limit": 1}}).json()
    token = first["page"]["next_token"]
    second = pdp.post("/access/v1/search/subject", json={**SUBJECT_SEARCH, "page": {"token": token}}).json()

    assert token
    assert not second["page"]["next_token"]
    assert [{"type": "user", "id": "alice"}, {"type": "user", "id": "bob"}] == first["results"] + second["results"]


def test_discovery(pdp: httpx.Client) -> None:
    """c-6: the metadata name this policy decision point and its endpoints."""
    answer = pdp.get("/.well-known/authzen-configuration")

    assert (200, "application/json") == (answer.status_code, answer.headers["content-type"])
    assert {
        "policy_decision_point": URL,
        "access_evaluation_endpoint": f"{URL}/access/v1/evaluation",
        "access_evaluations_endpoint": f"{URL}/access/v1/evaluations",
        "search_subject_endpoint": f"{URL}/access/v1/search/subject",
        "search_resource_endpoint": f"{URL}/access/v1/search/resource",
        "search_action_endpoint": f"{URL}/access/v1/search/action",
    } == answer.json()


def test_discovery_of_a_tenant(pdp: httpx.Client) -> None:
    """c-6-1: a policy set is a policy decision point of its own, found by its path, and answers there."""
    told = pdp.get("/.well-known/authzen-configuration/records").json()
    path = told["access_evaluation_endpoint"].removeprefix(URL)
    answer = pdp.post(path, json={**FIXTURE, "resource": RECORD_1})

    assert f"{URL}/records" == told["policy_decision_point"]
    assert (200, True) == (answer.status_code, answer.json()["decision"])
    assert pdp.get("/.well-known/authzen-configuration/nothing").status_code == 404
