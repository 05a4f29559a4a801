"""The way of one plan: which rows and columns of a dataset may be had, as SQL.

A plan is a decision about all rows, and goes the way of `authorize` with one difference: what the rules say about a
row is left to the SQL. For each row it gives what a check of that row would allow, with the same masks, and never more.
Rules:

1. it is written before it is answered, as every decision is;
2. what a dialect cannot say denies or masks, and the plan says so.
"""

from __future__ import annotations

import asyncio
from datetime import datetime

import msgspec

from gatebook.audit.recorder import Recorder
from gatebook.authorize import (
    Answer,
    Question,
    Resolved,
    as_decided,
    facts,
    refuse_audience,
    refuse_consent,
    refuse_purpose,
    resolve,
    write,
)
from gatebook.engine.bind import moment_of
from gatebook.engine.decision import Denial, allowed, denied
from gatebook.engine.judged import judge_columns
from gatebook.engine.recall import Recall
from gatebook.engine.row_obligations import ForRows, oblige_rows
from gatebook.engine.snapshot import Snapshot
from gatebook.errors import InvalidRequestError
from gatebook.expression.moments import Moment
from gatebook.sql.dialects import Dialect
from gatebook.sql.statement import Statement
from gatebook.values import Decision, Reason


class Planned(msgspec.Struct, frozen=True):
    """A plan that is in the book."""

    answer: Answer
    statement: Statement


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


async def plan_access(recorder: Recorder, snapshot: Snapshot, question: Question, dialect: Dialect) -> Planned:
    """Decides about all rows, writes the decision, then answers.

    Raises:
        InvalidRequestError: as `require_plannable`.
        LimitExceededError: the SQL would be too long.
        BookUnavailableError, OverloadedError: as `authorize`.
    """
    require_plannable(snapshot, question)
    # In a thread, since a large plan takes as long as many checks. What a snapshot remembers is the event loop's own.
    apart = msgspec.structs.replace(snapshot, recall=Recall())
    decision, statement = await asyncio.to_thread(plan, apart, question, recorder.now(), dialect)
    [answer] = await write(recorder, [as_decided(question, decision)], question.caller)
    # Past the commit point: the plan is durably in the book, and may be told.
    return Planned(answer, statement)


def plan(snapshot: Snapshot, question: Question, now: datetime, dialect: Dialect) -> tuple[Decision, Statement]:
    """Plans one question. Pure: the same snapshot, question, time and dialect give the same plan.

    Raises:
        LimitExceededError: as `plan_access`.
    """
    request, nothing = question.request, Statement(dialect.name)
    found = resolve(snapshot, request)
    if isinstance(found, Denial):
        return _as_plan(denied(snapshot, request, now, found), dialect), nothing
    moment = moment_of(snapshot.program, now)
    obliged = refuse_purpose(snapshot, found, request.purpose, now) or _oblige(
        snapshot, question, found, moment, dialect
    )
    if isinstance(obliged, Denial):
        return _as_plan(denied(snapshot, request, now, obliged, found.notice), dialect), nothing
    for_rows, statement = obliged
    until = None if moment is None else moment.until
    decision = allowed(snapshot, request, now, obliged=for_rows.obliged, notice=found.notice, until=until)
    return _as_plan(decision, dialect), statement


def _oblige(
    snapshot: Snapshot, question: Question, found: Resolved, moment: Moment | None, dialect: Dialect
) -> tuple[ForRows, Statement] | Denial:
    """Asks the rules, and says in SQL what they leave to each row; or says why no row may be had."""
    from gatebook.sql.compile import compile_statement  # noqa: PLC0415  # slow to import, and few servers plan
    from gatebook.sql.masks import refuse_mask  # noqa: PLC0415  # as above

    request, catalogue = question.request, snapshot.policy_set.catalogue
    read = facts(snapshot, question, found, moment)
    judged = judge_columns(
        snapshot.program,
        subject=read["subject"],
        attributes=read["attributes"],
        columns=read["columns"],
        action=read["action"],
        purpose=read["purpose"],
        context=read["context"],
        now=moment,
    )
    if any(each.allows and not each.ruling for each in judged):
        refusal = refuse_audience(snapshot, request, found.dataset) or refuse_consent(snapshot, request)
        if refusal is not None:
            return refusal
    for_rows = oblige_rows(
        found.dataset,
        judged,
        request.enforcer,
        key_id=snapshot.mask_key_ids[request.purpose],
        mask_tags=frozenset() if catalogue is None else catalogue.mask_tags,
        allow_partial=request.allow_partial,
        refuse=lambda mask, column: refuse_mask(mask, column, dialect),
    )
    obliged = for_rows.obliged
    if obliged.failed is not None:
        ruled_out = tuple([each.rule for one in judged for each in one.ruling])
        return Denial(obliged.failed, obliged.message, obliged.columns, ruled_out)
    statement = compile_statement(found.dataset.columns, obliged.columns, for_rows.filter, dialect)
    if statement is None:
        message = f"which rows are allowed cannot be said in `{dialect.name}`: check the rows one by one"
        return Denial(Reason.EVALUATION_ERROR, message, obliged.columns)
    return for_rows, statement


def _as_plan(decision: Decision, dialect: Dialect) -> Decision:
    return msgspec.structs.replace(decision, plan_dialect=dialect.name)
