"""What waits for approvals, as the entries of the book tell it.

Owns the fold: which changes were proposed, who approved them, and how those that do not wait any more ended. It takes
values and returns values. Rules:

1. a proposal ends when anything of its set becomes active, when it is withdrawn or void, and when its time is over; its
   approvals end with it;
2. an approval counts while the person is in the directory, is no service, and has a role of those who may approve *in
   the directory itself*; never that of whoever proposed, and of one person once;
3. which approvals are needed, the revision says that is active.
"""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Final

import msgspec

from gatebook.errors import ProposalNotFoundError
from gatebook.governance.change import Change
from gatebook.governance.people import SERVICE
from gatebook.policy.approval_rules import ApprovalRules
from gatebook.policy.directory import Directory
from gatebook.values import Revision

ENDED_MAX: Final = 200
"""How many of those that ended are remembered, to say why."""


class ProposalKind(enum.IntEnum):
    """What is proposed. Numbers are those of `ProposalKind` in types.proto."""

    REVISION = 1
    RECLASSIFICATION = 2


class Given(msgspec.Struct, frozen=True):
    """One approval: by whom (empty: the key of that person is gone), as which caller, when, and where it is written."""

    approver: str
    caller: str
    time: datetime
    index: int


class Proposal(msgspec.Struct, frozen=True):
    """One change that was proposed. `index` is that of its entry, which tells it from every other.

    `requested_by` is the caller, `requester` the person whom that caller is, if it is one. `changes` are None where
    they are not computed again since the service started.
    """

    kind: ProposalKind
    policy_set: str
    digest: str
    diff_digest: str
    base: Revision | None
    loosens: bool
    requested_by: str
    requester: str
    create_time: datetime
    expires_time: datetime
    index: int
    changes: tuple[Change, ...] | None = None
    approvals: tuple[Given, ...] = ()
    request_id_hash: bytes = b""


class Ended(msgspec.Struct, frozen=True):
    """A proposal that does not wait any more, and why."""

    policy_set: str
    digest: str
    why: str


class Proposals(msgspec.Struct, frozen=True):
    """All proposals at one moment, the newest first. Replaced as a whole."""

    waiting: tuple[Proposal, ...] = ()
    ended: tuple[Ended, ...] = ()

    def proposed(self, proposal: Proposal) -> Proposals:
        """Adds a proposal; one of the same digest ends."""
        before = self
        for other in self.waiting:
            if (other.kind, other.policy_set, other.digest) == (proposal.kind, proposal.policy_set, proposal.digest):
                before = before.without(other.index, "it was proposed again")
        return Proposals((proposal, *before.waiting), before.ended)

    def approved(self, index: int, given: Given) -> Proposals:
        """Adds an approval of the proposal whose entry has this index."""
        waiting = tuple(
            msgspec.structs.replace(one, approvals=(*one.approvals, given)) if one.index == index else one
            for one in self.waiting
        )
        return Proposals(waiting, self.ended)

    def without(self, index: int, why: str) -> Proposals:
        """Ends the proposal whose entry has this index."""
        ended = [Ended(one.policy_set, one.digest, why) for one in self.waiting if one.index == index]
        waiting = tuple(one for one in self.waiting if one.index != index)
        return Proposals(waiting, (*ended, *self.ended)[:ENDED_MAX])

    def activated(self, policy_set: str, number: int) -> Proposals:
        """Ends every proposal about a set of which a revision became active."""
        found = self
        for one in self.waiting:
            if one.policy_set == policy_set:
                found = found.without(one.index, f"revision {number} became active")
        return found

    def at(self, now: datetime) -> Proposals:
        """Ends those whose time is over."""
        found = self
        for one in self.waiting:
            if now >= one.expires_time:
                found = found.without(one.index, f"it expired at {one.expires_time:%Y-%m-%d %H:%M} UTC")
        return found

    def find(self, policy_set: str, digest: str) -> Proposal:
        """Returns the proposal that waits.

        Raises:
            ProposalNotFoundError: none of this digest does; it says why, where that is remembered.
        """
        for one in self.waiting:
            if (one.policy_set, one.digest) == (policy_set, digest):
                return one
        why = next((one.why for one in self.ended if (one.policy_set, one.digest) == (policy_set, digest)), "")
        raise ProposalNotFoundError(policy_set, digest, why)


class Missing(msgspec.Struct, frozen=True):
    """What a proposal waits for: so many more people, and one of them with one of these roles."""

    people: int
    one_of: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        """Tells whether it waits for nobody."""
        return not self.people and not self.one_of


def counts(given: Given, proposal: Proposal, rules: ApprovalRules, directory: Directory | None) -> bool:
    """Tells whether an approval counts now."""
    subject = None if directory is None else directory.subjects.get(given.approver)
    if subject is None or subject.type == SERVICE or not rules.may_approve(subject.groups):
        return False
    return given.approver != proposal.requester and given.caller != proposal.requested_by


def missing(proposal: Proposal, rules: ApprovalRules, directory: Directory | None) -> Missing:
    """Returns what a proposal waits for."""
    demand = rules.demand(loosens=proposal.loosens)
    people = {one.approver for one in proposal.approvals if counts(one, proposal, rules, directory)}
    subjects = {} if directory is None else directory.subjects
    roles = frozenset(role for id_ in people for role in subjects[id_].groups)
    lacks_role = bool(demand.one_of) and roles.isdisjoint(demand.one_of)
    lacking = max(0, demand.people - len(people))
    # Enough people without the role still need one more, who has it.
    return Missing(max(lacking, int(lacks_role)), demand.one_of if lacks_role else ())
