"""Casbin models on a server: what `gatebook.yaml` says of the matcher and of patterns decides what is answered."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format
from tests.serving import ROOT, serving

from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import policy_service_pb2 as policy_pb
from gatebook.v1 import types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub
from gatebook.v1.policy_service_pb2_grpc import PolicyServiceStub

ASKED_MAX = 100_000
QUESTIONS = {
    "role_patterns": [
        ({"subject": "ana", "action": "read", "resource": "/book/1", "dom": "hr"}, types_pb2.EFFECT_ALLOW),
        ({"subject": "ana", "action": "read", "resource": "/book/1", "dom": "legal"}, types_pb2.EFFECT_DENY),
        ({"subject": "ana", "action": "read", "resource": "/pen/1", "dom": "hr"}, types_pb2.EFFECT_DENY),
        ({"subject": "ben", "action": "write", "resource": "/book/2", "dom": "legal"}, types_pb2.EFFECT_ALLOW),
    ],
    "second_matcher": [
        ({"subject": "ana", "action": "read", "resource": "data/1"}, types_pb2.EFFECT_ALLOW),
        ({"subject": "ana", "action": "read", "resource": "other/1"}, types_pb2.EFFECT_DENY),
    ],
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_settings_of_a_plain_set_decide(tmp_path: Path, name: str) -> None:
    """A server that loads the set answers by its matcher and its patterns, and explains a denial."""
    shutil.copytree(ROOT / "tests/cases/casbin" / name, tmp_path / name)
    with serving(tmp_path / "data", [tmp_path / name], "--dev") as server, server.channel() as channel:
        stub = AccessServiceStub(channel)
        for question, expected in QUESTIONS[name]:
            access = types_pb2.AccessRequest(
                subject=types_pb2.Subject(type="user", id=question["subject"]),
                action=types_pb2.Action(name=question["action"]),
                resource=types_pb2.Resource(id=question["resource"]),
            )
            if "dom" in question:
                json_format.ParseDict({"dom": question["dom"]}, access.context)
            answer = stub.CheckAccess(pb.CheckAccessRequest(access=access, explain=True))
            assert expected == answer.decision.effect, question


def test_a_role_ends_while_a_server_runs(tmp_path: Path) -> None:
    """A link is a role until its end: what is remembered of a request ends with it, and so does every allow.

    The same bytes are asked again and again, so that they are familiar. Where a publish takes longer than the link
    lasts, it lasts longer the next time.
    """
    folder = tmp_path / "roles_for_a_while"
    shutil.copytree(ROOT / "tests/cases/times/roles_for_a_while", folder)
    with serving(tmp_path / "data", [folder], "--dev") as server, server.channel() as channel:
        access = types_pb2.AccessRequest(
            subject=types_pb2.Subject(type="user", id="ana"),
            action=types_pb2.Action(name="read"),
            resource=types_pb2.Resource(id="ledger"),
        )
        request = pb.CheckAccessRequest(policy_set=folder.name, access=access, explain=True)
        allows, answer, end = list[types_pb2.Decision](), pb.CheckAccessResponse(), 0
        for seconds in (3, 10, 30, 60):
            end = int(time.time()) + seconds
            _publish(channel, folder, f"{datetime.fromtimestamp(end, UTC):%Y-%m-%d %H:%M:%S}")
            allows, answer = _ask_while_allowed(AccessServiceStub(channel), request)
            if allows:
                break

    assert allows
    assert [] == [
        it for it in allows if not it.decide_time.seconds < end or it.expires_time.ToNanoseconds() > end * 10**9
    ]
    assert answer.decision.decide_time.seconds >= end
    assert types_pb2.REASON_CODE_NO_MATCHING_RULE == answer.decision.reason
    assert ["`ana` does not inherit `auditor` by `g`"] == list(answer.explanation.near_rules[0].lacked)


def _ask_while_allowed(
    stub: AccessServiceStub, request: pb.CheckAccessRequest
) -> tuple[list[types_pb2.Decision], pb.CheckAccessResponse]:
    """Asks the same again until it is denied; returns the allows, and the last answer."""
    allows: list[types_pb2.Decision] = []
    answer: pb.CheckAccessResponse = stub.CheckAccess(request)
    while answer.decision.effect == types_pb2.EFFECT_ALLOW and len(allows) < ASKED_MAX:
        allows.append(answer.decision)
        answer = stub.CheckAccess(request)
    return allows, answer


def _publish(channel: grpc.Channel, folder: Path, end: str) -> None:
    """Publishes the set, in which ana audits until then."""
    policy = f"p, auditor, ledger, read, allow\ng, ana, auditor, _, {end}\n"
    files = {path.name: path.read_bytes() for path in folder.iterdir()} | {"policy.csv": policy.encode()}
    request = policy_pb.PublishPolicySetRequest(
        policy_set=folder.name, files=[policy_pb.PolicyFile(path=path, content=it) for path, it in files.items()]
    )
    PolicyServiceStub(channel).PublishPolicySet(request, timeout=60)
