"""How checks become requests and responses become decisions.

Owns the wire side of asking that the asyncio and the blocking client share; it does no I/O. Rules:

1. every request declares what the application enforces; without an enforcer, nothing;
2. a response that is not an answer to exactly what was asked raises `MalformedAnswerError`;
3. an item error of a batch or stream concerns that item alone: its decision is a denial with `error`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

from gatebook.v1 import access_service_pb2 as access_pb2
from gatebook.v1 import types_pb2
from gatebook_client.credentials import TokenSource
from gatebook_client.decision import Decision, clock, denied_by, read_decision
from gatebook_client.doubts import Asked
from gatebook_client.errors import GatebookClientError, MalformedAnswerError, from_status, without_position
from gatebook_client.question import RECEIPT_LEVELS, Check, Enforcer, ReceiptName, access_request
from gatebook_client.retry import RetryPolicy

OnError = Literal["raise", "deny"]
REQUEST_ID_BYTES = 8


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of every call of one connection: its deadline, its retries, what errors become, and its token."""

    timeout_seconds: float = 2.0
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    on_error: OnError = "raise"
    token: TokenSource | None = None

    def __post_init__(self) -> None:
        """Refuses terms that could not be meant."""
        if not self.timeout_seconds > 0:
            raise ValueError(f"timeout_seconds: `{self.timeout_seconds}` is not more than 0")
        if self.on_error not in ("raise", "deny"):
            raise ValueError(f"on_error: `{self.on_error}` is neither `raise` nor `deny`")


@dataclass(frozen=True, slots=True)
class Asking:
    """Builds requests for one policy set and enforcer, and reads their responses.

    `planner` says what the application does by running the SQL of plans, which may be more than it does to rows.
    """

    policy_set: str
    enforcer: Enforcer
    declared: types_pb2.Enforcer
    planner: Enforcer

    @classmethod
    def of(cls, policy_set: str, enforcer: Enforcer, planner: Enforcer | None = None) -> Self:
        """Takes the policy set (empty when the service serves exactly one) and what is enforced."""
        return cls(policy_set, enforcer, enforcer_message(enforcer), enforcer if planner is None else planner)

    def check_request(
        self, check: Check, *, at_least: int, explain: bool, receipt: ReceiptName
    ) -> tuple[access_pb2.CheckAccessRequest, Asked]:
        """Returns the request for one check, and what its answer has to fit."""
        request = access_pb2.CheckAccessRequest(
            request_id=new_request_id(),
            policy_set=self.policy_set,
            access=access_request(check, self.declared),
            allow_partial=check.allow_partial,
            at_least=at_least,
            explain=explain,
            receipt_level=receipt_level(receipt),
        )
        return request, self.asked(check, receipt)

    def batch_request(
        self, checks: Sequence[Check], *, at_least: int, receipt: ReceiptName
    ) -> tuple[access_pb2.BatchCheckAccessRequest, list[Asked]]:
        """Returns the request for many checks, and what each answer has to fit."""
        request = access_pb2.BatchCheckAccessRequest(
            request_id=new_request_id(),
            policy_set=self.policy_set,
            items=[self.item(check, str(position)) for position, check in enumerate(checks)],
            at_least=at_least,
            receipt_level=receipt_level(receipt),
        )
        return request, [self.asked(check, receipt) for check in checks]

    def item(self, check: Check, correlation_id: str) -> access_pb2.CheckItem:
        """Returns one item of a batch or stream."""
        return access_pb2.CheckItem(
            correlation_id=correlation_id,
            access=access_request(check, self.declared),
            allow_partial=check.allow_partial,
        )

    def asked(self, check: Check, receipt: ReceiptName = "basic") -> Asked:
        """Returns what the answer to a check has to fit."""
        return Asked(
            columns=tuple(check.columns),
            row=None if check.row is None else dict(check.row),
            allow_partial=check.allow_partial,
            masks=self.enforcer.masks,
            obligations=self.enforcer.obligations,
            receipt=receipt_level(receipt),
            sent_clock=clock(),
        )


def enforcer_message(enforcer: Enforcer) -> types_pb2.Enforcer:
    """Returns what an enforcer declares as a message."""
    return types_pb2.Enforcer(
        id=enforcer.id,
        supported_masks=[types_pb2.MaskKind.ValueType(kind) for kind in sorted(enforcer.masks)],
        supported_obligations=[types_pb2.ObligationKind.ValueType(kind) for kind in sorted(enforcer.obligations)],
    )


def read_check(response: access_pb2.CheckAccessResponse, asked: Asked) -> Decision:
    """Reads the answer to one check."""
    if not response.HasField("decision"):
        raise MalformedAnswerError("the answer holds no decision")
    explanation = response.explanation if response.HasField("explanation") else None
    return read_decision(response.decision, asked, explanation)


def read_batch(response: access_pb2.BatchCheckAccessResponse, asked: Sequence[Asked]) -> list[Decision]:
    """Reads the answers to a batch: as many as were asked for, in order."""
    results = response.results
    if len(results) != len(asked):
        raise MalformedAnswerError(f"the answer holds {len(results)} results for {len(asked)} checks")
    for position, result in enumerate(results):
        if result.correlation_id != str(position):
            raise MalformedAnswerError(f"result {position} answers check `{result.correlation_id}`")
    return [read_result(result, one) for result, one in zip(results, asked, strict=True)]


def read_result(result: access_pb2.CheckResult, asked: Asked) -> Decision:
    """Reads the answer to one item of a batch or stream."""
    match result.WhichOneof("outcome"):
        case "decision":
            return read_decision(result.decision, asked)
        case "error":
            return denied_by(from_status(result.error))
        case _:
            return denied_by(MalformedAnswerError("the result holds neither a decision nor an error"))


def read_outcomes(
    response: access_pb2.BatchCheckAccessResponse | None, correlation_ids: Sequence[str]
) -> list[types_pb2.Decision | GatebookClientError]:
    """Reads what became of each item of a batch: its decision, or the error that the check alone would have got.

    Each decision is a message of its own, which does not keep those of the others in memory.

    Raises:
        MalformedAnswerError: the answer is not one result for each item, in order; nothing of it counts.
    """
    # grpc.aio gives None for bytes that do not parse.
    if response is None:
        raise MalformedAnswerError("the answer is not a message of the service")
    results = response.results
    if len(results) != len(correlation_ids):
        raise MalformedAnswerError(f"the answer holds {len(results)} results for {len(correlation_ids)} checks")
    found: list[types_pb2.Decision | GatebookClientError] = []
    for position, (result, correlation_id) in enumerate(zip(results, correlation_ids, strict=True)):
        if result.correlation_id != correlation_id:
            raise MalformedAnswerError(f"result {position} answers another check")
        match result.WhichOneof("outcome"):
            case "decision":
                decision = types_pb2.Decision()
                decision.CopyFrom(result.decision)
                found.append(decision)
            case "error":
                found.append(without_position(from_status(result.error), f"items[{position}]."))
            case _:
                found.append(MalformedAnswerError("the result holds neither a decision nor an error"))
    return found


def new_request_id() -> str:
    """Returns a random id; every attempt of one call carries the same."""
    return os.urandom(REQUEST_ID_BYTES).hex()


def receipt_level(receipt: ReceiptName) -> types_pb2.ReceiptLevel.ValueType:
    """Returns the level of a receipt by name."""
    if receipt not in RECEIPT_LEVELS:
        raise ValueError(f"receipt: `{receipt}` is none of {', '.join(f'`{name}`' for name in RECEIPT_LEVELS)}")
    return RECEIPT_LEVELS[receipt]
