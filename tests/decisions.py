"""Decisions for tests, by all of their fields at once."""

from __future__ import annotations

from typing import Any

import msgspec

from gatebook.values import Decision, Outcome

_OF_OUTCOME = frozenset(Outcome.__struct_fields__)


def decision_of(**fields: Any) -> Decision:  # noqa: ANN401  # any field of a decision or of its outcome
    """Returns a decision with these fields."""
    outcome = Outcome(**{name: value for name, value in fields.items() if name in _OF_OUTCOME})
    return Decision(outcome, **{name: value for name, value in fields.items() if name not in _OF_OUTCOME})


def changed(decision: Decision, **changes: Any) -> Decision:  # noqa: ANN401  # as above
    """Returns the decision with these fields changed."""
    outcome = {name: value for name, value in changes.items() if name in _OF_OUTCOME}
    rest = {name: value for name, value in changes.items() if name not in _OF_OUTCOME}
    return msgspec.structs.replace(decision, outcome=msgspec.structs.replace(decision.outcome, **outcome), **rest)
