"""What the rules of a plain set permit before the row is known.

Owns the answer that can be kept and used again: always, never, or for the rows for which an allow is
True and every deny False. For each row it is what `evaluate` answers with that row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gatebook.compiler.closure import Closure, compile_expression
from gatebook.compiler.outcomes import column_outcomes
from gatebook.compiler.program import Program
from gatebook.expression.tree import Expression
from gatebook.policy.model import EffectKind


class ForRows(msgspec.Struct, frozen=True):
    """Is permitted for some rows: where one of `allows` is True and all of `denies` are False."""

    allows: tuple[Expression, ...]
    denies: tuple[Expression, ...]
    certain: bool
    """Whether an allow applies to every row, so that only the denies count."""
    allow_closures: tuple[Closure, ...]
    deny_closures: tuple[Closure, ...]

    def permits(self, row: Mapping[str, Any]) -> bool:
        """Tells whether it is permitted for a row; a value that is missing is UNKNOWN."""
        if not self.certain and not any(allow(row, ()) is True for allow in self.allow_closures):
            return False
        return all(deny(row, ()) is False for deny in self.deny_closures)


Permission = bool | ForRows


def permission(program: Program, tokens: Mapping[str, Any]) -> Permission:
    """Returns what a program permits by `tokens`, of which `row` is None.

    What is not an effect of allow and deny permits nothing.
    """
    if program.effect is not EffectKind.ALLOW_AND_DENY:
        return False
    planner = program.planner
    plan = planner.plan(planner.read(tokens), tokens)
    denies = [outcome for _, outcome in column_outcomes(plan["denies"], tokens, {})]
    if any(outcome is True or outcome is None for outcome in denies):
        return False
    outcomes = [outcome for _, outcome in column_outcomes(plan["allows"], tokens, {})]
    certain = any(outcome is True for outcome in outcomes)
    allows = [outcome for outcome in outcomes if outcome is not None and not isinstance(outcome, bool)]
    if not certain and not allows:
        return False
    left = [outcome for outcome in denies if outcome is not None and not isinstance(outcome, bool)]
    if certain and not left:
        return True
    functions = program.main.functions

    def compiled(expressions: Sequence[Expression]) -> tuple[Closure, ...]:
        return tuple(compile_expression(expression, {}, functions) for expression in expressions)

    return ForRows(tuple(allows), tuple(left), certain, compiled(allows), compiled(left))
