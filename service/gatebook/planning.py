"""The way of one plan: which rows and columns of a dataset may be had, as SQL.

A plan is a decision about all rows, and goes the way of `authorize` with one difference: what the rules say about a
row is left to the SQL. For each row it gives what a check of that row would allow, with the same masks, and never more.
Rules:

1. it is written before it is answered, as every decision is;
2. what a dialect cannot say denies or masks, and the plan says so.
"""

from __future__ import annotations

import asyncio

import msgspec

from gatebook.audit.recorder import Recorder
from gatebook.authorize import Answer, Question, as_decided, decide, write
from gatebook.engine.snapshot import Snapshot
from gatebook.errors import InvalidRequestError
from gatebook.sql.statement import Statement

DIALECTS = ("duckdb", "postgres", "spark", "trino")


class Planned(msgspec.Struct, frozen=True):
    """A plan that is in the book."""

    answer: Answer
    statement: Statement


def require_dialect(dialect: str) -> str:
    """Returns the name of a dialect that plans can be written in.

    Raises:
        InvalidRequestError: it is none.
    """
    if dialect not in DIALECTS:
        known = ", ".join(f"`{name}`" for name in DIALECTS)
        raise InvalidRequestError("dialect", f"must be one of {known}")
    return dialect


def require_plannable(snapshot: Snapshot, question: Question) -> None:
    """Refuses questions that have no plan.

    Raises:
        InvalidRequestError: the set has no catalogue, or the question is about one row.
    """
    if not snapshot.governed:
        name = snapshot.policy_set.name
        raise InvalidRequestError("policy_set", f"`{name}` has no catalogue, and so no rows to plan for: check instead")
    if question.request.row is not None:
        raise InvalidRequestError("access.row", "a plan is about all rows: leave the row out, or check it")


async def plan_access(recorder: Recorder, snapshot: Snapshot, question: Question, dialect: str) -> Planned:
    """Decides about all rows, writes the decision, then answers.

    Raises:
        InvalidRequestError: as `require_plannable`.
        BookUnavailableError, OverloadedError: as `authorize`.
    """
    require_plannable(snapshot, question)
    decision = msgspec.structs.replace(decide(snapshot, question, recorder.now()), plan_dialect=dialect)
    columns = {}
    if decision.allowed:
        columns = {outcome.column: f'"{outcome.column}"' for outcome in decision.columns if not outcome.masks}
    statement = Statement(dialect, columns)
    await asyncio.sleep(0)
    [answer] = await write(recorder, [as_decided(question, decision)], question.caller)
    # Past the commit point: the plan is durably in the book, and may be told.
    return Planned(answer, statement)
