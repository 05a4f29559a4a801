"""One thing that a draft changes, and which way it goes.

Owns the value that whoever proposes and whoever approves are shown, and the digest that an approval is bound to.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable

import msgspec

_DIFF_TAG = "gatebook diff v1"


class Direction(enum.IntEnum):
    """Which way a change goes. Numbers are those of `ChangeDirection` in types.proto."""

    LOOSENS = 1
    """It may let somebody do more, or is not certain not to."""
    TIGHTENS = 2
    """It lets nobody do more, whoever is in the directory."""
    NEITHER = 3
    """Nothing that is decided depends on it."""


class Change(msgspec.Struct, frozen=True, order=True):
    """One change. `file` and `line` are those of the draft, or, where it is `in_base`, of what it replaces.

    `node` is what of the catalogue it is about: a dataset, column, tag or namespace; nothing where it is about none,
    or about everything. `subjects` stands for who gains by it: a digest of their ids.
    """

    file: str
    line: int
    what: str
    message: str
    direction: Direction
    node: str = ""
    dataset: str = ""
    in_base: bool = False
    subjects: str = ""


def loosens(changes: Iterable[Change]) -> bool:
    """Tells whether any of these changes may let somebody do more."""
    return any(change.direction is Direction.LOOSENS for change in changes)


def diff_digest(policy_set: str, base: str, digest: str, changes: Iterable[Change]) -> str:
    """Returns what an approval is bound to: SHA-256 over the set, both revisions, and each change in order."""
    told = (_DIFF_TAG, policy_set, base, digest, tuple(sorted(changes)))
    return hashlib.sha256(msgspec.json.encode(told)).hexdigest()
