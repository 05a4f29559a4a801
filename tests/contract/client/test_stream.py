"""The asyncio stream over a real port: every check gets its own answer, or the stream raises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.client_cases import plain_answer
from tests.scripted_service import ScriptedAccess, fail, hang, item_error, serving

import gatebook_client
from gatebook.v1 import access_service_pb2 as access_pb2
from gatebook_client import Check, Connection, Decision

Answered = tuple[Check, Decision]


@pytest.fixture
def access() -> ScriptedAccess:
    """The service's script."""
    return ScriptedAccess()


@pytest.fixture
async def gatebook(access: ScriptedAccess) -> AsyncIterator[Connection]:
    """A connection to the script."""
    async with serving(access) as target, gatebook_client.connect(target, timeout_seconds=20) as connection:
        yield connection


def checks(count: int) -> list[Check]:
    """Returns distinct checks."""
    return [Check(f"subject-{number}", "read", "mci.prompts") for number in range(count)]


async def answer_backwards(
    request: access_pb2.StreamCheckAccessRequest, _context: object
) -> access_pb2.StreamCheckAccessResponse:
    """Answers a message's checks in reverse; whoever's id ends in an odd digit is denied."""
    response = access_pb2.StreamCheckAccessResponse()
    for item in reversed(request.items):
        effect = "EFFECT_ALLOW" if int(item.access.subject.id[-1]) % 2 == 0 else "EFFECT_DENY"
        result = access_pb2.CheckResult(correlation_id=item.correlation_id, decision=plain_answer({"effect": effect}))
        response.results.append(result)
    return response


async def all_of(stream: AsyncIterator[Answered]) -> list[Answered]:
    """Reads a stream to its end."""
    return [answered async for answered in stream]


@pytest.mark.parametrize("in_flight", [1, 3, 256])
async def test_each_check_gets_its_own_answer(access: ScriptedAccess, gatebook: Connection, in_flight: int) -> None:
    """Answers are matched by id, in whatever order they come, with any number in flight."""
    access.steps = [answer_backwards]
    asked = checks(100)
    found = await all_of(gatebook.stream(asked, in_flight=in_flight))

    assert sorted(map(id, asked)) == sorted(id(check) for check, _ in found)
    assert {check.subject: int(str(check.subject)[-1]) % 2 == 0 for check in asked} == {
        check.subject: decision.allowed for check, decision in found
    }


async def test_no_more_checks_are_taken_than_may_be_in_flight(access: ScriptedAccess, gatebook: Connection) -> None:
    """The caller's iterable is read only as answers come, so that it may be endless."""
    access.steps = [answer_backwards]
    taken = 0

    def endless() -> Iterator[Check]:
        nonlocal taken
        while True:
            taken += 1
            yield Check(f"subject-{taken}", "read", "mci.prompts")

    stream = gatebook.stream(endless(), in_flight=5)
    for yielded in range(1, 21):
        await anext(stream)
        assert taken <= yielded + 5
    await stream.aclose()


async def test_checks_may_come_one_by_one(access: ScriptedAccess, gatebook: Connection) -> None:
    """An asynchronous source is answered while it is still waiting for its next check."""
    access.steps = [answer_backwards]
    answered = asyncio.Event()

    async def source() -> AsyncIterator[Check]:
        yield Check("subject-0", "read", "mci.prompts")
        await answered.wait()
        yield Check("subject-2", "read", "mci.prompts")

    subjects = []
    async for check, decision in gatebook.stream(source()):
        subjects.append((check.subject, decision.allowed))
        answered.set()

    assert [("subject-0", True), ("subject-2", True)] == subjects


async def test_an_empty_stream_ends(access: ScriptedAccess, gatebook: Connection) -> None:
    """No checks, no answers, no error."""
    access.steps = [hang]

    assert [] == await all_of(gatebook.stream([]))


async def test_an_error_of_one_item_denies_that_item(access: ScriptedAccess, gatebook: Connection) -> None:
    """An item error is a denial with its error; the stream goes on."""

    async def step(request: access_pb2.StreamCheckAccessRequest, context: object) -> Any:  # noqa: ANN401  # a script
        response = await answer_backwards(request, context)
        response.results[0].error.CopyFrom(item_error(3, "INVALID_REQUEST"))
        return response

    access.steps = [step]
    found = await all_of(gatebook.stream(checks(2)))

    assert [("subject-1", "INVALID_REQUEST"), ("subject-0", "ALLOWED")] == [
        (check.subject, decision.reason) for check, decision in found
    ]


