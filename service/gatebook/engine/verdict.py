"""What rules say of a request, before anything narrows it.

Owns the values that `reference` and `evaluate` both answer with.
"""

from __future__ import annotations

from typing import Self

import msgspec

from gatebook.expression.tree import Call, Expression, Literal, Path
from gatebook.values import Effect, Reason, Rule


class Verdict(msgspec.Struct, frozen=True):
    """The answer of a plain set: `rules` decided it, `unknown` could not be evaluated on the way there."""

    effect: Effect
    rules: tuple[Rule, ...] = ()
    unknown: tuple[Rule, ...] = ()


class Applicable(msgspec.Struct, frozen=True):
    """A mask or minimum-group rule that applies: always, or where `condition` is true or unknown.

    Where it is unknown whether a rule applies at all, its condition is the literal null: a mask that hides
    then applies, and one that shows (`none`) does not.
    """

    rule: Rule
    condition: Expression | None

    @classmethod
    def of(cls, rule: Rule, outcome: bool | Expression | None) -> Self:  # noqa: FBT001  # the outcome of a matcher
        """Returns the rule with what its matcher came to: True, unknown (None), or what is left over the row."""
        if outcome is True:
            return cls(rule, None)
        return cls(rule, outcome if isinstance(outcome, Literal | Path | Call) else Literal(None))


class ColumnVerdict(msgspec.Struct, frozen=True):
    """The answer of a governed set for one column: `rules` are all that decided it, in order."""

    column: str
    effect: Effect
    reason: Reason
    rules: tuple[Rule, ...] = ()
    masks: tuple[Applicable, ...] = ()
    groups: tuple[Applicable, ...] = ()
