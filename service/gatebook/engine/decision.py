"""Decisions, put together from what the steps of a request found.

Owns what a decision says besides its effect: revisions, rules, times, and which of the names in a request
belong to the vocabulary of the policy set, since only those may stand in clear in the book.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import compress, product

import msgspec

from gatebook.engine.obligations import Obliged
from gatebook.engine.snapshot import Snapshot
from gatebook.engine.verdict import ColumnVerdict
from gatebook.policy.dataset import Notice
from gatebook.values import AccessRequest, ColumnOutcome, Decision, Effect, Outcome, Reason, Rule, RuleRef

TTL = timedelta(minutes=5)
"""How long an allow may be used, at most."""
RULES_NAMED_MAX = 100
UNOBLIGED = Obliged(())
EFFECT_FIELDS = {"p2": "mask", "p3": "k"}
VOCABULARY = ("resource", "columns", "action", "purpose", "subject", "actor")
VOCABULARIES: Mapping[tuple[bool, ...], frozenset[str]] = {
    flags: frozenset(compress(VOCABULARY, flags)) for flags in product((False, True), repeat=len(VOCABULARY))
}


class Denial(msgspec.Struct, frozen=True):
    """Why a step failed, and what is known of the columns by then."""

    reason: Reason
    message: str
    columns: tuple[ColumnOutcome, ...] = ()
    rules: tuple[Rule, ...] = ()


def denied(
    snapshot: Snapshot, request: AccessRequest, now: datetime, denial: Denial, notice: Notice | None = None
) -> Decision:
    """Returns the denial of a request."""
    notice_id = "" if notice is None else notice.id

    def outcome() -> Outcome:
        return Outcome(
            effect=Effect.DENY,
            reason=denial.reason,
            message=denial.message,
            policy_set=snapshot.policy_set.name,
            policy_revision=snapshot.policy_revision,
            directory_revision=snapshot.directory_revision,
            columns=denial.columns,
            rules=references(snapshot, denial.rules),
            notice_id=notice_id,
        )

    texts = (denial.reason, denial.message, notice_id)
    return Decision(
        outcome=snapshot.recall.outcome(texts, (denial.columns, *denial.rules), outcome),
        decide_time=now,
        vocabulary_known=vocabulary(snapshot, request),
        data_subjects=data_subjects(snapshot, request),
        row_given=request.row is not None,
    )


def allowed(
    snapshot: Snapshot,
    request: AccessRequest,
    now: datetime,
    *,
    verdicts: Sequence[ColumnVerdict] = (),
    rules: Sequence[Rule] = (),
    obliged: Obliged = UNOBLIGED,
    notice: Notice | None = None,
    until: datetime | None = None,
) -> Decision:
    """Returns the allow of a request, with its obligations; `rules`, or those of `verdicts`, grant it.

    `until` is when the rules may say something else.
    """

    def outcome() -> Outcome:
        granting = [rule for verdict in verdicts if verdict.effect is Effect.ALLOW for rule in verdict.rules]
        return Outcome(
            effect=Effect.ALLOW,
            reason=Reason.ALLOWED,
            message="",
            policy_set=snapshot.policy_set.name,
            policy_revision=snapshot.policy_revision,
            directory_revision=snapshot.directory_revision,
            columns=obliged.columns,
            must_apply=obliged.must_apply,
            minimum_group=obliged.minimum_group,
            rules=references(snapshot, (*granting, *rules, *obliged.rules)),
            notice_id="" if notice is None else notice.id,
        )

    return Decision(
        outcome=snapshot.recall.outcome((Reason.ALLOWED,), (verdicts, obliged, notice, *rules), outcome),
        decide_time=now,
        expires_time=expiry(now, earlier(None if notice is None else notice.end_time, until)),
        vocabulary_known=vocabulary(snapshot, request),
        data_subjects=data_subjects(snapshot, request),
        row_given=request.row is not None,
    )


def earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    """Returns the earlier of two times, of which None is never."""
    return one if other is None or (one is not None and one < other) else other


@functools.lru_cache(maxsize=64)
def expiry(now: datetime, end_time: datetime | None) -> datetime:
    """Returns until when an allow may be used; never beyond the time, if there is one, at which it may end.

    It is the same object for all of a batch, so that what is made of it is found at once.
    """
    return now + TTL if end_time is None else min(now + TTL, end_time)


def references(snapshot: Snapshot, rules: Iterable[Rule]) -> tuple[RuleRef, ...]:
    """Returns references to rules, each once, at most 100."""
    distinct = list(dict.fromkeys(rules))[:RULES_NAMED_MAX]
    return tuple([RuleRef(rule.text, rule.file, rule.line, effect_of(snapshot, rule)) for rule in distinct])


def effect_of(snapshot: Snapshot, rule: Rule) -> str:
    """Returns what a rule does: `allow`, `deny`, its mask or its minimum group."""
    tokens = snapshot.policy_set.model.policies[rule.ptype].tokens
    field = EFFECT_FIELDS.get(rule.ptype, "eft") if snapshot.governed else "eft"
    return rule.fields[tokens.index(field)] if field in tokens else "allow"


def vocabulary(snapshot: Snapshot, request: AccessRequest) -> frozenset[str]:
    """Returns which parts of the request name something that the policy set knows."""
    purposes, directory, actor = snapshot.policy_set.purposes, snapshot.directory, request.actor
    known = request.resource in snapshot.resources
    flags = (
        known,
        known and snapshot.governed,
        request.action in snapshot.actions,
        purposes is not None and request.purpose in purposes,
        directory is not None and directory.find(request.subject.type, request.subject.id) is not None,
        directory is not None and actor is not None and directory.find(actor.type, actor.id) is not None,
    )
    return VOCABULARIES[flags]


def data_subjects(snapshot: Snapshot, request: AccessRequest) -> tuple[str, ...]:
    """Returns the ids of the people whom the row is about, each once."""
    if not request.row:
        return ()
    catalogue = snapshot.policy_set.catalogue
    dataset = None if catalogue is None else catalogue.datasets.get(request.resource)
    if dataset is None:
        return ()
    named: dict[str, None] = {}
    for key in dataset.subject_keys:
        value = request.row.get(key)
        for one in value if isinstance(value, list | tuple) else (value,):
            if isinstance(one, str) and one:
                named[one] = None
    return tuple(named)
