"""The leases of workers: who may decide by what was active before, and until when."""

from __future__ import annotations

import asyncio

import pytest

from gatebook.revisions import followers
from gatebook.revisions.followers import LEASE_SECONDS, SILENT_SECONDS_MAX, Followers


class Clock:
    """A clock that is told the time."""

    def __init__(self) -> None:
        """Begins somewhere."""
        self.now = 1_000.0

    def monotonic(self) -> float:
        """Returns the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that leases run by."""
    shown = Clock()
    monkeypatch.setattr(followers, "time", shown)
    return shown


def test_a_lease_is_extended_while_a_change_is_folded(clock: Clock) -> None:
    """A worker goes on deciding by what was active before as long as the publish is not answered."""
    team = Followers()
    worker = team.join(1)
    worker.told(1)
    clock.now += 1

    assert clock.now + LEASE_SECONDS == worker.extend(2, team.settled)


@pytest.mark.parametrize("comes", ["back", "again"])
def test_who_missed_a_publish_gets_no_lease_until_it_has_folded_it(clock: Clock, comes: str) -> None:
    """A worker that hung, or whose feed broke, over a publish decides nothing when it comes back, until it knows it."""
    team = Followers()
    worker = team.join(1)
    worker.told(1)
    over = worker.extend(1, team.settled)
    clock.now = over
    asyncio.run(team.settle(2))
    if comes == "again":
        worker = team.join(1)
    else:
        worker.told(1)
    before = worker.extend(2, team.settled)
    worker.told(2)
    after = worker.extend(2, team.settled)

    assert (over, clock.now + LEASE_SECONDS) == (before, after)


def test_who_says_nothing_loses_its_lease(clock: Clock) -> None:
    """A worker that does not answer heartbeats, though they reach it, is not waited for much longer than its lease."""
    team = Followers()
    worker = team.join(1)
    worker.told(1)
    until = worker.extend(2, team.settled)
    clock.now += SILENT_SECONDS_MAX + 0.1

    assert until == worker.extend(2, team.settled)


def test_who_fails_to_fold_again_and_again_holds_up_nothing(clock: Clock) -> None:
    """A worker that begins to follow again and again, since it cannot fold what it is told, gets no lease for it."""
    team = Followers()
    team.settled = 1
    over = clock.now
    for _ in range(3):
        clock.now += 0.1
        over = max(over, team.join(1).extend(2, team.settled))

    assert over <= clock.now
