"""The questions that the benchmarks ask: one for each shipped policy set, each an allow."""

from __future__ import annotations

from dataclasses import dataclass

from gatebook.v1 import access_service_pb2 as pb
from gatebook_client import Check, Enforcer
from gatebook_client.asking import Asking
from gatebook_client.enforce import supported_masks, supported_obligations

ENFORCER = Enforcer("svc-bench", supported_masks(), supported_obligations())


@dataclass(frozen=True, slots=True)
class Question:
    """A check, and in a few words what deciding it takes."""

    title: str
    check: Check

    def check_request(self, policy_set: str) -> pb.CheckAccessRequest:
        """Returns the request of one check."""
        request, _ = Asking.of(policy_set, ENFORCER).check_request(
            self.check, at_least=0, explain=False, receipt="basic"
        )
        return request

    def batch_request(self, policy_set: str, count: int) -> pb.BatchCheckAccessRequest:
        """Returns the request of a batch."""
        request, _ = Asking.of(policy_set, ENFORCER).batch_request([self.check] * count, at_least=0, receipt="basic")
        return request


QUESTIONS = {
    "basic": Question("3 tokens, roles", Check("alice", "read", "report:weekly")),
    "telemetry": Question(
        "3 columns, 1 mask, 1 minimum group",
        Check(
            "fiona",
            "read",
            "ai_usage.token_usage",
            columns=("subject_id", "tokens_in", "cost_usd"),
            purpose="cost_management",
            context={"network": "corp"},
        ),
    ),
}
