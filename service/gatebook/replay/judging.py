"""Decides questions under two revisions, in a process of its own, so that the one that answers calls goes on.

Owns that process: `python -m gatebook.replay.judging` reads tasks from its standard input, and answers each. Rules:

1. it decides with the same code as the service, and is told all that it needs: no file, no environment, no network;
2. it gives way to whoever answers calls, and ends with its standard input;
3. the same question under the same two revisions is decided once.
"""

from __future__ import annotations

import struct
import sys
from datetime import datetime
from typing import IO

import msgspec

from gatebook.authorize import question_of
from gatebook.engine.snapshot import Snapshot, build_snapshot
from gatebook.errors import GatebookError
from gatebook.generations import Generations
from gatebook.governance.inheritance import effective
from gatebook.governance.lineage import NO_LINEAGE, Lineage
from gatebook.policy.directory import Directory, load_directory
from gatebook.policy.policy_set import load
from gatebook.replay.again import decide_one
from gatebook.replay.difference import Decided, Difference, difference
from gatebook.revisions.scan import scanned
from gatebook.values import AccessRequest, Revision

SNAPSHOTS_MAX = 4
REMEMBERED_MAX = 20_000
MASTER = bytes(32)
"""Stands for the master secret of mask keys: which key a hash has is not compared."""
LENGTH = struct.Struct(">I")


class Build(msgspec.Struct, frozen=True, tag=True):
    """A snapshot to be had under a name: the files of a set and of a directory."""

    key: str
    files: dict[str, bytes]
    name: str
    policy: Revision
    directory: dict[str, bytes] | None
    directory_revision: Revision | None
    now: datetime
    is_draft: bool = False
    lineage: Lineage = NO_LINEAGE
    drop: str = ""
    """The snapshot that goes for it."""


class Ask(msgspec.Struct, frozen=True):
    """A question to be decided under two snapshots."""

    old: str
    new: str
    request: AccessRequest
    caller: str
    time: datetime
    plan_dialect: str = ""


class Asks(msgspec.Struct, frozen=True, tag=True):
    """Questions."""

    asks: tuple[Ask, ...]


class Built(msgspec.Struct, frozen=True, tag=True):
    """What came of a snapshot: its name, or why there is none."""

    name: str = ""
    refused: str = ""


class Judged(msgspec.Struct, frozen=True):
    """How a question is decided otherwise; `failed` says why it could not be, `again` that it was asked before."""

    difference: Difference = Difference()
    failed: str = ""
    again: bool = False


class Answers(msgspec.Struct, frozen=True, tag=True):
    """One for each question."""

    judged: tuple[Judged, ...]


Task = Build | Asks
Answer = Built | Answers


def write(stream: IO[bytes], message: Task | Answer) -> None:
    """Writes one message."""
    encoded = msgspec.json.encode(message)
    stream.write(LENGTH.pack(len(encoded)) + encoded)
    stream.flush()


def read_exactly(stream: IO[bytes]) -> bytes:
    """Returns the bytes of one message; none at the end."""
    head = stream.read(LENGTH.size)
    return stream.read(LENGTH.unpack(head)[0]) if len(head) == LENGTH.size else b""


class Judge:
    """Decides under snapshots that it was told to build. Lives for one process."""

    def __init__(self) -> None:
        """Begins with none."""
        self._snapshots: dict[str, Snapshot] = {}
        self._seen: Generations[tuple[object, ...], Judged] = Generations(REMEMBERED_MAX)

    def build(self, task: Build) -> Built:
        """Builds a snapshot, once another has gone for it."""
        self._snapshots.pop(task.drop, None)
        try:
            policy_set = load(task.files, task.name, accepted=not task.is_draft)
            directory = None if task.directory is None else load_directory(task.directory)
            if policy_set.catalogue is not None and directory is None:
                directory = Directory.empty()
            revision = None if directory is None else task.directory_revision or Revision(directory.digest, 0)
            whole = effective(policy_set, task.lineage)
            built = build_snapshot(whole, task.policy, directory, revision, mask_master=MASTER)
            # A draft that exceeds a ceiling never becomes active: what its rules would open is what matters.
            self._snapshots[task.key] = built if task.is_draft else scanned(built, task.now)
        except GatebookError as err:
            return Built(refused=err.message)
        return Built(policy_set.name)

    def judge(self, ask: Ask) -> Judged:
        """Decides a question under both snapshots, and compares."""
        old, new = self._snapshots[ask.old], self._snapshots[ask.new]
        asked = msgspec.json.encode((ask.request, ask.caller, ask.plan_dialect))
        key = (ask.old, ask.new, asked, _moment(old, ask), _moment(new, ask))
        held = self._seen.get(key)
        if held is not None:
            return msgspec.structs.replace(held, again=True)
        try:
            judged = Judged(difference(_decided(old, ask), _decided(new, ask)))
        except GatebookError as err:
            judged = Judged(failed=err.reason)
        self._seen.put(key, judged)
        return judged


def _decided(snapshot: Snapshot, ask: Ask) -> Decided:
    return decide_one(snapshot, question_of(snapshot, ask.request, caller=ask.caller), ask.time, ask.plan_dialect)


def _moment(snapshot: Snapshot, ask: Ask) -> object:
    """Returns what of the time a decision may depend on: all where rules do, else whether the notice is in force."""
    if snapshot.program.timed:
        return ask.time
    catalogue = snapshot.policy_set.catalogue
    dataset = None if catalogue is None else catalogue.datasets.get(ask.request.resource)
    return catalogue is None or dataset is None or catalogue.notice_of(dataset).in_force(ask.time)


def main() -> None:
    """Reads tasks until there are no more, and answers each."""
    judge = Judge()
    while encoded := read_exactly(sys.stdin.buffer):
        task = msgspec.json.decode(encoded, type=Task)
        match task:
            case Build():
                write(sys.stdout.buffer, judge.build(task))
            case Asks(asks):
                write(sys.stdout.buffer, Answers(tuple(map(judge.judge, asks))))


if __name__ == "__main__":
    main()
