"""One of the clients that load the gate, in a process of its own: `python -m gatebook.demo.load --target ...`.

It asks many questions at once, without end and without a second attempt, and prints each receipt, one line of
JSON each, the moment it holds it. The first question without an answer ends it: no answer is a no. The last line
says how many questions had none.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
from collections.abc import Iterator, Sequence

from google.protobuf import json_format

import gatebook_client

AT_ONCE = 24
TIMEOUT_SECONDS = 20.0
QUESTIONS = (
    ("ai_usage.team_daily", "adoption_visualisation.team_dashboard"),
    ("mci.prompts", "security_investigation.exposure_review"),
    ("ai_usage.token_usage", "cost_management"),
    ("hr.performance_metrics", "performance_evaluation.review"),
)
"""What is asked in turn, about one person after the other."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Asks until there is no answer; the people to ask about come on standard input, one id on a line."""
    parser = argparse.ArgumentParser(prog="python -m gatebook.demo.load")
    parser.add_argument("--target", required=True, help="where the gate is")
    chosen = parser.parse_args(arguments)
    people = sys.stdin.read().split()
    unanswered = asyncio.run(ask(chosen.target, people))
    sys.stdout.write(json.dumps({"unanswered": unanswered}) + "\n")


async def ask(target: str, people: Sequence[str]) -> int:
    """Asks over one connection, many at once; returns how many questions had no answer."""
    checks = endless(people)
    once = gatebook_client.RetryPolicy(attempts_max=1)
    async with gatebook_client.connect(
        target, enforcer="load", retries=once, timeout_seconds=TIMEOUT_SECONDS
    ) as gatebook:
        return sum(await asyncio.gather(*(ask_in_turn(gatebook, checks) for _ in range(AT_ONCE))))


def endless(people: Sequence[str]) -> Iterator[gatebook_client.Check]:
    """Yields questions without end."""
    for person, (dataset, purpose) in zip(itertools.cycle(people), itertools.cycle(QUESTIONS), strict=False):
        yield gatebook_client.Check(person, "read", dataset, purpose=purpose)


async def ask_in_turn(gatebook: gatebook_client.Connection, checks: Iterator[gatebook_client.Check]) -> int:
    """Asks one question after the other and prints its receipt; returns 1 at the first without an answer."""
    for check in checks:
        try:
            decision = await gatebook.check(
                check.subject, check.action, check.resource, purpose=check.purpose, receipt="full"
            )
        except gatebook_client.GatebookClientError:
            return 1
        receipt = json_format.MessageToJson(decision.raw.receipt, indent=None, preserving_proto_field_name=True)
        sys.stdout.write(receipt + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    main()
