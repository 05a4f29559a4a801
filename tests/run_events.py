"""OpenLineage run events as JSON, made by hand from the specification (RunEvent 2-0-2, columnLineage 1-2-0)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

NAMESPACE = "warehouse"


def source(column: str, *, masking: bool | None = False, kind: str = "DIRECT") -> dict[str, Any]:
    """Returns an input field: the last part of the name is the column."""
    name, _, field = column.rpartition(".")
    step: dict[str, Any] = {"type": kind, "subtype": "TRANSFORMATION", "description": "made by a test"}
    if masking is not None:
        step["masking"] = masking
    return {"namespace": NAMESPACE, "name": name, "field": field, "transformations": [step]}


def output(
    name: str,
    fields: Mapping[str, Sequence[dict[str, Any]]] | None = None,
    *,
    schema: Mapping[str, str] | None = None,
    dataset: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Returns an output dataset with its facets."""
    facets: dict[str, Any] = {}
    common = {"_producer": "https://example.org/job", "_schemaURL": "https://openlineage.io/spec/facets/1-0-0/X.json"}
    if fields is not None:
        told = {column: {"inputFields": list(sources)} for column, sources in fields.items()}
        facets["columnLineage"] = {**common, "fields": told, "dataset": list(dataset)}
    if schema is not None:
        facets["schema"] = {**common, "fields": [{"name": key, "type": value} for key, value in schema.items()]}
    return {"namespace": NAMESPACE, "name": name, "facets": facets}


def run_event(
    *outputs: dict[str, Any], inputs: Sequence[str] = (), event_type: str = "COMPLETE", run_id: str = ""
) -> bytes:
    """Returns a run event."""
    event = {
        "eventType": event_type,
        "eventTime": "2026-06-01T12:00:00.000Z",
        "producer": "https://example.org/job",
        "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "run": {"runId": run_id or str(uuid.uuid4()), "facets": {}},
        "job": {"namespace": "training", "name": "make_features", "facets": {}},
        "inputs": [{"namespace": NAMESPACE, "name": name, "facets": {}} for name in inputs],
        "outputs": list(outputs),
    }
    return json.dumps(event).encode()
