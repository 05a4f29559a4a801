"""Writes the SQL of a plan.

Owns what a plan says as a whole: the select expression of each column that is returned, then the condition of
the rows, with all values bound. For each row the first mask whose condition is true or unknown applies, and a row is
kept where the condition is true.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gatebook.errors import LimitExceededError
from gatebook.expression.tree import Expression
from gatebook.policy.dataset import Column
from gatebook.sql import terms
from gatebook.sql.conditions import Conditions
from gatebook.sql.dialects import Dialect
from gatebook.sql.masks import masked
from gatebook.sql.statement import Statement
from gatebook.sql.terms import Node
from gatebook.values import ColumnOutcome, Effect, Mask

PARAMETERS_MAX = 2_000
CHARACTERS_MAX = 1 << 20
"""Of all SQL of one plan."""


def compile_statement(
    columns: Mapping[str, Column],
    outcomes: Sequence[ColumnOutcome],
    kept: Expression | None,
    dialect: Dialect,
) -> Statement | None:
    """Returns the SQL that selects allowed columns of the rows for which `kept` is True (None: all).

    Nothing, where the dialect cannot say of any row that it is kept.

    Raises:
        LimitExceededError: it is too long.
    """
    conditions = Conditions(columns, dialect)
    shown = [outcome for outcome in outcomes if outcome.effect is Effect.ALLOW]
    nodes = [_selected(columns[outcome.column], outcome.masks, conditions, dialect) for outcome in shown]
    if kept is not None:
        condition = conditions.holds(kept)
        if condition is None:
            return None
        nodes.append(condition)
    texts, parameters = terms.written(nodes, dialect.name, dialect.placeholder)
    if len(parameters) > PARAMETERS_MAX:
        raise _too_large("values", PARAMETERS_MAX, len(parameters))
    if (length := sum([len(text) for text in texts])) > CHARACTERS_MAX:
        raise _too_large("characters", CHARACTERS_MAX, length)
    return Statement(
        dialect.name,
        columns={outcome.column: text for outcome, text in zip(shown, texts, strict=False)},
        filter=kept,
        filter_sql="" if kept is None else texts[-1],
        parameters=tuple(parameters),
        narrowings=conditions.narrowings,
    )


def _selected(column: Column, masks: Sequence[Mask], conditions: Conditions, dialect: Dialect) -> Node:
    """Returns what is selected in place of a column."""
    whens: list[tuple[Node, Node]] = []
    for mask in masks:
        node = masked(mask, column, dialect)
        applies = None if mask.condition is None else conditions.truth(mask.condition)
        if applies is None:  # to every row: always, or because it is unknown for each
            return terms.case(whens, node) if whens else node
        whens.append((terms.coalesce(applies, terms.truth(True)), node))  # noqa: FBT003
    clear = terms.column(column.name)
    return terms.case(whens, clear) if whens else clear


def _too_large(unit: str, limit: int, actual: int) -> LimitExceededError:
    return LimitExceededError(
        f"the plan has {actual} {unit}, at most {limit} are written: ask for fewer columns",
        field="access.resource.columns",
        limit=str(limit),
        actual=str(actual),
    )