def with_id(correlation_id: str) -> Any:  # noqa: ANN401  # a script
    """Returns a step that answers with an allow for this id."""

    async def step(_request: object, _context: object) -> access_pb2.StreamCheckAccessResponse:
        result = access_pb2.CheckResult(correlation_id=correlation_id, decision=plain_answer())
        return access_pb2.StreamCheckAccessResponse(results=[result])

    return step


async def end(_request: object, _context: object) -> None:
    """Ends the stream."""


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        ([with_id("99")], "MalformedAnswerError"),
        ([with_id("")], "MalformedAnswerError"),
        ([with_id("0"), with_id("0")], "MalformedAnswerError"),
        ([with_id("0"), end], "MalformedAnswerError"),
        ([end], "MalformedAnswerError"),
        ([fail({"code": "UNAVAILABLE", "reason": "BOOK_UNAVAILABLE"})], "UnavailableError"),
        ([with_id("0"), fail({"code": "INTERNAL", "reason": "INTERNAL"})], "ServiceFaultError"),
    ],
    ids=["unknown id", "no id", "the same id twice", "ends early", "ends at once", "fails", "fails midway"],
)
async def test_a_stream_that_breaks_raises(
    access: ScriptedAccess, gatebook: Connection, steps: list[Any], error: str
) -> None:
    """Whatever breaks the stream raises; no check without an answer goes unnoticed."""
    access.steps = steps

    with pytest.raises(getattr(gatebook_client, error)):
        await all_of(gatebook.stream(checks(3), in_flight=1 if len(steps) > 1 else 3))


async def test_a_check_without_answer_is_an_error(access: ScriptedAccess, gatebook: Connection) -> None:
    """Each check of a stream has a deadline."""
    access.steps = [hang]

    with pytest.raises(gatebook_client.DeadlineError):
        await all_of(gatebook.stream(checks(3), timeout_seconds=0.05))


async def test_an_error_of_the_source_reaches_the_caller(access: ScriptedAccess, gatebook: Connection) -> None:
    """What the caller's iterable raises is raised as it is."""
    access.steps = [answer_backwards]

    def source() -> Iterator[Check]:
        yield from checks(2)
        raise LookupError("no further check")

    with pytest.raises(LookupError):
        await all_of(gatebook.stream(source(), in_flight=1))


async def test_a_stream_that_never_ends_is_left(access: ScriptedAccess) -> None:
    """When every check is answered, a service that keeps the stream open holds nobody."""

    async def linger(_request: object, _context: object) -> None:
        await asyncio.Event().wait()

    access.steps = [answer_backwards]
    access.at_end = linger
    async with serving(access) as target, gatebook_client.connect(target, timeout_seconds=0.2) as gatebook:
        found = await all_of(gatebook.stream(checks(3)))

    assert 3 == len(found)


async def test_closing_under_a_stream_is_an_error_and_no_cancellation(access: ScriptedAccess) -> None:
    """A task whose connection closes under its stream gets an error; it is not cancelled behind its back."""
    access.steps = [hang]
    async with serving(access) as target:
        async with gatebook_client.connect(target) as gatebook:
            waiting = asyncio.create_task(all_of(gatebook.stream(checks(3), in_flight=1)))
            await access.asked.wait()

        with pytest.raises(gatebook_client.ConnectionClosedError):
            await waiting


async def test_a_cancelled_task_is_cancelled(access: ScriptedAccess, gatebook: Connection) -> None:
    """Cancelling the caller's own task stays a cancellation."""
    access.steps = [hang]
    waiting = asyncio.create_task(all_of(gatebook.stream(checks(3), in_flight=1)))
    await access.asked.wait()
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_nobody_listening_is_an_error() -> None:
    """A stream to nobody raises."""
    async with gatebook_client.connect("127.0.0.1:1") as gatebook:
        with pytest.raises(gatebook_client.UnavailableError):
            await all_of(gatebook.stream(checks(3)))
