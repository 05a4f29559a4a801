"""Judges a large draft in a process of its own, so that the one that answers calls does not stop for it.

Owns that process: `python -m gatebook.revisions.aside` reads one draft and writes one report. Rules:

1. it does what `validate` does, with the same code, and is told all that it needs: no file, no environment;
2. it gives way to whoever answers calls, and its memory goes with it. It has only what nobody else wants of the
   processors; where that is next to nothing another is begun in its place, which has a third of a common share;
3. without a whole report nothing is known of the draft, and so nothing is published.

What it accepts the server only reads and compiles, in steps (see `pacing`).
"""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from gatebook.errors import DrainingError, OverloadedError
from gatebook.governance.change import Change
from gatebook.governance.inheritance import effective
from gatebook.governance.lineage import NO_LINEAGE, Lineage
from gatebook.policy import bundle
from gatebook.policy.directory import Directory, load_directory
from gatebook.policy.policy_set import load
from gatebook.revisions.pacing import STOPPED
from gatebook.revisions.separation import separation_findings
from gatebook.revisions.validate import Validation, compared, validate
from gatebook.values import Finding, TestFailure

ASIDE_BYTES = 256 * 1024
"""A smaller set is judged in no time worth a process."""
ASIDE_SUBJECTS = 20_000
SECONDS_MAX = 600.0
LOOK_SECONDS = 2.0
SHARE_LEAST = 0.2
"""The share of a processor below which a process that has only what nobody else wants is given up."""
NICENESS = 5
"""Leaves it a third of what a process of common priority gets, where both want the same processor (nice(2))."""
RETRY_SECONDS = 5.0
COMMAND = (sys.executable, "-P", "-m", "gatebook.revisions.aside")


class Task(msgspec.Struct, frozen=True):
    """What the process is told."""

    files: dict[str, bytes]
    name: str
    directory: dict[str, bytes] | None
    now: datetime
    compare: bool = False
    base: dict[str, bytes] | None = None
    """The files of the set that is active, where the draft is to be compared with it."""
    lineage: Lineage = NO_LINEAGE
    separate: bool = False
    """That a directory is judged: who has both of what the set keeps separate, and had not in `base`, active now."""


class Compared(msgspec.Struct, frozen=True):
    """That a draft is to be compared, and with which files (None: nothing is active)."""

    files: Mapping[str, bytes] | None


class Report(msgspec.Struct, frozen=True):
    """What it says."""

    name: str
    digest: str
    findings: tuple[Finding, ...]
    test_failures: tuple[TestFailure, ...]
    tests_run: int
    readable: bool
    changes: tuple[Change, ...] | None = None


def is_large(files: Mapping[str, bytes], directory: Directory | None) -> bool:
    """Tells whether a draft, to be compiled under a directory, is judged aside."""
    subjects = 0 if directory is None or bundle.CATALOGUE_FILE not in files else len(directory.subjects)
    return subjects >= ASIDE_SUBJECTS or sum(map(len, files.values())) >= ASIDE_BYTES


