"""The asyncio client over a real port: what it sends, and what it makes of answers and faults."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest
from tests.client_cases import FAULTS, plain_answer
from tests.scripted_service import (
    ScriptedAccess,
    ScriptedAudit,
    decide,
    fail,
    hang,
    item_error,
    reply,
    serving,
)

import gatebook_client
from gatebook.v1 import access_service_pb2 as access_pb2
from gatebook.v1 import audit_service_pb2 as audit_pb2
from gatebook.v1 import types_pb2
from gatebook_client import Action, Check, Connection, Resource, RetryPolicy, Subject

QUICK = RetryPolicy(attempts_max=4, first_wait_seconds=0.001, wait_seconds_max=0.004)
UNAVAILABLE = {"code": "UNAVAILABLE", "reason": "BOOK_UNAVAILABLE"}
PAGE = "page 2"
QUESTION = ("farah", "read", "mci.prompts")


@pytest.fixture
def access() -> ScriptedAccess:
    """The service's script."""
    return ScriptedAccess()


@pytest.fixture
def audit() -> ScriptedAudit:
    """The script of the service's book."""
    return ScriptedAudit()


@pytest.fixture
async def target(access: ScriptedAccess, audit: ScriptedAudit) -> AsyncIterator[str]:
    """Where the script is served."""
    async with serving(access, audit) as where:
        yield where


@pytest.fixture
async def gatebook(target: str) -> AsyncIterator[Connection]:
    """A connection to the script."""
    async with gatebook_client.connect(target, retries=QUICK, timeout_seconds=20) as connection:
        yield connection


async def test_an_allow_comes_back_as_a_decision(access: ScriptedAccess, gatebook: Connection) -> None:
    """A well-formed allow is an allow."""
    access.steps = [decide(plain_answer())]

    assert await gatebook.check(*QUESTION)


async def test_a_check_sends_all_that_was_said(access: ScriptedAccess, target: str) -> None:
    """Every argument arrives, attributes as exact JSON, and what the application enforces."""
    access.steps = [decide(plain_answer())]
    async with gatebook_client.connect(target, policy_set="telemetry", enforcer="svc-dashboard") as gatebook:
        await gatebook.check(
            Subject("farah", properties={"badge": 2**60 + 1}),
            Action("share", {"audience": ["role:mci_researcher"]}),
            Resource("mci.prompts", "dataset", {"owner": "mci"}),
            columns=["prompt_text"],
            purpose="model_training",
            context={"network": "corp"},
            row={},
            actor=("agent", "copilot"),
            allow_partial=True,
            at_least=7,
            explain=True,
            receipt="full",
        )
    sent: access_pb2.CheckAccessRequest = access.requests[0]

    assert ("telemetry", True, 7, True) == (sent.policy_set, sent.allow_partial, sent.at_least, sent.explain)
    assert types_pb2.RECEIPT_LEVEL_FULL == sent.receipt_level
    assert {"badge": 2**60 + 1} == json.loads(sent.access.subject.properties_json)
    assert ("user", "farah") == (sent.access.subject.type, sent.access.subject.id)
    assert ("agent", "copilot") == (sent.access.actor.type, sent.access.actor.id)
    assert (b'{"network":"corp"}', b"{}") == (sent.access.context_json, sent.access.row_json)
    assert ("share", b'{"audience":["role:mci_researcher"]}') == (
        sent.access.action.name,
        sent.access.action.properties_json,
    )
    assert ("dataset", b'{"owner":"mci"}') == (sent.access.resource.type, sent.access.resource.properties_json)
    assert ["prompt_text"] == list(sent.access.resource.columns)
    assert "svc-dashboard" == sent.access.enforcer.id
    assert types_pb2.MASK_KIND_REDACT in sent.access.enforcer.supported_masks
    assert types_pb2.OBLIGATION_KIND_MASKS in sent.access.enforcer.supported_obligations


async def test_who_names_no_enforcer_declares_nothing(access: ScriptedAccess, gatebook: Connection) -> None:
    """Without an enforcer the service is told that no obligation can be fulfilled."""
    access.steps = [decide(plain_answer())]
    await gatebook.check(*QUESTION)

    assert types_pb2.Enforcer() == access.requests[0].access.enforcer


