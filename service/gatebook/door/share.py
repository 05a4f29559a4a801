"""What each caller has under way, and how fast it called of late.

Owns one `Share` for each caller, and promises:

1. at most `callers_tracked_max` shares are kept; a caller that has nothing under way and owes nothing
   may be forgotten;
2. who comes on top of that shares one quota with all others who do: nobody is ever without limit;
3. a bucket may be overdrawn by one call and is then refused until it is paid back, so that no call that is
   within the other limits can never be made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from gatebook.config import Limits, Quota
from gatebook.door.caller import Caller, CallerKind

BURST_SECONDS = 2.0
"""A bucket holds what its rate gives in so many seconds."""
BURST_LEAST = 10.0
FORGET_LOOKS = 32
"""Callers that are looked at, for each that is new, whether they can be forgotten."""


class Cost(msgspec.Struct, frozen=True):
    """What a call costs beside being one: `limit` names the rate, `place` its bucket."""

    limit: str
    place: int


CALL = Cost("calls_per_second", 0)
CHECKS = 1
READ = Cost("reads_per_second", 2)
CHANGE = Cost("changes_per_second", 3)

COSTS: Mapping[str, Cost] = {
    **dict.fromkeys(("CheckAccess", "BatchCheckAccess", "StreamCheckAccess", "PlanAccess", "Check"), CALL),
    **dict.fromkeys(
        (
            "ValidatePolicySet",
            "DiffPolicySet",
            "PublishPolicySet",
            "UploadPolicySet",
            "PublishDirectory",
            "UploadDirectory",
            "ApproveRevision",
            "RollbackPolicySet",
            "ProposeReclassification",
            "RecordLineage",
            "WithdrawProposal",
            "ReplayDecisions",
            "ShadowPolicySet",
            "EraseSubject",
            "PruneEntries",
        ),
        CHANGE,
    ),
}
"""What an operation costs; one that does not stand here is a read."""


class Share:
    """What one caller has under way. Used on the event loop only."""

    __slots__ = ("_bursts", "_rates", "_times", "_tokens", "bytes", "calls", "changes", "items", "quota", "streams")

    def __init__(self, quota: Quota, now: float) -> None:
        """Begins with nothing under way and full buckets."""
        self.calls = 0
        self.streams = 0
        self.changes = 0
        self.items = 0
        self.bytes = 0
        self.take(quota, now)

    def take(self, quota: Quota, now: float) -> None:
        """Takes a quota, and fills the buckets."""
        self.quota = quota
        self._rates = (
            quota.calls_per_second,
            quota.checks_per_second,
            quota.reads_per_second,
            quota.changes_per_second,
        )
        self._bursts = [max(BURST_LEAST, rate * BURST_SECONDS) for rate in self._rates]
        self._tokens = list(self._bursts)
        self._times = [now] * len(self._rates)

    def is_idle(self, now: float) -> bool:
        """Tells whether nothing is under way and all buckets are full, so that forgetting it changes nothing."""
        if self.calls or self.items or self.bytes:
            return False
        buckets = zip(self._bursts, self._rates, self._tokens, self._times, strict=True)
        return all(tokens + (now - time) * rate >= burst for burst, rate, tokens, time in buckets)

    def pay(self, cost: Cost, now: float) -> float:
        """Pays for one call; returns 0, or in how many seconds it can be paid."""
        wait = self._pay(CALL.place, 1, now)
        if wait or cost is CALL:
            return wait
        return self._pay(cost.place, 1, now)

    def pay_checks(self, count: int, now: float) -> float:
        """Pays for checks; returns 0, or in how many seconds they can be paid."""
        return self._pay(CHECKS, count, now)

    def _pay(self, place: int, count: int, now: float) -> float:
        rate = self._rates[place]
        tokens = min(self._bursts[place], self._tokens[place] + (now - self._times[place]) * rate)
        self._times[place] = now
        if tokens < 1:
            self._tokens[place] = tokens
            return (1 - tokens) / rate if rate > 0 else math.inf
        self._tokens[place] = tokens - count
        return 0.0


class Shares:
    """The shares of all callers."""

    def __init__(self, limits: Limits, quotas: Mapping[str, Quota]) -> None:
        """Takes the limits, and the quotas of callers who have one of their own."""
        self._limits = limits
        self._quotas = quotas
        self._by_id: dict[str, Share] = {}
        self._rest = Share(limits.quota, 0.0)

    def __len__(self) -> int:
        """Returns how many callers are counted singly."""
        return len(self._by_id)

    def of(self, caller: Caller, now: float) -> Share:
        """Returns the share of a caller."""
        share = self._by_id.get(caller.id)
        return self._new(caller, now) if share is None else share

    def take_quotas(self, quotas: Mapping[str, Quota], now: float) -> None:
        """Replaces the quotas of callers who have one of their own."""
        self._quotas = quotas
        for caller_id, share in self._by_id.items():
            if (own := quotas.get(caller_id)) is not None and own != share.quota:
                share.take(own, now)

    def _new(self, caller: Caller, now: float) -> Share:
        if len(self._by_id) >= self._limits.callers_tracked_max:
            self._forget(now)
        if len(self._by_id) >= self._limits.callers_tracked_max:
            return self._rest
        default = self._limits.local_quota if caller.kind is CallerKind.LOCAL else self._limits.quota
        share = self._by_id[caller.id] = Share(self._quotas.get(caller.id, default), now)
        return share

    def _forget(self, now: float) -> None:
        """Forgets callers who have nothing under way and whose buckets are full again, the first come first."""
        for caller_id in [caller_id for caller_id, _ in zip(self._by_id, range(FORGET_LOOKS), strict=False)]:
            share = self._by_id.pop(caller_id)
            if not share.is_idle(now):
                self._by_id[caller_id] = share  # it is looked at again after all others
