"""How long work beside calls pauses, and what the collector does meanwhile."""

from __future__ import annotations

import gc
import sys
from types import FrameType
from typing import Any

import pytest
from tests.bench.models import model, rbac

from gatebook.engine.snapshot import build_snapshot
from gatebook.errors import DrainingError
from gatebook.pace import STEP
from gatebook.policy.policy_set import load
from gatebook.revisions.pacing import PAUSE_SECONDS, TELL_SECONDS, WORK_SECONDS, FewCollections, Pacer, Stoppable
from gatebook.revisions.remains import let_go
from gatebook.values import Revision

RULES, USERS = 1_000, 10_000
LINES_MAX = 32 * STEP


class Clock:
    """A clock that moves on by what is worked and slept."""

    def __init__(self) -> None:
        """Begins at nought."""
        self.now = 0.0
        self.slept = 0.0

    def __call__(self) -> float:
        """Returns the time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Lets time pass."""
        self.now += seconds
        self.slept += seconds


def test_work_never_goes_on_for_longer_than_agreed() -> None:
    """Between two pauses lie no more than the agreed time and one step; the pause is as long as agreed."""
    clock = Clock()
    pace = Pacer(clock, clock.sleep)
    step = WORK_SECONDS / 4
    longest = worked = 0.0
    for _ in range(1_000):
        clock.now += step
        worked += step
        slept = clock.slept
        pace()
        if clock.slept > slept:
            assert clock.slept - slept == pytest.approx(PAUSE_SECONDS)
            longest, worked = max(longest, worked), 0.0

    assert 0.0 < longest <= WORK_SECONDS + 1.001 * step
    assert clock.slept >= 1_000 * step / (WORK_SECONDS + step) * PAUSE_SECONDS * 0.9


def test_long_work_is_told_now_and_then() -> None:
    """Work of many seconds is told once in a while, and not at every pause."""
    clock = Clock()
    told: list[float] = []

    class Told(Pacer):
        def tell(self, seconds: float) -> None:
            told.append(seconds)

    pace = Told(clock, clock.sleep)
    while clock.now < 10 * TELL_SECONDS:
        clock.now += WORK_SECONDS
        pace()

    assert 9 <= len(told) <= 10


def test_the_collector_is_as_before_when_the_last_block_ends() -> None:
    """Blocks may overlap; what was set before the first holds again after the last."""
    before = gc.get_threshold()
    few = FewCollections()
    with few():
        with few():
            assert gc.get_threshold() > before
        within = gc.get_threshold()

    assert within[:2] == before[:2]
    assert within[2] > before[2]
    assert before == gc.get_threshold()


def test_parts_are_let_go_in_steps() -> None:
    """A list is emptied with a pause after every few parts."""
    parts: list[object] = list(range(1_000))
    left: list[int] = []

    let_go(parts, lambda: left.append(len(parts)))

    assert [] == parts
    assert max(before - after for before, after in zip([1_000, *left], left, strict=False)) <= 64


def test_work_ends_at_its_next_pause_when_the_service_stops() -> None:
    """What is over before it would have to pause comes to its end; all else ends there, also if it begins later."""
    clock, work = Clock(), Stoppable()
    begun = Pacer(clock, clock.sleep, stopping=work.is_stopping)
    clock.now += 2 * WORK_SECONDS
    begun()
    work.stop()
    begun()
    clock.now += 2 * WORK_SECONDS
    with pytest.raises(DrainingError):
        begun()
    later = Pacer(clock, clock.sleep, stopping=work.is_stopping)
    later()
    clock.now += 2 * WORK_SECONDS
    with pytest.raises(DrainingError):
        later()

    assert clock.slept == pytest.approx(PAUSE_SECONDS)


def test_no_part_of_a_compilation_goes_without_a_pause() -> None:
    """Between two pauses there is work for a few dozen rules or links, however many the set has.

    It counts lines of Python that are run, since a stop watch would tell how busy the machine is.
    """
    text = model("g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act", roles="g = _, _")
    policy_set = load({"model.conf": text.encode(), "policy.csv": rbac(RULES, USERS).encode()}, "large", accepted=True)
    lines = [0]

    def count(_frame: FrameType, event: str, _argument: object) -> Any:  # noqa: ANN401  # a trace function returns itself
        lines[-1] += event == "line"
        return count

    tracing = sys.gettrace()
    sys.settrace(count)
    try:
        build_snapshot(policy_set, Revision("", 1), None, None, mask_master=bytes(32), pause=lambda: lines.append(0))
    finally:
        sys.settrace(tracing)
    assert len(lines) > (RULES + USERS) / STEP
    assert max(lines) < LINES_MAX, f"{max(lines):,} lines without a pause, of {sum(lines):,}"
