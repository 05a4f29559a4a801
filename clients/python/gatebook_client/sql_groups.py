"""Groups in SQL: one statement that shows what `groups.aggregate` shows, computed where the rows are.

Owns its text. The promises are those of `groups`: people are counted, before any mask; groups of fewer than k
merge into one remainder with null keys; a remainder below k is not shown. Steps of the statement:

    governed    the rows that the plan leaves, masked, and whom each is about (`p1`, `p2`, ...)
    ranked      each person's number within the group
    sized       whether the group counts k people, by each column of people
    grouped     groups that do, and all others together, with how many people they count
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from gatebook_client.dialects import Dialect
from gatebook_client.groups import EVERY_ROW, Measure
from gatebook_client.statement import Part

MEASURES: Final[Mapping[str, str]] = {
    "count": "count({})",
    "sum": "sum({})",
    "average": "avg({})",
    "distinct": "count(DISTINCT {})",
}


def grouped_select(
    governed: Sequence[Part],
    wanted: Sequence[Part],
    by: Sequence[str],
    measures: Mapping[str, Measure],
    *,
    dialect: Dialect,
    k: int,
    people: int,
) -> list[Part]:
    """Returns the statement.

    Args:
        governed: selects the columns as `c1` and so on (first those of `by`, then those measured, each once) and the
            people as `p1` and so on.
        wanted: the application's own conditions on them, from `WHERE` on.
        by: the columns to group by.
        measures: for each name in the result a function and its column.
        dialect: the dialect of the statement.
        k: the least number of people in a group; 0 means any.
        people: how many columns of people there are.
    """
    needed = names_needed(by, measures)
    keys = [f"c{number}" for number in range(1, len(by) + 1)]
    persons = [f"p{number}" for number in range(1, people + 1)]
    shown = [f"CASE WHEN is_large THEN {key} END" for key in keys]
    made = [f"{expression} AS k{number}" for number, expression in enumerate(shown, start=1)]
    for number, (function, column) in enumerate(measures.values(), start=1):
        made.append(f"{_measured(function, column, needed, persons, k)} AS m{number}")
    made += [f"count(DISTINCT {person}) AS n{number}" for number, person in enumerate(persons, start=1)]
    selected = [f"k{number} AS {dialect.quoted(name)}" for number, name in enumerate(by, start=1)]
    selected += [f"m{number} AS {dialect.quoted(name)}" for number, name in enumerate(measures, start=1)]
    enough = " AND ".join(f"n{number} >= {k:d}" for number in range(1, people + 1)) if k else "rows_count > 0"
    order = ", ".join(["is_large DESC", *(f"k{number} NULLS LAST" for number in range(1, len(by) + 1))])
    return [
        "WITH governed AS (\n  ",
        *governed,
        f"\n), ranked AS (\n  SELECT governed.*{_ranks(keys, persons)}\n  FROM governed",  # noqa: S608  # names of our own
        *wanted,
        f"\n), sized AS (\n  SELECT ranked.*, {_large(keys, persons, k)} AS is_large\n  FROM ranked\n)",  # noqa: S608  # as above
        f", grouped AS (\n  SELECT is_large, count(*) AS rows_count, {', '.join(made)}\n  FROM sized\n",  # noqa: S608  # as above
        f"  GROUP BY {', '.join(['is_large', *shown])}\n)\n",
        f"SELECT {', '.join(selected)}\nFROM grouped\nWHERE {enough}\nORDER BY {order}",
    ]


def names_needed(by: Sequence[str], measures: Mapping[str, Measure]) -> tuple[str, ...]:
    """Returns the columns that a statement reads, those of `by` first."""
    return tuple(dict.fromkeys((*by, *(column for _, column in measures.values() if column != EVERY_ROW))))


def _ranks(keys: Sequence[str], persons: Sequence[str]) -> str:
    """Numbers the people of each group; a null is nobody."""
    partition = f"PARTITION BY {', '.join(keys)} " if keys else ""
    return "".join(
        f",\n    CASE WHEN {person} IS NOT NULL THEN dense_rank() OVER ({partition}ORDER BY {person} NULLS LAST) END "
        f"AS r{number}"
        for number, person in enumerate(persons, start=1)
    )


def _large(keys: Sequence[str], persons: Sequence[str], k: int) -> str:
    """Tells of a row whether its group counts k people, by each column of people."""
    if not k:
        return "TRUE"
    partition = f"PARTITION BY {', '.join(keys)}" if keys else ""
    return " AND ".join(
        f"coalesce(max(r{number}) OVER ({partition}), 0) >= {k:d}" for number in range(1, len(persons) + 1)
    )


def _measured(function: str, column: str, needed: Sequence[str], persons: Sequence[str], k: int) -> str:
    """Returns a measure; null where fewer than k people have a value."""
    if column == EVERY_ROW:
        return "count(*)"
    name = f"c{needed.index(column) + 1}"
    measure = MEASURES[function].format(name)
    told = [f"count(DISTINCT CASE WHEN {name} IS NOT NULL THEN {person} END) >= {k:d}" for person in persons]
    return f"CASE WHEN {' AND '.join(told)} THEN {measure} END" if k else measure
