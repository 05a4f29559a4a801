"""Real servers that the contract tests share."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.serving import RunningServer, gatebook, serving
from tests.telemetry_sets import TELEMETRY, telemetry_without_consent

import gatebook_client
from gatebook.v1 import audit_service_pb2, types_pb2
from gatebook_client import BlockingConnection, Decision

ENFORCER = "svc-test"
Ask = Callable[..., Decision]


@pytest.fixture(scope="package")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of the telemetry set as shipped; at its end the copied book must verify."""
    with serving(tmp_path_factory.mktemp("shipped"), [TELEMETRY]) as server:
        yield server
    require_verified(server.data)


@pytest.fixture(scope="package")
def consenting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of the telemetry set in which no purpose needs consent."""
    folder = tmp_path_factory.mktemp("consenting")
    with serving(folder / "data", [telemetry_without_consent(folder)]) as server:
        yield server
    require_verified(server.data)


def require_verified(data: Path) -> None:
    """Verifies a copy of a book with nothing but its verifier key, which the copy of the key file gives."""
    copy = data.parent / f"{data.name}-copy"
    shutil.copytree(data / "book", copy)
    key = (copy / "vkey").read_text().strip()
    verified = gatebook("audit", "verify", str(copy), "--vkey", key)
    assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.fixture
def ask(shipped: RunningServer) -> Iterator[Ask]:
    """Asks the shipped set, and checks that the book says what the answer said."""
    with gatebook_client.connect_blocking(shipped.target, enforcer=ENFORCER) as client:
        yield asking(client)


@pytest.fixture
def ask_consenting(consenting: RunningServer) -> Iterator[Ask]:
    """Asks the set without consent, and checks that the book says what the answer said."""
    with gatebook_client.connect_blocking(consenting.target, enforcer=ENFORCER) as client:
        yield asking(client)


def asking(client: BlockingConnection) -> Ask:
    """Returns `check` of a client, with each answer held against its entry."""

    def ask(*arguments: object, **named: object) -> Decision:
        decision = client.check(*arguments, receipt="full", **named)  # type: ignore[arg-type]  # passed on as they are
        require_written(client, decision)
        return decision

    return ask


def require_written(client: BlockingConnection, decision: Decision) -> None:
    """Holds a decision against its entry in the book."""
    record = client.entry(int(decision.raw.receipt.index))
    assert record.leaf_hash == decision.raw.receipt.leaf_hash
    assert record.entry_bytes == decision.raw.receipt.entry_bytes
    assert told(decision.raw) == written(record)


def told(raw: types_pb2.Decision) -> tuple[object, ...]:
    """Returns what an answer says, for comparison with its entry."""
    columns = tuple((c.effect, c.reason, tuple(m.kind for m in c.masks)) for c in raw.columns)
    return (raw.decision_id, raw.effect, raw.reason, raw.policy_revision.digest, columns, raw.notice_id)


def written(record: audit_service_pb2.EntryRecord) -> tuple[object, ...]:
    """Returns what an entry says, for comparison with the answer."""
    entry = record.entry.decision
    columns = tuple((c.effect, c.reason, tuple(c.masks)) for c in entry.columns)
    return (entry.decision_id, entry.effect, entry.reason, entry.policy_revision.digest, columns, entry.notice_id)
