"""The SQL of a plan, held against its decision.

Owns `read_sql`. Only for an allow beyond doubt, and:

1. there is one expression for each allowed column, and no other;
2. there is a condition on rows where, and only where, the decision has one;
3. what a mask changes is not selected as it is, and no column in place of another;
4. every parameter is known and stands once, in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gatebook.v1 import access_service_pb2 as access_pb2
from gatebook.v1 import types_pb2
from gatebook_client.decision import LOCAL_MESSAGES, Decision
from gatebook_client.dialects import Dialect
from gatebook_client.fragments import Fragment, read_fragment, refused
from gatebook_client.outcome import Column
from gatebook_client.parameters import require_known
from gatebook_client.refusal import EnforcementError

PARAMETERS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Sql:
    """The SQL of a plan, read: the expression of each column in order, and the condition on rows (None: every row)."""

    columns: Mapping[str, Fragment]
    condition: Fragment | None
    parameters: Sequence[access_pb2.PlanParameter]


def read_sql(response: access_pb2.PlanAccessResponse, decision: Decision, dialect: Dialect) -> Sql:
    """Reads the SQL of an allow.

    Raises:
        EnforcementError: something about it is in doubt.
    """
    outcomes = {outcome.name: outcome for outcome in decision.columns if outcome.allowed}
    if not outcomes or outcomes.keys() != set(response.masks_sql) or len(response.parameters) > PARAMETERS_MAX:
        raise EnforcementError("CLIENT_PLAN_COLUMNS", "the SQL of the plan is not about the columns that are allowed")
    for parameter in response.parameters:
        require_known(parameter)
    columns: dict[str, Fragment] = {}
    first = 1
    for name, outcome in outcomes.items():
        columns[name] = read_fragment(response.masks_sql[name], dialect, first)
        first += len(columns[name].placeholders)
        _check_column(outcome, columns[name])
    condition = _read_condition(response.decision.row_filter, dialect, first)
    first += 0 if condition is None else len(condition.placeholders)
    if first != len(response.parameters) + 1:
        raise EnforcementError("CLIENT_PLAN_PARAMETERS", "the plan has other parameters than its SQL")
    return Sql(columns, condition, tuple(response.parameters))


def _check_column(outcome: Column, fragment: Fragment) -> None:
    """Refuses a column that stands for another, or a masked one that is selected as it is."""
    masked = any(mask.kind != "NONE" for mask in outcome.masks)
    if fragment.column and (masked or fragment.column != outcome.name):
        raise refused("does not do what the decision says")


def _read_condition(row_filter: types_pb2.RowFilter, dialect: Dialect, first: int) -> Fragment | None:
    """Reads the condition on rows; it is there where, and only where, the decision has one."""
    if row_filter.kind == types_pb2.ROW_FILTER_KIND_ALL_ROWS:
        if row_filter.sql:
            raise refused("does not do what the decision says")
        return None
    if row_filter.kind != types_pb2.ROW_FILTER_KIND_CONDITIONAL or dialect.name not in row_filter.sql:
        raise EnforcementError("CLIENT_ROW_FILTER", LOCAL_MESSAGES["CLIENT_ROW_FILTER"])
    return read_fragment(row_filter.sql[dialect.name], dialect, first)
