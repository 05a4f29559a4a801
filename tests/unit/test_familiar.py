"""The memo of requests: the same bytes are read once, within bounds, and what was refused is read again."""

from __future__ import annotations

import functools
import tracemalloc

import pytest
from tests.audit_samples import request

from gatebook.config import Limits
from gatebook.errors import InvalidRequestError
from gatebook.familiar import TURN_SECONDS, Familiar
from gatebook.rpc import decode
from gatebook.v1 import types_pb2
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


@pytest.mark.parametrize(
    "attributes",
    [
        b'{"a":[' + b"{}," * 4_000 + b"0]}",
        b'{"a":[' + b'{"a":0},' * 1_500 + b"0]}",
        b'{"a":[' + b'"a",' * 3_000 + b"0]}",
    ],
    ids=["empty objects", "small objects", "short texts"],
)
def test_what_is_remembered_takes_no_more_than_it_is_said_to(attributes: bytes) -> None:
    """However a request is made up, all that are remembered together take no more memory than the limit says."""
    bytes_max = 16 << 20
    familiar = Familiar(Clock(), bytes_max)
    tracemalloc.start()
    for number in range(100):
        access = types_pb2.AccessRequest(
            subject=types_pb2.Subject(id=f"s{number}", properties_json=attributes),
            action=types_pb2.Action(name="read"),
            resource=types_pb2.Resource(id="data"),
        )
        read = functools.partial(decode.access_request, access, Limits(), allow_partial=False)
        for _ in range(2):
            familiar.hear(access.SerializeToString(), read, allow_partial=False)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert taken < bytes_max


def test_enforcers_that_are_made_up_take_little_room() -> None:
    """However many enforcers declare something, what is remembered of them is bounded."""
    tracemalloc.start()
    for number in range(20_000):
        message = types_pb2.Enforcer(id=str(number), supported_masks=[types_pb2.MASK_KIND_NULLIFY])
        decode.enforcer(message, Limits(), "enforcer")
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert taken < 2 * decode.ENFORCERS_BYTES_MAX
