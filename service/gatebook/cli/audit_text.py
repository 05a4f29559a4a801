"""Entries of the book in words, for people on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import DecodeError

from gatebook.cli.output import counted
from gatebook.v1 import audit_service_pb2, entry_pb2, types_pb2

COLUMNS = ("index", "time (UTC)", "kind", "caller", "who", "what", "outcome")
SEALED = "(sealed)"
ERASED = " (erased)"
NOT_REPLAYABLE = "NOT_REPLAYABLE"
"""Is said of a decision that cannot be explained or decided again: what the rules read is gone."""
DIGEST_SHOWN = 12


def row(record: audit_service_pb2.EntryRecord) -> tuple[str, ...]:
    """Returns the cells of one entry in a list."""
    entry = record.entry
    kind = short(entry_pb2.EntryKind, entry.kind, "ENTRY_KIND_").lower()
    who, what, outcome = "", "", ""
    match entry.WhichOneof("body"):
        case "decision":
            who, what, outcome = who_asked(record), asked(record), decided(entry.decision)
        case "policy":
            what, outcome = policy_step(entry.policy)
        case "read":
            what, outcome = entry.read.method, read(entry.read)
        case "system":
            what, outcome = system(entry.system)
        case "erasure":
            what, outcome = erasure(entry.erasure)
        case "retention":
            what, outcome = retention(entry.retention)
        case "carried":
            what, outcome = carried(entry.carried)
        case "lineage":
            what, outcome = lineage(entry.lineage)
        case "reclassification":
            told = entry.reclassification
            what = f"tag {told.tag} taken off {told.dataset}.{told.column} of {told.policy_set}"
        case _:
            pass
    return (str(record.index), time(entry), kind, entry.caller, who, what, outcome)


def time(entry: entry_pb2.AuditEntry) -> str:
    """Returns when an entry was made, to the second."""
    return entry.entry_time.ToDatetime().isoformat(sep=" ", timespec="seconds")


def who_asked(record: audit_service_pb2.EntryRecord) -> str:
    """Returns who asked, by name where the key exists and else by pseudonym."""
    decision = record.entry.decision
    if record.HasField("request"):
        subject, actor = record.request.subject.id, record.request.actor.id
    else:
        subject = pseudonym(decision.subject_pseudonym) + (ERASED if record.erased else "")
        actor = pseudonym(decision.actor_pseudonym) if decision.actor_pseudonym else ""
    return f"{subject} by {actor}" if actor else subject


def pseudonym(value: bytes) -> str:
    """Returns a pseudonym, marked as one."""
    return f"~{value.hex()[:8]}"


def asked(record: audit_service_pb2.EntryRecord) -> str:
    """Returns the question, with the names that only the sealed part has where it is open."""
    decision, request = record.entry.decision, record.request
    action = decision.action or request.action.name or SEALED
    resource = decision.resource_id or request.resource.id or SEALED
    purpose = decision.purpose or request.purpose
    columns = ", ".join(request.resource.columns)
    told = f"{action} {resource}{f' ({columns})' if columns else ''}{f' for {purpose}' if purpose else ''}"
    return f"{told}, planned in {decision.plan_dialect}" if decision.plan_dialect else told


def decided(decision: entry_pb2.DecisionEntry) -> str:
    """Returns the outcome of a decision."""
    effect = short(types_pb2.Effect, decision.effect, "EFFECT_")
    if decision.effect != types_pb2.EFFECT_ALLOW:
        return f"{effect} {reason(decision.reason)}"
    duties = (short(types_pb2.ObligationKind, k, "OBLIGATION_KIND_").lower() for k in decision.must_apply)
    told = ", ".join(duties)
    return f"{effect} with {told}" if told else effect


def reason(code: types_pb2.ReasonCode.ValueType) -> str:
    """Returns a reason without its prefix."""
    return short(types_pb2.ReasonCode, code, "REASON_CODE_")


def policy_step(policy: entry_pb2.PolicyEntry) -> tuple[str, str]:
    """Returns what was done to which set or directory, and what came of it."""
    step = short(entry_pb2.PolicyStep, policy.step, "POLICY_STEP_").lower().replace("_", " ")
    number = f" revision {policy.revision.number}" if policy.revision.number else ""
    what = f"{step} {policy.policy_set}{number} {policy.revision.digest[:DIGEST_SHOWN]}"
    subjects = f"{policy.subjects} subjects" if policy.subjects else ""
    findings = f"{policy.findings_count} findings" if policy.findings_count else ""
    tests = f"{policy.tests_run} tests, {policy.tests_failed} failed" if policy.tests_run else ""
    return " ".join(what.split()), ", ".join(filter(None, (subjects, findings, tests)))


def read(entry: entry_pb2.ReadEntry) -> str:
    """Returns what a reader of the book was given."""
    if not entry.HasField("first_index"):
        return "no entries"
    if entry.first_index == entry.last_index:
        return f"entry {entry.first_index}"
    return f"{counted(entry.count, 'entry', 'entries')} of {entry.first_index} to {entry.last_index}"


def system(entry: entry_pb2.SystemEntry) -> tuple[str, str]:
    """Returns what happened to the service."""
    event = short(entry_pb2.SystemEvent, entry.event, "SYSTEM_EVENT_").lower().replace("_", " ")
    other = entry.succession
    if entry.event == entry_pb2.SYSTEM_EVENT_CLOSED:
        return event, f"goes on as {other.verifier_key}{stated(other)}"
    if entry.event == entry_pb2.SYSTEM_EVENT_SUCCEEDED:
        lost = ", whose key was lost" if other.key_lost else ""
        return event, f"{other.verifier_key} at {other.size} entries{lost}{stated(other)}"
    unclean = ", after a stop that was not clean" if entry.unclean else ""
    return event, f"gatebook {entry.version}, {entry.recovered_size} entries found{unclean}"


def stated(succession: entry_pb2.Succession) -> str:
    """Returns why a book was closed, as it was stated."""
    return f": {succession.reason}" if succession.reason else ""


def lineage(entry: entry_pb2.LineageEntry) -> tuple[str, str]:
    """Returns what was made of what, and by which run."""
    made_of = ", ".join(one.name for one in entry.inputs)
    return f"{entry.name} made of {made_of}", f"by {entry.job_name}, run {entry.run_id}"


def erasure(entry: entry_pb2.ErasureEntry) -> tuple[str, str]:
    """Returns the step of an erasure."""
    if entry.step == entry_pb2.ERASURE_STEP_COMPLETED:
        return f"erasure of entry {entry.begun_index} completed", "the keys are in no file"
    people = ", ".join(pseudonym(one) for one in entry.pseudonyms)
    what = f"erase {people or 'nobody in this book'}"
    if not entry.requested_by_pseudonym:
        return what, "as another book says"  # found when this one was restored
    return what, f"{counted(entry.entries_count, 'entry', 'entries')} concerned"


def carried(entry: entry_pb2.CarriedEntry) -> tuple[str, str]:
    """Returns which older entry is restated, and what that one says."""
    inner = entry_pb2.AuditEntry()
    try:
        inner.ParseFromString(entry.entry_bytes)
    except DecodeError:
        inner.Clear()
    told = f"restates entry {entry.index}{f' of {entry.origin}' if entry.origin else ''}"
    if inner.WhichOneof("body") in {None, "carried"}:
        return told, ""
    *_, what, outcome = row(audit_service_pb2.EntryRecord(entry=inner))
    return f"{told}: {what}", outcome


def retention(entry: entry_pb2.RetentionEntry) -> tuple[str, str]:
    """Returns a retention policy, or the step of a pruning."""
    policy = f"{entry.policy_hash.hex()[:DIGEST_SHOWN]}, {entry.keep_days} days, {len(entry.holds)} holds"
    match entry.step:
        case entry_pb2.RETENTION_STEP_POLICY:
            return "retention policy in force", policy
        case entry_pb2.RETENTION_STEP_COMPLETED:
            return f"pruning of entry {entry.begun_index} completed", f"begins with {entry.first_index}"
        case _:
            return f"prune before entry {entry.first_index}", f"under entry {entry.policy_index}: {policy}"


def facts(record: audit_service_pb2.EntryRecord) -> Iterator[tuple[str, str]]:
    """Yields all that an entry says, name by name; what is sealed says so."""
    entry = record.entry
    yield "entry", str(record.index)
    yield "leaf hash", record.leaf_hash.hex()
    yield "time (UTC)", entry.entry_time.ToDatetime().isoformat(sep=" ", timespec="microseconds")
    _, _, *cells = row(record)
    yield from ((name, cell) for name, cell in zip(COLUMNS[2:], cells, strict=True) if cell)
    if entry.HasField("decision"):
        yield from decision_facts(record)
    if entry.policy.HasField("proposal"):
        yield from proposal_facts(entry.policy.proposal)
    if record.filter_json:
        yield "filter", record.filter_json.decode()
    for name, content in (
        ("requested by", record.requested_by),
        ("approved by", record.approved_by),
        ("stated reason", record.stated_reason),
        ("policy", record.policy_text.decode("utf-8", "replace").strip()),
    ):
        if content:
            yield name, content
    if record.key_missing:
        yield "missing", "a key that it needs no longer exists, and no erasure says why: run `gatebook audit verify`"
    if entry.control_link:
        yield "control state", f"as of entry {entry.control_link - 1}"
    for sealed in entry.sealed:
        field = short(entry_pb2.SealedField, sealed.field, "SEALED_FIELD_").lower()
        yield "sealed", f"{field}, for {', '.join(pseudonym(one) for one in sealed.pseudonyms)}"


def proposal_facts(proposal: entry_pb2.ProposalEntry) -> Iterator[tuple[str, str]]:
    """Yields what an entry says of the change that was proposed."""
    if proposal.bootstrap:
        yield "approvals", "asked for, and none given: nothing was active before (bootstrap)"
        return
    yield "proposes", short(types_pb2.ProposalKind, proposal.kind, "PROPOSAL_KIND_").lower()
    yield "diff", proposal.diff_digest
    if proposal.HasField("base"):
        yield "compared with", f"revision {proposal.base.number} {proposal.base.digest}"
    yield "draft", "loosens" if proposal.loosens else "does not loosen"
    for change in proposal.changes:
        direction = short(types_pb2.ChangeDirection, change.direction, "CHANGE_DIRECTION_").lower()
        place = f"{change.file}:{change.line}" if change.file else ""
        before = "of the revision before" if change.in_base else ""
        yield direction, " ".join(filter(None, (change.what, place, before, change.dataset)))
    if proposal.changes_count > len(proposal.changes):
        yield "changes", f"{proposal.changes_count} in all; what is not shown is counted"
    if proposal.HasField("expires_time"):
        yield "expires (UTC)", proposal.expires_time.ToDatetime().isoformat(sep=" ", timespec="milliseconds")
    if proposal.proposed_index:
        yield "proposed by", f"entry {proposal.proposed_index}"
    if proposal.approvals_count:
        yield "approvals", str(proposal.approvals_count)


def decision_facts(record: audit_service_pb2.EntryRecord) -> Iterator[tuple[str, str]]:
    """Yields what only a decision says."""
    decision = record.entry.decision
    yield "decision", decision.decision_id
    policy, directory = decision.policy_revision, decision.directory_revision
    if decision.plan_dialect:
        yield "plan", f"about all rows, answered with SQL for {decision.plan_dialect}"
    yield "policy", f"{decision.policy_set} revision {policy.number} {policy.digest}"
    if decision.HasField("directory_revision"):
        yield "directory", f"revision {directory.number} {directory.digest}"
    yield from request_facts(record)
    for column in decision.columns:
        effect = short(types_pb2.Effect, column.effect, "EFFECT_").lower()
        masks = ", ".join(short(types_pb2.MaskKind, mask, "MASK_KIND_").lower() for mask in column.masks)
        told = f"{effect} {reason(column.reason)}{f', masks: {masks}' if masks else ''}"
        yield f"column {column.column or '(not catalogued)'}", told
    if decision.HasField("minimum_group"):
        yield "minimum group", f"{decision.minimum_group.k} of {', '.join(decision.minimum_group.entity_columns)}"
    yield from (("rule", f"{rule.file}:{rule.line}") for rule in decision.rules)
    if decision.notice_id:
        yield "notice", decision.notice_id
    if decision.HasField("expires_time"):
        yield "expires (UTC)", decision.expires_time.ToDatetime().isoformat(sep=" ", timespec="milliseconds")
    if decision.trace_id:
        yield "trace", decision.trace_id.hex()


def request_facts(record: audit_service_pb2.EntryRecord) -> Iterator[tuple[str, str]]:
    """Yields what stood in the request, where it opens."""
    request = record.request
    if not record.HasField("request"):
        yield "request", f"{SEALED}: {'who was erased' if record.erased else 'a key that it needs no longer exists'}"
        yield "replay", f"{NOT_REPLAYABLE}: what the rules read is gone"
    for name, content in (
        ("subject says", request.subject.properties_json),
        ("actor says", request.actor.properties_json),
        ("context", request.context_json),
        ("row", record.row_json),
        ("enforcer", request.enforcer.id.encode()),
        ("request id", request.request_id.encode()),
    ):
        if content:
            yield name, content.decode()


def short(enum: Any, number: int, prefix: str) -> str:  # noqa: ANN401  # generated enums have no common type
    """Returns the name of an enum value without its prefix, or its number where this version has no name."""
    return enum.Name(number).removeprefix(prefix) if number in enum.values() else str(number)
