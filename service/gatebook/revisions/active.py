"""The revisions that decide now, and how they are found again at a start.

Owns the one reference that requests read. The state is no database of its own: it is the fold over the
policy entries of the book, which the links between them lead through, the newest first.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import msgspec

from gatebook.audit.decision_entry import forget_old_decisions
from gatebook.engine.snapshot import Snapshot, build_snapshot
from gatebook.errors import (
    ControlFeedLostError,
    NoActiveRevisionError,
    PolicySetNotFoundError,
    PolicySetRequiredError,
    RevisionNotActiveError,
    RevisionNotFoundError,
)
from gatebook.governance.inheritance import effective
from gatebook.governance.lineage import NO_LINEAGE, Lineage
from gatebook.pace import Pause, no_pause
from gatebook.policy.directory import Directory, load_directory
from gatebook.policy.gatebook_set import GATEBOOK
from gatebook.policy.policy_set import PolicySet, load
from gatebook.revisions.pacing import Stoppable, few_collections
from gatebook.revisions.remains import is_large, retire
from gatebook.revisions.scan import Scans, scanned
from gatebook.revisions.store import RevisionStore
from gatebook.values import Revision


class Activation(msgspec.Struct, frozen=True):
    """One activation of a revision, as the book tells it; `policy_set` is empty for the directory."""

    policy_set: str
    revision: Revision
    create_time: datetime
    index: int
    request_id_hash: bytes = b""


class Past(msgspec.Struct, frozen=True):
    """What decided once: revisions of a set and of the directory, and what was known of tables at a time.

    Without a time, nothing was.
    """

    policy_set: str
    policy: Revision
    directory: Revision | None
    lineage_until: datetime | None = None


class State(msgspec.Struct, frozen=True):
    """All that is active at one moment. Replaced as a whole.

    `policy_sets` are what their files declare; in the snapshots they stand with what their tables inherit.
    """

    snapshots: Mapping[str, Snapshot] = {}
    policy_sets: Mapping[str, PolicySet] = {}
    directory: Directory | None = None
    directory_revision: Revision | None = None
    activations: tuple[Activation, ...] = ()
    lineage: Lineage = NO_LINEAGE

    @property
    def total(self) -> int:
        """Returns how many changes this is folded from."""
        return len(self.activations) + len(self.lineage)

    @property
    def served(self) -> tuple[str, ...]:
        """Returns the names of the sets that answer applications: all but the one that governs the door."""
        return tuple(sorted(name for name in self.policy_sets if name != GATEBOOK))


class Revisions:
    """Answers which snapshot decides. Read and replaced on the event loop only."""

    def __init__(self, store: RevisionStore, mask_master: bytes) -> None:
        """Takes where revisions are kept and the master secret of the mask keys."""
        self.store = store
        self.state = State()  # INVARIANT: replaced by one assignment, never mutated
        self.lease_until = math.inf
        """Until when this state may decide, by the monotonic clock. A worker that follows another has leases."""
        self._mask_master = mask_master
        self._work = Stoppable()
        self._scans = Scans()
        self._retiring: set[asyncio.Task[None]] = set()
        self._moved = asyncio.Event()  # replaced and set whenever something becomes active

    def stop(self) -> None:
        """Ends whatever is being read or compiled, with a `DrainingError`: nothing of it becomes active."""
        self._work.stop()

    def swap(self, state: State) -> None:
        """Replaces the state. What was active and is no more is freed once it is read no more."""
        before, self.state = self.state, state
        self._moved.set()
        self._moved = asyncio.Event()
        forget_old_decisions()
        for name, snapshot in before.snapshots.items():
            if snapshot is not state.snapshots.get(name) and is_large(snapshot):
                task = asyncio.create_task(retire(snapshot))
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)

    async def moved(self, timeout_seconds: float) -> None:
        """Waits until something becomes active, or the time is over."""
        event = self._moved
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await event.wait()

    @property
    def leased(self) -> bool:
        """Tells whether this state may decide now."""
        return time.monotonic() <= self.lease_until

    def require_lease(self) -> None:
        """Requires that this state may decide now.

        Raises:
            ControlFeedLostError: it is not known whether it is still what is active.
        """
        if not self.leased:
            raise ControlFeedLostError

    def snapshot(self, policy_set: str = "", *, at_least: int = 0) -> Snapshot:
        """Returns the snapshot that decides for a policy set; empty means the only one.

        Raises:
            PolicySetRequiredError: several sets are served and none is named.
            PolicySetNotFoundError: no such set is served.
            NoActiveRevisionError: nothing is active yet, or the set needs a directory and has none.
            RevisionNotActiveError: the active revision is older than `at_least`.
            ControlFeedLostError: it is not known whether this state is still what is active.
        """
        self.require_lease()
        state = self.state
        name = self.name_of(policy_set) or self._only_name(state)
        snapshot = state.snapshots.get(name)
        if snapshot is None:
            if name in state.policy_sets:
                message = f"policy set `{name}` needs a directory: publish one with `gatebook directory publish`"
                raise NoActiveRevisionError(message, policy_set=name)
            raise PolicySetNotFoundError(f"no policy set `{name}` is served", policy_set=name)
        active = snapshot.policy_revision.number
        if active < at_least:
            raise RevisionNotActiveError(
                f"revision {active} of `{name}` is active, {at_least} is not yet",
                at_least=str(at_least),
                active=str(active),
            )
        return snapshot

    def name_of(self, policy_set: str) -> str:
        """Returns the name that a request means by `policy_set`: the only one by an empty name, "" if there is none."""
        return policy_set or (next(iter(served)) if len(served := self.state.served) == 1 else "")

    @staticmethod
    def _only_name(state: State) -> str:
        if not state.served:
            raise NoActiveRevisionError("no policy set is active: publish one with `gatebook policy publish`")
        raise PolicySetRequiredError(
            "several policy sets are served: name one (`--policy-set`); `gatebook policy list` shows them"
        )

    def newest(self, policy_set: str) -> Activation | None:
        """Returns the newest activation of a set, or of the directory under the empty name."""
        return next((a for a in self.state.activations if a.policy_set == policy_set), None)

    def approvals_asked(self, policy_set: str) -> bool:
        """Tells whether the active revision of a set asks for approvals of the next."""
        active = self.state.policy_sets.get(policy_set)
        return active is not None and active.settings.approvals is not None

    def find(self, policy_set: str, digest: str = "") -> Activation:
        """Returns the newest activation of a revision; an empty digest means the active one.

        Raises:
            RevisionNotFoundError: the set has no such revision.
        """
        same = (a for a in self.state.activations if a.policy_set == policy_set)
        found = next((a for a in same if digest in ("", a.revision.digest)), None)
        if found is None:
            raise RevisionNotFoundError(f"policy set `{policy_set}` has no such revision", digest=digest)
        return found

    def numbered(self, policy_set: str, number: int) -> Activation:
        """Returns the activation of a revision by its number.

        Raises:
            RevisionNotFoundError: the set had no such revision.
        """
        same = (a for a in self.state.activations if a.policy_set == policy_set)
        found = next((a for a in same if a.revision.number == number), None)
        if found is None:
            raise RevisionNotFoundError(f"policy set `{policy_set}` has no revision {number}", number=str(number))
        return found

    async def read(self, files: Mapping[str, bytes], name: str) -> PolicySet:
        """Reads a set whose files were accepted, aside.

        Raises:
            DrainingError: the service stops.
            PolicySetRefusedError: a file has a finding all the same.
        """
        return await asyncio.to_thread(self._read, files, name, self._work.pacer("read", name), accepted=True)

    async def read_directory(self, files: Mapping[str, bytes]) -> Directory:
        """Reads a directory, aside.

        Raises:
            DrainingError: the service stops.
            DirectoryRefusedError: it has findings.
        """
        return await asyncio.to_thread(self._read_directory, files, self._work.pacer("read directory"))

    def _read_directory(self, files: Mapping[str, bytes], pause: Pause) -> Directory:
        with few_collections():
            return load_directory(files, pause)

    def _read(self, files: Mapping[str, bytes], name: str, pause: Pause, *, accepted: bool) -> PolicySet:
        with few_collections():
            return load(files, name, accepted=accepted, pause=pause)

    async def build(self, policy_set: PolicySet, revision: Revision, lineage: Lineage | None = None) -> Snapshot | None:
        """Compiles a set under the active directory and lineage, aside; None where it needs a directory and has none.

        Raises:
            DrainingError: the service stops.
        """
        state = self.state
        pacer = self._work.pacer("compile", policy_set.name)
        under = (state.directory, state.directory_revision, state.lineage if lineage is None else lineage)
        return await asyncio.to_thread(self._build, policy_set, revision, *under, pacer)

    def _build(
        self,
        policy_set: PolicySet,
        revision: Revision,
        directory: Directory | None,
        directory_revision: Revision | None,
        lineage: Lineage,
        pause: Pause = no_pause,
        now: datetime | None = None,
    ) -> Snapshot | None:
        if policy_set.catalogue is not None and directory is None:
            return None
        with few_collections():
            whole = effective(policy_set, lineage)
            built = build_snapshot(
                whole, revision, directory, directory_revision, mask_master=self._mask_master, pause=pause
            )
            scans = self._scans if now is None else None  # what is past tells the next nothing
            return scanned(built, now or datetime.now(UTC), pause, policy_set, scans)

    async def build_past(self, past: Past, now: datetime) -> Snapshot | None:
        """Compiles what was active once, aside, with audiences as of a time; None where a set lacks its directory.

        Raises:
            RevisionNotFoundError, BookRefusedError: a revision is missing or damaged.
            PolicySetRefusedError: this version refuses what an older one accepted.
            DrainingError: the service stops.
        """
        return await asyncio.to_thread(self._build_past, past, now)

    def _build_past(self, past: Past, now: datetime) -> Snapshot | None:
        pacer = self._work.pacer("compile a past revision", past.policy_set)
        policy_set = self._read(self.store.get_policy_set(past.policy.digest), past.policy_set, pacer, accepted=True)
        directory = None
        if past.directory is not None:
            directory = self._read_directory(self.store.get_directory(past.directory.digest), pacer)
        lineage = self.state.lineage.until(past.lineage_until)
        return self._build(policy_set, past.policy, directory, past.directory, lineage, pacer, now)

    async def build_all(self, directory: Directory, revision: Revision) -> dict[str, Snapshot]:
        """Compiles every active set under a new directory, aside.

        Raises:
            DrainingError: the service stops.
        """
        snapshots = {}
        for name, policy_set in self.state.policy_sets.items():
            newest = self.newest(name)
            if newest is not None:
                pacer = self._work.pacer("compile", name)
                under = (directory, revision, self.state.lineage)
                built = await asyncio.to_thread(self._build, policy_set, newest.revision, *under, pacer)
                if built is not None:
                    snapshots[name] = built
        return snapshots

    async def build_derived(self, lineage: Lineage) -> dict[str, Snapshot]:
        """Compiles every active set aside of which a table inherits something else under a lineage.

        Raises:
            DrainingError: the service stops.
        """
        state, snapshots = self.state, {}
        for name, snapshot in state.snapshots.items():
            declared = state.policy_sets[name]
            if await asyncio.to_thread(_inherits_alike, declared, lineage, snapshot):
                continue
            built = await self.build(declared, snapshot.policy_revision, lineage)
            if built is not None:
                snapshots[name] = built
        return snapshots

    def restore(self, activations: Iterable[Activation], lineage: Lineage = NO_LINEAGE) -> None:
        """Rebuilds the state from the activations in the book, the newest first, and its lineage. See `folded`."""
        self.state = self.folded(activations, lineage)

    def folded(
        self, activations: Iterable[Activation], lineage: Lineage = NO_LINEAGE, *, beside_calls: bool = False
    ) -> State:
        """Returns the state that activations, the newest first, come to. What they leave as it is, is not built again.

        `beside_calls` tells that the state before is being asked meanwhile, and that another worker accepted the new.

        Raises:
            RevisionNotFoundError, BookRefusedError: a revision that the book names is missing or damaged.
            PolicySetRefusedError: this version refuses a revision that an older one accepted.
        """
        told, now = tuple(activations), self.state
        newest: dict[str, Activation] = {}
        for activation in told:
            newest.setdefault(activation.policy_set, activation)
        directory_activation = newest.pop("", None)
        revision = None if directory_activation is None else directory_activation.revision
        directory = None
        if revision is not None:
            known = revision == now.directory_revision
            beside = self._work.pacer("read directory", beside_calls=beside_calls)
            stored = {} if known else self.store.get_directory(revision.digest)
            directory = now.directory if known else self._read_directory(stored, beside)
        sets, snapshots = {}, {}
        for name, activation in newest.items():
            old = now.snapshots.get(name)
            same = old is not None and (old.policy_revision, now.directory_revision) == (activation.revision, revision)
            if old is not None and same and _inherits_alike(now.policy_sets[name], lineage, old):
                sets[name], snapshots[name] = now.policy_sets[name], old
                continue
            pacer = self._work.pacer("fold" if beside_calls else "load", name, beside_calls=beside_calls)
            if same:
                sets[name] = now.policy_sets[name]
            else:
                files = self.store.get_policy_set(activation.revision.digest)
                sets[name] = self._read(files, name, pacer, accepted=beside_calls)
            built = self._build(sets[name], activation.revision, directory, revision, lineage, pacer)
            if built is not None:
                snapshots[name] = built
        return State(snapshots, sets, directory, revision, told, lineage)


def _inherits_alike(declared: PolicySet, lineage: Lineage, snapshot: Snapshot) -> bool:
    """Tells whether a snapshot is what a set comes to under a lineage."""
    return effective(declared, lineage).catalogue == snapshot.policy_set.catalogue