class Aside:
    """Judges drafts in processes of their own, until it is closed. Used from threads."""

    def __init__(self) -> None:
        """Begins with none."""
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def close(self) -> None:
        """Ends whatever is being judged: who waits for it is told that it could not be."""
        with self._lock:
            self._closed = True
            for process in self._running:
                process.kill()

    def validate(
        self,
        files: Mapping[str, bytes],
        name: str,
        directory: Mapping[str, bytes] | None,
        now: datetime,
        base: Compared | None = None,
        lineage: Lineage = NO_LINEAGE,
    ) -> Validation:
        """Judges a draft, and compares it; what it returns has neither the set nor its program.

        Raises:
            DrainingError: this was closed.
            OverloadedError: the system has no process for it, or ended it, or it took too long.
        """
        before = None if base is None or base.files is None else dict(base.files)
        subjects = None if directory is None else dict(directory)
        task = Task(dict(files), name, subjects, now, base is not None, before, lineage)
        report = self._reported(task)
        if report.digest != bundle.digest(files):
            raise RuntimeError("what was judged is not what is to be published")
        return Validation(
            report.name,
            report.digest,
            report.findings,
            report.test_failures,
            report.tests_run,
            readable=report.readable,
            changes=report.changes,
        )

    def separated(
        self,
        files: Mapping[str, bytes],
        name: str,
        directory: Mapping[str, bytes],
        before: Mapping[str, bytes] | None,
        now: datetime,
        lineage: Lineage = NO_LINEAGE,
    ) -> tuple[Finding, ...]:
        """Returns who of a directory has both of what an active set keeps separate.

        Raises:
            DrainingError, OverloadedError: as `validate`.
        """
        old = None if before is None else dict(before)
        task = Task(dict(files), name, dict(directory), now, base=old, lineage=lineage, separate=True)
        return self._reported(task).findings

    def _reported(self, task: Task) -> Report:
        try:
            code, said, complaint = self._judge(msgspec.msgpack.encode(task))
        except (OSError, subprocess.TimeoutExpired) as err:
            raise OverloadedError("the draft could not be judged in time: ask again", RETRY_SECONDS) from err
        if code and self._closed:
            raise DrainingError(STOPPED)
        if code < 0:
            message = "the process that judged the draft was ended: is there memory for it?"
            raise OverloadedError(message, RETRY_SECONDS, limit="memory")
        if code:
            raise RuntimeError(f"judging a draft failed: {complaint.decode(errors='replace')[-2_000:]}")
        report: Report = msgspec.msgpack.decode(said, type=Report)
        return report

    def _judge(self, task: bytes) -> tuple[int, bytes, bytes]:
        # Without a privilege no process is ever given more again, and where no processor is idle it gets nothing at
        # all: a publish that revokes rights must come through all the same.
        for only_idle in (True, False):
            said = self._run(task, only_idle=only_idle)
            if said is not None:
                return said
        raise AssertionError("the second is not given up")

    def _run(self, task: bytes, *, only_idle: bool) -> tuple[int, bytes, bytes] | None:
        """Runs one process; returns its exit code and what it wrote, or None where it was given up."""
        pipe = subprocess.PIPE
        with subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe, stderr=pipe) as process:  # noqa: S603  # this program
            give_way(process.pid, only_idle=only_idle)
            with self._lock:
                self._running.add(process)
                if self._closed:
                    process.kill()
            watch = Watch(process, SHARE_LEAST if only_idle else 0.0)
            try:
                said, complaint = process.communicate(task, timeout=SECONDS_MAX)
            finally:
                process.kill()
                watch.end()
                with self._lock:
                    self._running.discard(process)
            return None if watch.gave_up else (process.returncode, said, complaint)


class Watch:
    """Ends a process as soon as it gets less than its share of a processor, in a thread of its own."""

    def __init__(self, process: subprocess.Popen[bytes], share_least: float) -> None:
        """Begins to watch."""
        self.gave_up = False
        self._process = process
        self._least = share_least * LOOK_SECONDS
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="aside-watch", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Watches no more."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        spent = 0.0
        while not self._over.wait(LOOK_SECONDS):
            before, spent = spent, processor_seconds(self._process.pid)
            if spent - before < self._least:
                self.gave_up = True
                self._process.kill()
                return


def processor_seconds(process: int) -> float:
    """Returns how much processor time a process has used, where the system tells."""
    try:
        told = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except OSError:
        return math.inf
    user, system = told.rpartition(")")[2].split()[11:13]  # proc(5): the 14th and 15th field; the second is a name
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def give_way(process: int, *, only_idle: bool) -> None:
    """Lets every other process go before one, as far as the system lets this one say so.

    A process of the lowest priority keeps its processor for some milliseconds though another wakes up meanwhile; one
    that is `only_idle` is interrupted at once.
    """
    with contextlib.suppress(OSError):
        if hasattr(os, "SCHED_IDLE"):
            os.sched_setscheduler(process, os.SCHED_IDLE if only_idle else os.SCHED_BATCH, os.sched_param(0))
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process, NICENESS)


def main() -> None:
    """Reads a draft from standard input, and writes the report to standard output."""
    task = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Task)
    directory = load_directory(task.directory) if task.directory else None
    if task.separate and directory is not None:
        policy_set = effective(load(task.files, task.name, accepted=True), task.lineage)
        before = None if task.base is None else load_directory(task.base)
        findings = separation_findings(policy_set, directory, before)
        report = Report(policy_set.name, policy_set.digest, findings, (), 0, readable=True)
        sys.stdout.buffer.write(msgspec.msgpack.encode(report))
        return
    found = validate(task.files, task.name, directory=directory, now=task.now, lineage=task.lineage)
    if task.compare:
        base = None if task.base is None else load(task.base, task.name, accepted=True)
        found = compared(found, base, directory, task.now, task.lineage)
    report = Report(
        found.name,
        found.digest,
        found.findings,
        found.test_failures,
        found.tests_run,
        found.readable,
        found.changes,
    )
    sys.stdout.buffer.write(msgspec.msgpack.encode(report))


if __name__ == "__main__":
    main()
