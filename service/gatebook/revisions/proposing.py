"""How a draft that asks for approvals is proposed, and takes effect with the last of them.

Owns the way between the two. With the last approval everything is judged again, under what is active then; where what
was approved is not what would take effect, it is void. Whoever calls holds the turn where it changes what waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from gatebook.audit.entry import PolicyEvent
from gatebook.audit.recorder import Recorder, Written
from gatebook.errors import ApprovalRefusedError, PermissionDeniedError
from gatebook.governance.change import Change, diff_digest, loosens
from gatebook.policy import bundle, gatebook_set
from gatebook.policy.approval_rules import ApprovalRules
from gatebook.revisions.activating import Activating
from gatebook.revisions.active import Revisions
from gatebook.revisions.approving import Approving, told
from gatebook.revisions.judging import Judging
from gatebook.revisions.proposals import Proposal, ProposalKind
from gatebook.revisions.publisher import Publisher
from gatebook.revisions.steps import request_hash, step_event
from gatebook.revisions.validate import Validation
from gatebook.v1 import entry_pb2
from gatebook.values import Revision


class Approved(msgspec.Struct, frozen=True):
    """What an approval came to; `revision` is None where more are needed, or no revision was proposed."""

    proposal: Proposal
    revision: Revision | None
    written: Written


Enact = Callable[[Proposal, Publisher], Awaitable[Approved]]
"""Judges a proposal again that has every approval, and makes it take effect, or ends it as void."""


class Proposing:
    """Proposes drafts, and makes what was approved take effect."""

    def __init__(
        self, revisions: Revisions, recorder: Recorder, judging: Judging, approving: Approving, activating: Activating
    ) -> None:
        """Takes the active revisions, the pen of the book, who judges, what waits, and what makes it take effect."""
        self.enact: dict[ProposalKind, Enact] = {ProposalKind.REVISION: self._enact_revision}
        """What is done once a proposal of a kind has every approval."""
        self.retell: dict[ProposalKind, Callable[[Proposal], tuple[Change, ...]]] = {}
        """What tells the changes of a proposal again that is none of a revision."""
        self._revisions = revisions
        self._recorder = recorder
        self._judging = judging
        self._approving = approving
        self._activating = activating

    async def changes_of(self, proposal: Proposal) -> tuple[Change, ...]:
        """Returns what a proposal changes, which is computed again where the service was started since."""
        if proposal.changes is not None:
            return proposal.changes
        if proposal.kind is not ProposalKind.REVISION:
            return self.retell[proposal.kind](proposal)
        files = await asyncio.to_thread(self._revisions.store.get_policy_set, proposal.digest)
        found = await self._judging.judge(files, proposal.policy_set, self._recorder.now())
        return found.changes or ()

    def rules_for(self, found: Validation) -> ApprovalRules | None:
        """Returns which approvals a draft would need that was judged and compared; None where it needs none."""
        active = self._revisions.state.policy_sets.get(found.name)
        if active is not None:
            return active.settings.approvals
        return None if found.policy_set is None else found.policy_set.settings.approvals

    async def rules_of(self, proposal: Proposal) -> ApprovalRules:
        """Returns which approvals a proposal needs.

        Raises:
            ApprovalRefusedError: none are asked for any more: it must be proposed again.
        """
        files: Mapping[str, bytes] = {}
        if proposal.policy_set not in self._revisions.state.policy_sets:
            files = await asyncio.to_thread(self._revisions.store.get_policy_set, proposal.digest)
        rules = self._judging.rules_of(files, proposal.policy_set)
        if rules is None:
            raise ApprovalRefusedError(f"`{proposal.policy_set}` asks for no approvals any more: publish it again")
        return rules

    async def propose(
        self,
        files: Mapping[str, bytes],
        found: Validation,
        rules: ApprovalRules,
        publisher: Publisher,
        request_id: str,
    ) -> tuple[Proposal, Written | None]:
        """Proposes a draft that was judged; one that waits already is not proposed again.

        Raises:
            LimitExceededError: too much waits.
            BookUnavailableError: it could not be written; nothing was proposed.
        """
        proposal = self.proposal_of(found, request_id)
        for one in self._approving.now().waiting:
            if (one.policy_set, one.digest, one.diff_digest) == (found.name, found.digest, proposal.diff_digest):
                return one, None
        await asyncio.to_thread(self._revisions.store.put_policy_set, files)
        steps = [entry_pb2.POLICY_STEP_VALIDATED, entry_pb2.POLICY_STEP_TESTED]
        steps += [entry_pb2.POLICY_STEP_PROVED] if bundle.GUARDRAILS_FILE in files else []
        before = [step_event(self._revisions.state, step, found) for step in steps]
        impact = told(proposal, 0)
        impact.ClearField("expires_time")
        before.append(step_event(self._revisions.state, entry_pb2.POLICY_STEP_COMPARED, found, proposal=impact))
        return await self._approving.propose(proposal, rules, publisher, before)

    def proposal_of(self, found: Validation, request_id: str = "") -> Proposal:
        """Returns a draft that was compared as what would be proposed."""
        newest = self._revisions.newest(found.name)
        base = None if newest is None else newest.revision
        changed = found.changes or ()
        digest = diff_digest(found.name, "" if base is None else base.digest, found.digest, changed)
        now = self._recorder.now()
        return Proposal(
            ProposalKind.REVISION,
            found.name,
            found.digest,
            digest,
            base,
            loosens(changed),
            "",
            "",
            now,
            now,
            0,
            changed,
            request_id_hash=request_hash(request_id),
        )

    async def approve(self, policy_set: str, digest: str, diff: str, approver: Publisher) -> Approved:
        """Approves what waits: see `Publishing.approve`."""
        proposal = self._approving.now().find(policy_set, digest)
        rules = await self.rules_of(proposal)
        self._approving.require_approver(proposal, rules, approver, diff)
        proposal, written = await self._approving.approve(proposal, approver)
        if not self._approving.missing(proposal, rules).nothing:
            return Approved(proposal, None, written)
        await self._require_requester(proposal, approver)
        return await self.enact[proposal.kind](proposal, approver)

    async def _require_requester(self, proposal: Proposal, approver: Publisher) -> None:
        """Lets a proposal take effect whose requester may publish the set still; else it is void.

        Raises:
            ApprovalRefusedError: they may not any more.
        """
        name, digest = proposal.policy_set, proposal.digest
        try:
            self._approving.requester(proposal).require(gatebook_set.POLICY_SET, name)
        except PermissionDeniedError:
            why = f"`{proposal.requested_by}`, who proposed it, may not publish `{name}` any more"
            event = PolicyEvent(step=entry_pb2.POLICY_STEP_VOIDED, policy_set=name, revision=Revision(digest, 0))
            await self._approving.end(proposal, event, approver.id, why)
            message = f"{why}, and every approval of it is void: somebody who may must publish it"
            raise ApprovalRefusedError(message, policy_set=name, digest=digest) from None

    async def _enact_revision(self, proposal: Proposal, approver: Publisher) -> Approved:
        files = await asyncio.to_thread(self._revisions.store.get_policy_set, proposal.digest)
        requester = self._approving.requester(proposal)
        found = await self._judging.judge(files, proposal.policy_set, self._recorder.now(), requester)
        same = found.passed and self.proposal_of(found).diff_digest == proposal.diff_digest
        if not same:
            event = step_event(self._revisions.state, entry_pb2.POLICY_STEP_VOIDED, found)
            why = "what it does has moved since it was proposed" if found.passed else "it would be refused now"
            await self._approving.end(proposal, event, approver.id, why)
            if not found.passed:
                raise found.refusal()
            facts = {"policy_set": proposal.policy_set, "digest": proposal.digest}
            message = f"{why}, and every approval of it is void: publish it again, and read what it changes now"
            raise ApprovalRefusedError(message, **facts)
        rules = await self.rules_of(proposal)
        count = len({one.approver for one in self._approving.counting(proposal, rules)})
        said = told(proposal, proposal.index, approvals=count)
        event = step_event(self._revisions.state, entry_pb2.POLICY_STEP_ACTIVATED, found, proposal=said)
        event = msgspec.structs.replace(event, request_id_hash=proposal.request_id_hash)
        revision, written = await self._activating.policy_set(files, found, event, approver.id)
        return Approved(proposal, revision, written)

    async def withdraw(self, policy_set: str, digest: str, who: Publisher) -> Written:
        """Ends what waits: see `Publishing.withdraw`."""
        proposal = self._approving.now().find(policy_set, digest)
        own = who.id == proposal.requested_by or (who.subject is not None and who.subject.id == proposal.requester)
        if not own:
            rules = await self.rules_of(proposal)
            self._approving.require_approver(proposal, rules, who, proposal.diff_digest)
        event = PolicyEvent(step=entry_pb2.POLICY_STEP_WITHDRAWN, policy_set=policy_set, revision=Revision(digest, 0))
        why = "it was taken back" if own else f"`{who.id}` refused it"
        return await self._approving.end(proposal, event, who.id, why)
