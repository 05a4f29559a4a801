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
