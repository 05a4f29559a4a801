"""Entries of every kind, filters of them, and what a filter means: an oracle apart from the index."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from datetime import timedelta

from hypothesis import strategies as st
from tests.audit_samples import (
    DIRECTORY_REVISION,
    EVERYTHING_KNOWN,
    NOW,
    ORIGIN,
    decided,
    decision,
    found_people,
    request,
)

from gatebook.audit.book import Book
from gatebook.audit.decision_entry import encode_decision
from gatebook.audit.entry import PolicyEvent, ReadEvent, Stamp, encode_policy, encode_read, encode_system, to_timestamp
from gatebook.audit.people import People, PersonId
from gatebook.v1 import entry_pb2, types_pb2
from gatebook.v1.audit_service_pb2 import EntryFilter, EntryRecord
from gatebook.values import ColumnOutcome, Effect, Entity, Reason, Revision

SIZE = 300
IDS = ["ana.silva", "ben.okoro", "chidi.eze", "mallory.unknown", "svc-trainer-7"]
RESOURCES = ["mci.prompts", "mci.prompts2", "ai_usage.token_usage"]
COLUMNS = ["prompt_text", "prompt", "tokens_in", "ts"]
ACTIONS = ["read", "export"]
PURPOSES = ["model", "model.training", "model.training.evaluation", "model_x", "model/x", "billing"]
CALLERS = ["local", "svc-dashboard"]
REVISIONS = [Revision(c * 64, i + 1) for i, c in enumerate("ab")]
SECOND = timedelta(seconds=1)


def some_entry(chance: random.Random, people: People, number: int, link: int, step: timedelta = SECOND) -> bytes:
    """Returns an entry of some kind about something."""
    stamp = Stamp.of(NOW + number // 3 * step, chance.choice(CALLERS), link)
    kind = chance.random()
    if kind < 0.05:
        event = PolicyEvent(step=entry_pb2.POLICY_STEP_ACTIVATED, revision=chance.choice(REVISIONS))
        return encode_policy(event, stamp)
    if kind < 0.1:
        named = PersonId("user", chance.choice(IDS))
        filter_json = json.dumps({"subject_id": named.id}).encode()
        read = ReadEvent(method="ListEntries", filter_json=filter_json, people=(people.ensure([named])[named],))
        return encode_read(chance.choice([ReadEvent(method="GetEntry"), read]), stamp, ORIGIN)
    if kind < 0.12:
        return encode_system(entry_pb2.SYSTEM_EVENT_STARTED, stamp, version="1")
    known = frozenset(name for name in EVERYTHING_KNOWN if chance.random() < 0.8)
    columns = chance.sample(COLUMNS, chance.randint(0, 3))
    row = {"id": chance.choice(IDS)} if chance.random() < 0.2 else None
    asked = request(
        subject=Entity(chance.choice(["user", "service"]), chance.choice(IDS)),
        actor=Entity("agent", chance.choice(IDS)) if chance.random() < 0.3 else None,
        action=chance.choice(ACTIONS),
        resource=chance.choice(RESOURCES),
        columns=tuple(columns),
        purpose=chance.choice(["", *PURPOSES]),
        row=row,
    )
    outcome = decision(
        effect=chance.choice([Effect.ALLOW, Effect.DENY]),
        reason=chance.choice([Reason.ALLOWED, Reason.NO_MATCHING_RULE, Reason.UNKNOWN_SUBJECT]),
        policy_revision=chance.choice(REVISIONS),
        directory_revision=chance.choice([DIRECTORY_REVISION, DIRECTORY_REVISION, None]),
        columns=tuple(ColumnOutcome(c, Effect.ALLOW, Reason.ALLOWED) for c in columns),
        data_subjects=(row["id"],) if row else (),
        vocabulary_known=known,
    )
    one = decided(asked, outcome, number)
    return encode_decision(one, stamp, found_people(people, one), ORIGIN)


def write_some(book: Book, people: People, size: int, seed: int, step: timedelta = SECOND) -> None:
    """Appends entries until a book has this size, three at each moment."""
    chance = random.Random(seed)  # a repeatable choice is wanted
    link = 0
    while book.size < size:
        raw = some_entry(chance, people, book.size, link, step)
        book.append_group([raw])
        link = book.size if entry_pb2.AuditEntry.FromString(raw).kind == entry_pb2.ENTRY_KIND_POLICY else link


def matches(record: EntryRecord, wanted: EntryFilter) -> bool:
    """Tells whether an entry matches: the meaning of a filter, in the words of its fields."""
    entry, decided_entry = record.entry, record.entry.decision
    ids = {record.request.subject.id, record.request.actor.id}
    named = ((record.row_json, "id"), (record.filter_json, "subject_id"))
    ids |= {json.loads(text)[name] for text, name in named if text}
    digests = {decided_entry.policy_revision.digest, entry.policy.revision.digest}
    purpose, time = decided_entry.purpose, entry.entry_time.ToNanoseconds()
    return all(
        (
            not wanted.subject_id or wanted.subject_id in ids,
            not wanted.resource_id or wanted.resource_id == decided_entry.resource_id,
            not wanted.column or wanted.column in {column.column for column in decided_entry.columns},
            not wanted.action or wanted.action == decided_entry.action,
            not wanted.purpose
            or (purpose if wanted.purpose == "*" else f"{purpose}.".startswith(f"{wanted.purpose}.")),
            not wanted.effect or wanted.effect == decided_entry.effect,
            not wanted.reason or wanted.reason == decided_entry.reason,
            not wanted.revision or wanted.revision in digests,
            not wanted.caller or wanted.caller == entry.caller,
            not wanted.decision_id or wanted.decision_id == decided_entry.decision_id,
            not wanted.kind or wanted.kind == entry.kind,
            not wanted.HasField("start_time") or time >= wanted.start_time.ToNanoseconds(),
            not wanted.HasField("end_time") or time < wanted.end_time.ToNanoseconds(),
            record.index >= wanted.start_index,
            not wanted.end_index or record.index < wanted.end_index,
        )
    )


TIMES = st.integers(-2, SIZE // 3 + 2).map(lambda s: to_timestamp(NOW + timedelta(seconds=s)))
FIELDS: dict[str, st.SearchStrategy[object]] = {
    "subject_id": st.sampled_from([*IDS, "nobody"]),
    "resource_id": st.sampled_from([*RESOURCES, "mci"]),
    "column": st.sampled_from([*COLUMNS, "none"]),
    "action": st.sampled_from([*ACTIONS, "none"]),
    "purpose": st.sampled_from([*PURPOSES, "mod", "*", "model.", "%", "model_training"]),
    "effect": st.sampled_from(types_pb2.Effect.values()),
    "reason": st.sampled_from([0, 1, 2, 8, 26]),
    "revision": st.sampled_from([*(r.digest for r in REVISIONS), DIRECTORY_REVISION.digest]),
    "caller": st.sampled_from([*CALLERS, "gatebook"]),
    "decision_id": st.integers(0, SIZE).map(lambda n: f"01930000-0000-7000-8000-{n:012}"),
    "kind": st.sampled_from(entry_pb2.EntryKind.values()),
    "start_time": TIMES,
    "end_time": TIMES,
    "start_index": st.integers(0, SIZE + 1),
    "end_index": st.integers(0, SIZE + 1),
}
FILTERS = st.lists(st.sampled_from(sorted(FIELDS)), max_size=6, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: FIELDS[name] for name in names})
)


def near(record: EntryRecord, names: list[str], people: Mapping[int, str]) -> EntryFilter:
    """Returns a filter by these fields that an entry matches, so far as it has them."""
    entry, outcome = record.entry, record.entry.decision
    digest = outcome.policy_revision.digest or entry.policy.revision.digest
    says: dict[str, object] = {
        "subject_id": people.get(record.index, ""),
        "resource_id": outcome.resource_id,
        "column": outcome.columns[0].column if outcome.columns else "",
        "action": outcome.action,
        "purpose": outcome.purpose.partition(".")[0],
        "effect": outcome.effect,
        "reason": outcome.reason,
        "revision": digest,
        "caller": entry.caller,
        "decision_id": outcome.decision_id,
        "kind": entry.kind,
        "start_time": entry.entry_time,
        "end_time": to_timestamp(NOW + timedelta(seconds=record.index // 3 + 1)),
        "start_index": max(0, record.index - 20),
        "end_index": record.index + 20,
    }
    return EntryFilter(**{name: says[name] for name in names})  # type: ignore[arg-type]  # each of its own type


NAMES = st.lists(st.sampled_from(sorted(FIELDS)), min_size=1, unique=True)
