"""How a policy set or a directory becomes active: validate, test, build, store, write, swap.

Owns the order of these steps, one publish at a time. The entry of the activation is the commit point: before
it nothing has changed, after it a restart finds the revision active. Validations and refusals are entries too.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

import msgspec
import structlog

from gatebook.audit.entry import PolicyEvent
from gatebook.audit.recorder import Recorder, Written
from gatebook.engine.snapshot import Snapshot
from gatebook.errors import ApprovalRefusedError, DirectoryRefusedError, RevisionMovedError
from gatebook.governance.change import Change, diff_digest, loosens
from gatebook.policy import bundle, gatebook_set
from gatebook.policy.approval_rules import ApprovalRules
from gatebook.policy.directory import Directory
from gatebook.policy.policy_set import PolicySet
from gatebook.revisions.active import Activation, Revisions, State
from gatebook.revisions.approving import Approving, told
from gatebook.revisions.comparing import Comparing
from gatebook.revisions.followers import Followers
from gatebook.revisions.judging import Judging
from gatebook.revisions.proposals import Proposal, ProposalKind
from gatebook.revisions.publisher import THE_SERVICE, Publisher
from gatebook.revisions.scan import scan_findings
from gatebook.revisions.validate import Validation, declared_name
from gatebook.v1 import entry_pb2
from gatebook.values import Finding, Revision, Severity

T = TypeVar("T")
DIRECTORY = ""
"""Stands for the directory where activations are told apart by the name of a set."""


class Published(msgspec.Struct, frozen=True):
    """What a publish came to; `written` is None where nothing changed, `revision` where a `proposal` waits instead."""

    revision: Revision | None
    changed: bool
    findings: tuple[Finding, ...] = ()
    tests_run: int = 0
    subjects: int = 0
    written: Written | None = None
    proposal: Proposal | None = None


class Approved(msgspec.Struct, frozen=True):
    """What an approval came to; `revision` is None where more are needed, or no revision was proposed."""

    proposal: Proposal
    revision: Revision | None
    written: Written


Enact = Callable[[Proposal, Publisher], Awaitable[Approved]]
"""Judges a proposal again that has every approval, and makes it take effect, or ends it as void."""


class Publishing:
    """Publishes policy sets and directories, one at a time."""

    def __init__(self, revisions: Revisions, recorder: Recorder, approving: Approving | None = None) -> None:
        """Takes the active revisions, the pen of the book, and what waits for approvals."""
        self.followers = Followers()
        self.approving = approving or Approving(revisions, recorder)
        self.comparing = Comparing(revisions, recorder)
        self.enact: dict[ProposalKind, Enact] = {ProposalKind.REVISION: self._enact_revision}
        self.retell: dict[ProposalKind, Callable[[Proposal], tuple[Change, ...]]] = {}
        """What tells the changes of a proposal again that is none of a revision."""
        """What is done once a proposal of a kind has every approval."""
        self._revisions = revisions
        self._recorder = recorder
        self._log = structlog.get_logger("gatebook.revisions")
        self.turn = asyncio.Lock()
        """Is held by whoever changes what is active, or what waits."""
        self._judging = Judging(revisions)
        self._under_way: set[asyncio.Task[Any]] = set()

    def close(self) -> None:
        """Ends what is still being judged or built, so that nobody waits for it; nothing of it becomes active."""
        self._judging.close()
        self.comparing.stop()
        self._revisions.stop()

    async def validate(self, files: Mapping[str, bytes], name: str, caller: str) -> Validation:
        """Judges a draft under the active directory, and writes that it was asked."""
        found = await self._judging.judge(files, name, self._recorder.now())
        await self._recorder.record_policy(self._event(entry_pb2.POLICY_STEP_VALIDATED, found), caller)
        return found

    async def publish(
        self, files: Mapping[str, bytes], name: str, publisher: Publisher, *, request_id: str = "", base: str = ""
    ) -> Published:
        """Makes a policy set active, or proposes it where approvals are asked for, or refuses it and changes nothing.

        Raises:
            PermissionDeniedError: the publisher may not publish it.
            RevisionMovedError: another revision is active than `base`, or than when this was called.
            PolicySetRefusedError: it has findings of severity error, or expectations that do not hold.
            LimitExceededError: too much waits for approvals.
            DrainingError: the service stops before it is built.
            BookUnavailableError: the activation could not be written.
        """
        name = declared_name(files, name)
        base = base or self._active(name)
        return await self._carry_through(self._publish(files, name, publisher, request_id, base))

    async def rollback(
        self, name: str, number: int, publisher: Publisher, *, request_id: str = "", base: str = ""
    ) -> Published:
        """Publishes the files of an earlier revision again, as `publish` does.

        Raises:
            RevisionNotFoundError: the set had no revision of this number; and what `publish` raises.
        """
        return await self.publish(
            await self._earlier(name, number, publisher), name, publisher, request_id=request_id, base=base
        )

    async def rehearse_rollback(self, name: str, number: int, publisher: Publisher) -> Validation:
        """Judges an earlier revision as `rollback` would, and changes nothing."""
        return await self.rehearse(await self._earlier(name, number, publisher), name, publisher)

    async def _earlier(self, name: str, number: int, publisher: Publisher) -> dict[str, bytes]:
        publisher.require(gatebook_set.POLICY_SET, name)
        digest = self._revisions.numbered(name, number).revision.digest
        return await asyncio.to_thread(self._revisions.store.get_policy_set, digest)

    async def rehearse(self, files: Mapping[str, bytes], name: str, publisher: Publisher) -> Validation:
        """Judges a draft as `publish` would, and changes nothing.

        Raises:
            PermissionDeniedError: the publisher may not publish it.
        """
        found = await self._judging.judge(files, name, self._recorder.now(), publisher)
        await self._recorder.record_policy(self._event(entry_pb2.POLICY_STEP_VALIDATED, found), publisher.id)
        return found

    async def publish_directory(
        self, files: Mapping[str, bytes], publisher: Publisher, *, request_id: str = ""
    ) -> Published:
        """Makes a directory active for every governed set, or refuses it and changes nothing.

        Raises:
            PermissionDeniedError: the publisher may not publish it.
            DirectoryRefusedError: it has findings.
            DrainingError: the service stops before it is built.
            BookUnavailableError: the activation could not be written.
        """
        return await self._carry_through(self._publish_directory(files, publisher, request_id))

    async def approve(self, policy_set: str, digest: str, diff_digest: str, approver: Publisher) -> Approved:
        """Approves what waits; where that was the last approval, judges it again, and makes it take effect.

        Raises:
            ProposalNotFoundError: nothing of this digest waits.
            ApprovalRefusedError: the approval does not count, or what was approved is void, since it has moved.
            PolicySetRefusedError: what was approved would be refused now, and is void.
            BookUnavailableError: the approval could not be written.
        """
        return await self._carry_through(self._approve(policy_set, digest, diff_digest, approver))

    async def withdraw(self, policy_set: str, digest: str, who: Publisher) -> Written:
        """Ends what waits: whoever proposed it may, and whoever may approve it.

        Raises:
            ProposalNotFoundError: nothing of this digest waits.
            ApprovalRefusedError: they may do neither.
        """
        return await self._carry_through(self._withdraw(policy_set, digest, who))

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

    async def _carry_through(self, work: Coroutine[Any, Any, T]) -> T:
        # INVARIANT: a publish runs to its end also when its caller goes away, so that what the book
        # says is active is what decides.
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    def _active(self, name: str) -> str:
        newest = self._revisions.newest(name)
        return "" if newest is None else newest.revision.digest

    async def _publish(
        self, files: Mapping[str, bytes], name: str, publisher: Publisher, request_id: str, base: str
    ) -> Published:
        async with self.turn:
            publisher.require(gatebook_set.POLICY_SET, name)
            again = self._repeated(name, bundle.digest(files), request_id)
            if again is None and base != self._active(name):
                raise RevisionMovedError(name, base, self._active(name))
            found = await self._judging.judge(files, name, self._recorder.now(), publisher)
            if not found.passed:
                await self._recorder.record_policy(self._event(entry_pb2.POLICY_STEP_REFUSED, found), publisher.id)
                raise found.refusal()
            if again is not None:
                return Published(again.revision, changed=False, findings=found.findings, tests_run=found.tests_run)
            rules = self._judging.rules_of(files, name)
            if rules is not None and publisher is not THE_SERVICE:
                return await self._propose(files, found, rules, publisher, request_id)
            # Whoever starts the service on its machine has its data directory: the entry says that nobody approved.
            proposal = None if rules is None else entry_pb2.ProposalEntry(bootstrap=True)
            event = self._event(entry_pb2.POLICY_STEP_ACTIVATED, found, request_id=request_id, proposal=proposal)
            revision, written = await self._make_active(files, found, event, publisher.id)
        return Published(revision, changed=True, findings=found.findings, tests_run=found.tests_run, written=written)

    async def _propose(
        self,
        files: Mapping[str, bytes],
        found: Validation,
        rules: ApprovalRules,
        publisher: Publisher,
        request_id: str,
    ) -> Published:
        proposal = self.proposal_of(found, request_id)
        for one in self.approving.now().waiting:
            if (one.policy_set, one.digest, one.diff_digest) == (found.name, found.digest, proposal.diff_digest):
                return Published(None, changed=False, findings=found.findings, tests_run=found.tests_run, proposal=one)
        await asyncio.to_thread(self._revisions.store.put_policy_set, files)
        steps = [entry_pb2.POLICY_STEP_VALIDATED, entry_pb2.POLICY_STEP_TESTED]
        steps += [entry_pb2.POLICY_STEP_PROVED] if bundle.GUARDRAILS_FILE in files else []
        before = [self._event(step, found) for step in steps]
        impact = told(proposal, 0)
        impact.ClearField("expires_time")
        before.append(self._event(entry_pb2.POLICY_STEP_COMPARED, found, proposal=impact))
        proposal, written = await self.approving.propose(proposal, rules, publisher, before)
        return Published(
            None,
            changed=False,
            findings=found.findings,
            tests_run=found.tests_run,
            written=written,
            proposal=proposal,
        )

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
            request_id_hash=_hash(request_id),
        )

    async def _approve(self, policy_set: str, digest: str, diff: str, approver: Publisher) -> Approved:
        async with self.turn:
            proposal = self.approving.now().find(policy_set, digest)
            rules = await self.rules_of(proposal)
            self.approving.require_approver(proposal, rules, approver, diff)
            proposal, written = await self.approving.approve(proposal, approver)
            if not self.approving.missing(proposal, rules).nothing:
                return Approved(proposal, None, written)
            return await self.enact[proposal.kind](proposal, approver)

    async def _enact_revision(self, proposal: Proposal, approver: Publisher) -> Approved:
        files = await asyncio.to_thread(self._revisions.store.get_policy_set, proposal.digest)
        found = await self._judging.judge(files, proposal.policy_set, self._recorder.now())
        same = found.passed and self.proposal_of(found).diff_digest == proposal.diff_digest
        if not same:
            event = self._event(entry_pb2.POLICY_STEP_VOIDED, found)
            why = "what it does has moved since it was proposed" if found.passed else "it would be refused now"
            await self.approving.end(proposal, event, approver.id, why)
            if not found.passed:
                raise found.refusal()
            facts = {"policy_set": proposal.policy_set, "digest": proposal.digest}
            message = f"{why}, and every approval of it is void: publish it again, and read what it changes now"
            raise ApprovalRefusedError(message, **facts)
        rules = await self.rules_of(proposal)
        count = len({one.approver for one in self.approving.counting(proposal, rules)})
        said = told(proposal, proposal.index, approvals=count)
        event = self._event(entry_pb2.POLICY_STEP_ACTIVATED, found, proposal=said)
        event = msgspec.structs.replace(event, request_id_hash=proposal.request_id_hash)
        revision, written = await self._make_active(files, found, event, approver.id)
        return Approved(proposal, revision, written)

    async def _withdraw(self, policy_set: str, digest: str, who: Publisher) -> Written:
        async with self.turn:
            proposal = self.approving.now().find(policy_set, digest)
            own = who.id == proposal.requested_by or (who.subject is not None and who.subject.id == proposal.requester)
            if not own:
                rules = await self.rules_of(proposal)
                self.approving.require_approver(proposal, rules, who, proposal.diff_digest)
            event = PolicyEvent(
                step=entry_pb2.POLICY_STEP_WITHDRAWN, policy_set=policy_set, revision=Revision(digest, 0)
            )
            why = "it was taken back" if own else f"`{who.id}` refused it"
            return await self.approving.end(proposal, event, who.id, why)

    async def _make_active(
        self, files: Mapping[str, bytes], found: Validation, event: PolicyEvent, caller: str
    ) -> tuple[Revision, Written]:
        newest = self._revisions.newest(found.name)
        revision = Revision(found.digest, 1 if newest is None else newest.revision.number + 1)
        policy_set = found.policy_set or await self._revisions.read(files, found.name)
        snapshot = await self._revisions.build(policy_set, revision)
        await asyncio.to_thread(self._revisions.store.put_policy_set, files)
        written = await self._recorder.record_policy(msgspec.structs.replace(event, revision=revision), caller)
        self._activate(
            policy_set,
            snapshot,
            Activation(found.name, revision, written.entry_time, written.index, event.request_id_hash),
        )
        await self.followers.settle(self._revisions.state.total)
        return revision, written

    def _activate(self, policy_set: PolicySet, snapshot: Snapshot | None, activation: Activation) -> None:
        # The commit point is behind: from here on the revision is active, here and after a restart.
        state = self._revisions.state
        self._revisions.swap(
            State(
                {**state.snapshots, **({} if snapshot is None else {policy_set.name: snapshot})},
                {**state.policy_sets, policy_set.name: policy_set},
                state.directory,
                state.directory_revision,
                (activation, *state.activations),
                state.lineage,
            )
        )
        self.approving.activated(policy_set.name, activation.revision.number)

    async def _publish_directory(self, files: Mapping[str, bytes], publisher: Publisher, request_id: str) -> Published:
        async with self.turn:
            publisher.require(gatebook_set.DIRECTORY)
            try:
                directory = await self._revisions.read_directory(files)
                again = self._repeated(DIRECTORY, directory.digest, request_id)
                separated = () if again else await self._separated(files)
            except DirectoryRefusedError as refused:
                event = PolicyEvent(
                    step=entry_pb2.POLICY_STEP_REFUSED, revision=Revision("", 0), findings=refused.findings
                )
                await self._recorder.record_policy(event, publisher.id)
                raise
            subjects = len(directory.subjects)
            if again is not None:
                return Published(again.revision, changed=False, subjects=subjects)
            newest = self._revisions.newest(DIRECTORY)
            revision = Revision(directory.digest, 1 if newest is None else newest.revision.number + 1)
            snapshots = await self._revisions.build_all(directory, revision)
            await asyncio.to_thread(self._revisions.store.put_directory, files)
            exceeded = await asyncio.to_thread(scan_findings, tuple(snapshots.values()), self._recorder.now())
            findings = (*exceeded, *separated)
            event = PolicyEvent(
                step=entry_pb2.POLICY_STEP_DIRECTORY_ACTIVATED,
                revision=revision,
                findings=findings,
                subjects=subjects,
                request_id_hash=_hash(request_id),
            )
            written = await self._recorder.record_policy(event, publisher.id)
            # The commit point: from here on the directory is active, here and after a restart.
            self._activate_directory(
                directory, snapshots, revision, _activation(DIRECTORY, revision, written, request_id)
            )
            await self.followers.settle(self._revisions.state.total)
        for found in exceeded:
            self._log.warning("ceiling exceeded", dataset=found.dataset, action=found.action, excess=found.excess)
        return Published(revision, changed=True, findings=findings, subjects=subjects, written=written)

    async def _separated(self, files: Mapping[str, bytes]) -> tuple[Finding, ...]:
        """Returns who has both of what is to be separate, and had before.

        Raises:
            DirectoryRefusedError: somebody has who had not.
        """
        findings = await self._judging.separated(files, self._recorder.now())
        if any(finding.severity is Severity.ERROR for finding in findings):
            first = next(finding for finding in findings if finding.severity is Severity.ERROR)
            raise DirectoryRefusedError(f"{first.file}:{first.line}: {first.message}", sorted(findings))
        return findings

    def _activate_directory(
        self, directory: Directory, snapshots: Mapping[str, Snapshot], revision: Revision, activation: Activation
    ) -> None:
        state = self._revisions.state
        self._revisions.swap(
            State(
                {**state.snapshots, **snapshots},
                state.policy_sets,
                directory,
                revision,
                (activation, *state.activations),
                state.lineage,
            )
        )

    def _repeated(self, name: str, digest: str, request_id: str) -> Activation | None:
        """Returns the activation that this publish repeats: the newest, or the one of the same request id."""
        newest = self._revisions.newest(name)
        if newest is not None and newest.revision.digest == digest:
            return newest
        if not request_id:
            return None
        wanted = _hash(request_id)
        same = (a for a in self._revisions.state.activations if a.policy_set == name and a.request_id_hash == wanted)
        return next((a for a in same if a.revision.digest == digest), None)

    def _event(
        self,
        step: entry_pb2.PolicyStep.ValueType,
        found: Validation,
        revision: Revision | None = None,
        request_id: str = "",
        proposal: entry_pb2.ProposalEntry | None = None,
    ) -> PolicyEvent:
        # A name that nothing was ever published under may be anything, and stays out of the book.
        known = found.readable or found.name in self._revisions.state.policy_sets
        return PolicyEvent(
            step=step,
            policy_set=found.name if known else "",
            revision=revision or Revision(found.digest, 0),
            findings=found.findings,
            tests_run=found.tests_run,
            tests_failed=len(found.test_failures),
            request_id_hash=_hash(request_id),
            proposal=proposal,
        )


def _activation(name: str, revision: Revision, written: Written, request_id: str) -> Activation:
    return Activation(name, revision, written.entry_time, written.index, _hash(request_id))


def _hash(request_id: str) -> bytes:
    return hashlib.sha256(request_id.encode()).digest() if request_id else b""
