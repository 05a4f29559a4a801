"""Decides again what was decided: the same question, under the same revisions, for the same time.

Owns which time that is. An entry does not say when its decision was made, but when it was written, a moment later, and
of an allow when it ends. The decision is made again for the time of the entry; where that gives something else than is
written, for the time from which the end of the allow was counted.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from gatebook.audit.entry import from_timestamp
from gatebook.authorize import Question, decide, question_of
from gatebook.engine.decision import TTL
from gatebook.engine.snapshot import Snapshot
from gatebook.errors import GatebookError, NotReplayableError
from gatebook.expression.tree import Expression
from gatebook.planning import plan, require_plannable
from gatebook.replay.asked_then import AskedThen
from gatebook.replay.compare import FieldDifference, as_written, differences
from gatebook.sql.dialects import dialect_of
from gatebook.v1 import entry_pb2
from gatebook.values import Decision


class Again(msgspec.Struct, frozen=True):
    """What deciding again came to."""

    question: Question
    decision: Decision
    time: datetime
    differences: tuple[FieldDifference, ...] = ()
    row_filter: Expression | None = None
    """What a plan leaves to each row."""


def decide_again(snapshot: Snapshot, asked: AskedThen, written: entry_pb2.DecisionEntry) -> Again:
    """Decides a question of the book again, and compares with what is written.

    Raises:
        NotReplayableError: this version would not take the question.
    """
    question = question_again(snapshot, asked)
    found = None
    for time in _times(asked, written):
        decision, row_filter = decide_one(snapshot, question, time, asked.plan_dialect)
        again = Again(question, decision, time, differences(written, as_written(asked.request, decision)), row_filter)
        if not again.differences:
            return again
        found = found or again
    if found is None:
        raise AssertionError("there is always the time of the entry")
    return found


def question_again(snapshot: Snapshot, asked: AskedThen) -> Question:
    """Returns the question that was asked, as a snapshot takes it.

    Raises:
        NotReplayableError: it does not take it: another model needs other tokens, or has no rows.
    """
    try:
        question = question_of(snapshot, asked.request, caller=asked.caller)
        if asked.plan_dialect:
            require_plannable(snapshot, question)
    except GatebookError as err:
        name = snapshot.policy_set.name
        raise NotReplayableError(f"`{name}` does not take the question: {err.message}", policy_set=name) from err
    return question


def decide_one(
    snapshot: Snapshot, question: Question, time: datetime, plan_dialect: str
) -> tuple[Decision, Expression | None]:
    """Decides a question, or plans it where it was one for a plan: then also what it leaves to each row."""
    if not plan_dialect:
        return decide(snapshot, question, time), None
    decision, statement = plan(snapshot, question, time, dialect_of(plan_dialect))
    return decision, statement.filter


def _times(asked: AskedThen, written: entry_pb2.DecisionEntry) -> tuple[datetime, ...]:
    if not written.HasField("expires_time"):
        return (asked.entry_time,)
    counted = from_timestamp(written.expires_time) - TTL
    return (asked.entry_time, counted) if counted < asked.entry_time else (asked.entry_time,)
