"""How a policy set or a directory becomes active: validate, test, build, store, write, swap.

Owns the order of these steps, one publish at a time. The entry of the activation is the commit point: before
it nothing has changed, after it a restart finds the revision active. Validations and refusals are entries too.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine, Mapping
from datetime import datetime
from typing import Any

import msgspec
import structlog

from gatebook.audit.entry import PolicyEvent
from gatebook.audit.recorder import Recorder, Written
from gatebook.engine.snapshot import Snapshot
from gatebook.errors import DirectoryRefusedError, InvalidRequestError
from gatebook.policy import bundle, gatebook_set
from gatebook.policy.directory import Directory
from gatebook.policy.policy_set import PolicySet
from gatebook.policy.settings import is_set_name
from gatebook.revisions.active import Activation, Revisions, State
from gatebook.revisions.aside import Aside, is_large
from gatebook.revisions.followers import Followers
from gatebook.revisions.keepers import lockout
from gatebook.revisions.publisher import Publisher
from gatebook.revisions.scan import scan_findings
from gatebook.revisions.validate import Validation, declared_name, validate
from gatebook.v1 import entry_pb2
from gatebook.values import Finding, Revision

DIRECTORY = ""
"""Stands for the directory where activations are told apart by the name of a set."""


class Published(msgspec.Struct, frozen=True):
    """What a publish came to; `written` is None where nothing changed."""

    revision: Revision
    changed: bool
    findings: tuple[Finding, ...] = ()
    tests_run: int = 0
    subjects: int = 0
    written: Written | None = None


class Publishing:
    """Publishes policy sets and directories, one at a time."""

    def __init__(self, revisions: Revisions, recorder: Recorder) -> None:
        """Takes the active revisions and the pen of the book."""
        self.followers = Followers()
        self._revisions = revisions
        self._recorder = recorder
        self._log = structlog.get_logger("gatebook.revisions")
        self._turn = asyncio.Lock()
        self._judge_aside = Aside()
        self._aside = asyncio.Lock()  # one large draft at a time: each takes much memory
        self._under_way: set[asyncio.Task[Published]] = set()

    def close(self) -> None:
        """Ends what is still being judged or built, so that nobody waits for it; nothing of it becomes active."""
        self._judge_aside.close()
        self._revisions.stop()

    async def validate(self, files: Mapping[str, bytes], name: str, caller: str) -> Validation:
        """Judges a draft under the active directory, and writes that it was asked."""
        found = await self._judge(files, name)
        await self._recorder.record_policy(self._event(entry_pb2.POLICY_STEP_VALIDATED, found), caller)
        return found

    async def publish(
        self, files: Mapping[str, bytes], name: str, publisher: Publisher, *, request_id: str = ""
    ) -> Published:
        """Makes a policy set active, or refuses it and changes nothing.

        Raises:
            PermissionDeniedError: the publisher may not publish it.
            PolicySetRefusedError: it has findings of severity error, or expectations that do not hold.
            DrainingError: the service stops before it is built.
            BookUnavailableError: the activation could not be written.
        """
        return await self._carry_through(self._publish(files, name, publisher, request_id))

    async def rehearse(self, files: Mapping[str, bytes], name: str, publisher: Publisher) -> Validation:
        """Judges a draft as `publish` would, and changes nothing.

        Raises:
            PermissionDeniedError: the publisher may not publish it.
        """
        found = await self._judge(files, name, publisher)
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

    async def _carry_through(self, work: Coroutine[Any, Any, Published]) -> Published:
        # INVARIANT: a publish runs to its end also when its caller goes away, so that what the book
        # says is active is what decides.
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def _publish(self, files: Mapping[str, bytes], name: str, publisher: Publisher, request_id: str) -> Published:
        async with self._turn:
            found = await self._judge(files, name, publisher)
            if not found.passed:
                await self._recorder.record_policy(self._event(entry_pb2.POLICY_STEP_REFUSED, found), publisher.id)
                raise found.refusal()
            newest = self._revisions.newest(found.name)
            again = self._repeated(found.name, found.digest, request_id)
            if again is not None:
                return Published(again.revision, changed=False, findings=found.findings, tests_run=found.tests_run)
            revision = Revision(found.digest, 1 if newest is None else newest.revision.number + 1)
            policy_set = found.policy_set or await self._revisions.read(files, found.name)
            snapshot = await self._revisions.build(policy_set, revision)
            await asyncio.to_thread(self._revisions.store.put_policy_set, files)
            event = self._event(entry_pb2.POLICY_STEP_ACTIVATED, found, revision, request_id)
            written = await self._recorder.record_policy(event, publisher.id)
            self._activate(policy_set, snapshot, revision, written, request_id)
            await self.followers.settle(len(self._revisions.state.activations))
        return Published(revision, changed=True, findings=found.findings, tests_run=found.tests_run, written=written)

    def _activate(
        self, policy_set: PolicySet, snapshot: Snapshot | None, revision: Revision, written: Written, request_id: str
    ) -> None:
        # The commit point is behind: from here on the revision is active, here and after a restart.
        state = self._revisions.state
        self._revisions.swap(
            State(
                {**state.snapshots, **({} if snapshot is None else {policy_set.name: snapshot})},
                {**state.policy_sets, policy_set.name: policy_set},
                state.directory,
                state.directory_revision,
                (_activation(policy_set.name, revision, written, request_id), *state.activations),
            )
        )

    async def _publish_directory(self, files: Mapping[str, bytes], publisher: Publisher, request_id: str) -> Published:
        async with self._turn:
            publisher.require(gatebook_set.DIRECTORY)
            try:
                directory = await self._revisions.read_directory(files)
            except DirectoryRefusedError as refused:
                event = PolicyEvent(
                    step=entry_pb2.POLICY_STEP_REFUSED, revision=Revision("", 0), findings=refused.findings
                )
                await self._recorder.record_policy(event, publisher.id)
                raise
            again = self._repeated(DIRECTORY, directory.digest, request_id)
            subjects = len(directory.subjects)
            if again is not None:
                return Published(again.revision, changed=False, subjects=subjects)
            newest = self._revisions.newest(DIRECTORY)
            revision = Revision(directory.digest, 1 if newest is None else newest.revision.number + 1)
            snapshots = await self._revisions.build_all(directory, revision)
            await asyncio.to_thread(self._revisions.store.put_directory, files)
            findings = await asyncio.to_thread(scan_findings, tuple(snapshots.values()), self._recorder.now())
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
            await self.followers.settle(len(self._revisions.state.activations))
        for found in findings:
            self._log.warning("ceiling exceeded", dataset=found.dataset, action=found.action, excess=found.excess)
        return Published(revision, changed=True, findings=findings, subjects=subjects, written=written)

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
            )
        )

    async def _judge(self, files: Mapping[str, bytes], name: str, publisher: Publisher | None = None) -> Validation:
        name = declared_name(files, name)
        if publisher is not None:
            publisher.require(gatebook_set.POLICY_SET, name)
        if not is_set_name(name):
            message = f"`{name}` is no name of a policy set: use lower-case letters, digits, `_` and `-`"
            raise InvalidRequestError("policy_set", message)
        found = await self._found(files, name)
        if publisher is None or name != gatebook_set.GATEBOOK or found.program is None:
            return found
        if publisher.keeps_right(found.program):
            return found
        return msgspec.structs.replace(found, findings=tuple(sorted((*found.findings, lockout(publisher.id)))))

    async def _found(self, files: Mapping[str, bytes], name: str) -> Validation:
        state, now = self._revisions.state, self._recorder.now()
        if name == gatebook_set.GATEBOOK or not is_large(files, state.directory):
            return await asyncio.to_thread(validate, files, name, directory=state.directory, now=now)
        async with self._aside:
            return await asyncio.to_thread(self._found_aside, files, name, state.directory_revision, now)

    def _found_aside(
        self, files: Mapping[str, bytes], name: str, directory: Revision | None, now: datetime
    ) -> Validation:
        governed = bundle.CATALOGUE_FILE in files
        subjects = self._revisions.store.get_directory(directory.digest) if governed and directory else None
        return self._judge_aside.validate(files, name, subjects, now)

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
        )


def _activation(name: str, revision: Revision, written: Written, request_id: str) -> Activation:
    return Activation(name, revision, written.entry_time, written.index, _hash(request_id))


def _hash(request_id: str) -> bytes:
    return hashlib.sha256(request_id.encode()).digest() if request_id else b""
