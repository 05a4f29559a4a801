"""The coalescing client under everything at once: faults, delays, cancellations, short deadlines, drawn at random."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from tests.client_cases import plain_answer
from tests.scripted_service import ScriptedAccess, fail, hang, item_error, serving

import gatebook_client
from gatebook.v1 import access_service_pb2 as pb
from gatebook_client import Connection, RetryPolicy

TASKS, CHECKS_EACH = 40, 25
ENDLESS_SECONDS = 60.0
RETRIES = RetryPolicy(attempts_max=3, first_wait_seconds=0.001, wait_seconds_max=0.004, budget_max=1_000)
FAULTS = (
    {"code": "UNAVAILABLE", "reason": "BOOK_UNAVAILABLE"},
    {"code": "RESOURCE_EXHAUSTED", "reason": "OVERLOADED", "retry_seconds": 0.001},
    {"code": "RESOURCE_EXHAUSTED", "reason": "LIMIT_EXCEEDED", "violation": "items"},
    {"code": "INTERNAL", "reason": "INTERNAL"},
    {"code": "PERMISSION_DENIED", "reason": "PERMISSION_DENIED"},
    {"code": "CANCELLED"},
)
ITEM_ERRORS = ((3, "INVALID_REQUEST"), (14, "BOOK_UNAVAILABLE"), (13, "INTERNAL"))


def answered(access: Any) -> Any:  # noqa: ANN401  # a message
    """Returns an allow that names its subject."""
    return plain_answer({"decision_id": access.subject.id})


class Chaos(ScriptedAccess):
    """Answers, fails, delays, hangs and twists, as drawn."""

    def __init__(self, seed: int) -> None:
        """Takes what to draw from."""
        super().__init__()
        self._drawn = random.Random(seed)
        self.steps = [self._step]
        self.calm = False

    async def _step(self, request: Any, context: Any) -> Any:  # noqa: ANN401  # one check or many
        drawn = 1.0 if self.calm else self._drawn.random()
        if drawn < 0.15:
            await fail(self._drawn.choice(FAULTS))(request, context)
        if drawn < 0.18:
            await hang(request, context)
        await asyncio.sleep(0 if self.calm else self._drawn.choice((0, 0, 0.001, 0.01)))
        if isinstance(request, pb.CheckAccessRequest):
            return pb.CheckAccessResponse(decision=answered(request.access))
        results = [pb.CheckResult(correlation_id=i.correlation_id, decision=answered(i.access)) for i in request.items]
        if drawn < 0.22:
            self._drawn.shuffle(results)
        elif drawn < 0.25:
            results.pop()
        elif drawn < 0.35:
            place = self._drawn.randrange(len(results))
            code, reason = self._drawn.choice(ITEM_ERRORS)
            results[place] = pb.CheckResult(
                correlation_id=request.items[place].correlation_id, error=item_error(code, reason)
            )
        return pb.BatchCheckAccessResponse(results=results)


async def asking(gatebook: Connection, task: int, drawn: random.Random) -> dict[str, int]:
    """Asks one check after the other, giving some up; returns how often each kind of end came."""
    ends: dict[str, int] = {}
    for number in range(CHECKS_EACH):
        name = f"{task}-{number}"
        timeout = drawn.choice((1.0, 1.0, 0.005, 0.1))
        check = asyncio.ensure_future(
            gatebook.check(name, "read", "mci.prompts", timeout_seconds=timeout, at_least=drawn.choice((0, 0, 0, 1)))
        )
        if drawn.random() < 0.1:
            asyncio.get_running_loop().call_later(drawn.choice((0, 0.001, 0.01)), check.cancel)
        try:
            decision = await asyncio.wait_for(asyncio.shield(check), ENDLESS_SECONDS)
        except asyncio.CancelledError:
            end = "cancelled"
        except gatebook_client.GatebookClientError as error:
            end = type(error).__name__
        else:
            assert (True, name) == (decision.allowed, decision.decision_id)
            end = "answered"
        ends[end] = ends.get(end, 0) + 1
    return ends


@pytest.mark.parametrize("seed", range(3))
async def test_nobody_gets_anothers_decision_and_nobody_waits_for_ever(seed: int) -> None:
    """Each check ends: with its own decision, an error, or its own cancellation. Afterwards all is as at first."""
    access = Chaos(seed)
    async with (
        serving(access) as target,
        gatebook_client.connect(target, retries=RETRIES, timeout_seconds=20) as gatebook,
    ):
        found = await asyncio.gather(
            *(asking(gatebook, task, random.Random(seed * 1_000 + task)) for task in range(TASKS))
        )
        access.calm = True
        access.requests.clear()
        last = await gatebook.check("last", "read", "mci.prompts")

    ends = {name: sum(one.get(name, 0) for one in found) for one in found for name in one}
    assert TASKS * CHECKS_EACH == sum(ends.values())
    assert {"answered", "cancelled", "DeadlineError", "MalformedAnswerError"} <= set(ends)
    assert ("last", [pb.CheckAccessRequest]) == (last.decision_id, [type(request) for request in access.requests])
