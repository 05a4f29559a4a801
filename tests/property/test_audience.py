"""The audience of random sets against brute force: every person, column, action, purpose, circumstance and row."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from tests.property.whole_sets import (
    ACTIONS,
    DECIDABLE,
    PURPOSE_NAMES,
    UNDECIDED,
    directories,
    policies,
    snapshot_of,
    tried,
)

from gatebook.authorize import decide, question_of
from gatebook.engine.snapshot import Snapshot
from gatebook.governance.audience import Audiences
from gatebook.governance.judge import Level
from gatebook.governance.request import request_of
from gatebook.policy.directory import Subject
from gatebook.values import AccessRequest, Decision, Effect, Enforcer, Entity, MaskKind, ObligationKind

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ABLE = Enforcer("test", frozenset(MaskKind), frozenset(ObligationKind))
Asked = tuple[str, str, str, str, str]
"""Subject, dataset, column, action and purpose."""


def ask(snapshot: Snapshot, request: AccessRequest, caller: str) -> Decision:
    """Decides a request of somebody who can apply everything."""
    return decide(snapshot, question_of(snapshot, request, caller=caller), NOW)


def allowed_by_force(snapshot: Snapshot, policy: str) -> dict[Asked, bool]:
    """Returns what anybody is allowed under some circumstances, and whether that is about others too."""
    allowed: dict[Asked, bool] = {}
    for (caller, context, stated), row in tried(policy, len(policy)):
        for subject, dataset, action, purpose in everything(snapshot):
            request = AccessRequest(
                subject=Entity(subject.type, subject.id, stated),
                action=action,
                resource=dataset,
                purpose=purpose,
                context=context,
                row=row,
                enforcer=ABLE,
                allow_partial=True,
            )
            for outcome in ask(snapshot, request, caller).columns:
                if outcome.effect is Effect.ALLOW:
                    key = (subject.id, dataset, outcome.column, action, purpose)
                    others = dataset == "t.sums" or row["who"] != subject.id
                    allowed[key] = allowed.get(key, False) or others
    return allowed


def everything(snapshot: Snapshot) -> Iterator[tuple[Subject, str, str, str]]:
    """Yields who could ask for what."""
    assert snapshot.directory is not None
    for subject in snapshot.directory.subjects.values():
        for dataset in ("t.rows", "t.sums"):
            for action in ACTIONS:
                for purpose in PURPOSE_NAMES:
                    yield subject, dataset, action, purpose


def levels(audiences: Audiences) -> dict[Asked, Level]:
    """Returns what the analysis says of everything."""
    found: dict[Asked, Level] = {}
    for dataset in audiences.datasets():
        for cell, reach in audiences.cells(dataset):
            for subject in audiences.people.among(reach.anybody):
                level = reach.level(audiences.people.place[subject.id])
                for column in cell.columns:
                    for purpose in cell.purposes:
                        found[(subject.id, dataset.id, column, cell.action, purpose)] = level
    return found


def compare(policy: str, people: bytes) -> dict[Asked, Level]:
    """Compares the analysis of a set with brute force, and asks for each witness what it claims."""
    snapshot = snapshot_of(policy, people)
    assert snapshot.directory is not None
    audiences = Audiences(snapshot.policy_set, snapshot.directory)
    found, allowed = levels(audiences), allowed_by_force(snapshot, policy)
    for asked, others in allowed.items():
        level = found.get(asked, Level.NOBODY)
        assert level >= (Level.POSSIBLE if others else Level.OWN), (asked, others, level)
    for dataset in audiences.datasets():
        for cell, reach in audiences.cells(dataset):
            for subject in audiences.people.among(reach.certain | reach.own):
                grant = audiences.grant(subject, cell)
                assert grant is not None
                request, caller = request_of(grant, ABLE)
                decision = ask(snapshot, request, caller)
                assert reach.level(audiences.people.place[subject.id]) is Level.OWN or decision.allowed, (cell, subject)
    return found


FOUND_BEFORE = {
    "the id of nobody in particular, taken for a value to try": (
        "p, role:a, t.rows.who, read, train, r.row.who == r.sub.id, allow\n"
        "p, role:a, t.rows.who, read, *, !(r.row.team < r.row.who), allow\n"
    ),
    "an id that is ordered": "p, role:a, t.rows.who, read, *, r.row.who == r.sub.id && r.row.who < 'b', allow\n",
    "an id that a condition names": "p, role:a, t.rows.who, read, *, r.row.who == 'ana' && r.sub.id != 'ben', allow\n",
    "an id in a list": "p, role:a, t.rows, read, *, r.sub.id in ('ana', 'zoe'), allow\n",
    "an id that is in no list": "p, role:a, t.rows, read, *, !(r.sub.id in ('ana', 'zoe')), allow\n",
    "an id that is an attribute": "p, role:a, t.rows.who, read, *, r.row.who == r.sub.boss, allow\n",
    "what is within a value that a caller states": "p, role:a, t.rows, read, *, r.ctx.net.zone == 'x', allow\n",
    "the action, which is always that of the rule": "p, role:a, t.rows, read, *, r.act == 'read', allow\n",
    "what is asked for": "p, role:a, t.*, read, *, keyMatch(r.obj, 't.rows*'), allow\n",
    "the purpose": "p, role:a, t.rows, read, *, r.purpose != 'cost', allow\n",
    "the rule itself": "p, role:a, t.rows, read, *, p.sub == 'role:a', allow\n",
    "the subject as its id": "p, role:a, t.rows, read, *, r.sub in ('ana', 'zoe'), allow\n",
    "the whole row": "p, role:a, t.rows, read, *, !(r.row == 'x') || r.act == 'read', allow\n",
    "a number that no text is": (
        "p, role:a, t.rows, read, *, True, allow\np, role:a, t.rows, read, *, r.row.level > 1.5, deny\n"
    ),
    "numbers and truth values": "p, role:a, t.rows.who, read, *, r.ctx.net == r.sub.badge || r.ctx.net == 1, allow\n",
}
PEOPLE = (
    b'{"type":"user","id":"ana","attributes":{"boss":"ana","level":1,"badge":"gold"},"groups":["role:a"]}\n'
    b'{"type":"user","id":"ben","attributes":{"boss":"ana","level":2},"groups":["role:a"]}\n'
)


@pytest.mark.parametrize("case", FOUND_BEFORE)
def test_what_was_found_or_feared_stays_right(case: str) -> None:
    """Sets that were, or could have been, analysed wrongly are what brute force finds."""
    compare(FOUND_BEFORE[case], PEOPLE)


class TestAudience:
    """What the analysis says of everybody and everything."""

    @settings(max_examples=25, deadline=None)
    @given(policies(), directories())
    def test_is_what_brute_force_finds(self, policy: str, people: bytes) -> None:
        """Nobody who is allowed is missing, every witness is allowed, and nothing is undecided but masks that clash."""
        found = compare(policy, people)

        if "regex" not in policy and "p2" not in policy:
            assert Level.POSSIBLE not in found.values()

    @settings(max_examples=15, deadline=None)
    @given(policies(DECIDABLE[:16] + UNDECIDED), directories())
    def test_counts_what_it_cannot_decide(self, policy: str, people: bytes) -> None:
        """Where conditions calculate or match patterns, nobody who is allowed is missing either."""
        compare(policy, people)
