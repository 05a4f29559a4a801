"""The audience of one dataset, column, tag or namespace as a list for people: who, what, why, and by which way.

Owns the order and the merging: whoever counts stands before those who read rows about themselves alone, by id; ways
by the same rule that differ in columns or purposes alone are one.
"""

from __future__ import annotations

import msgspec

from gatebook.errors import InvalidRequestError
from gatebook.governance.audience import Audiences, Reach
from gatebook.governance.ceilings import path_of
from gatebook.governance.judge import Level
from gatebook.governance.people import Bits, places
from gatebook.governance.rules import CONDITION, Cell
from gatebook.policy.directory import Subject
from gatebook.policy.suggest import did_you_mean
from gatebook.values import PathStep


class Member(msgspec.Struct, frozen=True):
    """One way in which a subject could be allowed something."""

    subject: Subject
    dataset: str
    columns: tuple[str, ...]
    action: str
    purposes: tuple[str, ...]
    level: Level
    condition: str
    path: tuple[PathStep, ...]


class Listing(msgspec.Struct, frozen=True):
    """An audience: `reach` is everybody, `members` are the ways of the first of them."""

    reach: Reach
    services: Bits
    members: tuple[Member, ...]
    left_out: int


def list_audience(audiences: Audiences, node: str, *, action: str = "", purpose: str = "", limit: int = 0) -> Listing:
    """Lists who could be allowed something under a node of the catalogue; of so many subjects, if there is a limit.

    Raises:
        InvalidRequestError: the catalogue has no such node, or the set no such action or purpose.
    """
    _require_known(audiences, node, action, purpose)
    cells: list[tuple[Cell, Reach]] = []
    whole = Reach()
    for dataset in audiences.datasets(node):
        for cell, reach in audiences.cells(dataset, (action,) if action else (), node):
            if purpose in ("", *cell.purposes):
                cells.append((cell, reach))
                whole |= reach
    ordered = [*places(whole.beyond_own), *places(whole.own)]
    chosen = ordered[:limit] if limit else ordered
    members = [one for place in chosen for one in _ways(audiences, place, cells, purpose)]
    return Listing(whole, whole.anybody & audiences.people.services, tuple(members), len(ordered) - len(chosen))


def _ways(audiences: Audiences, place: int, cells: list[tuple[Cell, Reach]], purpose: str) -> list[Member]:
    subject = audiences.people.subjects[place]
    ways: dict[tuple[object, ...], Member] = {}
    for cell, reach in cells:
        level = reach.level(place)
        grant = audiences.grant(subject, cell) if level else None
        if grant is None:
            continue
        purposes = (purpose,) if purpose else cell.purposes
        key = (cell.dataset.id, cell.action, level, grant.rule.file, grant.rule.line, grant.rule.text)
        known = ways.get(key)
        if known is None:
            path = path_of(audiences, subject, grant.rule)
            condition = grant.rule.fields[CONDITION]
            ways[key] = Member(subject, cell.dataset.id, cell.columns, cell.action, purposes, level, condition, path)
        else:
            ways[key] = msgspec.structs.replace(
                known,
                columns=tuple(dict.fromkeys((*known.columns, *cell.columns))),
                purposes=tuple(dict.fromkeys((*known.purposes, *purposes))),
            )
    return list(ways.values())


def _require_known(audiences: Audiences, node: str, action: str, purpose: str) -> None:
    policy_set = audiences.policy_set
    nodes = frozenset[str]() if policy_set.catalogue is None else policy_set.catalogue.nodes()
    purposes = () if policy_set.purposes is None else policy_set.purposes.names
    for name, value, known in (
        ("node", node, nodes),
        ("action", action, policy_set.settings.actions),
        ("purpose", purpose, purposes),
    ):
        if value not in known and (value or name == "node"):
            what = "is no dataset, column, tag or namespace of the catalogue" if name == "node" else "is unknown"
            raise InvalidRequestError(name, f"`{value}` {what}{did_you_mean(value, known)}")
