"""Who gains by a draft: everybody who could be allowed something under it and could not before.

Owns the comparison of two audiences under one directory, cell by cell. It says nothing of masks and row filters, which
other changes speak of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from gatebook.governance.audience import Audiences, Reach
from gatebook.governance.change import Change, Direction
from gatebook.governance.people import NOBODY, Bits, first_of
from gatebook.governance.rules import Cell
from gatebook.policy.bundle import CATALOGUE_FILE
from gatebook.policy.dataset import Dataset

_Asked = tuple[str, str, str]
"""A column, an action, a purpose."""


def gains(before: Audiences, after: Audiences) -> Iterator[Change]:
    """Yields a change for each dataset and action on which somebody gains; both must know the same directory."""
    known = {dataset.id: dataset for dataset in before.datasets()}
    for dataset in after.datasets():
        was = _reached(before, known[dataset.id]) if dataset.id in known else {}
        found: dict[str, tuple[Bits, Cell]] = {}
        for cell, reach in after.cells(dataset):
            gained = NOBODY
            for column in cell.columns:
                for purpose in cell.purposes:
                    gained |= _gained(was.get((column, cell.action, purpose), Reach()), reach)
            if gained:
                sofar, first = found.get(cell.action, (NOBODY, cell))
                found[cell.action] = (sofar | gained, first)
        for action, (bits, cell) in found.items():
            yield _change(after, dataset, action, bits, cell)


def _reached(audiences: Audiences, dataset: Dataset) -> dict[_Asked, Reach]:
    return {
        (column, cell.action, purpose): reach
        for cell, reach in audiences.cells(dataset)
        for column in cell.columns
        for purpose in cell.purposes
    }


def _gained(before: Reach, after: Reach) -> Bits:
    return (after.beyond_own & ~before.beyond_own) | (after.own & ~before.anybody)


def _change(after: Audiences, dataset: Dataset, action: str, bits: Bits, cell: Cell) -> Change:
    subjects = [subject.id for subject in after.people.among(bits)]
    digest = hashlib.sha256("\n".join(subjects).encode()).hexdigest()
    one = after.people.subjects[first_of(bits & after.reach(cell).anybody)]
    grant = after.grant(one, cell)
    count = len(subjects)
    message = f"{count:,} {'subject gains' if count == 1 else 'subjects gain'} `{action}` of `{dataset.id}`"
    file, line = CATALOGUE_FILE, dataset.line
    if grant is not None:
        file, line = grant.rule.file, grant.rule.line
        message += f": for one `{one.id}`, by {grant.rule.text}"
    return Change(file, line, "SOMEBODY_GAINS", message, Direction.LOOSENS, dataset.id, dataset.id, subjects=digest)
