"""AuthZEN over HTTP: the same answers as over gRPC, what is written, and how callers declare what they enforce."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from google.protobuf import json_format
from tests.serving import POLICIES, RunningServer, serving
from tests.telemetry_sets import DIRECTORY, telemetry_without_consent

from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import audit_service_pb2, types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub

ABLE = {
    "id": "pep",
    "supported_masks": list(types_pb2.MaskKind.keys()[1:]),
    "supported_obligations": list(types_pb2.ObligationKind.keys()[1:]),
}
ALICE, BOB = ({"type": "user", "id": name} for name in ("alice", "bob"))
RECORD_1, RECORD_2 = ({"type": "record", "id": name} for name in ("record-1", "record-2"))
FARAH = {"type": "user", "id": "farah"}
PROMPTS = {"type": "dataset", "id": "mci.prompts", "properties": {"columns": ["prompt_text", "subject_id"]}}
VARYING = ("decision_id", "receipt", "decide_time", "expires_time", "message")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with plain sets and a governed one whose purposes need no consent."""
    folder = tmp_path_factory.mktemp("authzen")
    sets = [POLICIES / "records", POLICIES / "basic", telemetry_without_consent(folder)]
    with serving(folder / "data", sets, "--directory", str(DIRECTORY), "--http", "127.0.0.1:0") as running:
        yield running


@pytest.fixture
def http(server: RunningServer) -> Iterator[httpx.Client]:
    """Calls the server over HTTP."""
    with httpx.Client(base_url=f"http://{server.http}", timeout=30) as client:
        yield client


def asked(subject: Any = ALICE, action: str = "read", resource: Any = RECORD_1, **more: Any) -> dict[str, Any]:  # noqa: ANN401  # JSON
    """Returns an evaluation."""
    return {"subject": subject, "action": {"name": action}, "resource": resource, **more}


def entries(server: RunningServer, **criteria: Any) -> list[audit_service_pb2.EntryRecord]:  # noqa: ANN401  # a filter
    """Returns the entries of the book that match, the oldest first."""
    with server.channel() as channel:
        request = audit_service_pb2.ListEntriesRequest(
            filter=audit_service_pb2.EntryFilter(**criteria),
            page_size=1000,
            order=audit_service_pb2.ENTRY_ORDER_OLDEST_FIRST,
        )
        return list(AuditServiceStub(channel).ListEntries(request).entries)


GOVERNED = types_pb2.AccessRequest(
    subject=types_pb2.Subject(type="user", id="farah"),
    action=types_pb2.Action(name="read"),
    resource=types_pb2.Resource(type="dataset", id="mci.prompts", columns=["prompt_text", "subject_id"]),
    purpose="model_training",
    context_json=b'{"network": "corp"}',
    enforcer=json_format.ParseDict(ABLE, types_pb2.Enforcer()),
)
SAME: list[tuple[str, types_pb2.AccessRequest, dict[str, Any]]] = [
    (
        "records",
        types_pb2.AccessRequest(
            subject=types_pb2.Subject(type="user", id="bob"),
            action=types_pb2.Action(name="write"),
            resource=types_pb2.Resource(type="record", id="record-2"),
        ),
        asked(BOB, "write", RECORD_2),
    ),
    (
        "records",
        types_pb2.AccessRequest(
            subject=types_pb2.Subject(type="user", id="alice"),
            action=types_pb2.Action(name="delete", properties_json=b'{"soft": true}'),
            resource=types_pb2.Resource(type="record", id="record-1"),
        ),
        {**asked(), "action": {"name": "delete", "properties": {"soft": True}}},
    ),
    (
        "telemetry",
        GOVERNED,
        asked(
            FARAH,
            resource=PROMPTS,
            context={"purpose": "model_training", "network": "corp", "gatebook": {"enforcer": ABLE}},
        ),
    ),
]


@pytest.mark.parametrize(("policy_set", "over_grpc", "over_http"), SAME, ids=["plain", "action properties", "governed"])
def test_http_and_grpc_give_one_decision(
    server: RunningServer,
    http: httpx.Client,
    policy_set: str,
    over_grpc: types_pb2.AccessRequest,
    over_http: dict[str, Any],
) -> None:
    """The same question gets the same decision, told in the JSON mapping of the proto, on both transports."""
    with server.channel() as channel:
        request = pb.CheckAccessRequest(policy_set=policy_set, access=over_grpc)
        expected = json_format.MessageToDict(
            AccessServiceStub(channel).CheckAccess(request).decision, preserving_proto_field_name=True
        )
    answer = http.post(f"/{policy_set}/access/v1/evaluation", json=over_http).json()

    told = answer["context"]["gatebook"]
    assert (expected["effect"] == "EFFECT_ALLOW") is answer["decision"]
    assert {k: v for k, v in expected.items() if k not in VARYING} == {
        k: v for k, v in told.items() if k not in VARYING
    }
    assert set(expected) - {"decision_id", "message"} == set(told)


