"""How a policy set or a directory becomes active: validate, test, build, store, write, swap.

Owns the order of these steps, one publish at a time. The entry of the activation is the commit point: before
it nothing has changed, after it a restart finds the revision active. Validations and refusals are entries too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import msgspec
import structlog

from gatebook.audit.entry import PolicyEvent
from gatebook.audit.recorder import Recorder, Written
from gatebook.errors import DirectoryRefusedError, RevisionMovedError
from gatebook.policy import bundle, gatebook_set
from gatebook.revisions.activating import DIRECTORY, Activating
from gatebook.revisions.active import Activation, Revisions
from gatebook.revisions.approving import Approving
from gatebook.revisions.comparing import Comparing
from gatebook.revisions.followers import Followers
from gatebook.revisions.judging import Judging
from gatebook.revisions.proposals import Proposal
from gatebook.revisions.proposing import Approved, Proposing
from gatebook.revisions.publisher import THE_SERVICE, Publisher
from gatebook.revisions.steps import request_hash, step_event
from gatebook.revisions.validate import Validation, declared_name
from gatebook.v1 import entry_pb2
from gatebook.values import Finding, Revision, Severity

T = TypeVar("T")


class Published(msgspec.Struct, frozen=True):
    """What a publish came to; `written` is None where nothing changed, `revision` where a `proposal` waits instead."""

    revision: Revision | None
    changed: bool
    findings: tuple[Finding, ...] = ()
    tests_run: int = 0
    subjects: int = 0
    written: Written | None = None
    proposal: Proposal | None = None


class Publishing:
    """Publishes policy sets and directories, one at a time."""

    def __init__(self, revisions: Revisions, recorder: Recorder, approving: Approving | None = None) -> None:
        """Takes the active revisions, the pen of the book, and what waits for approvals."""
        self.approving = approving or Approving(revisions, recorder)
        self.comparing = Comparing(revisions, recorder)
        self._judging = Judging(revisions)
        self._activating = Activating(revisions, recorder, self.approving)
        self.proposing = Proposing(revisions, recorder, self._judging, self.approving, self._activating)
        self._revisions = revisions
        self._recorder = recorder
        self._log = structlog.get_logger("gatebook.revisions")
        self.turn = asyncio.Lock()
        """Is held by whoever changes what is active, or what waits."""
        self._under_way: set[asyncio.Task[Any]] = set()

    @property
    def followers(self) -> Followers:
        """Returns who must hear of a change before it is answered."""
        return self._activating.followers

    def close(self) -> None:
        """Ends what is still being judged or built, so that nobody waits for it; nothing of it becomes active."""
        self._judging.close()
        self.comparing.stop()
        self._revisions.stop()

    async def validate(self, files: Mapping[str, bytes], name: str, caller: str) -> Validation:
        """Judges a draft under the active directory, and writes that it was asked."""
        found = await self._judging.judge(files, name, self._recorder.now())
        await self._write(entry_pb2.POLICY_STEP_VALIDATED, found, caller)
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
        await self._write(entry_pb2.POLICY_STEP_VALIDATED, found, publisher.id)
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
        return await self._carry_through(
            self._in_turn(self.proposing.approve(policy_set, digest, diff_digest, approver))
        )

    async def withdraw(self, policy_set: str, digest: str, who: Publisher) -> Written:
        """Ends what waits: whoever proposed it may, and whoever may approve it.

        Raises:
            ProposalNotFoundError: nothing of this digest waits.
            ApprovalRefusedError: they may do neither.
        """
        return await self._carry_through(self._in_turn(self.proposing.withdraw(policy_set, digest, who)))

    async def _write(self, step: entry_pb2.PolicyStep.ValueType, found: Validation, caller: str) -> None:
        await self._recorder.record_policy(step_event(self._revisions.state, step, found), caller)

    async def _carry_through(self, work: Coroutine[Any, Any, T]) -> T:
        # INVARIANT: a publish runs to its end also when its caller goes away, so that what the book
        # says is active is what decides.
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def _in_turn(self, work: Coroutine[Any, Any, T]) -> T:
        async with self.turn:
            return await work

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
                await self._write(entry_pb2.POLICY_STEP_REFUSED, found, publisher.id)
                raise found.refusal()
            if again is not None:
                return Published(again.revision, changed=False, findings=found.findings, tests_run=found.tests_run)
            rules = self._judging.rules_of(files, name)
            if rules is not None and publisher is not THE_SERVICE:
                proposal, at = await self.proposing.propose(files, found, rules, publisher, request_id)
                told = found.findings, found.tests_run
                return Published(None, False, *told, written=at, proposal=proposal)  # noqa: FBT003  # nothing changed
            # Whoever starts the service on its machine has its data directory: the entry says that nobody approved.
            bootstrap = None if rules is None else entry_pb2.ProposalEntry(bootstrap=True)
            event = step_event(
                self._revisions.state, entry_pb2.POLICY_STEP_ACTIVATED, found, request_id=request_id, proposal=bootstrap
            )
            revision, written = await self._activating.policy_set(files, found, event, publisher.id)
        return Published(revision, changed=True, findings=found.findings, tests_run=found.tests_run, written=written)

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
            made = await self._activating.directory(files, directory, separated, request_hash(request_id), publisher.id)
        for found in made.exceeded:
            self._log.warning("ceiling exceeded", dataset=found.dataset, action=found.action, excess=found.excess)
        findings = (*made.exceeded, *separated)
        return Published(made.revision, changed=True, findings=findings, subjects=subjects, written=made.written)

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

    def _repeated(self, name: str, digest: str, request_id: str) -> Activation | None:
        """Returns the activation that this publish repeats: the newest, or the one of the same request id."""
        newest = self._revisions.newest(name)
        if newest is not None and newest.revision.digest == digest:
            return newest
        if not request_id:
            return None
        wanted = request_hash(request_id)
        same = (a for a in self._revisions.state.activations if a.policy_set == name and a.request_id_hash == wanted)
        return next((a for a in same if a.revision.digest == digest), None)
