"""Checks that are asked at the same time: what goes over the wire, and that nobody notices.

The service is one that misbehaves by script: each case is something that a batch must survive.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc.aio
import pytest
from tests.client_cases import plain_answer
from tests.scripted_service import ScriptedAccess, Step, fail, hang, item_error, serving

import gatebook_client
from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import types_pb2
from gatebook_client import Connection, Decision, GatebookClientError, RetryPolicy, coalescing
from gatebook_client.open_checks import ITEMS_MAX

QUICK = RetryPolicy(attempts_max=4, first_wait_seconds=0.001, wait_seconds_max=0.004)
UNAVAILABLE = {"code": "UNAVAILABLE", "reason": "BOOK_UNAVAILABLE"}
REFUSED = {"code": "PERMISSION_DENIED", "reason": "PERMISSION_DENIED"}
TOO_LARGE = {"code": "RESOURCE_EXHAUSTED", "reason": "LIMIT_EXCEEDED", "violation": "items"}
POISON = "poison"
Answer = Decision | BaseException


@pytest.fixture
def access() -> ScriptedAccess:
    """The service's script; unless a test says otherwise every check is answered with its subject as id."""
    script = ScriptedAccess()
    script.steps = [answer]
    return script


@pytest.fixture
async def target(access: ScriptedAccess) -> AsyncIterator[str]:
    """Where the script is served."""
    async with serving(access) as where:
        yield where


@pytest.fixture
async def gatebook(target: str) -> AsyncIterator[Connection]:
    """A connection to the script."""
    async with gatebook_client.connect(target, retries=QUICK, timeout_seconds=20) as connection:
        yield connection


def allow(access: types_pb2.AccessRequest) -> types_pb2.Decision:
    """Returns an allow that carries the id of the subject it is for."""
    return plain_answer({"decision_id": access.subject.id})


async def answer(request: Any, _context: object) -> Any:  # noqa: ANN401  # one check or many
    """Answers each check with an allow of its own."""
    if isinstance(request, pb.CheckAccessRequest):
        return pb.CheckAccessResponse(decision=allow(request.access))
    results = [pb.CheckResult(correlation_id=i.correlation_id, decision=allow(i.access)) for i in request.items]
    return pb.BatchCheckAccessResponse(results=results)


def unless_alone(stated: dict[str, Any], *, items_max: int = 1) -> Step:
    """Returns a step that fails for more than `items_max` checks, and for the one that is poison."""

    async def step(request: Any, context: Any) -> Any:  # noqa: ANN401  # as above
        if len(subjects(request)) > items_max or POISON in subjects(request):
            await fail(stated)(request, context)
        return await answer(request, context)

    return step


def gated(gate: asyncio.Event) -> Step:
    """Returns a step that answers when the gate is open."""

    async def step(request: Any, context: Any) -> Any:  # noqa: ANN401  # as above
        await gate.wait()
        return await answer(request, context)

    return step


def subjects(request: Any) -> list[str]:  # noqa: ANN401  # one check or many
    """Returns whom a request is about."""
    if isinstance(request, pb.CheckAccessRequest):
        return [request.access.subject.id]
    return [item.access.subject.id for item in request.items]


def ask(gatebook: Connection, names: Sequence[str], **terms: Any) -> list[asyncio.Task[Decision]]:  # noqa: ANN401  # of check
    """Begins one check for each subject."""
    return [asyncio.create_task(gatebook.check(name, "read", "mci.prompts", **terms)) for name in names]


async def settle(tasks: Sequence[asyncio.Task[Decision]]) -> list[Answer]:
    """Returns what became of each."""
    return list(await asyncio.gather(*tasks, return_exceptions=True))


def told(answers: Sequence[Answer]) -> list[str]:
    """Returns the id of each decision, or the reason of each error."""
    return [
        one.decision_id if isinstance(one, Decision) and one else getattr(one, "reason", repr(one)) for one in answers
    ]


