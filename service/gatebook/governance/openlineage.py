"""Reads OpenLineage run events (https://openlineage.io/spec/2-0-2/OpenLineage.json).

Owns what of an event is believed, and how what it leaves out is taken. Rules:

1. only a `COMPLETE` says that something was made; every other event is read and says nothing;
2. an output with the facet `columnLineage` says per column what flowed in (`fields`), and what chose, joined or ordered
   its rows (`dataset`), which flows into every column. `INDIRECT` flows in as `DIRECT` does: a filter tells of what it
   filters by;
3. a column of the facet `schema` of which `columnLineage` says nothing may come from every column of every input.
   So may all columns of an output without that facet;
4. a source is masked where it has transformations and each says `masking: true`; what is not said is not masked;
5. unknown keys and facets are left aside; a wrong type is refused, with its place; so is what is too much.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from gatebook.errors import InvalidRequestError, LimitExceededError
from gatebook.governance.lineage import Derivation, Made, Name, Source

EVENT_BYTES_MAX = 1024 * 1024
OUTPUTS_MAX = 100
INPUTS_MAX = 100
COLUMNS_MAX = 1_000
SOURCES_MAX = 10_000
"""Sources of one output."""
TEXT_BYTES_MAX = 512
EVENT_TYPES = ("START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER")
COMPLETE = "COMPLETE"
FIELD = "event_json"

_RUN_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class _Transformation(msgspec.Struct):
    type: str = ""
    masking: bool | None = None


class _Input(msgspec.Struct):
    namespace: str
    name: str
    field: str
    transformations: list[_Transformation] | None = None


class _Field(msgspec.Struct, rename="camel"):
    input_fields: list[_Input]


class _ColumnLineage(msgspec.Struct):
    fields: dict[str, _Field]
    dataset: list[_Input] | None = None


class _Column(msgspec.Struct):
    name: str
    type: str | None = None
    fields: list[Any] | None = None


class _Schema(msgspec.Struct):
    fields: list[_Column] | None = None


class _Facets(msgspec.Struct, rename="camel"):
    schema: _Schema | None = None
    column_lineage: _ColumnLineage | None = None


class _Dataset(msgspec.Struct):
    namespace: str
    name: str
    facets: _Facets | None = None


class _Bare(msgspec.Struct):
    namespace: str
    name: str


class _Run(msgspec.Struct, rename="camel"):
    run_id: str


class _Event(msgspec.Struct, rename="camel"):
    event_time: str
    producer: str
    run: _Run
    job: _Bare
    event_type: str = "OTHER"
    inputs: list[_Bare] | None = None
    outputs: list[_Dataset] | None = None


class Reported(msgspec.Struct, frozen=True):
    """What an event says: derivations, of a run that is complete; else none."""

    event_type: str
    derivations: tuple[Derivation, ...] = ()


def read_event(event_json: bytes) -> Reported:
    """Reads one run event.

    Raises:
        InvalidRequestError: it is no run event.
        LimitExceededError: it says too much.
    """
    _require("bytes", EVENT_BYTES_MAX, len(event_json))
    try:
        event = msgspec.json.decode(event_json, type=_Event)
    except (msgspec.DecodeError, RecursionError) as err:
        raise InvalidRequestError(FIELD, f"is no OpenLineage run event: {err}") from err
    if event.event_type not in EVENT_TYPES:
        raise InvalidRequestError(FIELD, f"`eventType` is one of {', '.join(EVENT_TYPES)}")
    if not _RUN_ID.fullmatch(event.run.run_id):
        raise InvalidRequestError(FIELD, "`run.runId` is no UUID")
    job = _name(event.job, "job")
    inputs, outputs = event.inputs or [], event.outputs or []
    _require("inputs", INPUTS_MAX, len(inputs))
    _require("outputs", OUTPUTS_MAX, len(outputs))
    every_input = tuple(sorted({Source(_name(one, "inputs")) for one in inputs}))
    made = [_derivation(one, every_input, job, event.run.run_id.lower()) for one in outputs]
    if event.event_type != COMPLETE:
        return Reported(event.event_type)
    return Reported(event.event_type, tuple(one for one in made if one.size))


def _derivation(output: _Dataset, inputs: tuple[Source, ...], job: Name, run_id: str) -> Derivation:
    name = _name(output, "outputs")
    facets = output.facets or _Facets()
    lineage = facets.column_lineage
    schema = None if facets.schema is None else facets.schema.fields
    types = {_text(column.name, "schema.fields.name"): _text(column.type or "", "type") for column in schema or ()}
    told: dict[str, tuple[Source, ...]] = {}
    if lineage is not None:
        told = {_text(key, "fields"): _sources(field.input_fields) for key, field in lineage.fields.items()}
    _require("columns of one output", COLUMNS_MAX, len(types.keys() | told.keys()))
    columns = tuple(
        Made(column, types.get(column, ""), told.get(column, inputs)) for column in sorted(types.keys() | told.keys())
    )
    every = () if lineage is None else _sources(lineage.dataset or [])
    derivation = Derivation(name, columns, every, () if schema else inputs, job, run_id)
    _require("sources of one output", SOURCES_MAX, derivation.size)
    return derivation


def _sources(inputs: list[_Input]) -> tuple[Source, ...]:
    return tuple(sorted(set(_each_source(inputs))))


def _each_source(inputs: list[_Input]) -> Iterator[Source]:
    for one in inputs:
        steps = one.transformations or []
        masked = bool(steps) and all(step.masking is True for step in steps)
        direct = not steps or any(step.type != "INDIRECT" for step in steps)
        yield Source(_name(one, "inputFields"), _text(one.field, "inputFields.field"), masked, direct)


def _name(named: _Bare | _Dataset | _Input, where: str) -> Name:
    if not named.name:
        raise InvalidRequestError(FIELD, f"`{where}` holds an empty name")
    return Name(_text(named.namespace, f"{where}.namespace"), _text(named.name, f"{where}.name"))


def _text(text: str, where: str) -> str:
    if len(text.encode(errors="replace")) > TEXT_BYTES_MAX or not text.isprintable():
        raise InvalidRequestError(FIELD, f"`{where}` is over {TEXT_BYTES_MAX} bytes, or cannot be printed")
    return text


def _require(what: str, most: int, count: int) -> None:
    if count > most:
        message = f"the event has {count:,} {what}, at most {most:,} are taken: send it in parts"
        raise LimitExceededError(message, field=FIELD, limit=str(most), actual=str(count))
