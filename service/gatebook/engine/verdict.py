"""What rules say of a request, before anything narrows it.

Owns the values that `reference` and `evaluate` both answer with.
"""

from __future__ import annotations

import msgspec

from gatebook.expression.tree import Expression
from gatebook.values import Effect, Reason, Rule


class Verdict(msgspec.Struct, frozen=True):
    """The answer of a plain set: `rules` decided it, `unknown` could not be evaluated on the way there."""

    effect: Effect
    rules: tuple[Rule, ...] = ()
    unknown: tuple[Rule, ...] = ()


class Applicable(msgspec.Struct, frozen=True):
    """A mask or minimum-group rule that applies: always, or where `condition` is true or unknown."""

    rule: Rule
    condition: Expression | None


class ColumnVerdict(msgspec.Struct, frozen=True):
    """The answer of a governed set for one column: `rules` are all that decided it, in order."""

    column: str
    effect: Effect
    reason: Reason
    rules: tuple[Rule, ...] = ()
    masks: tuple[Applicable, ...] = ()
    groups: tuple[Applicable, ...] = ()