def names(count: int) -> list[str]:
    """Returns as many subjects."""
    return [f"user{number}" for number in range(count)]


async def until_asked(access: ScriptedAccess, calls: int) -> None:
    """Waits until the service was called so often."""
    while len(access.requests) < calls:
        access.asked.clear()
        await access.asked.wait()


async def test_a_check_alone_is_one_unary_call(access: ScriptedAccess, gatebook: Connection) -> None:
    """Nothing is waited for when nothing else is asked: one check, one CheckAccess, each time."""
    for name in names(3):
        assert name == (await gatebook.check(name, "read", "mci.prompts")).decision_id

    assert [pb.CheckAccessRequest] * 3 == [type(request) for request in access.requests]


async def test_checks_of_one_moment_are_one_batch(access: ScriptedAccess, gatebook: Connection) -> None:
    """Fifty tasks make one call, in their order; each gets the decision of its own subject."""
    answers = await settle(ask(gatebook, names(50)))

    assert names(50) == told(answers)
    assert [names(50)] == [subjects(request) for request in access.requests]


async def test_checks_wait_for_company_while_two_calls_are_under_way(
    access: ScriptedAccess, gatebook: Connection
) -> None:
    """What comes one by one while two calls are under way goes out together when one of them is answered."""
    gate = asyncio.Event()
    access.steps = [gated(gate), gated(gate), answer]
    first = ask(gatebook, ["first"])
    await until_asked(access, 1)
    second = ask(gatebook, ["second"])
    await until_asked(access, 2)
    others = []
    for name in names(9):
        others += ask(gatebook, [name])
        await asyncio.sleep(0)
    gate.set()

    assert ["first", "second", *names(9)] == told(await settle([*first, *second, *others]))
    assert [["first"], ["second"], names(9)] == [subjects(request) for request in access.requests]


async def test_a_batch_is_no_larger_than_it_may_be(access: ScriptedAccess, gatebook: Connection) -> None:
    """More checks than fit make several calls, by number and by size."""
    many = names(2 * ITEMS_MAX + 1)
    assert many == told(await settle(ask(gatebook, many)))
    assert [ITEMS_MAX, ITEMS_MAX, 1] == [len(subjects(request)) for request in access.requests]
    access.requests.clear()
    await settle(ask(gatebook, names(5), context={"note": "x" * 400_000}))

    assert [2, 2, 1] == [len(subjects(request)) for request in access.requests]


async def test_only_what_agrees_travels_together(access: ScriptedAccess, gatebook: Connection) -> None:
    """Another revision, another receipt and an explanation are calls of their own, as they were asked."""
    tasks = ask(gatebook, ["a", "b"])
    tasks += ask(gatebook, ["c", "d"], at_least=7)
    tasks += ask(gatebook, ["e", "f"], receipt="full")
    tasks += ask(gatebook, ["g", "h"], explain=True)
    await settle(tasks)
    sent = {(tuple(subjects(r)), r.at_least, r.receipt_level, getattr(r, "explain", False)) for r in access.requests}

    basic, whole = types_pb2.RECEIPT_LEVEL_BASIC, types_pb2.RECEIPT_LEVEL_FULL
    assert {
        (("a", "b"), 0, basic, False),
        (("c", "d"), 7, basic, False),
        (("e", "f"), 0, whole, False),
        (("g",), 0, basic, True),
        (("h",), 0, basic, True),
    } == sent


@pytest.mark.parametrize(
    "terms",
    [{"at_least": 1.0}, {"at_least": 2**63}, {"receipt": "long"}, {"timeout_seconds": 0}, {"columns": "one text"}],
    ids=str,
)
async def test_an_argument_that_cannot_be_sent_is_its_callers_alone(
    access: ScriptedAccess, gatebook: Connection, terms: dict[str, Any]
) -> None:
    """It raises ValueError where it was passed, and whoever asks at the same time has decisions."""
    bad = ask(gatebook, ["bad"], **terms)
    answers = await settle(ask(gatebook, names(2), at_least=1) + bad + ask(gatebook, ["user2"], at_least=1))

    assert isinstance(answers[2], ValueError)
    assert names(3) == told([*answers[:2], answers[3]])
    assert [names(3)] == [subjects(request) for request in access.requests]


