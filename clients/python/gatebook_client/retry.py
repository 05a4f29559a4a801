"""When to try again, and how long to wait first.

Owns the retry rules, which both clients share and which do no I/O:

1. only what may pass by itself is tried again: UNAVAILABLE, and overload that names a delay;
2. never past the deadline of the call, and never more than `attempts_max` times;
3. waits are drawn from 0 to a bound that doubles (full jitter), after the delay the service asked for;
4. retries are paid from a budget that successes refill, so that a struggling service is not asked
   more often than a healthy one (as in gRPC A6, retry throttling).
"""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass

from gatebook_client.errors import GatebookClientError, OverloadedError, UnavailableError

_RANDOM = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long: `attempts_max` counts the first attempt; 1 means no retry."""

    attempts_max: int = 4
    first_wait_seconds: float = 0.05
    wait_seconds_max: float = 0.5
    budget_max: float = 10.0
    budget_per_success: float = 0.1

    def __post_init__(self) -> None:
        """Refuses numbers that could not be meant."""
        if self.attempts_max < 1 or self.first_wait_seconds < 0 or self.wait_seconds_max < 0:
            raise ValueError("a retry policy needs at least 1 attempt and waits of 0 seconds or more")


class RetryBudget:
    """Holds what may be spent on retries of one connection. Safe to share between threads."""

    def __init__(self, policy: RetryPolicy) -> None:
        """Starts full."""
        self._policy = policy
        self._left = policy.budget_max
        self._lock = threading.Lock()

    def earn(self) -> None:
        """Refills a little after a success."""
        # Unlocked: a lost refill only makes the budget smaller, and a full one needs none.
        if self._left < self._policy.budget_max:
            with self._lock:
                self._left = min(self._policy.budget_max, self._left + self._policy.budget_per_success)

    def spend(self) -> bool:
        """Takes the price of one retry; tells whether there was enough."""
        with self._lock:
            if self._left < 1.0:
                return False
            self._left -= 1.0
            return True


def wait_seconds(
    policy: RetryPolicy,
    budget: RetryBudget,
    error: GatebookClientError,
    *,
    attempt: int,
    left_seconds: float,
) -> float | None:
    """Returns how long to wait before trying again, or None when the error is final.

    Args:
        policy: the bounds.
        budget: what is left for retries; a retry is paid here.
        error: why the attempt failed.
        attempt: the number of the failed attempt, from 1.
        left_seconds: the time to the deadline of the call.
    """
    if not isinstance(error, UnavailableError | OverloadedError) or attempt >= policy.attempts_max:
        return None
    bound = min(policy.wait_seconds_max, policy.first_wait_seconds * 2.0 ** (attempt - 1))
    wait = (error.retry_seconds or 0.0) + _RANDOM.uniform(0.0, bound)
    if wait >= left_seconds or not budget.spend():
        return None
    return wait
