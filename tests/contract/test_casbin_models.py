"""Casbin models on a server: what `gatebook.yaml` says of the matcher and of patterns decides what is answered."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from google.protobuf import json_format
from tests.serving import ROOT, serving

from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub

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
    """A link is a role until its end: no allow may be used longer, and what is remembered of a request ends with it.

    The same bytes are asked again and again, so that they are familiar, and the time of each decision is in its entry.
    """
    folder = tmp_path / "roles_for_a_while"
    shutil.copytree(ROOT / "tests/cases/times/roles_for_a_while", folder)
    with serving(tmp_path / "data", [folder], "--dev") as server, server.channel() as channel:
        end = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=4)
        policy = f"p, auditor, ledger, read, allow\ng, ana, auditor, _, {end:%Y-%m-%d %H:%M:%S}\n"
        files = {path.name: path.read_bytes() for path in folder.iterdir()} | {"policy.csv": policy.encode()}
        publish = policy_pb.PublishPolicySetRequest(name=folder.name, files=files, message="for a while")
        PolicyServiceStub(channel).PublishPolicySet(publish)
        access = types_pb2.AccessRequest(
            policy_set=folder.name,
            subject=types_pb2.Subject(type="user", id="ana"),
            action=types_pb2.Action(name="read"),
            resource=types_pb2.Resource(id="ledger"),
        )
        stub, request = AccessServiceStub(channel), pb.CheckAccessRequest(access=access, explain=True)
        decisions = [stub.CheckAccess(request).decision]
        while decisions[-1].effect == types_pb2.EFFECT_ALLOW and len(decisions) < ASKED_MAX:
            decisions.append(stub.CheckAccess(request).decision)
        last = stub.CheckAccess(request)
