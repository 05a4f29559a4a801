"""What a catalogue says of one dataset: columns, whom it is about, how far it may ever reach.

Owns the values; `dataset_file` reads them, `catalogue` holds them together.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

import msgspec

COLUMN_TYPES: Final = ("text", "text[]", "int", "bigint", "numeric", "bool", "uuid", "timestamptz", "date", "jsonb")
"""The types a column can have. `int` has 32 bits, `bigint` 64, `numeric` is decimal."""

ALWAYS: Final = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
"""The earliest and the latest time that there is."""

SUBJECT_KEY_TYPES: Final = frozenset(("text", "text[]", "uuid", "int", "bigint"))
"""The types that can identify people; a `text[]` names several."""

DATASET_TYPE: Final = "dataset"
"""The type of what a catalogue holds, where a request names one."""


class Sensitivity(enum.IntEnum):
    """How sensitive a dataset is, from open to sealed."""

    PUBLIC = 0
    AGGREGATED = 1
    INTERNAL = 2
    CONFIDENTIAL = 3
    RESTRICTED = 4
    SEALED = 5


class Column(msgspec.Struct, frozen=True):
    """One column. `node` is its name in rules, `mci.prompts.prompt_text`; `tags` are nodes, `tag:content.prompt`.

    `inherits` tells whether some of its tags came by lineage.
    """

    name: str
    node: str
    type: str
    tags: tuple[str, ...] = ()
    description: str = ""
    line: int = 0
    inherits: bool = False


class Ceiling(msgspec.Struct, frozen=True):
    """The largest audience that a dataset may ever have: roles and a head-count (None: no limit).

    `actions` narrows or widens it for single actions.
    """

    roles: tuple[str, ...]
    people_max: int | None
    actions: Mapping[str, Ceiling] = {}

    def of(self, action: str) -> Ceiling:
        """Returns the ceiling for one action."""
        return self.actions.get(action, self)


class Notice(msgspec.Struct, frozen=True):
    """What people were told that their records are used for, and from when to when."""

    id: str
    purposes: tuple[str, ...]
    effective_time: datetime
    end_time: datetime | None = None
    description: str = ""
    line: int = 0

    def in_force(self, now: datetime) -> bool:
        """Tells whether the notice has begun and not ended."""
        return self.effective_time <= now and (self.end_time is None or now < self.end_time)

    def period(self, now: datetime) -> tuple[datetime, datetime]:
        """Returns since when (inclusive) and until when (exclusive) `in_force` is what it is now."""
        turns = (ALWAYS[0], *sorted(filter(None, (self.effective_time, self.end_time))), ALWAYS[1])
        return next((since, until) for since, until in pairwise(turns) if now < until)


class Tag(msgspec.Struct, frozen=True):
    """A kind of content. A column with a tag that demands a mask is never shown without a mask rule."""

    name: str
    requires_mask: bool = False
    description: str = ""
    line: int = 0


class Origin(msgspec.Struct, frozen=True):
    """What a dataset was made of, and which run of which job reported it first."""

    dataset: str
    job: str
    run_id: str


class Dataset(msgspec.Struct, frozen=True):
    """One dataset of the catalogue.

    `subject_keys` are the columns that name the data subjects; none in a dataset that names nobody.
    `purposes` are those that its notice permits for it, each with its sub-purposes. `group_minimum` says, of
    a derived dataset, over how many data subjects each of its rows is aggregated at least; 0 where rows
    are about one. `origins` are what it was made of, by lineage; `sealed_by` is the one of which nothing is known.
    """

    id: str
    columns: Mapping[str, Column]
    subject_keys: tuple[str, ...]
    sensitivity: Sensitivity
    retention_days: int
    ceiling: Ceiling
    notice: str
    purposes: tuple[str, ...]
    group_minimum: int = 0
    description: str = ""
    line: int = 0
    origins: tuple[Origin, ...] = ()
    sealed_by: str = ""
