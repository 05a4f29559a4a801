"""Long work is done in steps, and what it made is freed by itself."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from tests.serving import POLICIES

from gatebook.authorize import decide, question_of
from gatebook.engine.snapshot import Snapshot, build_snapshot
from gatebook.pace import STEP, no_pause, paced
from gatebook.policy.bundle import read_directory_folder, read_folder
from gatebook.policy.directory import load_directory
from gatebook.policy.policy_set import load
from gatebook.values import AccessRequest, Effect, Entity, Revision

LINES = 4_000
MODEL = b"""[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = %s
"""
MATCHERS = {
    "roles": b"g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act",
    "patterns": b"g(r.sub, p.sub) && keyMatch2(r.obj, p.obj) && r.act == p.act",
    "alternatives": b"g(r.sub, p.sub) && r.obj == p.obj || r.sub == p.sub && r.act == p.act",
}


def files(matcher: bytes, *, rules: int = LINES, links: int = LINES) -> Mapping[str, bytes]:
    """Returns a set of so many lines."""
    lines = [f"p, role{number // 10}, data{number}, read" for number in range(rules)]
    lines += [f"g, user{number}, role{number % 100}" for number in range(links)]
    return {"model.conf": MODEL % matcher, "policy.csv": "\n".join(lines).encode()}


@contextmanager
def without_collector() -> Iterator[None]:
    """Keeps the collector of rings from freeing anything within the block."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Counted:
    """A pause that counts how often it is called."""

    def __init__(self) -> None:
        """Begins with none."""
        self.pauses = 0

    def __call__(self) -> None:
        """Counts one pause."""
        self.pauses += 1


@pytest.mark.parametrize("matcher", MATCHERS)
def test_reading_and_compiling_pause_after_every_few_lines(matcher: str) -> None:
    """Twice as many lines have about twice as many pauses, in reading and in compiling: none does its work at once."""
    counts = []
    for factor in (1, 2):
        reading, compiling = Counted(), Counted()
        policy_set = load(
            files(MATCHERS[matcher], rules=factor * LINES, links=factor * LINES), "large", accepted=True, pause=reading
        )
        build_snapshot(policy_set, Revision("", 1), None, None, mask_master=bytes(32), pause=compiling)
        counts.append((reading.pauses, compiling.pauses))
    (read, compiled), (read_twice, compiled_twice) = counts

    assert compiled >= 2 * LINES / STEP
    assert read_twice >= 1.8 * read > 0
    assert compiled_twice >= 1.8 * compiled


def test_the_items_are_the_same_and_pauses_come_after_every_step() -> None:
    """What is paced is what was given, and no more than a step of it comes without a pause."""
    seen: list[int] = []
    noted: list[int] = []
    at: list[int] = []

    def note(item: int) -> int:
        noted.append(item)
        return item

    seen.extend(paced(map(note, range(3 * STEP + 1)), lambda: at.append(len(noted))))

    assert list(range(3 * STEP + 1)) == seen
    assert [STEP, 2 * STEP, 3 * STEP, 3 * STEP + 1] == at
    assert paced(seen, no_pause) is seen


def plain_snapshot() -> Snapshot:
    """Compiles a plain set."""
    policy_set = load(files(MATCHERS["roles"], rules=100, links=100), "plain")
    return build_snapshot(policy_set, Revision("", 1), None, None, mask_master=bytes(32))


def governed_snapshot() -> Snapshot:
    """Compiles the set `telemetry`."""
    folder = POLICIES / "telemetry"
    directory = load_directory(read_directory_folder(folder / "directory"))
    return build_snapshot(load(read_folder(folder)), Revision("", 1), directory, Revision("", 1), mask_master=bytes(32))


REQUESTS: Mapping[Callable[[], Snapshot], AccessRequest] = {
    plain_snapshot: AccessRequest(Entity("user", "user7"), "read", "data7"),
    governed_snapshot: AccessRequest(Entity("person", "nobody"), "read", "mci.prompts", purpose="model_training"),
}


@pytest.mark.parametrize("make", REQUESTS)
def test_a_program_that_nobody_needs_is_freed_at_once(make: Callable[[], Snapshot]) -> None:
    """No ring keeps an old revision: it goes with the last reference, also after requests, without the collector."""
    gc.collect()
    with without_collector():
        snapshot = make()
        request = REQUESTS[make]
        now = datetime(2026, 6, 1, tzinfo=UTC)
        decision = decide(snapshot, question_of(snapshot, request, caller="local"), now)
        parts = [weakref.ref(part) for part in (snapshot.program.planner, snapshot.program.near, snapshot.recall)]
        del snapshot

        assert decision.effect is not Effect.UNSPECIFIED
        assert [None, None, None] == [part() for part in parts]
