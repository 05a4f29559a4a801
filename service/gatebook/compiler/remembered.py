"""Remembers what the rules said of columns, by all that they read to say it.

Owns the memo of `evaluate_columns`. What the rules of a governed set say of some columns depends on

1. the values of the keys, which name the rules that come into question (`compiler.plan`);
2. the columns, and whether the row is known;
3. what the conditions of these rules come to, each True, False or UNKNOWN.

The conditions are evaluated for every request; only what follows from them is remembered. Where one leaves
an expression over the row that depends on the request, or a key is UNKNOWN, nothing is remembered.
A memo belongs to one program, is bounded in columns, and holds no value of a request that is not a field of
some rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gatebook.compiler.index import Entry
from gatebook.compiler.outcomes import outcome_of
from gatebook.compiler.plan import Plan
from gatebook.generations import Generations

REMEMBERED_COLUMNS_MAX = 65_536
"""Columns of all verdicts that one program remembers, and as many conditions."""

Verdicts = tuple[Any, ...]
"""What follows: one `engine.verdict.ColumnVerdict` for each column."""


class Conditions(msgspec.Struct, frozen=True):
    """The conditions of the rules that come into question for some columns.

    `late` are those that read the column, with it. `usable` is False where the verdicts depend on more.
    """

    entries: tuple[Entry, ...] = ()
    late: tuple[tuple[str, Entry], ...] = ()
    usable: bool = True

    def come_to(self, tokens: dict[str, Any]) -> tuple[bool | None, ...] | None:
        """Returns what each condition comes to, or None where one leaves an expression."""
        row_known = tokens["row"] is not None
        found: list[bool | None] = []
        for entry in self.entries:
            outcome = outcome_of(entry, tokens, row_known=row_known)
            if outcome is not None and outcome is not True and outcome is not False:
                return None
            found.append(outcome)
        for column, entry in self.late:
            tokens["obj"] = column
            outcome = outcome_of(entry, tokens, row_known=row_known)
            if outcome is not None and outcome is not True and outcome is not False:
                return None
            found.append(outcome)
        return tuple(found)


NOT_USABLE = Conditions(usable=False)


def conditions_of(plans: Mapping[str, Plan], *, row_known: bool) -> Conditions:
    """Returns the conditions of the rules that the plans of columns name."""
    entries: dict[int, Entry] = {}
    late: list[tuple[str, Entry]] = []
    for column, plan in plans.items():
        for found in (found for group in plan.values() for found in group):
            if found.guard is not None or not all(entry.certain for entry in found.entries):
                return NOT_USABLE
            for entry in found.entries:
                if entry.rest is None or (entry.fixed and not row_known):
                    continue
                if entry.late:
                    late.append((column, entry))
                else:
                    entries[id(entry)] = entry
    return Conditions(tuple(entries.values()), tuple(late))


class Remembered:
    """The memo of one program."""

    def __init__(self) -> None:
        """Begins empty."""
        self._conditions: Generations[tuple[object, ...], Conditions] = Generations(REMEMBERED_COLUMNS_MAX)
        self._verdicts: Generations[tuple[object, ...], tuple[Conditions, Verdicts]] = Generations(
            REMEMBERED_COLUMNS_MAX
        )

    def conditions(self, key: tuple[object, ...]) -> Conditions | None:
        """Returns the conditions for keys and columns, if they are remembered."""
        return self._conditions.get(key)

    def keep_conditions(self, key: tuple[object, ...], conditions: Conditions, columns: Sequence[str]) -> None:
        """Remembers conditions."""
        size = len(columns) + len(conditions.entries) + len(conditions.late)
        self._conditions.put(key, conditions, size)

    def verdicts(self, conditions: Conditions, come_to: tuple[bool | None, ...]) -> Verdicts | None:
        """Returns the verdicts where these conditions came to this, if they are remembered."""
        held = self._verdicts.get((id(conditions), come_to))
        return None if held is None else held[1]

    def keep_verdicts(self, conditions: Conditions, come_to: tuple[bool | None, ...], verdicts: Verdicts) -> None:
        """Remembers verdicts, and keeps the conditions for as long, so that their id is nobody else's."""
        self._verdicts.put((id(conditions), come_to), (conditions, verdicts), len(verdicts) + len(come_to))
