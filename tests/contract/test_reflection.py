"""A client that knows the server only by reflection can call everything."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tests.serving import POLICIES, RunningServer, serving

ACCESS = {
    "subject": {"id": "alice"},
    "action": {"name": "read"},
    "resource": {"id": "report:weekly"},
}
PLANS, DIFFS = "PlanAccess", "DiffPolicySet"
GOVERNED = (PLANS, DIFFS)
"""What only governed sets know."""
NOT_HERE = (*GOVERNED, "ApproveRevision", "WithdrawProposal", "ProposeReclassification")
"""What a plain set without approvals cannot answer; tests/contract/test_approvals.py calls it."""
TWO = {"requested_by": "kim", "approved_by": "lee", "reason": "ticket 1"}
EVENT = b64encode(
    b'{"eventType": "START", "eventTime": "2026-01-01T00:00:00Z", "producer": "https://example.org", "job": '
    b'{"namespace": "jobs", "name": "j"}, "run": {"runId": "00000000-0000-4000-8000-000000000000"}}'
).decode()
REQUESTS: dict[str, dict[str, Any]] = {
    "CheckAccess": {"access": ACCESS, "explain": True},
    "BatchCheckAccess": {"items": [{"access": ACCESS}]},
    "StreamCheckAccess": {"items": [{"access": ACCESS}]},
    "SearchSubjects": {"access": {"action": ACCESS["action"], "resource": ACCESS["resource"]}},
    "SearchResources": {"access": {"subject": ACCESS["subject"], "action": ACCESS["action"]}},
    "SearchActions": {"access": {"subject": ACCESS["subject"], "resource": ACCESS["resource"]}},
    "ExplainDecision": {},
    "ReplayDecisions": {},
    "ShadowPolicySet": {},
    "ValidatePolicySet": {},
    "PublishPolicySet": {},
    "UploadPolicySet": {},
    "PublishDirectory": {},
    "UploadDirectory": {},
    "GetRevision": {},
    "ListRevisions": {},
    "WatchRevisions": {},
    "RollbackPolicySet": {"number": 2},
    "ListProposals": {},
    "RecordLineage": {"event_json": EVENT},
    "GetLineage": {},
    "ListEntries": {"filter": {"effect": "EFFECT_ALLOW"}},
    "GetEntry": {"index": 0},
    "TailEntries": {"start_index": 0},
    "GetCheckpoint": {"refresh": True},
    "ListBooks": {},
    "GetInclusionProof": {"index": 0},
    "GetConsistencyProof": {"old_size": 1},
    "EraseSubject": {**TWO, "subject_id": "ann", "validate_only": True},
    "PruneEntries": {**TWO, "keep_days": 1, "policy": "a2VlcF9kYXlzID0gMQ==", "validate_only": True},
}


class Reflected:
    """The services of a server, as it describes them itself."""

    def __init__(self, channel: grpc.Channel) -> None:
        """Asks the server for its services."""
        self._channel = channel
        self._database = ProtoReflectionDescriptorDatabase(channel)
        self._pool = descriptor_pool.DescriptorPool(self._database)

    def methods(self) -> Iterator[MethodDescriptor]:
        """Yields every method of Gatebook's own services."""
        for name in self._database.get_services():
            if name.startswith("gatebook."):
                yield from self._pool.FindServiceByName(name).methods

    def call(self, method: MethodDescriptor, request: dict[str, Any]) -> dict[str, Any]:
        """Calls a method with a request in JSON; of a stream, returns the first answer."""
        ask = json_format.ParseDict(request, message_factory.GetMessageClass(method.input_type)())
        kind = ("stream" if method.client_streaming else "unary", "stream" if method.server_streaming else "unary")
        factory: Callable[..., Any] = getattr(self._channel, "_".join(kind))
        callable_ = factory(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )
        answer = callable_(iter([ask]) if method.client_streaming else ask, timeout=30)
        first = next(answer) if method.server_streaming else answer
        if method.server_streaming:
            answer.cancel()
        return json_format.MessageToDict(first, preserving_proto_field_name=True)


