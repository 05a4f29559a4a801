"""The process that judges large drafts gives way to whoever answers calls, and comes through all the same."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime

import pytest
from tests.contract.test_large_sets import large

from gatebook.policy import bundle
from gatebook.revisions import aside
from gatebook.revisions.aside import Aside, give_way
from gatebook.revisions.validate import validate

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STAND_IN = """
import os, sys, time

if os.sched_getscheduler(0) == os.SCHED_IDLE:
    time.sleep(600)
import msgspec
from gatebook.policy import bundle
from gatebook.revisions.aside import Report, Task

task = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Task)
how = os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)
report = Report(f"{how}", bundle.digest(task.files), (), (), 0, True)
sys.stdout.buffer.write(msgspec.msgpack.encode(report))
"""
"""Does nothing as long as all others go first; else it says as the name of the set how it is scheduled."""


def test_a_draft_is_judged_though_others_want_every_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that any other interrupts judges first; where it gets nothing, one with the smallest share does."""
    seen = []

    def watched(process: int, *, only_idle: bool) -> None:
        give_way(process, only_idle=only_idle)
        seen.append((os.sched_getscheduler(process), os.getpriority(os.PRIO_PROCESS, process)))

    monkeypatch.setattr(aside, "COMMAND", (sys.executable, "-c", STAND_IN))
    monkeypatch.setattr(aside, "give_way", watched)
    found = Aside().validate({"model.conf": b""}, "large", None, NOW)

    assert [(os.SCHED_IDLE, aside.NICENESS), (os.SCHED_BATCH, aside.NICENESS)] == seen
    assert found.name == f"{seen[-1]}"


def test_whichever_process_judges_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found does not depend on how many processes it takes."""
    draft = large(1, "p, group1, data1, read, alow", "q, x", count=1_000)
    monkeypatch.setattr(aside, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(aside, "SHARE_LEAST", 100.0)
    found = Aside().validate(draft, "large", None, NOW)

    assert found.findings == validate(draft, "large").findings
    assert found.digest == bundle.digest(draft)
