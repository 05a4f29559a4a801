"""What policy tests ask and expect.

Owns the values that `policy_test_file` reads and `policy_tests` compares, and the words for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from gatebook.expression.tree import Expression
from gatebook.policy.masks import MaskSpec
from gatebook.values import AccessRequest, Effect, Reason

QUESTIONS_MAX = 10_000
"""How many expectations one file can have."""

REASON_NAMES = {reason.name: reason for reason in Reason if reason not in (Reason.UNSPECIFIED, Reason.ALLOWED)}
OUTCOMES = (Effect.ALLOW.name, Effect.DENY.name, *REASON_NAMES)


class ExpectedMask(msgspec.Struct, frozen=True):
    """One mask that a column must have; the condition is over `row`, without places."""

    text: str
    mask: MaskSpec
    condition: Expression | None = None


class Expectation(msgspec.Struct, frozen=True):
    """What the answer must be; what is None is not looked at. `columns` holds what must be withheld."""

    line: int
    effect: Effect
    reason: Reason | None = None
    columns: Mapping[str, Reason | None] | None = None
    masks: Mapping[str, tuple[ExpectedMask, ...]] | None = None
    minimum_group: int | None = None


class PolicyQuestion(msgspec.Struct, frozen=True):
    """One request of a policy test and what must come of it; `time` None means the present."""

    file: str
    test: str
    request: AccessRequest
    expectation: Expectation
    caller: str = ""
    time: datetime | None = None