def files(folder: Path) -> list[dict[str, Any]]:
    """Returns the files of a folder as a request in JSON has them."""
    names = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [{"path": str(path.relative_to(folder)), "content": b64encode(path.read_bytes()).decode()} for path in names]


@pytest.fixture(scope="module")
def basic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of the plain set `basic`."""
    with serving(tmp_path_factory.mktemp("reflected"), [POLICIES / "basic"], "--dev") as server:
        yield server


PLAN = {
    "access": {
        "subject": {"type": "user", "id": "fiona"},
        "action": {"name": "read"},
        "resource": {"id": "ai_usage.token_usage", "columns": ["tokens_in"]},
        "purpose": "cost_management",
        "enforcer": {"supported_obligations": ["OBLIGATION_KIND_MINIMUM_GROUP"]},
    },
    "dialect": "duckdb",
}


@pytest.fixture(scope="module")
def telemetry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of the governed set `telemetry`."""
    with serving(tmp_path_factory.mktemp("planned"), [POLICIES / "telemetry"]) as server:
        yield server


def searchable(published: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the files of a plain set with the subjects and resources that it knows."""
    known = {"directory/users.jsonl": {"type": "user", "id": "alice"}}
    known["resources/reports.jsonl"] = {"type": "report", "id": "report:weekly"}
    made = [{"path": path, "content": b64encode(json.dumps(line).encode()).decode()} for path, line in known.items()]
    return [*(file for file in published if not file["path"].startswith("tests/")), *made]


def test_everything_can_be_called_by_reflection(basic: RunningServer) -> None:
    """Every method that the server describes answers a request built from that description alone."""
    published = {"policy_set": "basic", "files": searchable(files(POLICIES / "basic"))}
    subjects = [{"path": "people.jsonl", "content": "eyJ0eXBlIjogInVzZXIiLCAiaWQiOiAiYWxpY2UifQo="}]
    requests = {**REQUESTS, "ValidatePolicySet": published, "PublishPolicySet": published}
    requests |= {"ReplayDecisions": published, "ShadowPolicySet": {**published, "seconds": 1}}
    requests["UploadPolicySet"] = {"part": published}
    requests["PublishDirectory"] = {"files": subjects}
    requests["UploadDirectory"] = {"part": {"files": subjects}}
    with basic.channel() as channel:
        reflected = Reflected(channel)
        methods = sorted(reflected.methods(), key=lambda method: method.name.startswith("Search"))
        methods = [method for method in methods if method.name not in NOT_HERE]
        check = next(method for method in methods if method.name == "CheckAccess")
        decided = reflected.call(check, REQUESTS["CheckAccess"])["decision"]
        requests["ExplainDecision"] = {"decision_id": decided["decision_id"]}
        answers = {method.name: reflected.call(method, requests[method.name]) for method in methods}

    assert answers.keys() == REQUESTS.keys()
    assert answers["CheckAccess"]["decision"]["effect"] == "EFFECT_ALLOW"
    assert answers["StreamCheckAccess"]["results"][0]["decision"]["effect"] == "EFFECT_ALLOW"
    assert answers["ExplainDecision"]["replayed"]["equal"]
    assert answers["ReplayDecisions"]["progress"]["decided"] != "0"
    assert answers["PublishDirectory"]["subjects"] == 1
    assert answers["UploadDirectory"]["published"]["subjects"] == 1
    assert answers["UploadPolicySet"]["published"]["revision"]["number"] == "2"
    assert answers["TailEntries"]["entries"][0]["entry"]["kind"] == "ENTRY_KIND_SYSTEM"


def test_plans_can_be_called_by_reflection(telemetry: RunningServer) -> None:
    """The methods that plan and compare, of which only governed sets know, answer such a request too."""
    with telemetry.channel() as channel:
        reflected = Reflected(channel)
        methods = {method.name: method for method in reflected.methods() if method.name in GOVERNED}
        answer = reflected.call(methods[PLANS], PLAN)
        difference = reflected.call(methods[DIFFS], {})

    assert difference["impact"]["policy_set"] == "telemetry"
    assert "changes" not in difference["impact"]

    assert answer["decision"]["effect"] == "EFFECT_ALLOW"
    assert answer["masks_sql"] == {"tokens_in": '"tokens_in"'}
