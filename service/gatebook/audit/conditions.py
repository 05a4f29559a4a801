"""Filters of entries as conditions on the index.

Owns the meaning of each field of `EntryFilter` in SQL. Words of the vocabulary are looked up by
subqueries, so that a word that the index does not have matches nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gatebook.errors import InvalidRequestError
from gatebook.v1 import audit_service_pb2, entry_pb2, types_pb2

TEXT_BYTES_MAX = 512
INDEX_MAX = 2**63 - 1
WORD = "(SELECT id FROM words WHERE word = ?)"

TEXTS = {
    "resource_id": "resource = (SELECT id FROM words WHERE word = ?)",
    "column": """column_set IN (SELECT column_set FROM column_members
                 WHERE column = (SELECT id FROM words WHERE word = ?))""",
    "action": "action = (SELECT id FROM words WHERE word = ?)",
    "revision": "revision = (SELECT id FROM words WHERE word = ?)",
    "caller": "caller = (SELECT id FROM words WHERE word = ?)",
    "decision_id": "decision_id = ?",
}
PURPOSE = "purpose IN (SELECT id FROM words WHERE word = ? UNION SELECT id FROM words WHERE word > ? AND word < ?)"
ANY_PURPOSE = "*"
"""The root of the purpose tree, which is the parent of every purpose."""
PLACES = "SELECT idx, leaf FROM entries WHERE"


class Condition(NamedTuple):
    """A condition of SQL with the values of its marks."""

    sql: str
    values: tuple[int | str, ...] = ()


def require_valid(entry_filter: audit_service_pb2.EntryFilter) -> None:
    """Checks a filter.

    Raises:
        InvalidRequestError: a field is too long or is a value that nobody knows.
    """
    for name in ("subject_id", "purpose", *TEXTS):
        size = len(getattr(entry_filter, name).encode())
        if size > TEXT_BYTES_MAX:
            raise InvalidRequestError(f"filter.{name}", f"{size} bytes, over {TEXT_BYTES_MAX}")
    for name, known in (
        ("effect", types_pb2.Effect.values()),
        ("reason", types_pb2.ReasonCode.values()),
        ("kind", entry_pb2.EntryKind.values()),
    ):
        if getattr(entry_filter, name) not in known:
            raise InvalidRequestError(f"filter.{name}", f"{getattr(entry_filter, name)} is not a value of it")
    for name in ("start_index", "end_index"):
        if getattr(entry_filter, name) > INDEX_MAX:
            raise InvalidRequestError(f"filter.{name}", f"over {INDEX_MAX}")


def conditions(entry_filter: audit_service_pb2.EntryFilter) -> Iterator[Condition]:
    """Yields the conditions of a valid filter, apart from its subject, times and indexes."""
    for name, sql in TEXTS.items():
        text = getattr(entry_filter, name)
        if text:
            yield Condition(sql, (text,))
    for name in ("effect", "reason", "kind"):
        number = getattr(entry_filter, name)
        if number:
            yield Condition(f"{name} = {number:d}")
    if entry_filter.kind not in (entry_pb2.ENTRY_KIND_UNSPECIFIED, entry_pb2.ENTRY_KIND_DECISION):
        yield Condition("kind <> 1")  # says nothing new, and lets the partial index be chosen
    if entry_filter.purpose == ANY_PURPOSE:
        yield Condition("purpose IS NOT NULL")
    elif entry_filter.purpose:
        # The children of `a.b` are the words between `a.b.` and `a.b/`: the slash follows the dot.
        purpose = entry_filter.purpose
        yield Condition(PURPOSE, (purpose, f"{purpose}.", f"{purpose}/"))


def select(wanted: Sequence[Condition], askers: Sequence[int] | None, limit: int, *, newest_first: bool) -> Condition:
    """Returns the query for index and leaf hash of the first entries in an order.

    `askers` are the numbers of the people of whom one must be subject or actor; None means anyone.
    Each of the two is searched by an index of its own, in order, so that a page costs what it holds.
    """
    order = f"ORDER BY idx {'DESC' if newest_first else 'ASC'} LIMIT {limit:d}"
    values = tuple(value for condition in wanted for value in condition.values)
    where = " AND ".join(condition.sql for condition in wanted)
    if askers is None:
        return Condition(f"{PLACES} {where} {order}", values)
    marks = ", ".join("?" * len(askers))
    arms = [f"SELECT * FROM ({PLACES} {role} IN ({marks}) AND {where} {order})" for role in ("subject", "actor")]  # noqa: S608  # values are marks
    return Condition(f"{' UNION '.join(arms)} {order}", (*askers, *values) * 2)
