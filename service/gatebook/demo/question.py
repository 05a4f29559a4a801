"""What the programs of the demo ask, and what each got: the values that the story and they exchange.

A program is a process of its own. It prints its outcomes as JSON and has nothing else to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gatebook_client.groups import Measure
from gatebook_client.plan import Condition

ALLOWED = "ALLOWED"


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One question, and what the program does with a yes.

    Attributes:
        expected: the reason that the story promises.
        row: the one row that it is about; None for all of them, for which the program asks a plan.
        where: which rows it should get, in SQL of the narrator's own, which no program sees.
        wanted: what the program wants of the rows that it may have: columns, comparisons and values.
        by: what it groups by; none where it wants rows.
        measures: what it measures of each group.
        plans: whether the program runs SQL that it is given; one that does not can apply nothing.
        shows_sql: whether the story shows that SQL.
    """

    dataset: str
    columns: tuple[str, ...]
    purpose: str = ""
    action: str = "read"
    expected: str = ALLOWED
    row: Mapping[str, str] | None = None
    where: str = ""
    wanted: tuple[Condition, ...] = ()
    by: tuple[str, ...] = ()
    measures: Mapping[str, Measure] = {}
    plans: bool = True
    shows_sql: bool = False


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """One who asks: a person's tool, a service, a job; `wants` is what it is after, in a sentence."""

    name: str
    title: str
    subject: str
    type: str = "user"
    wants: str
    questions: tuple[Question, ...]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one question.

    Attributes:
        rules: file and line of the rules that decided.
        nearest: file and line of the rule that came nearest to allowing a question that no rule allows.
        lacked: what that rule lacked.
        masks: the mask of each column that has one, by its kind.
        group: the least number of people in a group; 0 where rows may be shown.
        receipt: where the decision stands in the book, in the JSON form of the message.
        sql: the statement that the program made of its plan, and ran.
        rows_left: how many rows or groups the statement left.
        got: the first of them.
        refused: why its plan made no statement; empty where it did.
    """

    allowed: bool
    reason: str
    message: str
    rules: tuple[str, ...] = ()
    nearest: str = ""
    lacked: tuple[str, ...] = ()
    masks: Mapping[str, str] = {}
    group: int = 0
    receipt: Mapping[str, Any] = {}
    sql: str = ""
    rows_left: int = 0
    got: tuple[Mapping[str, Any], ...] = ()
    refused: str = ""
