"""Decisions, put together from what the steps of a request found.

Owns what a decision says besides its effect: revisions, rules, times, and which of the names in a request
belong to the vocabulary of the policy set, since only those may stand in clear in the book.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec

from gatebook.engine.obligations import Obliged
from gatebook.engine.snapshot import Snapshot
from gatebook.policy.dataset import Notice
from gatebook.values import AccessRequest, ColumnOutcome, Decision, Effect, Reason, Rule, RuleRef

TTL = timedelta(minutes=5)
"""How long an allow may be used, at most."""
RULES_NAMED_MAX = 100
EFFECT_FIELDS = {"p2": "mask", "p3": "k"}


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
    return Decision(
        effect=Effect.DENY,
        reason=denial.reason,
        message=denial.message,
        policy_set=snapshot.policy_set.name,
        policy_revision=snapshot.policy_revision,
        directory_revision=snapshot.directory_revision,
        decide_time=now,
        columns=denial.columns,
        rules=references(snapshot, denial.rules),
        notice_id="" if notice is None else notice.id,
        vocabulary_known=vocabulary(snapshot, request),
        data_subjects=data_subjects(snapshot, request),
        row_given=request.row is not None,
    )


def allowed(
    snapshot: Snapshot,
    request: AccessRequest,
    now: datetime,
    *,
    rules: Iterable[Rule],
    obliged: Obliged | None = None,
    notice: Notice | None = None,
) -> Decision:
    """Returns the allow of a request, with its obligations."""
    expires = now + TTL
    if notice is not None and notice.end_time is not None:
        expires = min(expires, notice.end_time)
    return Decision(
        effect=Effect.ALLOW,
        reason=Reason.ALLOWED,
        message="",
        policy_set=snapshot.policy_set.name,
        policy_revision=snapshot.policy_revision,
        directory_revision=snapshot.directory_revision,
        decide_time=now,
        columns=() if obliged is None else obliged.columns,
        must_apply=() if obliged is None else obliged.must_apply,
        minimum_group=None if obliged is None else obliged.minimum_group,
        rules=references(snapshot, (*rules, *(() if obliged is None else obliged.rules))),
        notice_id="" if notice is None else notice.id,
        expires_time=expires,
        vocabulary_known=vocabulary(snapshot, request),
        data_subjects=data_subjects(snapshot, request),
        row_given=request.row is not None,
    )


def references(snapshot: Snapshot, rules: Iterable[Rule]) -> tuple[RuleRef, ...]:
    """Returns references to rules, each once, at most 100."""
    distinct = list(dict.fromkeys(rules))[:RULES_NAMED_MAX]
    return tuple([RuleRef(rule.text, rule.file, rule.line, effect_of(snapshot, rule)) for rule in distinct])


def effect_of(snapshot: Snapshot, rule: Rule) -> str:
    """Returns what a rule does: `allow`, `deny`, its mask or its minimum group."""
    tokens = snapshot.policy_set.model.policies[rule.ptype].tokens
    field = EFFECT_FIELDS.get(rule.ptype, "eft")
    return rule.fields[tokens.index(field)] if field in tokens else "allow"


def vocabulary(snapshot: Snapshot, request: AccessRequest) -> frozenset[str]:
    """Returns which parts of the request name something that the policy set knows."""
    catalogue, purposes = snapshot.policy_set.catalogue, snapshot.policy_set.purposes
    known = set()
    if request.resource in snapshot.resources:
        known.add("resource")
        if catalogue is not None:
            known.add("columns")
    if request.action in snapshot.actions:
        known.add("action")
    if purposes is not None and request.purpose in purposes:
        known.add("purpose")
    if snapshot.directory is not None:
        for role, entity in (("subject", request.subject), ("actor", request.actor)):
            if entity is not None and snapshot.directory.find(entity.type, entity.id) is not None:
                known.add(role)
    return frozenset(known)


def data_subjects(snapshot: Snapshot, request: AccessRequest) -> tuple[str, ...]:
    """Returns the ids of the people whom the row is about, each once."""
    catalogue = snapshot.policy_set.catalogue
    dataset = None if catalogue is None else catalogue.datasets.get(request.resource)
    if dataset is None or not request.row:
        return ()
    named: dict[str, None] = {}
    for key in dataset.subject_keys:
        value = request.row.get(key)
        for one in value if isinstance(value, list | tuple) else (value,):
            if isinstance(one, str) and one:
                named[one] = None
    return tuple(named)
