"""Filters of entries as conditions on the index.

Owns the meaning of each field of `EntryFilter`: which fields are valid, and which numbers of the index they stand
for. A word that the index does not have stands for no number, and matches nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from gatebook.audit.index import Word, decision_key
from gatebook.errors import InvalidRequestError
from gatebook.v1 import audit_service_pb2, entry_pb2, types_pb2

TEXT_BYTES_MAX = 512
INDEX_MAX = 2**63 - 1
WORDS = {"resource_id": "resource", "action": "action", "revision": "revision", "caller": "caller"}
"""Fields that are one word, each with its column of the index."""
NUMBERS = ("effect", "reason", "kind")
TEXTS = (*WORDS, "column", "decision_id")
ANY_PURPOSE = "*"
"""The root of the purpose tree, which is the parent of every purpose."""


class Conditions(msgspec.Struct, frozen=True):
    """What an entry must be to match, apart from its time and index. No numbers for a column match nothing."""

    numbers: Mapping[str, Sequence[int]]
    """For columns of the index, the numbers of which one must be there."""
    askers: Sequence[int] | None
    """The numbers of people of whom the entry must concern one; None means anyone."""
    decision: bytes | str
    """The key of the decision, or nothing."""
    any_purpose: bool
    """Whether some purpose must be there."""

    @property
    def nothing(self) -> bool:
        """Tells whether nothing can match."""
        return not all(self.numbers.values()) or self.askers == ()

    def sql(self, *, without: Sequence[str] = ()) -> list[str]:
        """Returns the conditions on columns, but for those `without`, which an index is searched by."""
        found = [f"{name} IN ({listed(numbers)})" for name, numbers in self.numbers.items() if name not in without]
        if self.askers is not None and "subject" not in without:
            people = listed(self.askers)
            mentioned = f"EXISTS (SELECT 1 FROM mentions AS m WHERE m.block = entries.block AND m.word IN ({people}) AND m.entry = idx)"  # noqa: E501, S608  # numbers
            found.append(f"(subject IN ({people}) OR actor IN ({people}) OR {mentioned})")
        return [*found, "purpose IS NOT NULL"] if self.any_purpose else found


class Vocabulary(Protocol):
    """The words that an index knows."""

    def number(self, word: Word) -> Sequence[int]: ...  # noqa: D102  # the one of a word, or nothing

    def between(self, first: str, last: str) -> Sequence[int]: ...  # noqa: D102  # those of the words in between

    def column_sets(self, column: str) -> Sequence[int]: ...  # noqa: D102  # those of the sets with a column


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


def conditions(
    entry_filter: audit_service_pb2.EntryFilter, askers: Sequence[Word], vocabulary: Vocabulary
) -> Conditions:
    """Returns the conditions of a valid filter; `askers` are the words of those with the id that it names."""
    numbers: dict[str, Sequence[int]] = {
        column: vocabulary.number(text) for name, column in WORDS.items() if (text := getattr(entry_filter, name))
    }
    numbers |= {name: (number,) for name in NUMBERS if (number := getattr(entry_filter, name))}
    if entry_filter.column:
        numbers["column_set"] = vocabulary.column_sets(entry_filter.column)
    purpose = entry_filter.purpose
    if purpose and purpose != ANY_PURPOSE:
        # The children of `a.b` are the words between `a.b.` and `a.b/`: the slash follows the dot.
        numbers["purpose"] = (*vocabulary.number(purpose), *vocabulary.between(f"{purpose}.", f"{purpose}/"))
    return Conditions(
        numbers=numbers,
        askers=tuple(n for word in askers for n in vocabulary.number(word)) if entry_filter.subject_id else None,
        decision=decision_key(entry_filter.decision_id),
        any_purpose=purpose == ANY_PURPOSE,
    )


def listed(numbers: Sequence[int]) -> str:
    """Returns numbers as SQL lists them."""
    return ", ".join(f"{number:d}" for number in numbers)
