"""Processor time of checks from the bytes of a request to the bytes of its answer, in process, without gRPC.

Every answer is durable in a book on a memory file system, so that what is measured is the service and not a disk.
The questions are all different. Asked for the first time, each is read, bound and decided; asked again, what was
remembered of it serves. Time is that of the whole process: the writer's thread counts, waiting does not. Of several
rounds the least is told, since whatever else the machine does only adds.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import uvloop
from tests.bench.measure import ROOT, places, show
from tests.bench.questions import ENFORCER, QUESTIONS

from gatebook.config import Config
from gatebook.door.authority import Authority
from gatebook.door.caller import LOCAL
from gatebook.door.door import Door
from gatebook.rpc.checking import Checking
from gatebook.rpc.edge import Call, Edge
from gatebook.rpc.receipts import Receipts
from gatebook.server import publish_folders
from gatebook.service import Service, open_service
from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import types_pb2
from gatebook_client import Check
from gatebook_client.asking import Asking

PEOPLE = 500
ITEMS = 50
CHECKS = 2_000
AT_ONCE = 16
WARM_ROUNDS = 2
"""Rounds until the process has the memory that it keeps."""
COLUMNS = ("tokens_in", "cost_usd", "tokens_out", "ts")
Ask = Callable[[Call, bytes], Awaitable[bytes]]


def checks_of(policy_set: str, numbers: Iterator[int]) -> list[Check]:
    """Returns different allowed checks; those of different numbers differ from all others."""
    if policy_set == "basic":
        reports = itertools.product(("alice", "bob"), ("report:weekly", "report:incidents"))
        asked = itertools.islice(zip(itertools.cycle(reports), numbers, strict=False), CHECKS)
        return [Check(subject, "read", report, context={"trace": number}) for (subject, report), number in asked]
    return [
        Check(
            f"f{number % PEOPLE}",
            "read",
            "ai_usage.token_usage",
            columns=("subject_id", *(column for place, column in enumerate(COLUMNS) if number >> place & 1)),
            purpose="cost_management",
            context={"network": "corp", "trace": number},
        )
        for number in itertools.islice(numbers, CHECKS)
    ]


def batches(policy_set: str, checks: Sequence[Check]) -> list[bytes]:
    """Returns the checks as requests of batches."""
    asking = Asking.of(policy_set, ENFORCER)
    groups = [checks[start : start + ITEMS] for start in range(0, len(checks), ITEMS)]
    return [asking.batch_request(group, at_least=0, receipt="basic")[0].SerializeToString() for group in groups]


def singles(policy_set: str, checks: Sequence[Check]) -> list[bytes]:
    """Returns the checks as requests of one."""
    asking = Asking.of(policy_set, ENFORCER)
    return [
        asking.check_request(check, at_least=0, explain=False, receipt="basic")[0].SerializeToString()
        for check in checks
    ]


async def spend(ask: Ask, requests: Sequence[bytes], at_once: int) -> float:
    """Asks all, so many at once; returns the microseconds of processor time that one check took."""
    waiting = iter(requests)
    answers: list[bytes] = []

    async def one_after_the_other() -> None:
        for request in waiting:
            answers.append(await ask(Call("bench", LOCAL, b""), request))  # noqa: PERF401  # one at a time

    began = time.process_time()
    await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
    spent = time.process_time() - began
    found = [decision.effect for answer in answers for decision in decisions_of(answer)]
    if found != [types_pb2.EFFECT_ALLOW] * CHECKS:
        raise RuntimeError("a check was not allowed")
    return spent / CHECKS * 1_000_000


def decisions_of(answer: bytes) -> list[types_pb2.Decision]:
    """Returns the decisions in an answer, of one check or of a batch."""
    single = pb.CheckAccessResponse.FromString(answer).decision
    if single.receipt.origin:
        return [single]
    return [result.decision for result in pb.BatchCheckAccessResponse.FromString(answer).results]


async def measure(service: Service, config: Config, rounds: int) -> list[list[str]]:
    """Returns the rows of the table."""
    edge = Edge(Door(config.limits, Authority(service.revisions, dev=config.dev)))
    receipts = Receipts(service.key, service.reader.prover, config.limits)
    checking = Checking(service.revisions, service.recorder, receipts, edge, config.limits)
    found: dict[tuple[str, str], list[float]] = {}
    numbers = itertools.count()
    for number in range(-WARM_ROUNDS, rounds):
        for policy_set in QUESTIONS:
            for way, ask, made, at_once in (
                (f"batches of {ITEMS}, one at a time", checking.batch, batches, 1),
                (f"single checks, {AT_ONCE} at once", checking.check, singles, AT_ONCE),
            ):
                requests = made(policy_set, checks_of(policy_set, numbers))
                for turn in ("the first time", "the second time", "again"):
                    spent = await spend(ask, requests, at_once)
                    if number >= 0 and turn != "the second time":
                        found.setdefault((f"{policy_set}, {way}", turn), []).append(spent)
    ways = dict.fromkeys(way for way, _ in found)
    turns = ("the first time", "again")
    return [[way, *(f"{min(found[way, turn]):.1f}" for turn in turns)] for way in ways]


async def run(folder: Path, rounds: int) -> list[list[str]]:
    """Opens a service with more people, and measures."""
    directory = folder / "directory"
    shutil.copytree(ROOT / "policies" / "telemetry" / "directory", directory)
    person = {"type": "user", "attributes": {"level": 4}, "groups": ["role:finops"]}
    people = [msgspec.json.encode({**person, "id": f"f{number}"}) for number in range(PEOPLE)]
    (directory / "more.jsonl").write_bytes(b"\n".join(people))
    config = Config(
        policies=tuple(ROOT / "policies" / name for name in QUESTIONS),
        data=folder / "data",
        directory=directory,
    )
    async with open_service(config) as service:
        await publish_folders(service, config)
        return await measure(service, config, rounds)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    chosen = parser.parse_args(arguments)
    with places() as folders, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rows = runner.run(run(folders.get("memory", folders["disk"]), chosen.rounds))
    title = f"{CHECKS:,} different checks, bytes to bytes: least microseconds of processor time per check"
    show(title, ["policy set and way", "asked the first time", "asked again"], rows, "bench_path")


if __name__ == "__main__":
    main()
