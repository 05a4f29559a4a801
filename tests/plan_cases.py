"""The good answer of `tests/cases/plan_fail_closed.yaml`, and changes of it."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format
from ruamel.yaml import YAML
from tests.client_cases import changed

from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import types_pb2
from gatebook_client.decision import clock
from gatebook_client.doubts import Asked

CASES = pathlib.Path(__file__).parent / "cases"
TABLE = YAML(typ="safe").load((CASES / "plan_fail_closed.yaml").read_text(encoding="utf-8"))


def asked(question: Mapping[str, Any] | None = None, sent_clock: float | None = None) -> Asked:
    """Returns what the table's plan asked for, with changes."""
    stated = changed(TABLE["asked"], question or {})
    return Asked(
        columns=tuple(stated["columns"]),
        allow_partial=stated["allow_partial"],
        masks=frozenset(types_pb2.MaskKind.Value(name) for name in stated["masks"]),
        obligations=frozenset(types_pb2.ObligationKind.Value(name) for name in stated["obligations"]),
        sent_clock=clock() if sent_clock is None else sent_clock,
        plan=True,
    )


def answer(change: Mapping[str, Any] | None = None) -> pb.PlanAccessResponse:
    """Returns the table's good answer, with changes."""
    return json_format.ParseDict(changed(TABLE["good"], change or {}), pb.PlanAccessResponse())