@pytest.mark.parametrize("case", FAULTS, ids=lambda case: case["name"])
async def test_a_fault_is_an_error_and_never_an_allow(
    access: ScriptedAccess, gatebook: Connection, case: dict[str, Any]
) -> None:
    """Every case of the table raises its class with its reason, after as many attempts as it says."""
    access.steps = [fail(case["status"])]

    with pytest.raises(getattr(gatebook_client, case["error"])) as caught:
        await gatebook.check(*QUESTION)
    assert case.get("reason", case["status"].get("reason")) == caught.value.reason
    assert case["attempts"] == len(access.requests)
    assert [case["status"][k] for k in ("violation",) if k in case["status"]] == [
        violation.field for violation in caught.value.violations
    ]


@pytest.mark.parametrize("case", FAULTS, ids=lambda case: case["name"])
async def test_a_fault_is_a_denial_for_who_prefers_that(
    access: ScriptedAccess, target: str, case: dict[str, Any]
) -> None:
    """With `on_error="deny"` every case is a denial that carries the error, one or many."""
    access.steps = [fail(case["status"])]
    async with gatebook_client.connect(target, retries=QUICK, timeout_seconds=20, on_error="deny") as gatebook:
        one = await gatebook.check(*QUESTION)
        many = await gatebook.check_many([Check(*QUESTION), Check(*QUESTION)])

    for found in [one, *many]:
        assert (False, case["error"]) == (found.allowed, type(found.error).__name__)
    assert 2 == len(many)


async def test_a_fault_that_passes_is_not_seen(access: ScriptedAccess, gatebook: Connection) -> None:
    """After UNAVAILABLE and overload the next answer counts; every attempt has the same request id."""
    overloaded = {"code": "RESOURCE_EXHAUSTED", "reason": "OVERLOADED", "retry_seconds": 0.001}
    access.steps = [fail(UNAVAILABLE), fail(overloaded), decide(plain_answer())]

    assert await gatebook.check(*QUESTION)
    assert 3 == len(access.requests)
    assert 1 == len({request.request_id for request in access.requests})


async def test_retries_do_not_multiply(access: ScriptedAccess, gatebook: Connection) -> None:
    """When everything fails, the budget lets 10 retries through and then each call is one attempt."""
    access.steps = [fail(UNAVAILABLE)]
    calls = 20
    for _ in range(calls):
        with pytest.raises(gatebook_client.UnavailableError):
            await gatebook.check(*QUESTION)

    assert calls + 10 == len(access.requests)


async def test_a_slow_answer_is_an_error(access: ScriptedAccess, gatebook: Connection) -> None:
    """No answer within the deadline raises; there is no call without a deadline."""
    access.steps = [hang]

    with pytest.raises(gatebook_client.DeadlineError):
        await gatebook.check(*QUESTION, timeout_seconds=0.05)


async def test_nobody_listening_is_an_error() -> None:
    """A port without a service raises, and says that it is unreachable."""
    async with gatebook_client.connect("127.0.0.1:1", retries=QUICK) as gatebook:
        with pytest.raises(gatebook_client.UnavailableError) as caught:
            await gatebook.check(*QUESTION)

    assert "UNREACHABLE" == caught.value.reason


async def test_an_answer_without_decision_is_an_error(access: ScriptedAccess, gatebook: Connection) -> None:
    """An empty answer is not an answer."""
    access.steps = [reply(access_pb2.CheckAccessResponse())]

    with pytest.raises(gatebook_client.MalformedAnswerError):
        await gatebook.check(*QUESTION)


