"""What the programs of the demo ask, and what each got: the values that the story and they exchange.

A program is a process of its own. It prints its outcomes as JSON and has nothing else to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gatebook_client.groups import Measure

ALLOWED = "ALLOWED"


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One question, and what the program does with a yes.

    Attributes:
        expected: the reason that the story promises.
        row: what is known of the row, for rules that need it.
        where: which rows the program wants; SQL of the demo's own.
        by: what it groups by; none where it wants rows.
        measures: what it measures of each group.
        masks: whether the program can mask at all.
    """

    dataset: str
    columns: tuple[str, ...]
    purpose: str = ""
    action: str = "read"
    expected: str = ALLOWED
    row: Mapping[str, str] | None = None
    where: str = ""
    by: tuple[str, ...] = ()
    measures: Mapping[str, Measure] = {}
    masks: bool = True


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
        rows_read: how many rows the program read from the store.
        got: the rows or groups that left its hands.
        refused: why its own enforcement let nothing out; empty where it did not.
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
    rows_read: int = 0
    got: tuple[Mapping[str, Any], ...] = ()
    refused: str = ""
