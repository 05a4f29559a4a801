"""The entries of lineage: where tables come from, and tags that were taken off.

Owns their bytes, and the fold over the chain of control entries that leads to what is known. What jobs report are names
of tables, columns and jobs; it stands in clear, as the names of a catalogue do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from gatebook.audit.entry import Stamp, finish, from_timestamp
from gatebook.errors import BookCorruptError
from gatebook.governance.lineage import Derivation, Lineage, Made, Name, Reclassification, Source
from gatebook.v1 import entry_pb2


def encode_derivation(derivation: Derivation, stamp: Stamp) -> bytes:
    """Returns the entry of a derivation.

    Raises:
        LimitExceededError: it does not fit an entry.
    """
    body = derivation_message(derivation)
    return finish(stamp, entry_pb2.AuditEntry(kind=entry_pb2.ENTRY_KIND_CONTROL, lineage=body))


def encode_reclassification(one: Reclassification, stamp: Stamp) -> bytes:
    """Returns the entry of a reclassification."""
    body = reclassification_message(one)
    return finish(stamp, entry_pb2.AuditEntry(kind=entry_pb2.ENTRY_KIND_CONTROL, reclassification=body))


def lineage_of(chain: Iterable[tuple[int, entry_pb2.AuditEntry]]) -> Lineage:
    """Returns what the control entries of a book say of where tables come from; takes them the newest first.

    Raises:
        BookCorruptError: one speaks of what it does not name.
    """
    derivations: list[Derivation] = []
    reclassifications: list[Reclassification] = []
    for index, entry in chain:
        if entry.HasField("lineage"):
            derivations.append(derivation_of(entry.lineage, index, entry.entry_time))
        elif entry.HasField("reclassification"):
            reclassifications.append(reclassification_of(entry.reclassification, index, entry.entry_time))
    return Lineage(tuple(derivations[::-1]), tuple(reclassifications[::-1]))


def derivation_message(derivation: Derivation) -> entry_pb2.LineageEntry:
    """Returns a derivation as a message."""
    body = entry_pb2.LineageEntry(
        namespace=derivation.output.namespace,
        name=derivation.output.name,
        job_namespace=derivation.job.namespace,
        job_name=derivation.job.name,
        run_id=derivation.run_id,
    )
    sources = [*derivation.every, *derivation.rest, *(one for made in derivation.columns for one in made.sources)]
    columns: dict[Name, dict[str, int]] = {}
    for source in sources:
        known = columns.setdefault(source.dataset, {"": 0})
        known.setdefault(source.column, len(known))
    places = {name: place for place, name in enumerate(columns)}
    for name, known in columns.items():
        body.inputs.add(namespace=name.namespace, name=name.name, columns=[column for column in known if column])

    def told(some: Sequence[Source]) -> list[entry_pb2.LineageSource]:
        return [
            entry_pb2.LineageSource(
                input=places[one.dataset],
                column=columns[one.dataset][one.column],
                masked=one.masked,
                indirect=not one.direct,
            )
            for one in some
        ]

    for made in derivation.columns:
        body.columns.add(name=made.name, type=made.type, sources=told(made.sources))
    body.every.extend(told(derivation.every))
    body.rest.extend(told(derivation.rest))
    return body


def derivation_of(body: entry_pb2.LineageEntry, index: int, entry_time: Timestamp) -> Derivation:
    """Returns the derivation of a message.

    Raises:
        BookCorruptError: it speaks of what it does not name.
    """
    inputs = [(Name(one.namespace, one.name), ("", *one.columns)) for one in body.inputs]

    def read(some: Iterable[entry_pb2.LineageSource]) -> tuple[Source, ...]:
        try:
            found = [(inputs[one.input], one) for one in some]
            return tuple(
                Source(name, columns[one.column], one.masked, not one.indirect) for (name, columns), one in found
            )
        except IndexError as err:
            raise BookCorruptError(f"entry {index} speaks of a source that it does not name", index) from err

    return Derivation(
        output=Name(body.namespace, body.name),
        columns=tuple(Made(one.name, one.type, read(one.sources)) for one in body.columns),
        every=read(body.every),
        rest=read(body.rest),
        job=Name(body.job_namespace, body.job_name),
        run_id=body.run_id,
        index=index,
        entry_time=from_timestamp(entry_time),
    )


def reclassification_message(one: Reclassification) -> entry_pb2.ReclassificationEntry:
    """Returns a reclassification as a message."""
    return entry_pb2.ReclassificationEntry(
        policy_set=one.policy_set, dataset=one.dataset, column=one.column, tag=one.tag, basis=one.basis
    )


def reclassification_of(body: entry_pb2.ReclassificationEntry, index: int, entry_time: Timestamp) -> Reclassification:
    """Returns the reclassification of a message."""
    at = from_timestamp(entry_time)
    return Reclassification(body.policy_set, body.dataset, body.column, body.tag, body.basis, index, at)
