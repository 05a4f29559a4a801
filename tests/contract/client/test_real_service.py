"""The client against the real service: a plain set that nobody prepared for it, on a port of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serving import POLICIES, RunningServer, serving

import gatebook_client
from gatebook.v1 import entry_pb2
from gatebook_client import BlockingConnection, Check, Connection, RetryPolicy
from gatebook_client.verify import (
    proof_file,
    verify_consistency,
    verify_inclusion,
    verify_proof_file,
    verify_receipt,
)

ALLOWED = ("alice", "read", "report:weekly")
DENIED = ("carol", "read", "report:incidents")
TIMEOUT_SECONDS = 30.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of the plain set."""
    with serving(tmp_path_factory.mktemp("client"), [POLICIES / "basic"]) as running:
        yield running


@pytest.fixture
async def gatebook(server: RunningServer) -> AsyncIterator[Connection]:
    """A connection for asyncio."""
    async with gatebook_client.connect(server.target, timeout_seconds=TIMEOUT_SECONDS) as connection:
        yield connection


@pytest.fixture
def blocking(server: RunningServer) -> Iterator[BlockingConnection]:
    """A blocking connection."""
    with gatebook_client.connect_blocking(server.target, timeout_seconds=TIMEOUT_SECONDS) as connection:
        yield connection


def mixed(count: int) -> list[Check]:
    """Returns checks of which every other is allowed."""
    return [Check(*(DENIED if number % 2 else ALLOWED)) for number in range(count)]


async def test_both_clients_get_the_same_answers(gatebook: Connection, blocking: BlockingConnection) -> None:
    """One by one, in a batch and in a stream, blocking or not: the same decisions and reasons."""
    checks = mixed(6)
    expected = [(True, "ALLOWED"), (False, "DENIED_BY_RULE")] * 3
    one_by_one = [await gatebook.check(c.subject, c.action, c.resource) for c in checks]
    streamed = {id(check): decision async for check, decision in gatebook.stream(checks)}
    ways = {
        "one by one": one_by_one,
        "batch": await gatebook.check_many(checks),
        "stream": [streamed[id(check)] for check in checks],
        "blocking": [blocking.check(c.subject, c.action, c.resource) for c in checks],
        "blocking batch": blocking.check_many(checks),
    }
    blocking_stream = {id(check): decision for check, decision in blocking.stream(checks)}
    ways["blocking stream"] = [blocking_stream[id(check)] for check in checks]

    assert dict.fromkeys(ways, expected) == {
        way: [(decision.allowed, decision.reason) for decision in decisions] for way, decisions in ways.items()
    }


async def test_a_long_stream_is_answered_whole(gatebook: Connection) -> None:
    """Two thousand checks in one stream have two thousand decisions, each in the book at a place of its own."""
    checks = mixed(2_000)
    found = [(check, decision) async for check, decision in gatebook.stream(checks)]

    assert [check.subject == "alice" for check, _ in found] == [decision.allowed for _, decision in found]
    assert len(checks) == len({decision.raw.receipt.index for _, decision in found})


def test_a_denial_names_its_rule(blocking: BlockingConnection) -> None:
    """The rule that denied comes with file, line and text."""
    (rule,) = blocking.check(*DENIED).rules

    assert ("policy.csv", "p, role:contractor, report:incidents, read, deny") == (rule.file, rule.text)


def test_a_denial_explains_itself_when_asked(blocking: BlockingConnection) -> None:
    """With `explain` the nearest rule and what it lacked come along; without, nothing does."""
    question = ("bob", "write", "report:weekly")
    explained = blocking.check(*question, explain=True)

    assert "p, role:editor, report:weekly, write, allow" in [near.rule.text for near in explained.near_rules]
    assert all(near.lacked for near in explained.near_rules)
    assert () == blocking.check(*question).near_rules


async def test_an_error_of_one_item_denies_that_item(gatebook: Connection) -> None:
    """An empty subject in a batch is refused, and its neighbours are decided."""
    decisions = await gatebook.check_many([Check(*ALLOWED), Check("", "read", "report:weekly"), Check(*ALLOWED)])

    assert ["ALLOWED", "INVALID_REQUEST", "ALLOWED"] == [decision.reason for decision in decisions]
    assert isinstance(decisions[1].error, gatebook_client.RejectedError)


async def test_refusals_name_reason_and_field(gatebook: Connection, server: RunningServer) -> None:
    """What the service refuses arrives as a RejectedError with its reason."""
    async with gatebook_client.connect(server.target, policy_set="nobody's") as other:
        with pytest.raises(gatebook_client.RejectedError) as missing:
            await other.check(*ALLOWED)
    with pytest.raises(gatebook_client.RejectedError) as empty:
        await gatebook.check("", "read", "report:weekly")
    with pytest.raises(gatebook_client.RejectedError) as early:
        await gatebook.check(*ALLOWED, at_least=1_000)
    with pytest.raises(gatebook_client.RejectedError) as large:
        await gatebook.check_many(mixed(1_001))

    assert ["POLICY_SET_NOT_FOUND", "INVALID_REQUEST", "REVISION_NOT_ACTIVE", "LIMIT_EXCEEDED"] == [
        caught.value.reason for caught in (missing, empty, early, large)
    ]
    assert ["access.subject.id"] == [violation.field for violation in empty.value.violations]