def test_the_receipt_names_the_entry(server: RunningServer, http: httpx.Client) -> None:
    """What is answered is in the book, where the receipt says, under the id of the decision."""
    answer = http.post("/records/access/v1/evaluation", json=asked(), headers={"X-Request-ID": "r-1"}).json()

    receipt = answer["context"]["gatebook"]["receipt"]
    [entry] = entries(server, decision_id=answer["context"]["id"])
    assert int(receipt["index"]) == entry.index
    assert base64.b64decode(receipt["leaf_hash"]) == entry.leaf_hash
    assert dt.datetime.fromisoformat(receipt["entry_time"]) == entry.entry.entry_time.ToDatetime(dt.UTC)


@pytest.mark.parametrize(
    "declared",
    [
        {},
        {"gatebook": {}},
        {"gatebook": {"enforcer": {"id": "pep"}}},
        {"gatebook": {"enforcer": {**ABLE, "supported_obligations": []}}},
        {"gatebook": {"enforcer": {**ABLE, "supported_masks": ["MASK_KIND_FROM_THE_FUTURE"]}}},
    ],
)
def test_an_obligation_that_was_not_declared_is_a_denial(http: httpx.Client, declared: dict[str, Any]) -> None:
    """A caller that reads nothing but `decision` never gets an allow with an obligation that it did not declare."""
    context = {"purpose": "model_training", "network": "corp"}
    able = http.post(
        "/telemetry/access/v1/evaluation",
        json=asked(FARAH, resource=PROMPTS, context={**context, "gatebook": {"enforcer": ABLE}}),
    ).json()
    unable = http.post(
        "/telemetry/access/v1/evaluation", json=asked(FARAH, resource=PROMPTS, context={**context, **declared})
    ).json()

    assert (True, ["OBLIGATION_KIND_MASKS"]) == (able["decision"], able["context"]["gatebook"]["must_apply"])
    assert (False, "OBLIGATION_NOT_SUPPORTED") == (unable["decision"], unable["context"]["reason"])


YES, NO, BAD = (
    {"resource": RECORD_1},
    {"resource": {"type": "record", "id": "nothing"}},
    {"resource": {"type": "record"}},
)
SEMANTICS = [
    ("execute_all", [YES, NO, BAD, YES], [True, False, False, True], 3),
    ("deny_on_first_deny", [YES, YES, NO, YES], [True, True, False], 3),
    ("deny_on_first_deny", [YES, BAD, YES], [True, False], 1),
    ("deny_on_first_deny", [BAD, YES], [False], 0),
    ("deny_on_first_deny", [YES, YES], [True, True], 2),
    ("permit_on_first_permit", [NO, BAD, YES, YES], [False, False, True], 2),
    ("permit_on_first_permit", [YES, NO], [True], 1),
    ("permit_on_first_permit", [NO, NO], [False, False], 2),
]


@pytest.mark.parametrize(("semantic", "evaluations", "decisions", "written"), SEMANTICS)
def test_evaluations_semantics(
    server: RunningServer,
    http: httpx.Client,
    semantic: str,
    evaluations: list[Any],
    decisions: list[bool],
    written: int,
) -> None:
    """A batch ends where its semantic says; what is beyond is neither answered nor written, and an error denies."""
    before = len(entries(server, kind=1))
    body = {**asked(), "evaluations": evaluations, "options": {"evaluations_semantic": semantic, "another": 1}}
    del body["resource"]

    answer = http.post("/records/access/v1/evaluations", json=body)

    assert answer.status_code == 200, answer.text
    assert decisions == [one["decision"] for one in answer.json()["evaluations"]]
    assert before + written == len(entries(server, kind=1))


