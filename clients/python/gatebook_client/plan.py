"""The plan: which rows and columns of a dataset may be had, as SQL to run where the rows are.

Owns `Plan`, its reading from an answer, and the statements that it makes. A statement returns what the decision
allows of the dataset, and nothing else:

1. only an allow beyond doubt (see `doubts`) that has not expired makes statements, and they expire with it;
2. its SQL is read before any is used (see `plan_sql`), and every parameter has its place;
3. under a minimum group no statement shows rows: `aggregate` shows groups;
4. a statement reads one table: the dataset that was asked about, or where the application says that it is stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gatebook.v1 import access_service_pb2 as access_pb2
from gatebook.v1 import types_pb2
from gatebook_client.decision import Decision
from gatebook_client.dialects import Dialect, Style
from gatebook_client.groups import Measure, check_measures
from gatebook_client.parameters import bound
from gatebook_client.plan_sql import Sql, read_sql
from gatebook_client.refusal import EnforcementError
from gatebook_client.sql_groups import grouped_select, names_needed
from gatebook_client.statement import Part, Statement, parts_of

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
Condition = tuple[str, str, Any]
"""A column, a comparison and a value."""
COMPARISONS: Final = frozenset({"=", "<>", "<", "<=", ">", ">="})
_NO_KEYS: Final[Mapping[str, bytes]] = {}


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
        where: Sequence[Condition] = (),
        stored_as: Sequence[str] = (),
        style: Style | None = None,
        keys: Mapping[str, bytes] = _NO_KEYS,
    ) -> Statement:
        """Returns the statement that selects the rows and columns of the plan, masked.

        Args:
            where: what the application itself wants of them: columns, comparisons and values, such as
                `("day", ">=", date(2026, 6, 1))`. They hold for the values that are shown, after the masks.
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
        names = tuple(sql.columns)
        shown = ", ".join(f"c{n} AS {self.dialect.quoted(name)}" for n, name in enumerate(names, start=1))
        governed = self._governed(sql, names, (), stored_as)
        values: dict[int, Any] = {}
        wanted = self._wanted(sql, names, where, values)
        # The rows are governed within, where no name that is shown can stand for a column that the table lacks.
        parts: list[Part] = [f"SELECT {shown}\nFROM (\n  ", *governed, "\n) AS governed", *wanted]
        return self._statement(parts, values, style, keys)

    def aggregate(
        self,
        *,
        by: Sequence[str],
        measures: Mapping[str, Measure],
        where: Sequence[Condition] = (),
        stored_as: Sequence[str] = (),
        style: Style | None = None,
        keys: Mapping[str, bytes] = _NO_KEYS,
    ) -> Statement:
        """Returns the statement that selects groups of at least `minimum_group.k` people, and all others as one.

        It shows what `Decision.aggregate` makes of the same rows, and no row leaves the engine.

        Args:
            by: the columns to group by; empty makes one group of all rows.
            measures: for each name in the result a function and its column, such as `("sum", "tokens_in")`.
            where: as for `select`; rows that it leaves out are in no group.
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
        names = tuple(dict.fromkeys((*names_needed(by, measures), *(column for column, _, _ in where))))
        values: dict[int, Any] = {}
        wanted = self._wanted(sql, names, where, values)
        governed = self._governed(sql, names, people, stored_as)
        k = 0 if group is None else group.k
        grouped = grouped_select([*governed], wanted, by, measures, dialect=self.dialect, k=k, people=len(people))
        return self._statement(grouped, values, style, keys)

    def _usable(self) -> Sql:
        """Returns the SQL of a plan that may be used now."""
        self._require_usable()
        assert self._sql is not None  # noqa: S101  # what may be used has SQL
        return self._sql

    def _require_usable(self) -> None:
        if self._trouble is not None and self.decision.allowed:
            raise EnforcementError(self._trouble.reason, self._trouble.message)
        if self._sql is None or not self.decision.allowed:
            why = f": {self.decision.message}" if self.decision.message else ""
            raise EnforcementError(self.decision.reason, f"the plan is no allow, nothing may be read{why}")

    def _governed(self, sql: Sql, names: Sequence[str], people: Sequence[str], stored_as: Sequence[str]) -> list[Part]:
        """Returns the inner statement: columns as `c1` and so on, people as `p1` and so on."""
        found: list[Part] = ["SELECT "]
        for number, name in enumerate(names, start=1):
            found += [*parts_of(sql.columns[name], self.dialect), f" AS c{number},\n    "]
        found += [f"{self.dialect.quoted(name)} AS p{number},\n    " for number, name in enumerate(people, start=1)]
        found[-1] = str(found[-1]).rstrip().removesuffix(",") if names or people else "SELECT 1 AS c0"
        if isinstance(stored_as, str):
            raise TypeError(f"stored_as: `{stored_as}` is given name by name: {tuple(stored_as.split('.'))}")
        table = ".".join(self.dialect.quoted(part) for part in stored_as or self.dataset.split("."))
        found.append(f"\n  FROM {table} AS {_alias(sql, people)}")
        if sql.condition is not None:
            found += ["\n  WHERE ", *parts_of(sql.condition, self.dialect)]
        return found

    def _wanted(self, sql: Sql, names: Sequence[str], where: Sequence[Condition], values: dict[int, Any]) -> list[Part]:
        """Returns the application's own conditions, and puts their values behind the parameters of the plan."""
        found: list[Part] = []
        for column, comparison, value in where:
            if column not in sql.columns:
                message = f"the decision does not allow column `{column}`; leave it out or ask for it"
                raise EnforcementError("CLIENT_COLUMN_NOT_ALLOWED", message)
            if comparison not in COMPARISONS:
                raise ValueError(f"where: `{comparison}` is none of {sorted(COMPARISONS)}; select from the statement")
            if value is None:
                raise ValueError(f"where: `{column}` cannot be compared with None; select from the statement")
            number = len(sql.parameters) + len(values) + 1
            values[number] = value
            found += ["\n  AND " if found else "\nWHERE ", f"c{names.index(column) + 1} {comparison} ", number]
        return found

    def _statement(
        self, parts: Sequence[Part], values: dict[int, Any], style: Style | None, keys: Mapping[str, bytes]
    ) -> Statement:
        """Binds what the plan itself brings, and makes the statement."""
        assert self._sql is not None  # noqa: S101  # as above
        for number in {part for part in parts if isinstance(part, int)} - values.keys():
            values[number] = bound(self._sql.parameters[number - 1], keys)
        return Statement(parts, values, style or self.dialect.style, self._require_usable)

    def __repr__(self) -> str:
        """Shows effect, reason and id, and nothing about people."""
        effect = "allowed" if self.allowed else "denied"
        return f"<Plan {effect} {self.reason} {self.dialect.name} {self.decision.decision_id or 'without id'}>"


def _alias(sql: Sql, people: Sequence[str]) -> str:
    """Returns a name for the table that no column has.

    A column that a table lacks but is named after is its whole row, to some engines.
    """
    fragments = [*sql.columns.values(), *((sql.condition,) if sql.condition is not None else ())]
    named = {name.lower() for name in people} | {
        token.text.lower() for fragment in fragments for token in fragment.tokens if token.kind == "name"
    }
    alias = "stored"
    while alias in named:
        alias += "_"
    return alias


def read_plan(response: access_pb2.PlanAccessResponse, decision: Decision, dataset: str, dialect: Dialect) -> Plan:
    """Reads the answer to a question about all rows; what leaves a doubt makes a plan that allows nothing."""
    sql, trouble = None, None
    if decision.allowed:
        try:
            sql = read_sql(response, decision, dialect)
        except EnforcementError as error:
            trouble = error
    return Plan(decision, dataset, dialect, tuple(response.narrowings), tuple(response.people_types), sql, trouble)


def no_plan(decision: Decision, dataset: str, dialect: Dialect) -> Plan:
    """Returns the plan of a denial that stands for an error."""
    return Plan(decision, dataset, dialect, (), (), None, None)
