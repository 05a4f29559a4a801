"""Proposals as messages: what waits for approvals, and what it waits for."""

from __future__ import annotations

from gatebook.audit.entry import to_timestamp
from gatebook.governance.change import Change
from gatebook.policy.approval_rules import ApprovalRules
from gatebook.revisions.proposals import Given, Missing, Proposal
from gatebook.revisions.publish import Publishing
from gatebook.rpc import encode
from gatebook.v1 import policy_service_pb2 as pb
from gatebook.v1 import types_pb2

CHANGES_MAX = 1_000
"""How many changes a message names."""


async def proposal_message(publishing: Publishing, proposal: Proposal) -> pb.Proposal:
    """Returns a proposal with all that is known of it now."""
    rules = await publishing.proposing.rules_of(proposal)
    return proposal_of(
        proposal,
        await publishing.proposing.changes_of(proposal),
        rules,
        publishing.approving.missing(proposal, rules),
        publishing.approving.counting(proposal, rules),
    )


def proposal_of(
    proposal: Proposal, changes: tuple[Change, ...], rules: ApprovalRules, lacking: Missing, counting: tuple[Given, ...]
) -> pb.Proposal:
    """Encodes a proposal."""
    return pb.Proposal(
        kind=types_pb2.ProposalKind.ValueType(proposal.kind.value),
        policy_set=proposal.policy_set,
        digest=proposal.digest,
        diff_digest=proposal.diff_digest,
        base=None if proposal.base is None else encode.revision(proposal.base),
        requested_by=proposal.requested_by,
        create_time=to_timestamp(proposal.create_time),
        expires_time=to_timestamp(proposal.expires_time),
        index=proposal.index,
        changes=[change(one) for one in changes[:CHANGES_MAX]],
        loosens=proposal.loosens,
        approvals=[
            pb.Approval(
                approver=one.approver, create_time=to_timestamp(one.time), index=one.index, counts=one in counting
            )
            for one in proposal.approvals
        ],
        people_missing=lacking.people,
        one_of_missing=lacking.one_of,
        approvers=rules.approvers,
        waits_for=waits_for(lacking, rules),
    )


def change(one: Change) -> pb.Change:
    """Encodes one change."""
    return pb.Change(
        direction=types_pb2.ChangeDirection.ValueType(one.direction.value),
        what=one.what,
        message=one.message,
        file=one.file,
        line=one.line,
        dataset=one.dataset,
        in_base=one.in_base,
    )


def waits_for(lacking: Missing, rules: ApprovalRules) -> str:
    """Returns in words what a proposal waits for."""
    if lacking.nothing:
        return "nothing: it is judged again"
    people = "1 person" if lacking.people == 1 else f"{lacking.people} people"
    told = f"{people} with one of {', '.join(rules.approvers)}"
    if not lacking.one_of:
        return told
    which = "who must have" if lacking.people == 1 else "of whom one must have"
    return f"{told}, {which} {' or '.join(lacking.one_of)}"