async def test_each_item_says_whether_a_part_will_do(access: ScriptedAccess, gatebook: Connection) -> None:
    """`allow_partial` is one check's own."""
    await settle(ask(gatebook, ["a"]) + ask(gatebook, ["b"], allow_partial=True, columns=["x", "y"]))
    (request,) = access.requests

    assert [False, True] == [item.allow_partial for item in request.items]
    assert ["x", "y"] == list(request.items[1].access.resource.columns)


async def test_without_coalescing_every_check_is_a_call(access: ScriptedAccess, target: str) -> None:
    """`coalesce=False` sends one CheckAccess for each."""
    async with gatebook_client.connect(target, coalesce=False, timeout_seconds=20) as gatebook:
        assert names(9) == told(await settle(ask(gatebook, names(9))))

    assert 9 == len(access.requests)


def results(request: pb.BatchCheckAccessRequest) -> list[pb.CheckResult]:
    """Returns the honest results of a batch."""
    return [pb.CheckResult(correlation_id=i.correlation_id, decision=allow(i.access)) for i in request.items]


def swapped_ids(honest: list[pb.CheckResult]) -> list[pb.CheckResult]:
    """Exchanges the first two ids."""
    honest[0].correlation_id, honest[1].correlation_id = honest[1].correlation_id, honest[0].correlation_id
    return honest