async def test_a_receipt_leads_to_a_proof(gatebook: Connection) -> None:
    """A full receipt verifies, its entry is proved to be in the book, and the book only grows."""
    before = await gatebook.checkpoint(refresh=True)
    key = before.verifier_key
    for question in (ALLOWED, DENIED):
        decision = await gatebook.check(*question, receipt="full")
        assert decision.receipt is not None
        entry = verify_receipt(decision, key)
        assert entry_pb2.ENTRY_KIND_DECISION == entry.kind
        after = await gatebook.checkpoint(refresh=True)
        index, leaf_hash = decision.receipt.index, decision.receipt.leaf_hash
        proof = await gatebook.inclusion_proof(index)
        assert verify_inclusion(leaf_hash, index, proof, key).size >= after.size
        assert verify_proof_file(proof_file(proof), decision.receipt.entry_bytes, key).size >= after.size
        grown = await gatebook.consistency_proof(before.size)
        assert verify_consistency(before.checkpoint, grown, key).size >= after.size


async def test_the_book_is_read_page_by_page(gatebook: Connection) -> None:
    """Every decision just made is found by filter, newest first, over several pages, and by its id."""
    checks = [Check("erin", "read", "report:weekly") for _ in range(7)]
    decisions = await gatebook.check_many(checks)
    entries = [entry async for entry in gatebook.entries(subject_id="erin", kind="decision", page_size=3)]
    by_id = await gatebook.entry(decision_id=decisions[0].decision_id)

    assert [d.decision_id for d in reversed(decisions)] == [e.entry.decision.decision_id for e in entries]
    assert decisions[0].raw.receipt.index == by_id.index
    assert decisions[0].raw.receipt.leaf_hash == by_id.leaf_hash


async def test_a_restarted_service_is_found_again(tmp_path: Path) -> None:
    """While the service is dead every check is an error; when it is back the same connection is answered."""
    retries = RetryPolicy(attempts_max=200, budget_max=1_000)
    data = tmp_path / "data"
    with serving(data, [POLICIES / "basic"]) as first:
        target = first.target
        async with gatebook_client.connect(target, timeout_seconds=TIMEOUT_SECONDS, retries=retries) as gatebook:
            kept = await gatebook.check(*ALLOWED, receipt="full")
            first.kill()
            with pytest.raises(gatebook_client.GatebookClientError):
                await gatebook.check(*ALLOWED, timeout_seconds=0.2)
            with serving(data, [], "--listen", target):
                assert await gatebook.check(*ALLOWED)
                assert kept.receipt is not None
                found = await gatebook.entry(kept.receipt.index)

    assert (kept.receipt.leaf_hash, kept.receipt.entry_bytes) == (found.leaf_hash, found.entry_bytes)


SUBJECTS = st.sampled_from(["alice", "bob", "carol", "nobody", "", "x" * 300, "con\x00trol", ("service", "svc-train")])
CHECKS = st.builds(
    Check,
    SUBJECTS,
    st.sampled_from(["read", "write", "", "read" * 100]),
    st.sampled_from(["report:weekly", "report:incidents", "", "y" * 600]),
    context=st.none() | st.just({"network": "corp"}) | st.just({"deep": [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}),
)


async def outcome(gatebook: Connection, check: Check) -> object:
    """Returns all that a caller learns of a check, whatever became of it, but what is new each time."""
    try:
        decision = await gatebook.check(check.subject, check.action, check.resource, context=check.context)
    except gatebook_client.GatebookClientError as error:
        return type(error), error.reason, str(error), dict(error.metadata), error.violations, error.retry_seconds
    return decision.allowed, decision.reason, decision.message, decision.rules, decision.policy_revision


@given(st.lists(CHECKS, min_size=2, max_size=20))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_checks_in_company_are_answered_as_alone(server: RunningServer, checks: list[Check]) -> None:
    """Decisions, and errors to the last field, are the same whether a check is coalesced with others or not."""

    async def both() -> None:
        async with (
            gatebook_client.connect(server.target, timeout_seconds=TIMEOUT_SECONDS) as together,
            gatebook_client.connect(server.target, timeout_seconds=TIMEOUT_SECONDS, coalesce=False) as alone,
        ):
            found = await asyncio.gather(*(outcome(together, check) for check in checks))
            assert [await outcome(alone, check) for check in checks] == found

    asyncio.run(both())


async def test_coalesced_checks_are_each_in_the_book(gatebook: Connection) -> None:
    """Three hundred tasks have three hundred entries, at places of their own, each with its own subject."""
    subjects = [f"someone{number}" for number in range(300)]
    decisions = await asyncio.gather(*(gatebook.check(name, "read", "report:weekly") for name in subjects))
    entries = {entry.index: entry async for entry in gatebook.entries(resource_id="report:weekly", page_size=1_000)}

    found = [entries[decision.raw.receipt.index] for decision in decisions]
    assert [d.decision_id for d in decisions] == [entry.entry.decision.decision_id for entry in found]
    assert len(subjects) == len({decision.raw.receipt.index for decision in decisions})
