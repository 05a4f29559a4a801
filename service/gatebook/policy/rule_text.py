"""Reads the condition that a rule holds.

Owns which of two grammars it is in: ours, or, in a set that is read leniently, the one that pycasbin makes of it.
"""

from __future__ import annotations

from gatebook.expression.parse import parse
from gatebook.expression.tree import Expression
from gatebook.policy.casbin_text import read_text
from gatebook.policy.model import Model, names_of
from gatebook.policy.oracle import rewritten


def read_condition(model: Model, text: str) -> Expression:
    """Reads a condition.

    Raises:
        ParseError: it is none.
    """
    return read_text(rewritten(text), names_of(model)) if model.as_casbin else parse(text)