SHAPES: dict[str, Callable[[list[pb.CheckResult]], list[pb.CheckResult]]] = {
    "empty": lambda _: [],
    "too short": lambda honest: honest[:-1],
    "too long": lambda honest: [*honest, honest[-1]],
    "reversed": lambda honest: honest[::-1],
    "swapped ids": swapped_ids,
    "one answer for all": lambda honest: [honest[0]] * len(honest),
    "ids of another batch": lambda honest: [
        pb.CheckResult(correlation_id=f"{int(one.correlation_id) - 1}", decision=one.decision) for one in honest
    ],
    "no ids": lambda honest: [pb.CheckResult(decision=one.decision) for one in honest],
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_an_answer_of_another_shape_decides_nothing(
    access: ScriptedAccess, gatebook: Connection, shape: str
) -> None:
    """Where results are not those of the items, in order, every check of the batch is an error, and no other."""

    async def twist(request: Any, _context: object) -> Any:  # noqa: ANN401  # a batch
        return pb.BatchCheckAccessResponse(results=SHAPES[shape](results(request)))

    access.steps = [answer, twist, answer]
    assert ["before"] == told(await settle(ask(gatebook, ["before"])))
    answers = await settle(ask(gatebook, names(4)))

    assert ["MALFORMED_ANSWER"] * 4 == told(answers)
    assert 4 == len({id(error) for error in answers})
    assert ["after"] == told(await settle(ask(gatebook, ["after"])))


async def test_an_answer_that_is_no_message_is_an_error_for_all() -> None:
    """Bytes that do not parse decide nothing, and are not asked for again."""
    asked = []

    async def garbage(request: bytes, _context: object) -> bytes:
        asked.append(request)
        return b"\xff\xff\xff"

    server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]]
    handlers = {"BatchCheckAccess": grpc.unary_unary_rpc_method_handler(garbage)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("gatebook.v1.AccessService", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with gatebook_client.connect(f"127.0.0.1:{port}") as gatebook:
            assert ["MALFORMED_ANSWER"] * 3 == told(await settle(ask(gatebook, names(3))))
    finally:
        await server.stop(None)

    assert 1 == len(asked)


async def test_an_error_of_one_item_is_that_checks_alone(access: ScriptedAccess, gatebook: Connection) -> None:
    """One item refused, one without outcome: those two are errors, and the others have their decisions."""

    async def mixed(request: Any, _context: object) -> Any:  # noqa: ANN401  # a batch
        found = results(request)
        found[1] = pb.CheckResult(correlation_id=found[1].correlation_id, error=item_error(3, "INVALID_REQUEST"))
        found[2] = pb.CheckResult(correlation_id=found[2].correlation_id)
        return pb.BatchCheckAccessResponse(results=found)

    access.steps = [mixed]

    assert ["user0", "INVALID_REQUEST", "MALFORMED_ANSWER", "user3"] == told(await settle(ask(gatebook, names(4))))
    assert 1 == len(access.requests)


async def test_an_item_that_may_pass_is_tried_again_alone(access: ScriptedAccess, gatebook: Connection) -> None:
    """UNAVAILABLE for one item is asked again for that check; the others are not asked twice."""

    async def mixed(request: Any, _context: object) -> Any:  # noqa: ANN401  # a batch
        found = results(request)
        found[1] = pb.CheckResult(correlation_id=found[1].correlation_id, error=item_error(14, "BOOK_UNAVAILABLE"))
        return pb.BatchCheckAccessResponse(results=found)

    access.steps = [mixed, fail(UNAVAILABLE), answer]

    assert names(3) == told(await settle(ask(gatebook, names(3))))
    assert [names(3), ["user1"], ["user1"]] == [subjects(request) for request in access.requests]


async def test_a_failed_batch_is_tried_again_whole(access: ScriptedAccess, gatebook: Connection) -> None:
    """After UNAVAILABLE the next answer counts; every attempt is the same call under the same request id."""
    access.steps = [fail(UNAVAILABLE), fail(UNAVAILABLE), answer]

    assert names(5) == told(await settle(ask(gatebook, names(5))))
    assert [names(5)] * 3 == [subjects(request) for request in access.requests]
    assert 1 == len({request.request_id for request in access.requests})


async def test_only_those_who_still_wait_are_tried_again(access: ScriptedAccess, target: str) -> None:
    """A check that was given up during an attempt is not part of the next."""
    begun, gate = asyncio.Event(), asyncio.Event()

    async def fail_later(request: Any, context: Any) -> Any:  # noqa: ANN401  # a batch
        begun.set()
        await gate.wait()
        await fail(UNAVAILABLE)(request, context)

    access.steps = [fail_later, answer]
    async with gatebook_client.connect(target, retries=QUICK, timeout_seconds=20) as gatebook:
        tasks = ask(gatebook, names(3))
        await begun.wait()
        tasks[1].cancel()
        gate.set()
        answers = await settle(tasks)

    assert isinstance(answers[1], asyncio.CancelledError)
    assert ["user0", "user2"] == told([answers[0], answers[2]])
    assert [names(3), ["user0", "user2"]] == [subjects(request) for request in access.requests]


async def test_retries_do_not_multiply(access: ScriptedAccess, gatebook: Connection) -> None:
    """When everything fails, twenty batches of five make twenty calls and the ten retries of the budget."""
    access.steps = [fail(UNAVAILABLE)]
    for _ in range(20):
        answers = await settle(ask(gatebook, names(5)))
        assert ["BOOK_UNAVAILABLE"] * 5 == told(answers)
        assert 5 == len({id(error) for error in answers})

    assert 20 + 10 == len(access.requests)


@pytest.mark.parametrize("stated", [REFUSED, {"code": "INTERNAL", "reason": "INTERNAL"}, {"code": "UNIMPLEMENTED"}])
async def test_a_check_that_spoils_the_batch_spoils_only_itself(
    access: ScriptedAccess, gatebook: Connection, stated: dict[str, str]
) -> None:
    """A batch that is refused or fails is asked again check by check, so the others have their decisions."""
    access.steps = [unless_alone(stated)]
    answers = await settle(ask(gatebook, ["user0", POISON, "user1"]))

    assert ["user0", stated.get("reason", stated["code"]), "user1"] == told(answers)
    assert 1 + 3 == len(access.requests)


async def test_a_batch_that_is_too_large_is_halved(access: ScriptedAccess, gatebook: Connection) -> None:
    """A service that takes less than the client packs still answers everything."""
    access.steps = [unless_alone(TOO_LARGE, items_max=10)]

    assert names(30) == told(await settle(ask(gatebook, names(30))))
    assert 10 >= min(len(subjects(request)) for request in access.requests)
    assert len(access.requests) < 30


async def test_a_batch_beyond_a_quota_gets_through_in_parts(access: ScriptedAccess, gatebook: Connection) -> None:
    """Where a caller may have ten checks in flight, thirty at once are answered all the same, not refused for ever."""
    stated = {"code": "RESOURCE_EXHAUSTED", "reason": "OVERLOADED", "retry_seconds": 0.001}
    access.steps = [unless_alone(stated | {"limit": "caller_items_in_flight"}, items_max=10)]

    assert names(30) == told(await settle(ask(gatebook, names(30))))


async def test_what_concerns_all_is_asked_once(access: ScriptedAccess, gatebook: Connection) -> None:
    """An unknown policy set is one call, whose error each check gets as an exception of its own."""
    access.steps = [fail({"code": "NOT_FOUND", "reason": "POLICY_SET_NOT_FOUND"})]
    answers = await settle(ask(gatebook, names(6)))

    assert ["POLICY_SET_NOT_FOUND"] * 6 == told(answers)
    assert {gatebook_client.RejectedError} == {type(error) for error in answers}
    assert (1, 6) == (len(access.requests), len({id(error) for error in answers}))


async def test_cancelling_one_check_cancels_nothing_else(access: ScriptedAccess, gatebook: Connection) -> None:
    """Its neighbours in the batch are answered, and so is one that waits behind them."""
    gate = asyncio.Event()
    access.steps = [gated(gate)]
    tasks = ask(gatebook, names(4))
    await until_asked(access, 1)
    tasks[2].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[2]
    gate.set()

    assert ["user0", "user1", "user3"] == told(await settle([tasks[0], tasks[1], tasks[3]]))


async def test_a_check_cancelled_before_it_is_sent_is_not_sent(access: ScriptedAccess, gatebook: Connection) -> None:
    """Cancelled in the same moment in which it was asked, it is in no call."""
    tasks = ask(gatebook, names(3))
    asyncio.get_running_loop().call_soon(tasks[1].cancel)
    await settle(tasks)

    assert [["user0", "user2"]] == [subjects(request) for request in access.requests]


async def test_a_call_nobody_waits_for_ends(access: ScriptedAccess, gatebook: Connection) -> None:
    """When the last of a batch is cancelled the service is told to stop."""
    stopped = asyncio.Event()

    async def watched(request: Any, context: Any) -> None:  # noqa: ANN401  # a batch
        try:
            await hang(request, context)
        except asyncio.CancelledError:
            stopped.set()
            raise

    access.steps = [watched]
    tasks = ask(gatebook, names(3))
    await until_asked(access, 1)
    for task in tasks:
        task.cancel()

    await asyncio.wait_for(stopped.wait(), 20)
    assert [True] * 3 == [isinstance(one, asyncio.CancelledError) for one in await settle(tasks)]


async def test_each_check_has_its_own_deadline(access: ScriptedAccess, gatebook: Connection) -> None:
    """The short one gives up while the batch is under way; the patient ones are neither cut off nor hurried."""
    gate = asyncio.Event()
    access.steps = [gated(gate)]
    patient = ask(gatebook, ["user0"])
    short = ask(gatebook, ["user1"], timeout_seconds=0.05)
    patient += ask(gatebook, ["user2"])

    assert ["DEADLINE_EXCEEDED"] == told(await settle(short))
    gate.set()
    assert ["user0", "user2"] == told(await settle(patient))
    assert [["user0", "user1", "user2"]] == [subjects(request) for request in access.requests]


async def test_the_service_learns_of_the_longest_deadline(access: ScriptedAccess, gatebook: Connection) -> None:
    """The deadline of the call is that of the check that may wait longest."""
    seen: list[float] = []

    async def look(request: Any, context: Any) -> Any:  # noqa: ANN401  # a batch
        seen.append(context.time_remaining())
        return await answer(request, context)

    access.steps = [look]
    await settle(ask(gatebook, ["a"], timeout_seconds=15) + ask(gatebook, ["b"], timeout_seconds=1_000))

    assert 900 < seen[0] < 1_100  # on the wire a timeout has few digits


async def test_calls_that_hang_keep_nobody_else_waiting(access: ScriptedAccess, gatebook: Connection) -> None:
    """With two calls hanging, a third check is sent and answered all the same."""
    access.steps = [hang, hang, answer]
    first = ask(gatebook, ["first"])
    await until_asked(access, 1)
    second = ask(gatebook, ["second"])
    await until_asked(access, 2)

    assert ["third"] == told(await settle(ask(gatebook, ["third"])))
    assert not any(task.done() for task in first + second)
    for task in first + second:
        task.cancel()


async def test_too_many_at_once_are_refused_here(
    access: ScriptedAccess, gatebook: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits is bounded: one check more is an OverloadedError without a call, and the others are answered."""
    monkeypatch.setattr(coalescing, "CHECKS_MAX", 3)
    answers = await settle(ask(gatebook, names(4)))

    assert ["user0", "user1", "user2", "CLIENT_OVERLOADED"] == told(answers)
    assert isinstance(answers[3], gatebook_client.OverloadedError)
    assert names(3) == told(await settle(ask(gatebook, names(3))))
    assert [names(3), names(3)] == [subjects(request) for request in access.requests]


async def test_closing_ends_every_open_check(access: ScriptedAccess, target: str) -> None:
    """Those under way and those that still wait get an error; none is cancelled, none hangs."""
    access.steps = [hang]
    async with gatebook_client.connect(target) as gatebook:
        tasks = ask(gatebook, ["first"])
        await until_asked(access, 1)
        tasks += ask(gatebook, ["second"])
        await until_asked(access, 2)
        tasks += ask(gatebook, ["third"])
        await asyncio.sleep(0)

    assert ["CLOSED"] * 3 == told(await settle(tasks))


async def test_a_service_that_vanishes_is_an_error_for_all(access: ScriptedAccess) -> None:
    """When the connection breaks under a batch, every check of it is an UnavailableError."""
    access.steps = [hang]
    async with serving(access) as target:
        connection = gatebook_client.connect(target, retries=QUICK, timeout_seconds=20)
        gatebook = await connection.__aenter__()
        tasks = ask(gatebook, names(3))
        await until_asked(access, 1)
    answers = await settle(tasks)
    await connection.close()

    assert {gatebook_client.UnavailableError} == {type(one) for one in answers}


async def test_errors_are_denials_for_who_prefers_that(access: ScriptedAccess, target: str) -> None:
    """With `on_error="deny"` each check of a failed batch is a denial that carries its error."""
    access.steps = [fail(UNAVAILABLE)]
    async with gatebook_client.connect(target, retries=QUICK, timeout_seconds=20, on_error="deny") as gatebook:
        answers = await settle(ask(gatebook, names(3)))

    errors = [one.error for one in answers if isinstance(one, Decision) and not one.allowed]
    assert ["BOOK_UNAVAILABLE"] * 3 == [error.reason for error in errors if isinstance(error, GatebookClientError)]
