"""The plan: which rows and columns of a dataset may be had, as SQL to run where the rows are.

Owns `Plan`, its reading from an answer, and the statements that it makes. A statement returns what the decision
allows of the dataset, and nothing else:

1. only an allow beyond doubt (see `doubts`) that has not expired makes statements, and they expire with it;
2. there is one expression for each allowed column and no other, and a condition on rows where, and only where, the
   decision has one; all of it is read before any is used (see `fragments`), and every parameter has its place;
3. what a mask changes is not selected as it is, and no column in place of another;
4. under a minimum group no statement shows rows: `aggregate` shows groups;
5. a statement reads one table: the dataset that was asked about, or where the application says that it is stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gatebook.v1 import access_service_pb2 as access_pb2
from gatebook.v1 import types_pb2
from gatebook_client.decision import LOCAL_MESSAGES, Decision
from gatebook_client.dialects import Dialect, Style
from gatebook_client.fragments import Fragment, read_fragment, refused
from gatebook_client.groups import Measure, check_measures
from gatebook_client.parameters import bound, require_known
from gatebook_client.refusal import EnforcementError
from gatebook_client.sql_groups import grouped_select, names_needed
from gatebook_client.statement import Part, Statement, parts_of

PARAMETERS_MAX: Final = 10_000
PLANNED_MASKS: Final = frozenset(types_pb2.MaskKind.values()) - {
    types_pb2.MASK_KIND_UNSPECIFIED,
    types_pb2.MASK_KIND_CUSTOM,
}
PLANNED_OBLIGATIONS: Final = frozenset(
    {
        types_pb2.OBLIGATION_KIND_MASKS,
        types_pb2.OBLIGATION_KIND_ROW_FILTER,
        types_pb2.OBLIGATION_KIND_MINIMUM_GROUP,
    }
)
"""What running the statements of a plan fulfils."""
COUNTABLE: Final = frozenset({"text", "uuid", "int", "bigint"})
"""The types of columns in which each value is one person."""
_NO_KEYS: Final[Mapping[str, bytes]] = {}


@dataclass(frozen=True, slots=True)
class Sql:
    """The SQL of a plan, read: the expression of each column in order, and the condition on rows (None: every row)."""

    columns: Mapping[str, Fragment]
    condition: Fragment | None
    parameters: Sequence[access_pb2.PlanParameter]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Plan:
    """The answer to one question about all rows of a dataset.

    Attributes:
        decision: the decision, with its receipt; also that of a denial.
        dataset: what was asked about.
        dialect: the dialect of the SQL.
        narrowings: what the dialect cannot say of the rules, and therefore denies or masks, in words.
    """

    decision: Decision
    dataset: str
    dialect: Dialect
    narrowings: tuple[str, ...]
    people_types: tuple[str, ...]
    _sql: Sql | None
    _trouble: EnforcementError | None

    @property
    def allowed(self) -> bool:
        """Tells whether something may be read now."""
        return self._sql is not None and self.decision.allowed

    def __bool__(self) -> bool:
        """Is the same as `allowed`."""
        return self.allowed

    @property
    def reason(self) -> str:
        """Names why: the decision's reason, or a doubt of this client about the SQL."""
        return self._trouble.reason if self._trouble is not None and self.decision.allowed else self.decision.reason

    @property
    def message(self) -> str:
        """Says why, in words."""
        return self._trouble.message if self._trouble is not None and self.decision.allowed else self.decision.message

    @property
    def columns(self) -> tuple[str, ...]:
        """Returns the columns that statements may have, in order."""
        return self.decision.allowed_columns if self._sql is not None else ()

    def select(
        self,
        *,
        stored_as: Sequence[str] = (),
        style: Style | None = None,
        keys: Mapping[str, bytes] = _NO_KEYS,
    ) -> Statement:
        """Returns the statement that selects the rows and columns of the plan, masked.

        Args:
            stored_as: where the dataset is stored, name by name, such as `("lake", "usage", "tokens")`; empty where it
                is stored under its own name.
            style: how the driver wants parameters; None means `dollar` for DuckDB and PostgreSQL, `qmark` for Trino
                and `named` for Spark.
            keys: the keys of hashes, by key id.

        Raises:
            EnforcementError: the plan does not let rows out.
        """
        sql = self._usable()
        if self.decision.minimum_group is not None:
            k = self.decision.minimum_group.k
            message = f"no single row may leave, only groups of {k} people; call `aggregate`"
            raise EnforcementError("CLIENT_MINIMUM_GROUP", message)
        shown = ", ".join(f"c{n} AS {self.dialect.quoted(name)}" for n, name in enumerate(sql.columns, start=1))
        governed = self._governed(sql, tuple(sql.columns), (), stored_as)
        # The rows are governed within, where no name that is shown can stand for a column that the table lacks.
        return self._statement([f"SELECT {shown}\nFROM (\n  ", *governed, "\n) AS governed"], style, keys)

    def aggregate(
        self,
        *,
        by: Sequence[str],
        measures: Mapping[str, Measure],
        stored_as: Sequence[str] = (),
        style: Style | None = None,
        keys: Mapping[str, bytes] = _NO_KEYS,
    ) -> Statement:
        """Returns the statement that selects groups of at least `minimum_group.k` people, and all others as one.

        It shows what `Decision.aggregate` makes of the same rows, and no row leaves the engine.

        Args:
            by: the columns to group by; empty makes one group of all rows.
            measures: for each name in the result a function and its column, such as `("sum", "tokens_in")`.
            stored_as: as for `select`.
            style: as for `select`.
            keys: as for `select`.

        Raises:
            EnforcementError: the plan does not let these groups out, or people cannot be counted in SQL.
        """
        sql = self._usable()
        check_measures(sql.columns.keys(), by, measures)
        if len(set(by)) != len(by) or not (by or measures):
            raise EnforcementError("CLIENT_UNKNOWN_MEASURE", "group by each column once, and measure something")
        group = self.decision.minimum_group
        people = () if group is None else group.entity_columns
        if people and (len(self.people_types) != len(people) or not COUNTABLE.issuperset(self.people_types)):
            message = "the people of this dataset cannot be counted in SQL; ask with `check`, and call its `aggregate`"
            raise EnforcementError("CLIENT_PLAN_PEOPLE", message)
        governed = self._governed(sql, names_needed(by, measures), people, stored_as)
        k = 0 if group is None else group.k
        grouped = grouped_select(governed, by, measures, dialect=self.dialect, k=k, people=len(people))
        return self._statement(grouped, style, keys)

    def _usable(self) -> Sql:
        """Returns the SQL of a plan that may be used now."""
        self._require_usable()
        assert self._sql is not None  # noqa: S101  # what may be used has SQL
        return self._sql

    def _require_usable(self) -> None:
        if self._trouble is not None and self.decision.allowed:
            raise EnforcementError(self._trouble.reason, self._trouble.message)
        if self._sql is None or not self.decision.allowed:
            raise EnforcementError(self.decision.reason, "the plan is no allow, or not any more; nothing may be read")

    def _governed(self, sql: Sql, names: Sequence[str], people: Sequence[str], stored_as: Sequence[str]) -> list[Part]:
        """Returns the inner statement: columns as `c1` and so on, people as `p1` and so on."""
        found: list[Part] = ["SELECT "]
        for number, name in enumerate(names, start=1):
            found += [*parts_of(sql.columns[name], self.dialect), f" AS c{number},\n    "]
        found += [f"{self.dialect.quoted(name)} AS p{number},\n    " for number, name in enumerate(people, start=1)]
        found[-1] = str(found[-1]).rstrip().removesuffix(",") if names or people else "SELECT 1 AS c0"
        table = ".".join(self.dialect.quoted(part) for part in stored_as or self.dataset.split("."))
        found.append(f"\n  FROM {table}")
        if sql.condition is not None:
            found += ["\n  WHERE ", *parts_of(sql.condition, self.dialect)]
        return found

    def _statement(self, parts: Sequence[Part], style: Style | None, keys: Mapping[str, bytes]) -> Statement:
        assert self._sql is not None  # noqa: S101  # as above
        used = {part for part in parts if isinstance(part, int)}
        values = {number: bound(self._sql.parameters[number - 1], keys) for number in used}
        return Statement(parts, values, style or self.dialect.style, self._require_usable)

    def __repr__(self) -> str:
        """Shows effect, reason and id, and nothing about people."""
        effect = "allowed" if self.allowed else "denied"
        return f"<Plan {effect} {self.reason} {self.dialect.name} {self.decision.decision_id or 'without id'}>"


