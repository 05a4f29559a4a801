"""Plans of the client: against the real service and a real DuckDB, and against a service that lies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import pytest
from google.protobuf import json_format
from tests.plan_cases import TABLE, answer
from tests.scripted_service import ScriptedAccess, fail, reply
from tests.scripted_service import serving as scripted
from tests.serving import POLICIES, RunningServer, serving

import gatebook_client
from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import types_pb2
from gatebook_client import EnforcementError, Enforcer, Plan, RejectedError, RetryPolicy, UnavailableError

DAILY = ("kai", "read", "ai_usage.team_daily")
DASHBOARD = "adoption_visualisation.team_dashboard"
TIMEOUT_SECONDS = 30.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of the telemetry set, and of one without a catalogue."""
    with serving(tmp_path_factory.mktemp("planning"), [POLICIES / "telemetry", POLICIES / "basic"]) as running:
        yield running


def connect(server: RunningServer, **terms: Any) -> gatebook_client.BlockingConnection:  # noqa: ANN401  # as `connect`
    """Returns a blocking connection for the telemetry set."""
    settings: dict[str, Any] = {
        "policy_set": "telemetry",
        "enforcer": "report",
        "timeout_seconds": TIMEOUT_SECONDS,
    } | terms
    return gatebook_client.connect_blocking(server.target, **settings)


def test_both_clients_get_the_same_plan(server: RunningServer) -> None:
    """Blocking or not: the same decision, the same statement, each with its own entry; and the engine runs it."""
    columns = ["day", "team_id", "tokens_total"]

    async def ask() -> Plan:
        async with gatebook_client.connect(server.target, policy_set="telemetry", enforcer="report") as gatebook:
            return await gatebook.plan(
                *DAILY, dialect="duckdb", columns=columns, purpose=DASHBOARD, timeout_seconds=TIMEOUT_SECONDS
            )

    with connect(server) as gatebook:
        blocking = gatebook.plan(*DAILY, dialect="duckdb", columns=columns, purpose=DASHBOARD)
    plan = asyncio.run(ask())

    assert (True, "ALLOWED", tuple(columns)) == (bool(plan), plan.reason, plan.columns)
    assert plan.select().sql == blocking.select().sql
    receipts = [plan.decision.receipt, blocking.decision.receipt]
    assert 2 == len({receipt.index for receipt in receipts if receipt is not None})
    with duckdb.connect() as store:
        store.execute(
            "CREATE SCHEMA ai_usage; CREATE TABLE ai_usage.team_daily (day DATE, team_id TEXT, tokens_total INT)"
        )
        store.execute("INSERT INTO ai_usage.team_daily VALUES ('2026-06-18', 'aster', 7)")
        assert [("aster", 7)] == [row[1:] for row in store.execute(*blocking.select()).fetchall()]


def test_a_denial_is_a_plan_that_selects_nothing(server: RunningServer) -> None:
    """A denied plan is falsy, says why, stands in the book, and makes no statement."""
    with connect(server) as gatebook:
        plan = gatebook.plan("omar", "read", "mci.prompts", dialect="duckdb", purpose="model_training")

    assert (False, "DENIED_BY_RULE", ()) == (bool(plan), plan.reason, plan.columns)
    assert plan.decision.receipt is not None
    with pytest.raises(EnforcementError, match="no allow") as refused:
        plan.select()
    assert plan.message
    assert plan.message in refused.value.message


def test_who_declares_nothing_gets_no_plan_with_obligations(server: RunningServer) -> None:
    """Without an enforcer, or with one that cannot select rows, what needs it is denied."""
    question: dict[str, Any] = {"dialect": "duckdb", "columns": ["ts"], "purpose": "subject_access"}
    for enforcer in ("", Enforcer("report")):
        with connect(server, enforcer=enforcer) as gatebook:
            plan = gatebook.plan("noor", "read", "ai_usage.token_usage", **question)
        assert not plan
        with pytest.raises(EnforcementError):
            plan.select()


@pytest.mark.parametrize("dialect", ["", "DuckDB", "mysql", "duckdb; DROP TABLE t"])
def test_a_dialect_that_nobody_writes_is_refused_before_anybody_is_asked(server: RunningServer, dialect: Any) -> None:  # noqa: ANN401  # not a name of a dialect
    """The client knows the dialects that it can read, and names them."""
    with connect(server) as gatebook, pytest.raises(ValueError, match=r"none of .*duckdb.*postgres.*spark.*trino"):
        gatebook.plan(*DAILY, dialect=dialect)


def test_a_set_without_a_catalogue_has_no_plans(server: RunningServer) -> None:
    """A plain set has no rows to plan for, and says so."""
    with connect(server, policy_set="basic") as gatebook, pytest.raises(RejectedError, match="no catalogue"):
        gatebook.plan("alice", "read", "report:weekly", dialect="duckdb")


