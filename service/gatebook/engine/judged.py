"""What the rules of a governed set say of columns when the row is not known: what is left to each row.

Owns the values `Judged`, in which nothing is decided yet that depends on the row. For every row, `decide` with that
row says of a column what follows from its judged rules with the row filled in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gatebook.compiler.outcomes import Memo, column_outcomes
from gatebook.compiler.program import Program
from gatebook.engine.evaluate import governed_tokens
from gatebook.expression.junction import bare
from gatebook.expression.moments import Moment
from gatebook.expression.tree import Expression, Literal
from gatebook.values import Reason, Rule


class Said(msgspec.Struct, frozen=True):
    """A rule that applies to every row (`condition` None), to none for certain (null), or by a condition on the row."""

    rule: Rule
    condition: Expression | None

    @property
    def always(self) -> bool:
        """Tells whether it applies to every row."""
        return self.condition is None

    @property
    def unknown(self) -> bool:
        """Tells whether it is unknown for every row."""
        return isinstance(self.condition, Literal)


class Judged(msgspec.Struct, frozen=True):
    """The rules of one column that apply to some row, in order."""

    column: str
    denies: tuple[Said, ...] = ()
    allows: tuple[Said, ...] = ()
    masks: tuple[Said, ...] = ()
    groups: tuple[Said, ...] = ()
    no_rule: Reason = Reason.NO_MATCHING_RULE
    """Why the column is denied where no rule allows it."""

    @property
    def ruling(self) -> tuple[Said, ...]:
        """Returns the rules that deny the column on every row."""
        return tuple([each for each in self.denies if each.always or each.unknown])


def judge_columns(
    program: Program,
    *,
    subject: str,
    attributes: Mapping[str, Any],
    columns: Sequence[str],
    action: str,
    purpose: str,
    context: Mapping[str, Any],
    now: Moment | None = None,
) -> tuple[Judged, ...]:
    """Asks the rules about each of `columns`, which are nodes of the catalogue."""
    tokens = governed_tokens(
        subject=subject, attributes=attributes, action=action, purpose=purpose, context=context, row=None, now=now
    )
    planner = program.planner
    early = planner.read(tokens)
    memo: Memo = {}

    def judge(column: str) -> Judged:
        tokens["obj"] = column
        plan = planner.plan(early, tokens)
        said = {
            group: tuple(
                Said(entry.rule, None if outcome is True else Literal(None) if outcome is None else _condition(outcome))
                for entry, outcome in column_outcomes(plan[group], tokens, memo)
            )
            for group in ("denies", "allows", "masks", "groups")
        }
        asked, granted = (
            any(outcome is True for _, outcome in column_outcomes(plan[group], tokens, memo))
            for group in ("asked", "granted")
        )
        return Judged(
            column, **said, no_rule=Reason.PURPOSE_NOT_GRANTED if asked and not granted else Reason.NO_MATCHING_RULE
        )

    return tuple([judge(column) for column in columns])


def _condition(outcome: bool | Expression) -> Expression:  # noqa: FBT001  # the outcome of a matcher
    """Returns what is left of a matcher over the row; False is not among what `column_outcomes` returns."""
    if isinstance(outcome, bool):
        raise RuntimeError("a rule that does not apply was judged to")  # noqa: TRY004  # a bug of ours
    return bare(outcome)