def read_plan(response: access_pb2.PlanAccessResponse, decision: Decision, dataset: str, dialect: Dialect) -> Plan:
    """Reads the answer to a question about all rows; what leaves a doubt makes a plan that allows nothing."""
    sql, trouble = None, None
    if decision.allowed:
        try:
            sql = _read_sql(response, decision, dialect)
        except EnforcementError as error:
            trouble = error
    return Plan(decision, dataset, dialect, tuple(response.narrowings), (), sql, trouble)


def no_plan(decision: Decision, dataset: str, dialect: Dialect) -> Plan:
    """Returns the plan of a denial that stands for an error."""
    return Plan(decision, dataset, dialect, (), (), None, None)


def _read_sql(response: access_pb2.PlanAccessResponse, decision: Decision, dialect: Dialect) -> Sql:
    """Reads the SQL of an allow."""
    names = decision.allowed_columns
    if not names or set(names) != set(response.masks_sql) or len(response.parameters) > PARAMETERS_MAX:
        raise EnforcementError("CLIENT_PLAN_COLUMNS", "the SQL of the plan is not about the columns that are allowed")
    for parameter in response.parameters:
        require_known(parameter)
    columns: dict[str, Fragment] = {}
    first = 1
    for name in names:
        columns[name] = read_fragment(response.masks_sql[name], dialect, first)
        first += len(columns[name].placeholders)
        _check_column(name, columns[name], decision)
    condition = _read_condition(response.decision.row_filter, dialect, first)
    first += 0 if condition is None else len(condition.placeholders)
    if first != len(response.parameters) + 1:
        raise EnforcementError("CLIENT_PLAN_PARAMETERS", "the plan has other parameters than its SQL")
    return Sql(columns, condition, tuple(response.parameters))


def _check_column(name: str, fragment: Fragment, decision: Decision) -> None:
    """Refuses a column that stands for another, or a masked one that is selected as it is."""
    masked = any(mask.kind != "NONE" for mask in decision.masks.get(name, ()))
    if fragment.column and (masked or fragment.column != name):
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
