"""The entries of decisions.

Owns what of a request and its decision is written, and where:

1. in clear stands only what the policy set knows (`Decision.vocabulary_known`), so that a caller
   cannot write a name, or anything else, into the book by asking for it;
2. the whole request is sealed under the key of the subject and, when there is one, of the actor;
   with the revisions in clear it is everything that a rule read, so that a decision can be replayed;
3. the row is sealed under the keys of its data subjects, else under those of the request;
4. whoever the directory does not know is the stranger; a plain set has no directory, and there
   each subject is a person.

A decision entry always fits 65,535 bytes, by this sum:

    20,480  request and row, as they are sealed: refused by `ask`, before anything is decided
    20,480  columns: 256 with names of together 16,384 bytes, 12 bytes each for the outcome, 1,024 masks
    14,000  rules: 100 with file names of at most 128 bytes, and 12 bytes each for the rest
     3,328  data subjects: 64 with 37 bytes for both places of the pseudonym, and 960 to spare
     7,168  the rest: caller 256, resource 512, minimum group 4,096, names of 128, ids, times, salt
    ------
    65,456
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec

from gatebook.audit.asked import Asked
from gatebook.audit.entry import Stamp, encode_time, join, short_name
from gatebook.audit.people import PSEUDONYM_BYTES, STRANGER, Person, PersonId
from gatebook.audit.sealing import seal
from gatebook.audit.wire import SIZES, delimited, head, tag, varint
from gatebook.errors import LimitExceededError
from gatebook.generations import Fragments, Generations
from gatebook.v1 import entry_pb2, types_pb2
from gatebook.values import (
    AccessRequest,
    Decision,
    Effect,
    Entity,
    MaskKind,
    MinimumGroup,
    ObligationKind,
    Outcome,
    Reason,
    Revision,
)

DATA_SUBJECTS_MAX = 64
RULES_WRITTEN_MAX = 100
FRAGMENTS_CACHED_MAX = 16_384
OUTCOMES_BYTES_MAX = 16 << 20
"""Encoded outcomes that are remembered, together."""
REPEATED_BYTES_MAX = 16 << 20
"""What is remembered of decisions that are repeated, together."""
REPEATED_BYTES = 1_024
"""What one takes beside its encoded fields, roughly: the decision, the people that it is about, and its place."""
_SEALED, _DECISION = tag(entry_pb2.AuditEntry, "sealed"), tag(entry_pb2.AuditEntry, "decision")
_KIND_DECISION = tag(entry_pb2.AuditEntry, "kind") + varint(entry_pb2.ENTRY_KIND_DECISION)
_DECISION_ID, _TRACE_ID = (tag(entry_pb2.DecisionEntry, name) for name in ("decision_id", "trace_id"))
_SUBJECT_HEAD, _ACTOR_HEAD, _DATA_SUBJECT_HEAD = (
    head(entry_pb2.DecisionEntry, name, PSEUDONYM_BYTES)
    for name in ("subject_pseudonym", "actor_pseudonym", "data_subject_pseudonyms")
)
_EXPIRES_TIME = tag(entry_pb2.DecisionEntry, "expires_time")
_ALLOW_PARTIAL_TRUE = tag(entry_pb2.DecisionEntry, "allow_partial") + varint(1)
_ROW_GIVEN_TRUE = tag(entry_pb2.DecisionEntry, "row_given") + varint(1)
_PLAN_DIALECT = tag(entry_pb2.DecisionEntry, "plan_dialect")
DATA_SUBJECT_TYPE = "user"
"""Rows name their data subjects by id alone; they are people, and so of this type in the directory."""


class Decided(msgspec.Struct, frozen=True, gc=False):
    """A request with its decision: what one decision entry is made of."""

    asked: Asked
    decision: Decision
    decision_id: str
    repeats: Decision | None = None
    """The decision of the same request that this one repeats, but for its times: what was made of that one serves."""


class Clear(msgspec.Struct, frozen=True, gc=False):
    """What stands in clear of a decision whenever it is written, and about whom it is."""

    people: tuple[PersonId, ...]
    fields: bytes


def clear_of(decided: Decided) -> Clear:
    """Returns what stands in clear of a decision, which is made once of one that is repeated.

    Raises:
        LimitExceededError: the row has more than 64 data subjects.
    """
    decision, repeats = decided.decision, decided.repeats
    if (
        repeats is None
        # Whoever says what is repeated may be mistaken, and the book is for good.
        or decision.outcome is not repeats.outcome
        or decision.vocabulary_known is not repeats.vocabulary_known
        or decision.data_subjects is not repeats.data_subjects
    ):
        return _clear(decided)
    held = _repeated.get(id(repeats))
    if held is None:
        clear = _clear(decided)
        _repeated.put(id(repeats), (repeats, clear), REPEATED_BYTES + len(clear.fields))
        return clear
    return held[1]


def forget_old_decisions() -> None:
    """Forgets what stood in clear of decisions that were not repeated since this was called before."""
    _repeated.turn()


def _clear(decided: Decided) -> Clear:
    return Clear(people_of(decided), b"".join(_outcome(decided.asked.request, decided.decision)))


def people_of(decided: Decided) -> tuple[PersonId, ...]:
    """Returns everyone under whose keys the entry will be sealed: subject, actor, data subjects.

    Raises:
        LimitExceededError: the row has more than 64 data subjects.
    """
    request, decision = decided.asked.request, decided.decision
    if request.actor is None and not decision.data_subjects:
        return (_person(request.subject, decision, "subject"),)
    if len(decision.data_subjects) > DATA_SUBJECTS_MAX:
        raise LimitExceededError(
            f"the row names {len(decision.data_subjects)} data subjects, over {DATA_SUBJECTS_MAX}",
            limit="data_subjects",
        )
    people = [_person(request.subject, decision, "subject")]
    if request.actor is not None:
        people.append(_person(request.actor, decision, "actor"))
    people.extend(PersonId(DATA_SUBJECT_TYPE, i) if i else STRANGER for i in decision.data_subjects)
    return tuple(people)


def encode_decision(
    decided: Decided, stamp: Stamp, people: Sequence[Person], origin: str, clear: Clear | None = None
) -> bytes:
    """Returns the entry of a decision. `people` are those of `people_of`, in its order, durably stored.

    `clear` is what `clear_of` returns, where it is at hand.

    Raises:
        LimitExceededError: it does not fit, which the limits of requests and policy sets rule out.
    """
    asked, decision = decided.asked, decided.decision
    request = asked.request
    askers_count = 1 if request.actor is None else 2
    askers = people if len(people) == askers_count else people[:askers_count]
    sealed = seal(entry_pb2.SEALED_FIELD_REQUEST, origin, _distinct(askers), asked.personal)
    parts = [_KIND_DECISION, _SEALED, SIZES[len(sealed)], sealed]
    id_ = decided.decision_id.encode()
    body = [
        _DECISION_ID,
        SIZES[len(id_)],
        id_,
        (clear or clear_of(decided)).fields,
        _SUBJECT_HEAD,
        askers[0].pseudonym,
        _expiry(decision.expires_time),
    ]
    if askers_count > 1:
        body += (_ACTOR_HEAD, askers[1].pseudonym)
    if request.allow_partial:
        body.append(_ALLOW_PARTIAL_TRUE)
    if asked.trace_id:
        body.append(delimited(_TRACE_ID, asked.trace_id))
    data_subjects = people[askers_count:]
    for person in data_subjects:
        body += (_DATA_SUBJECT_HEAD, person.pseudonym)
    if asked.row is not None:
        owners = _distinct(data_subjects or askers)
        parts.append(delimited(_SEALED, seal(entry_pb2.SEALED_FIELD_ROW, origin, owners, asked.row)))
        body.append(_ROW_GIVEN_TRUE)
    if decision.plan_dialect:
        body.append(delimited(_PLAN_DIALECT, decision.plan_dialect.encode()))
    told = b"".join(body)
    return join(stamp, *parts, _DECISION, SIZES[len(told)], told)


def _outcome(request: AccessRequest, decision: Decision) -> tuple[bytes, bytes]:
    """Returns encoded fields of a `DecisionEntry` that say what was decided, with known names alone."""
    known, outcome = decision.vocabulary_known, decision.outcome
    question = _question(
        request.subject.type if outcome.directory_revision is not None and "subject" in known else "",
        request.resource if "resource" in known else "",
        request.action if "action" in known else "",
        request.purpose if "purpose" in known else "",
    )
    return question, _with_columns(outcome) if "columns" in known else _without_columns(outcome)


def _fields(outcome: Outcome, *, columns_known: bool) -> Iterator[bytes]:
    yield _revisions(outcome.policy_set, outcome.policy_revision, outcome.directory_revision)
    yield _answer(outcome.effect, outcome.reason, outcome.must_apply, outcome.minimum_group, outcome.notice_id)
    for column in outcome.columns:
        named = columns_known and column.reason is not Reason.UNKNOWN_COLUMN
        masks = tuple([mask.kind for mask in column.masks])
        yield _column(column.column if named else "", column.effect, column.reason, masks)
    for rule in outcome.rules[:RULES_WRITTEN_MAX]:
        yield _rule(rule.file, rule.line)


def _fields_with_columns(outcome: Outcome) -> bytes:
    return b"".join(_fields(outcome, columns_known=True))


def _fields_without_columns(outcome: Outcome) -> bytes:
    return b"".join(_fields(outcome, columns_known=False))


# Many decisions share an outcome, so that each is encoded once.
_with_columns = Fragments(_fields_with_columns, OUTCOMES_BYTES_MAX)
_without_columns = Fragments(_fields_without_columns, OUTCOMES_BYTES_MAX)
# INVARIANT: a decision stays alive as long as its id is a key, so that no other decision has this id.
_repeated: Generations[int, tuple[Decision, Clear]] = Generations(REPEATED_BYTES_MAX)


@functools.lru_cache(maxsize=256)
def _revisions(policy_set: str, policy: Revision, directory: Revision | None) -> bytes:
    return entry_pb2.DecisionEntry(
        policy_set=policy_set,
        policy_revision=_revision(policy),
        directory_revision=None if directory is None else _revision(directory),
    ).SerializeToString()


@functools.lru_cache(maxsize=FRAGMENTS_CACHED_MAX)
def _question(subject_type: str, resource_id: str, action: str, purpose: str) -> bytes:
    return entry_pb2.DecisionEntry(
        subject_type=subject_type, resource_id=resource_id, action=action, purpose=purpose
    ).SerializeToString()


@functools.lru_cache(maxsize=FRAGMENTS_CACHED_MAX)
def _answer(
    effect: Effect,
    reason: Reason,
    must_apply: tuple[ObligationKind, ...],
    group: MinimumGroup | None,
    notice_id: str,
) -> bytes:
    least = None if group is None else types_pb2.MinimumGroup(k=group.k, entity_columns=group.entity_columns)
    return entry_pb2.DecisionEntry(
        effect=effect,  # type: ignore[arg-type]  # the numbers are equal, see the contract test
        reason=reason,  # type: ignore[arg-type]  # as above
        must_apply=must_apply,  # type: ignore[arg-type]  # as above
        minimum_group=least,
        notice_id=notice_id,
    ).SerializeToString()


@functools.lru_cache(maxsize=FRAGMENTS_CACHED_MAX)
def _column(column: str, effect: Effect, reason: Reason, masks: tuple[MaskKind, ...]) -> bytes:
    outcome = entry_pb2.ColumnEntry(
        column=column,
        effect=effect,  # type: ignore[arg-type]  # the numbers are equal, see the contract test
        reason=reason,  # type: ignore[arg-type]  # as above
        masks=masks,  # type: ignore[arg-type]  # as above
    )
    return entry_pb2.DecisionEntry(columns=[outcome]).SerializeToString()


@functools.lru_cache(maxsize=FRAGMENTS_CACHED_MAX)
def _rule(file: str, line: int) -> bytes:
    rule = entry_pb2.RuleEntry(file=short_name(file), line=line)
    return entry_pb2.DecisionEntry(rules=[rule]).SerializeToString()


@functools.lru_cache(maxsize=64)
def _expiry(time: datetime | None) -> bytes:
    return b"" if time is None else delimited(_EXPIRES_TIME, encode_time(time))


def _person(entity: Entity, decision: Decision, role: str) -> PersonId:
    """Returns who this is, as far as the directory knows."""
    if entity.id and (role in decision.vocabulary_known or decision.outcome.directory_revision is None):
        return PersonId(entity.type, entity.id)
    return STRANGER


def _distinct(people: Sequence[Person]) -> Sequence[Person]:
    return people if len(people) == 1 else list(dict.fromkeys(people))


def _revision(revision: Revision) -> types_pb2.Revision:
    return types_pb2.Revision(digest=revision.digest, number=revision.number)
