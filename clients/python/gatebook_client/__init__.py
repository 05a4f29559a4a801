"""The client of Gatebook: asks the gate, reads the book, applies decisions, verifies proofs.

    async with gatebook_client.connect() as gatebook:
        decision = await gatebook.check("farah", "read", "mci.prompts", columns=["prompt_text"], purpose="security")
        if decision.allowed: ...

Promises: every call has a deadline; whatever is not a well-formed, unexpired allow that this client
understands to the last enum value is a denial or a `GatebookClientError`.
"""

from __future__ import annotations

import grpc

from gatebook_client.asking import Asking, OnError, Terms
from gatebook_client.blocking import BlockingConnection
from gatebook_client.connection import Connection
from gatebook_client.decision import Decision
from gatebook_client.enforce import EnforcementError, enforce, supported_masks, supported_obligations
from gatebook_client.errors import (
    ConnectionClosedError,
    DeadlineError,
    GatebookClientError,
    InsecureTargetError,
    MalformedAnswerError,
    OverloadedError,
    RejectedError,
    ServiceFaultError,
    UnavailableError,
    Violation,
)
from gatebook_client.groups import aggregate
from gatebook_client.question import Action, Check, Enforcer, Resource, Subject
from gatebook_client.retry import RetryPolicy
from gatebook_client.target import CHANNEL_OPTIONS, choose_target

__all__ = [
    "Action",
    "BlockingConnection",
    "Check",
    "Connection",
    "ConnectionClosedError",
    "DeadlineError",
    "Decision",
    "EnforcementError",
    "Enforcer",
    "GatebookClientError",
    "InsecureTargetError",
    "MalformedAnswerError",
    "OverloadedError",
    "RejectedError",
    "Resource",
    "RetryPolicy",
    "ServiceFaultError",
    "Subject",
    "UnavailableError",
    "Violation",
    "aggregate",
    "connect",
    "connect_blocking",
    "enforce",
]

TIMEOUT_SECONDS = 2.0


def connect(
    target: str | None = None,
    *,
    policy_set: str = "",
    enforcer: str | Enforcer = "",
    timeout_seconds: float = TIMEOUT_SECONDS,
    retries: RetryPolicy | None = None,
    on_error: OnError = "raise",
    coalesce: bool = True,
) -> Connection:
    """Returns a connection for asyncio; open it with `async with`.

    Args:
        target: `host:port` on loopback; None means `GATEBOOK_TARGET`, else 127.0.0.1:7443.
        policy_set: the policy set that decides; empty when the service serves exactly one.
        enforcer: the id of this application as an enforcer. Name it only if results go through
            `Decision.enforce` or `Decision.aggregate`: it declares what those can apply. Pass an
            `Enforcer` to declare something else. Without one, an allow with obligations is denied.
        timeout_seconds: the deadline of every call, retries included.
        retries: how often to try again; `RetryPolicy(attempts_max=1)` means never.
        on_error: `raise` an error, or return a denial that carries it (`deny`).
        coalesce: send the checks that are asked at the same time together; one that is alone goes out at once
            either way. False gives every check a call of its own.

    Raises:
        InsecureTargetError: the target is not on this machine.
        ValueError: another argument could not be meant.
    """
    asking, terms = _prepare(policy_set, enforcer, timeout_seconds, retries, on_error)
    return Connection(choose_target(target), asking, terms, coalesce=coalesce)


def connect_blocking(
    target: str | None = None,
    *,
    policy_set: str = "",
    enforcer: str | Enforcer = "",
    timeout_seconds: float = TIMEOUT_SECONDS,
    retries: RetryPolicy | None = None,
    on_error: OnError = "raise",
) -> BlockingConnection:
    """Returns a blocking connection; close it with `with`. The arguments are those of `connect`.

    Each `check` is a call of its own: to gather those of many threads would cost each a hand-over to another
    thread. Use `check_many` or `stream` where many are asked at once.
    """
    asking, terms = _prepare(policy_set, enforcer, timeout_seconds, retries, on_error)
    channel = grpc.insecure_channel(choose_target(target), options=CHANNEL_OPTIONS)
    return BlockingConnection(channel, asking, terms)


def _prepare(
    policy_set: str, enforcer: str | Enforcer, timeout_seconds: float, retries: RetryPolicy | None, on_error: OnError
) -> tuple[Asking, Terms]:
    """Builds what both connections share. Who names no enforcer declares nothing."""
    declared = enforcer if isinstance(enforcer, Enforcer) else Enforcer()
    if isinstance(enforcer, str) and enforcer:
        declared = Enforcer(enforcer, frozenset(supported_masks()), frozenset(supported_obligations()))
    terms = Terms(timeout_seconds, RetryPolicy() if retries is None else retries, on_error)
    return Asking.of(policy_set, declared), terms
