"""Quotas of callers and limits of the server: who is let in, who is not, and what is told."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from gatebook.config import Limits, Quota
from gatebook.door.admission import Admission
from gatebook.door.caller import LOCAL, Caller, CallerKind
from gatebook.door.share import CHANGE, COSTS, READ, Share
from gatebook.errors import DrainingError, OverloadedError
from gatebook.v1 import access_service_pb2, audit_service_pb2, policy_service_pb2

CHECK = "CheckAccess"
PLENTY = Quota(calls_per_second=1e9, checks_per_second=1e9, reads_per_second=1e9, changes_per_second=1e9)


def caller(name: str) -> Caller:
    """Returns a caller that came with a certificate."""
    return Caller(name, CallerKind.CERTIFICATE)


@contextlib.contextmanager
def many(admission: Admission, who: Caller, count: int, operation: str = CHECK, **how: bool) -> Iterator[None]:
    """Holds so many calls of one caller."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(admission.call(who, operation, **how))
        yield


def refused(admission: Admission, who: Caller, operation: str = CHECK, **how: bool) -> str:
    """Returns the limit that refuses a call, or nothing."""
    try:
        with admission.call(who, operation, **how):
            return ""
    except OverloadedError as error:
        return str(error.metadata["limit"])


def refused_items(admission: Admission, who: Caller, count: int, size_bytes: int = 0) -> str:
    """Returns the limit that refuses checks, or nothing."""
    try:
        with admission.items(who, count, size_bytes):
            return ""
    except OverloadedError as error:
        return str(error.metadata["limit"])


@pytest.mark.parametrize(
    ("quota", "operation", "stream", "limit"),
    [
        (Quota(calls_in_flight=2), CHECK, False, "caller_calls_in_flight"),
        (Quota(streams=2), "StreamCheckAccess", True, "caller_streams"),
        (Quota(changes_in_flight=2), "PublishPolicySet", False, "caller_changes_in_flight"),
    ],
)
def test_a_caller_over_its_quota_is_refused_and_others_are_not(
    quota: Quota, operation: str, stream: bool, limit: str
) -> None:
    """What one caller has under way is bounded, told by the name of the limit, and no matter of the others."""
    admission = Admission(Limits(quota=quota))
    with many(admission, caller("a"), 2, operation, stream=stream):
        own, others = (refused(admission, caller(name), operation, stream=stream) for name in "ab")
    afterwards = refused(admission, caller("a"), operation, stream=stream)

    assert (own, others, afterwards) == (limit, "", "")


def test_checks_and_their_bytes_are_bounded_for_each_caller() -> None:
    """Checks in flight and their bytes have a quota, and are let go of."""
    admission = Admission(Limits(quota=Quota(items_in_flight=10, bytes_in_flight=1_000)))
    with admission.items(caller("a"), 6, 600):
        found = [
            refused_items(admission, caller("a"), 5),
            refused_items(admission, caller("a"), 1, 500),
            refused_items(admission, caller("b"), 10, 1_000),
            refused_items(admission, caller("a"), 4, 400),
        ]

    assert found == ["caller_items_in_flight", "caller_bytes_in_flight", "", ""]
    assert refused_items(admission, caller("a"), 10, 1_000) == ""


def test_who_asks_for_everything_leaves_room_for_who_asks_for_little() -> None:
    """Callers who together take all they can get still leave a quarter to those who have little under way."""
    limits = Limits(calls_in_flight_max=100, quota=Quota(calls_in_flight=60))
    admission = Admission(limits)
    with many(admission, caller("bulk-1"), 60), many(admission, caller("bulk-2"), 15):
        bulk = [refused(admission, caller(name)) for name in ("bulk-1", "bulk-2", "bulk-3")]
        with many(admission, caller("modest"), 5):
            modest = refused(admission, caller("modest"))

    assert bulk == ["caller_calls_in_flight", "calls_in_flight", ""]
    assert modest == "calls_in_flight"


def test_the_server_is_never_over_its_own_limit() -> None:
    """However many callers there are, no more is in flight than the server takes."""
    admission = Admission(Limits(items_in_flight_max=1_000, quota=PLENTY))
    with contextlib.ExitStack() as stack:
        for number in range(500):
            with contextlib.suppress(OverloadedError):
                stack.enter_context(admission.items(caller(f"c{number}"), 7))
        held = admission.items_in_flight

    assert 950 <= held <= 1_000
    assert admission.items_in_flight == 0


