"""Requests, decisions and entries for the tests of the audit part."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from tests.decisions import changed, decision_of

from gatebook.audit.asked import ask
from gatebook.audit.decision_entry import Decided, encode_decision, people_of
from gatebook.audit.entry import Stamp
from gatebook.audit.people import People, Person
from gatebook.values import (
    AccessRequest,
    ColumnOutcome,
    Decision,
    Effect,
    Enforcer,
    Entity,
    Mask,
    MaskKind,
    MinimumGroup,
    ObligationKind,
    Reason,
    Revision,
    RuleRef,
)

ORIGIN = "gatebook.test/book"
NOW = datetime(2026, 11, 21, 9, 30, 0, 123456, tzinfo=UTC)
EVERYTHING_KNOWN = frozenset({"subject", "actor", "resource", "columns", "action", "purpose"})
POLICY_REVISION = Revision("a1" * 32, 3)
DIRECTORY_REVISION = Revision("d1" * 32, 7)


REQUEST = AccessRequest(
    subject=Entity("user", "farah", {"level": 4}),
    action="read",
    resource="mci.keystroke_events",
    columns=("event_id", "key_text"),
    purpose="model_training",
    context={"network": "corp"},
    enforcer=Enforcer("svc-training", frozenset({MaskKind.REDACT}), frozenset({ObligationKind.MASKS})),
)
DECISION = decision_of(
    effect=Effect.ALLOW,
    reason=Reason.ALLOWED,
    message="every step passed",
    policy_set="telemetry",
    policy_revision=POLICY_REVISION,
    directory_revision=DIRECTORY_REVISION,
    decide_time=NOW,
    columns=(
        ColumnOutcome("event_id", Effect.ALLOW, Reason.ALLOWED),
        ColumnOutcome("key_text", Effect.ALLOW, Reason.ALLOWED, (Mask(MaskKind.REDACT),)),
    ),
    must_apply=(ObligationKind.MASKS, ObligationKind.MINIMUM_GROUP),
    minimum_group=MinimumGroup(5, ("subject_id",)),
    rules=(RuleRef("p, role:mci_researcher, ...", "policy.csv", 12, "allow"),),
    notice_id="mci-2026-05",
    expires_time=NOW,
    vocabulary_known=EVERYTHING_KNOWN,
)


def request(**changes: object) -> AccessRequest:
    """Returns farah's request for two columns of keystrokes, with these fields changed."""
    return msgspec.structs.replace(REQUEST, **changes)


def decision(**changes: object) -> Decision:
    """Returns an allow with a mask for that request, with these fields changed."""
    return changed(DECISION, **changes)


def decided(asked: AccessRequest | None = None, outcome: Decision | None = None, number: int = 0) -> Decided:
    """Returns the request with its decision, with an id made of the number."""
    one = ask(request() if asked is None else asked, "order-66", bytes(range(16)))
    return Decided(one, decision() if outcome is None else outcome, f"01930000-0000-7000-8000-{number:012}")


def entry(people: People, one: Decided, *, caller: str = "svc-training", control_link: int = 0) -> bytes:
    """Returns the entry of a decision."""
    stamp = Stamp.of(NOW, caller, control_link)
    return encode_decision(one, stamp, found_people(people, one), ORIGIN)


def found_people(people: People, one: Decided) -> list[Person]:
    """Returns everyone under whose keys the entry is sealed, in the order of `people_of`."""
    ids = people_of(one)
    stored = people.ensure(ids)
    return [stored[person_id] for person_id in ids]