async def test_an_answer_that_is_no_message_is_an_error() -> None:
    """Bytes that do not parse raise, and are not asked for again."""

    async def garbage(_request: bytes, _context: object) -> bytes:
        return b"\xff\xff\xff"

    server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]]
    handlers = {"CheckAccess": grpc.unary_unary_rpc_method_handler(garbage)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("gatebook.v1.AccessService", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with gatebook_client.connect(f"127.0.0.1:{port}") as gatebook:
            with pytest.raises(gatebook_client.MalformedAnswerError):
                await gatebook.check(*QUESTION)
    finally:
        await server.stop(None)


def batch(*results: access_pb2.CheckResult) -> access_pb2.BatchCheckAccessResponse:
    """Returns the answer to a batch."""
    return access_pb2.BatchCheckAccessResponse(results=results)


def result(position: int) -> access_pb2.CheckResult:
    """Returns an allow of one item."""
    return access_pb2.CheckResult(correlation_id=str(position), decision=plain_answer())


@pytest.mark.parametrize(
    "response",
    [batch(), batch(result(0)), batch(result(0), result(1), result(2)), batch(result(1), result(0))],
    ids=["empty", "too short", "too long", "swapped"],
)
async def test_a_batch_of_another_shape_is_an_error(
    access: ScriptedAccess, gatebook: Connection, response: access_pb2.BatchCheckAccessResponse
) -> None:
    """Results that are not those of the items, in order, decide nothing."""
    access.steps = [reply(response)]

    with pytest.raises(gatebook_client.MalformedAnswerError):
        await gatebook.check_many([Check(*QUESTION), Check(*QUESTION)])


async def test_an_error_of_one_item_denies_that_item(access: ScriptedAccess, gatebook: Connection) -> None:
    """The other items keep their decisions; an item without outcome is denied as well."""
    refused = access_pb2.CheckResult(correlation_id="1", error=item_error(3, "INVALID_REQUEST"))
    odd = access_pb2.CheckResult(correlation_id="2")
    fine_code = access_pb2.CheckResult(correlation_id="3", error=item_error(0, "INTERNAL"))
    access.steps = [reply(batch(result(0), refused, odd, fine_code))]
    decisions = await gatebook.check_many(Check(*QUESTION) for _ in range(4))

    assert [True, False, False, False] == [decision.allowed for decision in decisions]
    assert ["ALLOWED", "INVALID_REQUEST", "MALFORMED_ANSWER", "INTERNAL"] == [d.reason for d in decisions]


async def test_no_checks_need_no_call(access: ScriptedAccess, gatebook: Connection) -> None:
    """An empty batch is answered without the service."""
    assert [] == await gatebook.check_many([])
    assert [] == access.requests


async def test_an_unopened_connection_says_so(target: str) -> None:
    """A connection is used inside `async with` only."""
    with pytest.raises(gatebook_client.ConnectionClosedError):
        await gatebook_client.connect(target).check(*QUESTION)


async def test_a_closed_connection_says_so(access: ScriptedAccess, target: str) -> None:
    """After the block every call raises, and does not hang."""
    access.steps = [decide(plain_answer())]
    async with gatebook_client.connect(target) as gatebook:
        await gatebook.check(*QUESTION)

    with pytest.raises(gatebook_client.ConnectionClosedError):
        await gatebook.check(*QUESTION)
    with pytest.raises(gatebook_client.ConnectionClosedError):
        async for _ in gatebook.stream([Check(*QUESTION)]):
            pass


async def test_closing_under_a_call_is_an_error_and_no_cancellation(access: ScriptedAccess, target: str) -> None:
    """A task whose connection closes gets an error; it is not cancelled behind its back."""
    access.steps = [hang]
    async with gatebook_client.connect(target) as gatebook:
        waiting = asyncio.create_task(gatebook.check(*QUESTION))
        await access.asked.wait()

    with pytest.raises(gatebook_client.ConnectionClosedError):
        await waiting


async def test_a_cancelled_task_is_cancelled(access: ScriptedAccess, gatebook: Connection) -> None:
    """Cancelling the caller's own task stays a cancellation."""
    access.steps = [hang]
    waiting = asyncio.create_task(gatebook.check(*QUESTION))
    await access.asked.wait()
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_entries_come_page_by_page(audit: ScriptedAudit, gatebook: Connection) -> None:
    """All pages are read, with the same filter and order, until there is none."""
    record = audit_pb2.EntryRecord
    audit.pages = [
        audit_pb2.ListEntriesResponse(entries=[record(index=2), record(index=1)], next_page_token=PAGE),
        audit_pb2.ListEntriesResponse(entries=[record(index=0)]),
    ]
    found = [entry.index async for entry in gatebook.entries(subject_id="farah", effect="deny")]

    assert [2, 1, 0] == found
    assert ["", PAGE] == [request.page_token for request in audit.requests]
    assert [("farah", types_pb2.EFFECT_DENY)] * 2 == [(r.filter.subject_id, r.filter.effect) for r in audit.requests]


async def test_pages_that_lead_nowhere_are_an_error(audit: ScriptedAudit, gatebook: Connection) -> None:
    """A page that names itself as the next ends in an error, not in an endless list."""
    audit.pages = [audit_pb2.ListEntriesResponse(next_page_token=PAGE) for _ in range(3)]

    with pytest.raises(gatebook_client.MalformedAnswerError):
        _ = [entry async for entry in gatebook.entries()]
