"""Groups: what may leave of rows under a minimum group.

Owns `aggregate`. It promises that every group that leaves stands for at least `k` distinct data
subjects (design section 5.8):

1. people are counted, never rows: the distinct values of an entity column, before any mask; with several
   entity columns each must reach k; a null is nobody, and each element of a list is somebody;
2. only columns that the decision allows are grouped by or measured, and they are masked first;
3. groups below k merge into one remainder with null keys; a remainder below k is suppressed;
4. measures are `count`, `sum`, `average` and `distinct`: none that shows a single row's value;
5. a measure of a column stands for `k` people as a group does: where fewer have a value that is shown, it is null.

Two answers that differ in one person can still be subtracted from each other; that is for the service
to see, since no single answer shows it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Literal

from gatebook_client.canonical import canonical_text
from gatebook_client.enforce import Answer, Treatment, treatment
from gatebook_client.expression import Row
from gatebook_client.refusal import EnforcementError

Measure = tuple[Literal["count", "sum", "average", "distinct"], str]
Key = tuple[str | None, ...]

EVERY_ROW: Final = "*"
_FUNCTIONS: Final = frozenset({"count", "sum", "average", "distinct"})
_NO_KEYS: Final[Mapping[str, bytes]] = {}


class _Group:
    """Rows that share a key, masked, and the people in them. Owned by one call of `aggregate`."""

    def __init__(self, values: Sequence[Any], people_columns: int) -> None:
        """Takes the values of the key and how many entity columns there are."""
        self.values = tuple(values)
        self.people: tuple[set[str], ...] = tuple(set() for _ in range(people_columns))
        self.rows: list[tuple[Mapping[str, Any], Sequence[set[str]]]] = []

    def add(self, row: Mapping[str, Any], people: Sequence[set[str]]) -> None:
        """Takes in a row, masked, with its people: one set for each entity column."""
        self.rows.append((row, people))
        for counted, found in zip(self.people, people, strict=True):
            counted.update(found)

    def merge(self, other: _Group) -> None:
        """Takes in the rows and people of another group."""
        for row, people in other.rows:
            self.add(row, people)

    def reaches(self, k: int) -> bool:
        """Tells whether every entity column counts at least k people."""
        return all(len(people) >= k for people in self.people)

    def shown(self, column: str) -> _Group:
        """Returns the rows that show a value of a column, and their people."""
        shown = _Group((), len(self.people))
        for row, people in self.rows:
            if row[column] is not None:
                shown.add(row, people)
        return shown


def aggregate(
    decision: Answer,
    rows: Iterable[Row],
    *,
    by: Sequence[str],
    measures: Mapping[str, Measure],
    keys: Mapping[str, bytes] = _NO_KEYS,
) -> list[dict[str, Any]]:
    """Returns one row per group that is large enough, and the remainder last.

    Args:
        decision: The answer to a check of the columns that are grouped by and measured.
        rows: The rows in clear, with the entity columns of the minimum group.
        by: The columns to group by; empty makes one group of all rows.
        measures: For each name in the result a function and its column, such as `("sum", "tokens_in")`;
            `("count", "*")` counts rows.
        keys: The keys of hashes, by key id.

    Raises:
        EnforcementError: The decision does not let the groups out, or a value cannot be masked or counted.
    """
    read = treatment(decision, keys)
    check_measures(None if read.columns is None else read.columns.keys(), by, measures)
    needed = tuple(dict.fromkeys((*by, *(column for _, column in measures.values() if column != EVERY_ROW))))
    groups: dict[Key, _Group] = {}
    for row in rows:
        read.require_asked(row)
        people = [_people(row, column) for column in read.entity_columns]
        masked = {column: _masked(read, column, row) for column in needed}
        key = tuple(_key(masked[column], column) for column in by)
        group = groups.get(key)
        if group is None:
            group = groups[key] = _Group([masked[column] for column in by], len(people))
        group.add(masked, people)
    return [_result(group, by, measures, read.k) for group in _large_enough(groups, read.k, by)]


def check_measures(allowed: Collection[str] | None, by: Sequence[str], measures: Mapping[str, Measure]) -> None:
    """Refuses columns that are not allowed (None: every column is), and measures that do not exist.

    Raises:
        EnforcementError: one of them is wanted.
    """
    for function, column in measures.values():
        if function not in _FUNCTIONS or (column == EVERY_ROW and function != "count"):
            message = f"there is no measure `{function}` of `{column}`; use one of {sorted(_FUNCTIONS)}"
            raise EnforcementError("CLIENT_UNKNOWN_MEASURE", message)
    if clash := set(by) & set(measures):
        message = f"measure `{min(clash)}` has the name of a column that is grouped by; rename it"
        raise EnforcementError("CLIENT_UNKNOWN_MEASURE", message)
    used = {*by, *(column for _, column in measures.values())} - {EVERY_ROW}
    if allowed is not None and (missing := used - set(allowed)):
        message = f"the decision does not allow column `{min(missing)}`; leave it out or ask for it"
        raise EnforcementError("CLIENT_COLUMN_NOT_ALLOWED", message)


def _people(row: Row, column: str) -> set[str]:
    """Returns the data subjects of a row in one entity column."""
    if column not in row:
        message = f"a row lacks column `{column}`, which says whom it is about; select it too"
        raise EnforcementError("CLIENT_ENTITY_MISSING", message)
    value = row[column]
    items = value if isinstance(value, list | tuple | set | frozenset) else (value,)
    return {_text(item, column) for item in items if item is not None}


def _masked(read: Treatment, column: str, row: Row) -> Any:  # noqa: ANN401 - a row holds anything
    if column not in row:
        raise EnforcementError("CLIENT_COLUMN_MISSING", f"a row lacks column `{column}`; select it too")
    return read.masked(column, row)


def _key(value: Any, column: str) -> str | None:  # noqa: ANN401 - a row holds anything
    return None if value is None else _text(value, column)


def _text(value: Any, column: str) -> str:  # noqa: ANN401 - a row holds anything
    try:
        return canonical_text(value)
    except ValueError:
        message = f"column `{column}` has a value that cannot be counted or grouped by"
        raise EnforcementError("CLIENT_UNCOUNTABLE", message) from None


def _large_enough(groups: Mapping[Key, _Group], k: int, by: Sequence[str]) -> list[_Group]:
    """Returns the groups that reach k in the order of their keys, and the remainder if it does."""
    ordered = [groups[key] for key in sorted(groups, key=lambda key: [(part is None, part or "") for part in key])]
    large = [group for group in ordered if group.reaches(k)]
    small = [group for group in ordered if not group.reaches(k)]
    if not small:
        return large
    remainder = _Group([None] * len(by), len(small[0].people))
    for group in small:
        remainder.merge(group)
    return [*large, remainder] if remainder.reaches(k) else large


def _result(group: _Group, by: Sequence[str], measures: Mapping[str, Measure], k: int) -> dict[str, Any]:
    result = dict(zip(by, group.values, strict=True))
    for name, (function, column) in measures.items():
        result[name] = _measure(function, column, group, k)
    return result


def _measure(function: str, column: str, group: _Group, k: int) -> Any:  # noqa: ANN401
    """Returns a measure of masked values; nulls do not count, and nor do the people whose values are."""
    if column == EVERY_ROW:
        return len(group.rows)
    shown = group.shown(column)
    if not shown.reaches(k):
        return None
    values = [row[column] for row, _ in shown.rows]
    if function == "count":
        return len(values)
    if function == "distinct":
        return len({_text(value, column) for value in values})
    if not values:
        return None
    total = _sum(values, column)
    return total if function == "sum" else total / len(values)


def _sum(values: Sequence[Any], column: str) -> Any:  # noqa: ANN401 - an int, float or Decimal
    if not all(isinstance(value, int | float | Decimal) and not isinstance(value, bool) for value in values):
        message = f"column `{column}` has a value that is no number; it cannot be summed"
        raise EnforcementError("CLIENT_UNCOUNTABLE", message)
    if any(isinstance(value, float) for value in values):
        return math.fsum(float(value) for value in values)
    return sum(values)
