"""How a revision takes effect: build, store, write, swap.

Owns the order of these steps. The entry of the activation is the commit point: before it nothing has changed, after it
a restart finds the revision active. Whoever calls holds the turn, so that nobody else changes what is active meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from gatebook.audit.entry import PolicyEvent
from gatebook.audit.recorder import Recorder, Written
from gatebook.engine.snapshot import Snapshot
from gatebook.policy.directory import Directory
from gatebook.policy.policy_set import PolicySet
from gatebook.revisions.active import Activation, Revisions
from gatebook.revisions.approving import Approving
from gatebook.revisions.followers import Followers
from gatebook.revisions.scan import scan_findings
from gatebook.revisions.validate import Validation
from gatebook.v1 import entry_pb2
from gatebook.values import Finding, Revision

DIRECTORY = ""
"""Stands for the directory where activations are told apart by the name of a set."""


class Activated(msgspec.Struct, frozen=True):
    """A directory that took effect, and whom it put beyond a ceiling."""

    revision: Revision
    written: Written
    exceeded: tuple[Finding, ...]


class Activating:
    """Makes policy sets and directories active, for whoever holds the turn."""

    def __init__(self, revisions: Revisions, recorder: Recorder, approving: Approving) -> None:
        """Takes the active revisions, the pen of the book, and what waits: it ends as its set moves on."""
        self.followers = Followers()
        self._revisions = revisions
        self._recorder = recorder
        self._approving = approving

    async def policy_set(
        self, files: Mapping[str, bytes], found: Validation, event: PolicyEvent, caller: str
    ) -> tuple[Revision, Written]:
        """Makes a draft active that was judged.

        Raises:
            DrainingError: the service stops before it is built.
            BookUnavailableError: the activation could not be written.
        """
        revision = self._next(found.name, found.digest)
        policy_set = found.policy_set or await self._revisions.read(files, found.name)
        snapshot = await self._revisions.build(policy_set, revision)
        await asyncio.to_thread(self._revisions.store.put_policy_set, files)
        written = await self._recorder.record_policy(replace(event, revision=revision), caller)
        # The commit point is behind: from here on the revision is active, here and after a restart.
        self._swap_policy_set(policy_set, snapshot, _activation(found.name, revision, written, event))
        await self.followers.settle(self._revisions.state.total)
        return revision, written

    async def directory(
        self,
        files: Mapping[str, bytes],
        directory: Directory,
        separated: tuple[Finding, ...],
        request_id_hash: bytes,
        caller: str,
    ) -> Activated:
        """Makes a directory active for every governed set.

        Raises:
            DrainingError: the service stops before it is built.
            BookUnavailableError: the activation could not be written.
        """
        revision = self._next(DIRECTORY, directory.digest)
        snapshots = await self._revisions.build_all(directory, revision)
        await asyncio.to_thread(self._revisions.store.put_directory, files)
        exceeded = await asyncio.to_thread(scan_findings, tuple(snapshots.values()), self._recorder.now())
        event = PolicyEvent(
            step=entry_pb2.POLICY_STEP_DIRECTORY_ACTIVATED,
            revision=revision,
            findings=(*exceeded, *separated),
            subjects=len(directory.subjects),
            request_id_hash=request_id_hash,
        )
        written = await self._recorder.record_policy(event, caller)
        # The commit point, as above.
        self._swap_directory(directory, snapshots, revision, _activation(DIRECTORY, revision, written, event))
        await self.followers.settle(self._revisions.state.total)
        return Activated(revision, written, tuple(exceeded))

    def _next(self, name: str, digest: str) -> Revision:
        newest = self._revisions.newest(name)
        return Revision(digest, 1 if newest is None else newest.revision.number + 1)

    def _swap_policy_set(self, policy_set: PolicySet, snapshot: Snapshot | None, activation: Activation) -> None:
        state, name = self._revisions.state, policy_set.name
        self._revisions.swap(
            replace(
                state,
                snapshots={**state.snapshots, **({} if snapshot is None else {name: snapshot})},
                policy_sets={**state.policy_sets, name: policy_set},
                activations=(activation, *state.activations),
            )
        )
        self._approving.activated(name, activation.revision.number)

    def _swap_directory(
        self, directory: Directory, snapshots: Mapping[str, Snapshot], revision: Revision, activation: Activation
    ) -> None:
        state = self._revisions.state
        self._revisions.swap(
            replace(
                state,
                snapshots={**state.snapshots, **snapshots},
                directory=directory,
                directory_revision=revision,
                activations=(activation, *state.activations),
            )
        )


def _activation(name: str, revision: Revision, written: Written, event: PolicyEvent) -> Activation:
    return Activation(name, revision, written.entry_time, written.index, event.request_id_hash)
