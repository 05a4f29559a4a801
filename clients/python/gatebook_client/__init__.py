"""The client of Gatebook: asks the gate, reads the book, applies decisions, verifies proofs.

    async with gatebook_client.connect() as gatebook:
        decision = await gatebook.check("farah", "read", "mci.prompts", columns=["prompt_text"], purpose="security")
        if decision.allowed: ...

Promises: every call has a deadline; whatever is not a well-formed, unexpired allow that this client
understands to the last enum value is a denial or a `GatebookClientError`.
"""

from __future__ import annotations

from gatebook_client.asking import Asking, OnError, Terms
from gatebook_client.blocking import BlockingConnection
from gatebook_client.connection import Connection
from gatebook_client.credentials import Tls, TokenSource, token_file, token_of_environment
from gatebook_client.decision import Decision
from gatebook_client.enforce import EnforcementError, enforce, supported_masks, supported_obligations
from gatebook_client.errors import (
    ConnectionClosedError,
    CredentialsError,
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
from gatebook_client.plan import PLANNED_MASKS, PLANNED_OBLIGATIONS, Plan
from gatebook_client.question import Action, Check, Enforcer, Resource, Subject
from gatebook_client.retry import RetryPolicy
from gatebook_client.statement import Statement
from gatebook_client.target import choose_target, open_channel_blocking

__all__ = [
    "Action",
    "BlockingConnection",
    "Check",
    "Connection",
    "ConnectionClosedError",
    "CredentialsError",
    "DeadlineError",
    "Decision",
    "EnforcementError",
    "Enforcer",
    "GatebookClientError",
    "InsecureTargetError",
    "MalformedAnswerError",
    "OverloadedError",
    "Plan",
    "RejectedError",
    "Resource",
    "RetryPolicy",
    "ServiceFaultError",
    "Statement",
    "Subject",
    "Tls",
    "UnavailableError",
    "Violation",
    "aggregate",
    "connect",
    "connect_blocking",
    "enforce",
    "token_file",
]

TIMEOUT_SECONDS = 2.0


def connect(  # noqa: PLR0913  # one argument per setting, by keyword
    target: str | None = None,
    *,
    policy_set: str = "",
    enforcer: str | Enforcer = "",
    timeout_seconds: float = TIMEOUT_SECONDS,
    retries: RetryPolicy | None = None,
    on_error: OnError = "raise",
    coalesce: bool = True,
    tls: Tls | None = None,
    token: TokenSource | None = None,
) -> Connection:
    """Returns a connection for asyncio; open it with `async with`.

    Args:
        target: `host:port`; None means `GATEBOOK_TARGET`, else 127.0.0.1:7443.
        policy_set: the policy set that decides; empty when the service serves exactly one.
        enforcer: the id of this application as an enforcer. Name it only if results go through
            `Decision.enforce` or `Decision.aggregate`, or are read with the statements of a `Plan`: it declares
            what those can apply. Pass an `Enforcer` to declare something else. Without one, an allow with
            obligations is denied.
        timeout_seconds: the deadline of every call, retries included.
        retries: how often to try again; `RetryPolicy(attempts_max=1)` means never.
        on_error: `raise` an error, or return a denial that carries it (`deny`).
        tls: how to recognise the service, and the certificate to show; None means what `GATEBOOK_TLS_CA`,
            `GATEBOOK_TLS_CERT` and `GATEBOOK_TLS_KEY` name, else plain text, which goes to loopback only.
        token: the token to show, or what gives a fresh one for each call; None means the content of the file
            `GATEBOOK_TOKEN_FILE`, else none.
        coalesce: send the checks that are asked at the same time together; one that is alone goes out at once
            either way. False gives every check a call of its own.

    Raises:
        InsecureTargetError: the target is not on this machine, and `tls` is not given.
        ValueError: another argument could not be meant.
    """
    tls = tls or Tls.of_environment()
    asking, terms = _prepare(policy_set, enforcer, timeout_seconds, retries, on_error, token)
    return Connection(choose_target(target, encrypted=tls is not None), asking, terms, tls=tls, coalesce=coalesce)


def connect_blocking(
    target: str | None = None,
    *,
    policy_set: str = "",
    enforcer: str | Enforcer = "",
    timeout_seconds: float = TIMEOUT_SECONDS,
    retries: RetryPolicy | None = None,
    on_error: OnError = "raise",
    tls: Tls | None = None,
    token: TokenSource | None = None,
) -> BlockingConnection:
    """Returns a blocking connection; close it with `with`. The arguments are those of `connect`.

    Each `check` is a call of its own: to gather those of many threads would cost each a hand-over to another
    thread. Use `check_many` or `stream` where many are asked at once.
    """
    tls = tls or Tls.of_environment()
    asking, terms = _prepare(policy_set, enforcer, timeout_seconds, retries, on_error, token)
    channel = open_channel_blocking(choose_target(target, encrypted=tls is not None), tls)
    return BlockingConnection(channel, asking, terms)


def _prepare(
    policy_set: str,
    enforcer: str | Enforcer,
    timeout_seconds: float,
    retries: RetryPolicy | None,
    on_error: OnError,
    token: TokenSource | None,
) -> tuple[Asking, Terms]:
    """Builds what both connections share. Who names no enforcer declares nothing."""
    declared = planner = enforcer if isinstance(enforcer, Enforcer) else Enforcer()
    if isinstance(enforcer, str) and enforcer:
        declared = Enforcer(enforcer, frozenset(supported_masks()), frozenset(supported_obligations()))
        planner = Enforcer(enforcer, PLANNED_MASKS, PLANNED_OBLIGATIONS)
    terms = Terms(
        timeout_seconds, RetryPolicy() if retries is None else retries, on_error, token or token_of_environment()
    )
    return Asking.of(policy_set, declared, planner), terms
