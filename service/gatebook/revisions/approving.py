"""Who approved what: proposals are written into the book, counted, and ended.

Owns the one reference to what waits, and the entries about it. It decides whether an approval counts, and whether
enough people have approved; what then happens is up to whoever proposes that kind of change. Rules:

1. an approval is one of a person of the directory, under their own credentials, of the diff that they read;
2. it is in the book before it counts;
3. at most `WAITING_MAX` proposals wait, `EACH_MAX` of one caller.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence

import msgspec

from gatebook.audit.chain import Entries, control_chain
from gatebook.audit.entry import FINDINGS_WRITTEN_MAX, Named, PolicyEvent, from_timestamp, short_name, to_timestamp
from gatebook.audit.people import People, PersonId
from gatebook.audit.record import named_in
from gatebook.audit.recorder import Recorder, Written
from gatebook.errors import ApprovalRefusedError, LimitExceededError
from gatebook.governance.change import Change
from gatebook.policy.approval_rules import HOURS_MAX, ApprovalRules
from gatebook.revisions.active import Revisions
from gatebook.revisions.proposals import Given, Missing, Proposal, ProposalKind, Proposals, counts, missing
from gatebook.revisions.publisher import NOBODY, Publisher
from gatebook.v1 import entry_pb2, types_pb2
from gatebook.values import Revision

KINDS = frozenset(kind.value for kind in ProposalKind)
WAITING_MAX = 100
EACH_MAX = 20


class Approving:
    """Keeps what waits for approvals. Used on the event loop only."""

    def __init__(self, revisions: Revisions, recorder: Recorder, proposals: Proposals = Proposals()) -> None:  # noqa: B008  # frozen
        """Takes what is active, the pen of the book, and what waits according to it."""
        self._revisions = revisions
        self._recorder = recorder
        self.proposals = proposals  # INVARIANT: replaced by one assignment, never mutated
        self.recall: Callable[[Proposal], Publisher] = lambda _proposal: NOBODY
        """Says who proposed something before this start, as far as the book tells."""
        self._requesters: dict[int, Publisher] = {}

    def now(self) -> Proposals:
        """Returns what waits now."""
        self.proposals = self.proposals.at(self._recorder.now())
        return self.proposals

    def rules_of(self, proposal: Proposal) -> ApprovalRules | None:
        """Returns which approvals a proposal needs, as the active revision says."""
        active = self._revisions.state.policy_sets.get(proposal.policy_set)
        return None if active is None else active.settings.approvals

    def requester(self, proposal: Proposal) -> Publisher:
        """Returns who proposed it, with the rights that they have now."""
        return self._requesters.get(proposal.index) or self.recall(proposal)

    def missing(self, proposal: Proposal, rules: ApprovalRules) -> Missing:
        """Returns what a proposal waits for."""
        return missing(proposal, rules, self._revisions.state.directory)

    def counting(self, proposal: Proposal, rules: ApprovalRules) -> tuple[Given, ...]:
        """Returns the approvals of a proposal that count now."""
        directory = self._revisions.state.directory
        return tuple(one for one in proposal.approvals if counts(one, proposal, rules, directory))

    async def propose(
        self, proposal: Proposal, rules: ApprovalRules, requester: Publisher, before: Sequence[PolicyEvent] = ()
    ) -> tuple[Proposal, Written]:
        """Writes a proposal, after the steps that led to it; its times and its index come of the entry.

        Raises:
            LimitExceededError: too many wait already.
            BookUnavailableError: it could not be written; nothing was proposed.
        """
        waiting = self.now().waiting
        own = sum(one.requested_by == requester.id for one in waiting)
        if len(waiting) >= WAITING_MAX or own >= EACH_MAX:
            message = f"{len(waiting)} proposals wait for approvals, {own} of them yours: withdraw what is not meant"
            raise LimitExceededError(message, limit="proposals")
        life = dt.timedelta(hours=rules.expire_hours)
        expires = self._recorder.now() + life
        proposal = msgspec.structs.replace(
            proposal,
            requested_by=requester.id,
            requester="" if requester.subject is None else requester.subject.id,
            expires_time=expires,
        )
        named = await self._named(requester)
        event = PolicyEvent(
            step=entry_pb2.POLICY_STEP_PROPOSED,
            policy_set=proposal.policy_set,
            revision=Revision(proposal.digest, 0),
            request_id_hash=proposal.request_id_hash,
            requested_by=named,
            proposal=told(proposal, 0),
        )
        written = (await self._recorder.record_policies([*before, event], requester.id))[-1]
        # The commit point: from here on it waits, here and after a restart.
        proposal = msgspec.structs.replace(proposal, create_time=written.entry_time, index=written.index)
        self.proposals = self.proposals.proposed(proposal)
        still = {one.index for one in self.proposals.waiting}
        self._requesters = {i: who for i, who in self._requesters.items() if i in still} | {proposal.index: requester}
        return proposal, written

    def require_approver(self, proposal: Proposal, rules: ApprovalRules, approver: Publisher, diff_digest: str) -> None:
        """Lets somebody approve a proposal.

        Raises:
            ApprovalRefusedError: it would not count.
        """
        facts = {"policy_set": proposal.policy_set, "digest": proposal.digest}
        if approver.subject is None:
            message = f"`{approver.id}` is no person: approve with a token of your own"
            raise ApprovalRefusedError(message, **facts)
        if approver.id == proposal.requested_by or approver.subject.id == proposal.requester:
            raise ApprovalRefusedError("whoever proposed a change does not approve it", **facts)
        directory = self._revisions.state.directory
        subject = None if directory is None else directory.find(approver.subject.type, approver.subject.id)
        given = Given(approver.subject.id, approver.id, self._recorder.now(), 0)
        if subject is None or not counts(given, proposal, rules, directory):
            roles = ", ".join(f"`{role}`" for role in rules.approvers)
            message = f"`{approver.subject.id}` may not approve this: the directory must give them one of {roles}"
            raise ApprovalRefusedError(message, **facts)
        if diff_digest != proposal.diff_digest:
            message = "this is not the diff that waits: read what it changes now, and name its digest"
            raise ApprovalRefusedError(message, **facts)
        if any(one.approver == approver.subject.id for one in self.counting(proposal, rules)):
            raise ApprovalRefusedError(f"`{approver.subject.id}` has approved it already; another person must", **facts)

    async def approve(self, proposal: Proposal, approver: Publisher) -> tuple[Proposal, Written]:
        """Writes an approval that counts.

        Raises:
            BookUnavailableError: it could not be written, and does not count.
        """
        event = PolicyEvent(
            step=entry_pb2.POLICY_STEP_APPROVED,
            policy_set=proposal.policy_set,
            revision=Revision(proposal.digest, 0),
            approved_by=await self._named(approver),
            proposal=told(proposal, proposal.index),
        )
        written = await self._recorder.record_policy(event, approver.id)
        id_ = "" if approver.subject is None else approver.subject.id
        given = Given(id_, approver.id, written.entry_time, written.index)
        self.proposals = self.proposals.approved(proposal.index, given)
        return self.proposals.find(proposal.policy_set, proposal.digest), written

    async def end(self, proposal: Proposal, event: PolicyEvent, caller: str, why: str) -> Written:
        """Writes that a proposal was withdrawn or is void.

        Raises:
            BookUnavailableError: it could not be written, and waits still.
        """
        written = await self._recorder.record_policy(
            msgspec.structs.replace(event, proposal=told(proposal, proposal.index)), caller
        )
        self.proposals = self.proposals.without(proposal.index, why)
        return written

    def activated(self, policy_set: str, number: int) -> None:
        """Is told that a revision became active: whatever else waits for this set was compared with another one."""
        self.proposals = self.proposals.activated(policy_set, number)

    async def _named(self, who: Publisher) -> Named | None:
        directory = self._revisions.state.directory
        if who.subject is None or directory is None or directory.find(who.subject.type, who.subject.id) is None:
            return None
        id_ = PersonId(who.subject.type, who.subject.id)
        return Named(who.subject.id, (await self._recorder.people_with({id_}))[id_])


def told(proposal: Proposal, proposed_index: int, *, approvals: int = 0) -> entry_pb2.ProposalEntry:
    """Returns what an entry says of a proposal; what it changes, in the entry in which it is proposed alone."""
    changes = proposal.changes or ()
    body = entry_pb2.ProposalEntry(
        kind=types_pb2.ProposalKind.ValueType(proposal.kind.value),
        diff_digest=proposal.diff_digest,
        base=_revision(proposal.base),
        loosens=proposal.loosens,
        expires_time=to_timestamp(proposal.expires_time),
        proposed_index=proposed_index,
        approvals_count=approvals,
    )
    if not proposed_index:
        body.changes_count = len(changes)
        body.changes.extend(change_entries(changes))
    return body


def change_entries(changes: Iterable[Change]) -> list[entry_pb2.ChangeEntry]:
    """Returns the first changes as they are written: their messages hold lines of files, which may name people."""
    return [
        entry_pb2.ChangeEntry(
            direction=types_pb2.ChangeDirection.ValueType(change.direction.value),
            what=change.what,
            file=short_name(change.file),
            line=change.line,
            dataset=short_name(change.dataset),
            in_base=change.in_base,
        )
        for change, _ in zip(changes, range(FINDINGS_WRITTEN_MAX), strict=False)
    ]


def _revision(revision: Revision | None) -> types_pb2.Revision | None:
    return None if revision is None else types_pb2.Revision(digest=revision.digest, number=revision.number)


def proposals_of(book: Entries, origin: str, people: People, now: dt.datetime) -> Proposals:
    """Returns what waits for approvals according to the entries of a book."""
    since = now - dt.timedelta(hours=HOURS_MAX)
    recent: list[tuple[int, entry_pb2.AuditEntry]] = []
    for index, entry in control_chain(book):
        if from_timestamp(entry.entry_time) < since:
            break
        if entry.HasField("policy"):
            recent.append((index, entry))
    found = Proposals()
    for index, entry in reversed(recent):
        found = _folded(found, index, entry, named_in(entry, index, origin, people))
    return found.at(now)


def _folded(found: Proposals, index: int, entry: entry_pb2.AuditEntry, named: tuple[str, str]) -> Proposals:
    """Returns what waits after one more entry."""
    body, said = entry.policy, entry.policy.proposal
    time = from_timestamp(entry.entry_time)
    match body.step:
        case entry_pb2.POLICY_STEP_PROPOSED:
            if said.kind not in KINDS:
                return found  # of a later version: it is proposed again
            base = Revision(said.base.digest, said.base.number) if said.HasField("base") else None
            return found.at(time).proposed(
                Proposal(
                    ProposalKind(said.kind),
                    body.policy_set,
                    body.revision.digest,
                    said.diff_digest,
                    base,
                    said.loosens,
                    entry.caller,
                    named[0],
                    time,
                    from_timestamp(said.expires_time),
                    index,
                    request_id_hash=body.request_id_hash,
                )
            )
        case entry_pb2.POLICY_STEP_APPROVED:
            return found.approved(said.proposed_index, Given(named[1], entry.caller, time, index))
        case entry_pb2.POLICY_STEP_WITHDRAWN | entry_pb2.POLICY_STEP_VOIDED:
            why = "it was withdrawn" if body.step == entry_pb2.POLICY_STEP_WITHDRAWN else "it became void"
            return found.without(said.proposed_index, f"{why}, as entry {index} says")
        case entry_pb2.POLICY_STEP_ENACTED:
            return found.without(said.proposed_index, f"it took effect, as entry {index} says")
        case entry_pb2.POLICY_STEP_ACTIVATED:
            return found.activated(body.policy_set, body.revision.number)
        case _:
            return found