def test_who_calls_too_often_is_told_when_to_come_back() -> None:
    """A rate is a bucket that refills: what is over it is refused with the time until it is not."""
    share = Share(Quota(reads_per_second=20.0), 0.0)
    taken = [share.pay(READ, 0.0) for _ in range(40)]
    wait = share.pay(READ, 0.0)

    assert taken == [0.0] * 40
    assert 0 < wait <= 1 / 20
    assert share.pay(READ, wait / 2) > 0
    assert share.pay(READ, wait + 0.001) == 0
    assert share.pay(CHANGE, wait + 0.001) == 0


def test_a_batch_may_overdraw_its_bucket_and_is_paid_back() -> None:
    """A batch that is larger than the bucket is possible, and what follows waits until it is paid."""
    share = Share(Quota(checks_per_second=100.0), 0.0)

    assert share.pay_checks(1_000, 0.0) == 0
    assert share.pay_checks(1, 0.0) == pytest.approx(8.01)
    assert share.pay_checks(1, 8.02) == 0


def test_a_rate_is_refused_by_name_and_with_a_bounded_wait() -> None:
    """The refusal names the rate, and nobody is sent away for longer than ten seconds."""
    admission = Admission(Limits(quota=Quota(changes_per_second=0.01, changes_in_flight=100)))
    taken = [refused(admission, caller("a"), "PublishPolicySet") for _ in range(10)]
    with pytest.raises(OverloadedError) as error:
        admission.call(caller("a"), "PublishPolicySet").__enter__()

    assert taken == [""] * 10
    assert error.value.metadata["limit"] == "caller_changes_per_second"
    assert error.value.retry_seconds == 10.0


def test_callers_beyond_those_that_are_tracked_share_one_quota() -> None:
    """Made-up callers do not fill the memory, and none of them is without limit."""
    admission = Admission(Limits(callers_tracked_max=10, quota=Quota(calls_in_flight=2)))
    with contextlib.ExitStack() as stack:
        for number in range(10):
            stack.enter_context(admission.call(caller(f"c{number}"), CHECK))
        stack.enter_context(many(admission, caller("x"), 2))
        found = [refused(admission, caller(name)) for name in ("x", "y", "c3")]

    assert found == ["caller_calls_in_flight", "caller_calls_in_flight", ""]
    assert len(admission.shares) == 10


def test_callers_who_left_are_forgotten() -> None:
    """A caller with nothing under way makes room for another one once its buckets are full."""
    admission = Admission(Limits(callers_tracked_max=10, quota=PLENTY))
    for number in range(1_000):
        assert refused(admission, caller(f"c{number}")) == ""

    assert len(admission.shares) <= 10


def test_a_quota_of_its_own_replaces_that_of_everybody() -> None:
    """A caller may have a quota of its own, which may change while it calls; `local` has one too."""
    admission = Admission(Limits(local_quota=Quota(calls_in_flight=3)), {"a": Quota(calls_in_flight=1)})
    with many(admission, caller("a"), 1), many(admission, LOCAL, 3):
        before = [refused(admission, who) for who in (caller("a"), caller("b"), LOCAL)]
        admission.take_quotas({"a": Quota(calls_in_flight=2)})
        after = refused(admission, caller("a"))

    assert before == ["caller_calls_in_flight", "", "caller_calls_in_flight"]
    assert after == ""


def test_a_refused_call_is_not_counted() -> None:
    """What was refused leaves nothing behind."""
    admission = Admission(Limits(quota=Quota(streams=1, changes_in_flight=1)))
    with many(admission, caller("a"), 1, stream=True):
        for _ in range(100):
            assert refused(admission, caller("a"), stream=True)

    assert (admission.calls_in_flight, admission.streams_in_flight) == (0, 0)


def test_a_server_that_stops_admits_nothing() -> None:
    """While it drains everybody is refused, whatever room there is."""
    admission = Admission(Limits())
    admission.draining.set()
    with pytest.raises(DrainingError):
        admission.call(LOCAL, CHECK).__enter__()


def test_every_method_has_a_cost() -> None:
    """Each method is a check, a read or a change: none that publishes passes as a read."""
    files = (access_service_pb2, policy_service_pb2, audit_service_pb2)
    methods = {
        method.name
        for file in files
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    reads = {name for name in methods if name.startswith(("Get", "List", "Tail", "Watch", "Search", "Explain"))}

    assert methods - reads <= COSTS.keys()
    assert reads.isdisjoint(COSTS)