REFUSED: list[tuple[str, str, int, str]] = [
    ("evaluation", '{"subject": {"type": "user", "id": "a", "id": "b"}}', 400, "stands twice"),
    ("evaluation", '{"subject": "\\ud800"}', 400, "is not JSON"),
    ("evaluation", '{"a": 1e999}', 400, "is not JSON"),
    ("evaluation", '{"a": NaN}', 400, "is not JSON"),
    ("evaluation", '{"a": ' + "[" * 50 + "]" * 50 + "}", 400, "nests too deeply"),
    ("evaluation", '{"a": ' + "[" * 20_000 + "]" * 20_000 + "}", 400, "body"),
    ("evaluation", "{" + " " * 70_000 + "}", 413, "over 65536 bytes"),
    ("evaluations", '{"evaluations": {}}', 400, "evaluations: is not a list"),
    ("evaluations", '{"subject": 1, "evaluations": [{}]}', 400, "subject: is not an object"),
    ("evaluations", '{"evaluations": [{}], "options": {"evaluations_semantic": "maybe"}}', 400, "execute_all"),
    ("evaluations", '{"evaluations": [' + ",".join(["{}"] * 1001) + "]}", 400, "at most 1000"),
    ("search/subject", ('{"subject": {"type": "user"}, "action": {"name": "read"}, "resource": {"type": "record", '
     '"id": "record-1"}, "page": {"limit": -1}}'), 400, "page.limit"),
    ("search/subject", ('{"subject": {"type": "user"}, "action": {"name": "read"}, "resource": {"type": "record", '
     '"id": "record-1"}, "page": {"token": "AAAA"}}'), 400, "page_token"),
    ("evaluation", ('{"subject": {"type": "user", "id": "a\\u0000b"}, "action": {"name": "x"}, "resource": '
     '{"type": "record", "id": "r"}}'), 400, "control character"),
    ("evaluation", '{"subject": {"type": "user", "id": "' + "a" * 257 + '"}, "action": {"name": "x"}, "resource": '
     '{"type": "record", "id": "r"}}', 400, "at most 256"),
    ("evaluation", ('{"subject": {"type": "user", "id": "a"}, "action": {"name": "x"}, "resource": {"type": "record", '
     '"id": "r"}, "context": {"gatebook": {"enforcr": {}}}}'), 400, "context.gatebook.enforcr"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "body", "status", "message"), REFUSED, ids=[f"{p} {b[:40]}" for p, b, _, _ in REFUSED]
)
def test_malformed_requests_are_refused_with_the_path_of_the_member(
    server: RunningServer, http: httpx.Client, path: str, body: str, status: int, message: str
) -> None:
    """What is malformed is refused before anything is decided, named, and written nowhere."""
    before = len(entries(server, kind=1))

    answer = http.post(f"/records/access/v1/{path}", content=body, headers={"content-type": "application/json"})

    assert (status, True) == (answer.status_code, message in answer.text), answer.text
    assert answer.headers["gatebook-reason"]
    assert before == len(entries(server, kind=1))


def test_http_and_grpc_find_the_same(server: RunningServer, http: httpx.Client) -> None:
    """A search finds the same over both, and both are entries that say how much was found."""
    access = types_pb2.AccessRequest()
    access.CopyFrom(GOVERNED)
    access.subject.Clear()
    access.subject.type = "user"
    with server.channel() as channel:
        request = pb.SearchSubjectsRequest(policy_set="telemetry", access=access, page_size=1000)
        expected = [s.id for s in AccessServiceStub(channel).SearchSubjects(request).subjects]
    found = http.post("/telemetry/access/v1/search/subject", json={**SAME[2][2], "subject": {"type": "user"}}).json()

    assert expected
    assert expected == [result["id"] for result in found["results"]]
    told = [record.entry.read for record in entries(server) if record.entry.HasField("read")]
    searches = [read for read in told if read.method == "SearchSubjects"]
    assert [len(expected)] * 2 == [read.count for read in searches[-2:]]


def test_what_is_found_is_allowed(http: httpx.Client) -> None:
    """Each result of a search gets `decision: true` from an evaluation with the same inputs (Search, Semantics)."""
    question = {**SAME[2][2], "resource": {"type": "dataset"}}
    found = http.post("/telemetry/access/v1/search/resource", json=question).json()["results"]
    answers = http.post(
        "/telemetry/access/v1/evaluations", json={**question, "evaluations": [{"resource": one} for one in found]}
    ).json()

    assert found
    assert {True} == {one["decision"] for one in answers["evaluations"]}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/access/v1/evaluation", 400),
        ("POST", "/nothing/access/v1/evaluation", 404),
        ("POST", "/basic/access/v1/search/subject", 404),
        ("GET", "/records/access/v1/evaluation", 405),
        ("PUT", "/records/access/v1/evaluation", 405),
        ("POST", "/.well-known/authzen-configuration/records", 405),
        ("GET", "/.well-known/authzen-configuration", 404),
        ("GET", "/.well-known/authzen-configuration/nothing", 404),
        ("POST", "/records/access/v2/evaluation", 404),
        ("GET", "/", 404),
    ],
)
def test_paths_and_methods(http: httpx.Client, method: str, path: str, status: int) -> None:
    """Where several sets are served each has its own paths; what is not served is told by its status."""
    answer = http.request(method, path, json=asked(), headers={"X-Request-ID": "7"})

    assert (status, "7") == (answer.status_code, answer.headers["x-request-id"])


def test_metadata_name_what_a_set_can_do(http: httpx.Client) -> None:
    """A set that cannot be searched for subjects does not name that endpoint."""
    told = http.get("/.well-known/authzen-configuration/basic").json()

    assert {
        "policy_decision_point",
        "access_evaluation_endpoint",
        "access_evaluations_endpoint",
        "search_action_endpoint",
    } == set(told)
    assert told["policy_decision_point"].endswith("/basic")
