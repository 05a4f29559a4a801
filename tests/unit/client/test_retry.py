"""When the client tries again, and how long it waits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook_client.errors import (
    DeadlineError,
    GatebookClientError,
    MalformedAnswerError,
    OverloadedError,
    RejectedError,
    ServiceFaultError,
    UnavailableError,
)
from gatebook_client.retry import RetryBudget, RetryPolicy, wait_seconds

POLICY = RetryPolicy(attempts_max=4, first_wait_seconds=0.05, wait_seconds_max=0.5)
UNAVAILABLE = UnavailableError("no", reason="UNREACHABLE")


@given(st.integers(1, 3), st.floats(0, 5), st.floats(0, 10))
def test_a_wait_is_drawn_between_the_stated_delay_and_the_bound(attempt: int, stated: float, left: float) -> None:
    """The wait is at least what the service asked for, at most the doubling bound above it, and ends in time."""
    error = OverloadedError("busy", reason="OVERLOADED", retry_seconds=stated)
    wait = wait_seconds(POLICY, RetryBudget(POLICY), error, attempt=attempt, left_seconds=left)

    if wait is None:
        assert left < stated + 0.05 * 2**attempt
    else:
        assert stated <= wait <= stated + 0.05 * 2 ** (attempt - 1)
        assert wait < left


def test_waits_differ() -> None:
    """Clients that failed together do not come back together."""
    waits = {wait_seconds(POLICY, RetryBudget(POLICY), UNAVAILABLE, attempt=1, left_seconds=9) for _ in range(20)}

    assert len(waits) > 1


@pytest.mark.parametrize(
    "error",
    [
        DeadlineError("late", reason="DEADLINE_EXCEEDED"),
        RejectedError("wrong", reason="INVALID_REQUEST"),
        ServiceFaultError("bug", reason="INTERNAL"),
        MalformedAnswerError("odd"),
    ],
    ids=lambda error: error.reason,
)
def test_what_does_not_pass_by_itself_is_final(error: GatebookClientError) -> None:
    """Only UNAVAILABLE and overload with a delay are tried again."""
    assert wait_seconds(POLICY, RetryBudget(POLICY), error, attempt=1, left_seconds=9) is None


def test_the_last_attempt_is_final() -> None:
    """`attempts_max` counts the first attempt."""
    assert wait_seconds(POLICY, RetryBudget(POLICY), UNAVAILABLE, attempt=4, left_seconds=9) is None


def test_an_empty_budget_is_final_until_successes_refill_it() -> None:
    """Ten retries are in the budget; ten successes pay for one more."""
    budget = RetryBudget(POLICY)
    spent = [budget.spend() for _ in range(11)]
    for _ in range(11):
        budget.earn()

    assert [True] * 10 + [False] == spent
    assert (True, False) == (budget.spend(), budget.spend())


@pytest.mark.parametrize("wrong", [{"attempts_max": 0}, {"first_wait_seconds": -1.0}, {"wait_seconds_max": -1.0}])
def test_a_policy_that_could_not_be_meant_is_refused(wrong: dict[str, float]) -> None:
    """No attempt and negative waits are mistakes."""
    with pytest.raises(ValueError, match="at least 1 attempt"):
        RetryPolicy(**wrong)  # type: ignore[arg-type]  # the values are wrong on purpose
