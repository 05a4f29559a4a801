"""The memo of requests: the same bytes are read once, within bounds, and what was refused is read again."""

from __future__ import annotations

import pytest
from tests.audit_samples import request

from gatebook.errors import InvalidRequestError
from gatebook.familiar import TURN_SECONDS, Familiar
from gatebook.values import AccessRequest


class Clock:
    """A clock that stands still."""

    seconds = 0.0

    def __call__(self) -> float:
        """Returns the time."""
        return self.seconds


class Reading:
    """Reads the same request, and counts how often."""

    def __init__(self) -> None:
        """Begins at none."""
        self.count = 0

    def __call__(self) -> AccessRequest:
        """Returns the request."""
        self.count += 1
        return request()


def test_the_same_bytes_are_read_twice_at_most() -> None:
    """What came twice is not read again; with `allow_partial` the same bytes ask something else."""
    familiar, reading = Familiar(Clock()), Reading()
    heard = [familiar.hear(b"a", reading, allow_partial=False) for _ in range(4)]

    assert heard[1] is heard[2] is heard[3]
    assert [False, True] == [one.again for one in heard[:2]]
    assert reading.count == 2
    assert heard[1] is not familiar.hear(b"a", reading, allow_partial=True)
    assert reading.count == 3


def test_what_was_refused_is_not_remembered() -> None:
    """A request that could not be read is read again, and refused with the field of its own place."""
    familiar = Familiar(Clock())
    for place in range(3):

        def refuse(place: int = place) -> AccessRequest:
            raise InvalidRequestError(f"items[{place}]", "malformed")

        with pytest.raises(InvalidRequestError, match=f"items.{place}."):
            familiar.hear(b"a", refuse, allow_partial=False)


def test_it_is_bounded() -> None:
    """Of many requests that come again few are kept, and none that is larger than all may be."""
    familiar, reading = Familiar(Clock(), bytes_max=20_000), Reading()
    for _ in range(3):
        for number in range(100):
            familiar.hear(str(number).encode(), reading, allow_partial=False)
        familiar.hear(bytes(20_000), reading, allow_partial=False)

    assert reading.count == 303


def test_what_comes_once_makes_nothing_forgotten() -> None:
    """However many requests come that never come again, one that does is not read again."""
    familiar, reading = Familiar(Clock(), bytes_max=20_000), Reading()
    for _ in range(2):
        familiar.hear(b"known", reading, allow_partial=False)
    for number in range(1_000):
        familiar.hear(str(number).encode(), reading, allow_partial=False)
    familiar.hear(b"known", reading, allow_partial=False)

    assert reading.count == 1_002


def test_what_does_not_come_again_is_forgotten() -> None:
    """After two turns only what came meanwhile is remembered."""
    clock, reading = Clock(), Reading()
    familiar = Familiar(clock)
    for name in (b"used", b"unused") * 2:
        familiar.hear(name, reading, allow_partial=False)
    for _ in range(2):
        clock.seconds += TURN_SECONDS + 1
        familiar.turn()
        familiar.hear(b"used", reading, allow_partial=False)

    assert reading.count == 4
    familiar.hear(b"unused", reading, allow_partial=False)
    assert reading.count == 5
