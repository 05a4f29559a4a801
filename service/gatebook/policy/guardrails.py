"""Guardrails: what must never be possible, whoever asks. The values that `guardrails.yaml` states.

Owns what a guardrail is. There are three kinds:

    never      nobody, whoever it may be, is ever allowed an access of this form
    apart      no dataset (or column) is ever allowed for two of these purposes, be it to whom it may
    separate   nobody with one role, and nobody in the directory, is ever allowed accesses of two of these forms

An access is of a form if it is one of its actions on a column under one of its nodes, for one of its purposes, by
somebody of whom it speaks, and nothing of `unless` holds of it. What a form does not say, it does not ask for.
"""

from __future__ import annotations

import enum

import msgspec

from gatebook.expression.tree import Expression
from gatebook.policy.masks import MaskSpec


class Kind(enum.StrEnum):
    """What a guardrail forbids."""

    NEVER = "never"
    APART = "apart"
    SEPARATE = "separate"


class Within(enum.StrEnum):
    """What two purposes never have in common."""

    DATASET = "dataset"
    COLUMN = "column"


class Condition(msgspec.Struct, frozen=True):
    """A condition with where its text begins in the file."""

    text: str
    tree: Expression
    line: int = 0
    column: int = 0


class Who(msgspec.Struct, frozen=True):
    """Of whom a form speaks.

    `without`: to whom the directory gives none of these roles; links between roles give nobody a role here, as with
    ceilings. `holding`: who holds one of these, by whatever links (empty: anybody). `where`: for whom, and in which
    circumstances, this is not False.
    """

    without: tuple[str, ...] = ()
    holding: tuple[str, ...] = ()
    where: Condition | None = None


class Form(msgspec.Struct, frozen=True):
    """A form of access. An empty tuple means any.

    Of `purposes` and `beyond`, each speaks for its sub-purposes too; `beyond` are those that it does not speak of.
    An access does not count where a mask at least as strict as one of `masks` applies (`masked`: any mask that
    hides), where a group of `group` people at least is demanded, or, with `own_rows`, where the row is about the
    subject alone.
    """

    on: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    purposes: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()
    who: Who = Who()
    masked: bool = False
    masks: tuple[MaskSpec, ...] = ()
    group: int = 0
    own_rows: bool = False


class Guardrail(msgspec.Struct, frozen=True):
    """One guardrail: `never` and `apart` have one form, `separate` two or more; `apart` has two purposes or more."""

    name: str
    kind: Kind
    forms: tuple[Form, ...]
    apart: tuple[str, ...] = ()
    within: Within = Within.DATASET
    description: str = ""
    file: str = ""
    line: int = 0
    column: int = 0
