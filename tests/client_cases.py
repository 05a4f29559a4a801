"""The good answer of `tests/cases/client_fail_closed.yaml`, and changes of it."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format
from ruamel.yaml import YAML

from gatebook.v1 import types_pb2
from gatebook_client.decision import clock
from gatebook_client.doubts import Asked

CASES = pathlib.Path(__file__).parent / "cases"
TABLE = YAML(typ="safe").load((CASES / "client_fail_closed.yaml").read_text(encoding="utf-8"))
FAULTS = YAML(typ="safe").load((CASES / "client_faults.yaml").read_text(encoding="utf-8"))


def changed(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `base` with the changes merged in; null removes."""
    merged = dict(base)
    for name, value in change.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict) and isinstance(merged.get(name), dict):
            merged[name] = changed(merged[name], value)
        else:
            merged[name] = value
    return merged


def asked(change: Mapping[str, Any] | None = None, sent_clock: float | None = None) -> Asked:
    """Returns what the table's check asked for, with changes."""
    stated = changed(TABLE["asked"], change or {})
    return Asked(
        columns=tuple(stated["columns"]),
        allow_partial=stated["allow_partial"],
        masks=frozenset(types_pb2.MaskKind.Value(name) for name in stated["masks"]),
        obligations=frozenset(types_pb2.ObligationKind.Value(name) for name in stated["obligations"]),
        receipt=types_pb2.RECEIPT_LEVEL_FULL if stated["full_receipt"] else types_pb2.RECEIPT_LEVEL_BASIC,
        sent_clock=clock() if sent_clock is None else sent_clock,
    )


def answer(change: Mapping[str, Any] | None = None) -> types_pb2.Decision:
    """Returns the table's good answer, with changes."""
    return json_format.ParseDict(changed(TABLE["good"], change or {}), types_pb2.Decision())


def plain_answer(change: Mapping[str, Any] | None = None) -> types_pb2.Decision:
    """Returns a good answer without columns and obligations."""
    plain = {"columns": None, "must_apply": None, "minimum_group": None, "directory_revision": None}
    return answer(plain | dict(change or {}))
