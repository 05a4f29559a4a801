"""Microseconds of each step of one decision, in process, without the network.

The steps are those of one unary check, with the service's own functions on a real book. What is
left between their sum and a call over gRPC is grpcio, the event loop and the kernel.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.measure import ROOT, Step, microseconds, places, show
from tests.bench.questions import QUESTIONS

from gatebook import authorize
from gatebook.audit import asked as asking
from gatebook.audit.book import Book
from gatebook.audit.decision_entry import Decided, encode_decision, people_of
from gatebook.audit.entry import Stamp
from gatebook.audit.people import People
from gatebook.audit.recorder import Written
from gatebook.audit.sealing import seal
from gatebook.config import Config
from gatebook.engine.snapshot import Snapshot
from gatebook.familiar import Familiar
from gatebook.rpc import decode
from gatebook.rpc.answers import Answers, check_response
from gatebook.rpc.receipts import receipt_text, unsigned_receipt
from gatebook.server import publish_folders
from gatebook.service import open_service
from gatebook.tlog.merkle import leaf_hash
from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import entry_pb2, types_pb2

GROUP = 64
ORIGIN = "bench.example/gatebook"


async def snapshots(folder: Path) -> Mapping[str, Snapshot]:
    """Returns what decides for each policy set of the questions."""
    sets = tuple(ROOT / "policies" / name for name in QUESTIONS)
    config = Config(policies=sets, data=folder)
    async with open_service(config) as service:
        await publish_folders(service, config)
        return {name: service.revisions.snapshot(name) for name in QUESTIONS}


def steps_of(policy_set: str, snapshot: Snapshot, people: People, books: Mapping[str, Book]) -> dict[str, Step]:
    """Returns the steps of one check, in their order; each works on the results of those before."""
    now = datetime.now(UTC)
    limits = Config(policies=(), data=Path()).limits
    message = QUESTIONS[policy_set].check_request(policy_set)
    raw = message.SerializeToString()
    request = decode.access_request(message.access, limits, allow_partial=False)
    question = authorize.question_of(snapshot, request, caller="local")
    decision = authorize.decide(snapshot, question, now)
    decided = Decided(question.asked, decision, "d" * 32)
    stored = people.ensure(people_of(decided))
    persons = [stored[person] for person in people_of(decided)]
    stamp = Stamp.of(now, "local", 1)
    entry = encode_decision(decided, stamp, persons, ORIGIN)
    written = Written(1, leaf_hash(entry), now, entry)
    key = next(iter(books.values())).key
    subject = persons[:1]
    personal = question.asked.personal

    answers = Answers(ORIGIN)
    familiar = Familiar(time.monotonic)

    def remembered() -> object:
        encoded = message.access.SerializeToString()
        heard = familiar.hear(encoded, lambda: request, allow_partial=False)
        return authorize.decide_unless_standing(snapshot, heard.question(snapshot, "local", b"", b""), now)

    answered = authorize.Answer(decision, decided.decision_id, written)

    def answer(level: int) -> bytes:
        if level != types_pb2.RECEIPT_LEVEL_FULL:
            return check_response(answers.decision(answered))
        receipt = unsigned_receipt(ORIGIN, written)
        receipt.signature = key.sign(receipt_text(receipt))
        return check_response(answers.decision(answered, receipt))

    steps: dict[str, Step] = {
        "parse the request": lambda: pb.CheckAccessRequest.FromString(raw),
        "convert it": lambda: decode.access_request(message.access, limits, allow_partial=False),
        "prepare its personal part": lambda: asking.ask(request),
        "decide": lambda: authorize.decide(snapshot, question, now),
        "the last three, of a request that came before": remembered,
        "encode the entry, sealing included": lambda: encode_decision(decided, stamp, persons, ORIGIN),
        "  of which seal": lambda: seal(entry_pb2.SEALED_FIELD_REQUEST, ORIGIN, subject, personal),
        "hash the leaf": lambda: leaf_hash(entry),
    }
    for place, book in books.items():
        steps[f"commit 1 entry, {place}"] = lambda book=book: book.append_group([entry])  # type: ignore[misc]  # bound at once
        steps[f"commit {GROUP} entries, {place}"] = lambda book=book: book.append_group([entry] * GROUP)  # type: ignore[misc]  # as above
    steps["encode the answer, basic receipt"] = lambda: answer(types_pb2.RECEIPT_LEVEL_BASIC)
    steps["encode the answer, full receipt, signed"] = lambda: answer(types_pb2.RECEIPT_LEVEL_FULL)
    return steps


def main() -> None:
    """Measures and prints."""
    with places() as folders:
        decides = asyncio.run(snapshots(folders["disk"] / "sets"))
        books = {place: Book.open(folder / "book", origin=ORIGIN) for place, folder in folders.items()}
        people = People.open(folders["disk"] / "people")
        found = {name: microseconds(steps_of(name, decides[name], people, books)) for name in QUESTIONS}
        for book in books.values():
            book.close()
        people.close()
    names = next(iter(found.values()))
    rows = [[name, *(f"{found[policy_set][name]:,.1f}" for policy_set in found)] for name in names]
    title = "one decision, step by step: median microseconds"
    show(title, ["step", *(f"{name}: {QUESTIONS[name].title}" for name in found)], rows, "bench_steps")


if __name__ == "__main__":
    main()