@pytest.mark.parametrize(
    "hostile",
    [
        "x' OR '1'='1",
        'x" OR "1"="1',
        "$1; DROP TABLE t --",
        ":p1",
        "?",
        "%s",
        "a\\' OR 1=1 --",
        "\u202egnirts",
        "a\tb\r\nc",
        "😀" * 10,
        "x" * 200,
    ],
)
def test_what_a_caller_says_stays_a_value(server: RunningServer, hostile: str) -> None:
    """Whatever stands in a question, the statement is that of a question without it, or there is none."""
    with connect(server) as gatebook:
        honest = gatebook.plan(*DAILY, dialect="duckdb", columns=["day"], purpose=DASHBOARD).select()
        context = {"network": hostile, hostile: hostile}
        asked: list[Callable[[], Plan]] = [
            lambda: gatebook.plan(*DAILY, dialect="duckdb", columns=["day"], purpose=DASHBOARD, context=context),
            lambda: gatebook.plan(hostile, "read", "ai_usage.team_daily", dialect="duckdb", purpose=DASHBOARD),
            lambda: gatebook.plan("kai", "read", hostile, dialect="duckdb", purpose=DASHBOARD),
            lambda: gatebook.plan("kai", hostile, "ai_usage.team_daily", dialect="duckdb", purpose=DASHBOARD),
            lambda: gatebook.plan(*DAILY, dialect="duckdb", purpose=hostile),
            lambda: gatebook.plan(*DAILY, dialect="duckdb", columns=[hostile], purpose=DASHBOARD),
        ]
        for ask in asked:
            try:
                plan = ask()
            except RejectedError:
                continue
            if plan:
                assert tuple(honest) == tuple(plan.select())


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x" * 100_000])
def test_what_no_text_can_hold_is_refused(server: RunningServer, text: str) -> None:
    """A NUL, half a character and what is too long are refused by the client or the service, or denied."""
    questions: list[dict[str, Any]] = [{"columns": [text]}, {"purpose": text}, {"context": {"network": text}}]
    for question in questions:
        with connect(server) as gatebook:
            try:
                plan = gatebook.plan(*DAILY, dialect="duckdb", **{"purpose": DASHBOARD, **question})
            except (gatebook_client.GatebookClientError, ValueError):
                continue
            assert not plan or set(question) == {"context"}


async def lied_to(response: pb.PlanAccessResponse | None, **question: Any) -> Plan:  # noqa: ANN401  # as `plan`
    """Returns what the client makes of an answer of a service that lies."""
    service = ScriptedAccess()
    service.steps.append(reply(response))
    async with scripted(service) as target, gatebook_client.connect(target, enforcer="report") as gatebook:
        terms: dict[str, Any] = {"dialect": "duckdb", "columns": TABLE["asked"]["columns"]} | question
        return await gatebook.plan("ana", "read", "mci.keystroke_events", **terms)


async def test_the_answer_of_the_table_comes_through() -> None:
    """The good answer of the table makes its statement, also over the wire."""
    plan = await lied_to(answer())

    assert ["ana", 3] == plan.select().parameters


@pytest.mark.parametrize("case", TABLE["cases"], ids=lambda case: case["name"])
async def test_a_service_that_lies_is_not_believed(case: dict[str, Any]) -> None:
    """Every case of the table makes no statement, also over the wire."""
    plan = await lied_to(answer(case["change"]))

    assert not plan
    with pytest.raises(EnforcementError):
        plan.select()


@pytest.mark.parametrize("dialect", ["postgres", "spark", "trino"])
async def test_an_answer_in_another_dialect_is_not_believed(dialect: str) -> None:
    """SQL for DuckDB is none for an engine that reads it in another way."""
    assert not await lied_to(answer(), dialect=dialect)


async def test_an_answer_without_a_decision_is_none() -> None:
    """An answer that holds no decision, or is no message, is an error."""
    for response in (pb.PlanAccessResponse(), None):
        with pytest.raises(gatebook_client.GatebookClientError):
            await lied_to(response)


async def test_an_error_may_be_a_plan_that_allows_nothing() -> None:
    """With `on_error="deny"` a failure is a plan that carries it and selects nothing; else it is raised."""
    service = ScriptedAccess()
    service.steps.append(fail({"code": "UNAVAILABLE", "reason": "BOOK_UNAVAILABLE"}))
    once = RetryPolicy(attempts_max=1)
    async with scripted(service) as target:
        async with gatebook_client.connect(target, retries=once) as gatebook:
            with pytest.raises(UnavailableError):
                await gatebook.plan(*DAILY, dialect="duckdb")
        async with gatebook_client.connect(target, retries=once, on_error="deny") as gatebook:
            plan = await gatebook.plan(*DAILY, dialect="duckdb")

    assert (False, "BOOK_UNAVAILABLE") == (bool(plan), plan.reason)
    with pytest.raises(EnforcementError):
        plan.select()


async def test_a_plan_declares_what_its_statements_do() -> None:
    """Who names an enforcer declares row filters for plans alone, and never a mask that no SQL can be."""
    service = ScriptedAccess()
    service.steps.append(reply(answer()))
    async with scripted(service) as target, gatebook_client.connect(target, enforcer="report") as gatebook:
        await gatebook.plan("ana", "read", "mci.keystroke_events", dialect="duckdb", columns=TABLE["asked"]["columns"])
    [request] = service.requests
    declared = request.access.enforcer

    assert "report" == declared.id
    assert types_pb2.OBLIGATION_KIND_ROW_FILTER in declared.supported_obligations
    assert types_pb2.OBLIGATION_KIND_CONSENT not in declared.supported_obligations
    assert types_pb2.MASK_KIND_CUSTOM not in declared.supported_masks
    assert "duckdb" == json_format.MessageToDict(request)["dialect"]
