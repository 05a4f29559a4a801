"""Which approvals the next revision of a policy set needs: the block `approvals` of its `gatebook.yaml`.

Owns its shape:

    approvals:
      approvers: [role:privacy_officer, role:mci_owner]         people of the directory with one of these may approve
      loosening: {people: 2, one_of: [role:privacy_officer]}    two people at least, one of them with one of these
      tightening: {people: 1}                                   one at least
      expire_hours: 24                                          when a proposal ends, with its approvals

The rules are those of the revision that is active, never those of the draft. Whoever proposes never counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from gatebook.policy import names
from gatebook.policy.yaml_nodes import Node
from gatebook.policy.yaml_reader import WRONG_VALUE, Reader

KEYS: Final = ("approvers", "loosening", "tightening", "expire_hours")
PEOPLE_MAX: Final = 9
HOURS_MAX: Final = 720
LOOSENING_LEAST: Final = 2


class Demand(msgspec.Struct, frozen=True):
    """How many people must approve, and of which roles one of them must have one (empty: any)."""

    people: int = 1
    one_of: tuple[str, ...] = ()


class ApprovalRules(msgspec.Struct, frozen=True):
    """Which approvals a change needs."""

    approvers: tuple[str, ...]
    loosening: Demand
    tightening: Demand = Demand()
    expire_hours: int = 24

    def demand(self, *, loosens: bool) -> Demand:
        """Returns what a change needs."""
        return self.loosening if loosens else self.tightening

    def may_approve(self, roles: Iterable[str]) -> bool:
        """Tells whether somebody with these roles in the directory may approve."""
        return not frozenset(self.approvers).isdisjoint(roles)

    @property
    def roles(self) -> tuple[str, ...]:
        """Returns every role that is named."""
        return (*self.approvers, *self.loosening.one_of, *self.tightening.one_of)


def read_approvals(reader: Reader, node: Node | None) -> ApprovalRules | None:
    """Reads the block; None where there is none, or a finding."""
    fields = None if node is None else reader.fields(node, "approvals", KEYS, ("approvers", "loosening"))
    if node is None or fields is None:
        return None
    approvers: list[str] = []
    if "approvers" in fields:
        found = reader.names(fields["approvers"], "approvals.approvers", names.ROLE, "role:privacy_officer")
        approvers = [role for role, _ in found]
        if not approvers:
            reader.refuse(fields["approvers"], WRONG_VALUE, "`approvals.approvers` must name a role: else nobody may")
    loosening = _demand(reader, fields.get("loosening"), "loosening", LOOSENING_LEAST, "one_of")
    tightening = _demand(reader, fields.get("tightening"), "tightening", 1)
    hours: int | None = 24
    if "expire_hours" in fields:
        hours = reader.integer(fields["expire_hours"], "approvals.expire_hours", 1, HOURS_MAX)
    if loosening is None or not approvers:
        return None
    return ApprovalRules(tuple(approvers), loosening, tightening or Demand(), hours or 1)


def _demand(reader: Reader, node: Node | None, name: str, least: int, *required: str) -> Demand | None:
    where = f"approvals.{name}"
    fields = None if node is None else reader.fields(node, where, ("people", "one_of"), ("people", *required))
    if fields is None:
        return None
    people = reader.integer(fields["people"], f"{where}.people", least, PEOPLE_MAX) if "people" in fields else None
    roles: tuple[str, ...] = ()
    if "one_of" in fields:
        named = reader.names(fields["one_of"], f"{where}.one_of", names.ROLE, "role:privacy_officer")
        roles = tuple(role for role, _ in named)
        if not roles:
            reader.refuse(fields["one_of"], WRONG_VALUE, f"`{where}.one_of` names nobody: leave it out, or name a role")
    return Demand(people or PEOPLE_MAX, roles)
