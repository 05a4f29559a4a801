"""A data directory with a book of many entries, for what is measured on large books.

Owns the making of it: real entries of a company of 10,000 people over 60 days, through the encoder, the
writer and the publisher that a service has, in groups as they are under load. Apart from sealing and
hashing it is quick: what is the same for many entries is made once.

    .venv/bin/python -m tests.bench.big_book DIR --entries 10000000
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path

import msgspec
from tests.decisions import decision_of

from gatebook.audit.asked import Asked, ask
from gatebook.audit.book import Book
from gatebook.audit.decision_entry import Clear, Decided, clear_of, encode_decision, people_of
from gatebook.audit.entry import ReadEvent, Stamp, encode_read, encode_system
from gatebook.audit.keyfile import create_key
from gatebook.audit.people import People, Person, PersonId
from gatebook.audit.publish import Publisher
from gatebook.v1 import entry_pb2
from gatebook.values import (
    AccessRequest,
    ColumnOutcome,
    Decision,
    Effect,
    Enforcer,
    Entity,
    Mask,
    MaskKind,
    ObligationKind,
    Reason,
    Revision,
    RuleRef,
)

ORIGIN = "gatebook.test/book"
DAYS = 60
PEOPLE = 10_000
REQUESTS = 60_000
"""Requests that are made again and again, each with its person."""
GROUP_ENTRIES = 4_000
STAMP_ENTRIES = 100
"""Entries that were made at one moment."""
PUBLISH_ENTRIES = 200_000
TABLES = tuple(f"telemetry.table_{number:02}" for number in range(15))
COLUMNS = ("event_id", "ts", "subject_id", "prompt_text", "key_text", "tokens_in", "tokens_out", "model", "host")
PURPOSES = ("model_training", "model_training.evaluation", "billing", "support", "security", "research", "", "audit")
CALLERS = ("svc-training", "svc-dashboard", "svc-notebooks", "svc-export", "local")
DENIALS = (Reason.NO_MATCHING_RULE, Reason.DENIED_BY_RULE, Reason.COLUMN_DENIED, Reason.PURPOSE_NOT_PERMITTED)
ENFORCER = Enforcer("svc-training", frozenset({MaskKind.REDACT}), frozenset({ObligationKind.MASKS}))


class Repeated(msgspec.Struct, frozen=True):
    """A request that is made again and again, with all that does not change."""

    asked: Asked
    decision: Decision
    people: tuple[Person, ...]
    clear: Clear


def person_name(number: int) -> str:
    """Returns the id of one of the people."""
    return f"person-{number:05}"


def repeated(chance: random.Random, people: People) -> list[Repeated]:
    """Returns the requests, each with its decision."""
    found = []
    for number in range(REQUESTS):
        columns = tuple(chance.sample(COLUMNS, chance.randint(1, 5)))
        asked = AccessRequest(
            subject=Entity("user", person_name(number % PEOPLE), {"level": chance.randint(1, 6)}),
            actor=Entity("service", f"agent-{chance.randint(0, 50)}") if chance.random() < 0.1 else None,
            action="export" if chance.random() < 0.05 else "read",
            resource=chance.choice(TABLES),
            columns=columns,
            purpose=chance.choice(PURPOSES),
            context={"network": "corp"},
            enforcer=ENFORCER,
        )
        denied = chance.random() < 0.08
        reason = chance.choice(DENIALS) if denied else Reason.ALLOWED
        effect = Effect.DENY if denied else Effect.ALLOW
        decision = decision_of(
            effect=effect,
            reason=reason,
            message="every step passed",
            policy_set="telemetry",
            policy_revision=Revision(f"{number % 5:02x}" * 32, number % 5 + 1),
            directory_revision=Revision("d1" * 32, 7),
            decide_time=datetime(2026, 1, 1, tzinfo=UTC),
            columns=tuple(
                ColumnOutcome(c, effect, reason, (Mask(MaskKind.REDACT),) if c == "key_text" and not denied else ())
                for c in columns
            ),
            must_apply=(ObligationKind.MASKS,),
            rules=(RuleRef("p, role:researcher, ...", "policy.csv", 12 + number % 90, "allow"),),
            notice_id="mci-2026-05",
            vocabulary_known=frozenset({"subject", "actor", "resource", "columns", "action", "purpose"}),
        )
        one = Decided(ask(asked, "order-66", chance.randbytes(16)), decision, "")
        stored = people.ensure(ids := people_of(one))
        found.append(Repeated(one.asked, decision, tuple(stored[i] for i in ids), clear_of(one)))
    return found


class Company:
    """Makes entries, one group after the other."""

    def __init__(self, people: People, entries: int, seed: int = 1) -> None:
        """Takes where people are kept, and how many entries the 60 days have."""
        self._chance = random.Random(seed)
        people.ensure([PersonId("user", person_name(number)) for number in range(PEOPLE)])
        self._people = people
        self._requests = repeated(self._chance, people)
        self._weights = list(accumulate(1 / (number % PEOPLE + 10) ** 0.8 for number in range(REQUESTS)))
        self._begin = datetime.now(UTC).replace(microsecond=0) - timedelta(days=DAYS)
        self._step = timedelta(days=DAYS) / entries

    def group(self, first_index: int, count: int) -> list[bytes]:
        """Returns the entries from an index on."""
        chance, entries = self._chance, []
        for start in range(first_index, first_index + count, STAMP_ENTRIES):
            stamp = Stamp.of(self._begin + self._step * start, chance.choice(CALLERS), 0)
            chosen = chance.choices(self._requests, cum_weights=self._weights, k=STAMP_ENTRIES - 1)
            ids = chance.randbytes(16 * len(chosen)).hex()
            for number, one in enumerate(chosen):
                made = Decided(one.asked, one.decision, ids[32 * number : 32 * number + 32])
                entries.append(encode_decision(made, stamp, one.people, ORIGIN, one.clear))
            entries.append(self._other(stamp))
        return entries[:count]

    def _other(self, stamp: Stamp) -> bytes:
        if self._chance.random() < 0.01:
            return encode_system(entry_pb2.SYSTEM_EVENT_STARTED, stamp, version="1")
        event = ReadEvent(
            method="ListEntries", indexes=(0, 9), count=10, filter_json=b"{}", people=(self._people.stranger,)
        )
        return encode_read(event, stamp, ORIGIN)


def make(data: Path, entries: int, *, seed: int = 1, told: bool = False) -> None:
    """Makes a data directory with a published book of so many entries, and no index yet."""
    people = People.open(data) if data.is_dir() else None
    book = Book.open(data, origin=ORIGIN)
    people = people or People.open(data)
    for name in ("mask.key", "directory.key"):
        if not (data / "keys" / name).exists():
            create_key(data / "keys" / name)  # as a service does, so that one can be started with it
    try:
        company, publisher, began = Company(people, entries, seed), Publisher(book), time.monotonic()
        while book.size < entries:
            book.append_group(company.group(book.size, min(GROUP_ENTRIES, entries - book.size)))
            if book.size % PUBLISH_ENTRIES < GROUP_ENTRIES or book.size == entries:
                publisher.publish_now()
                if told:
                    rate = book.size / (time.monotonic() - began)
                    print(f"{book.size:,} entries, {rate:,.0f}/s", file=sys.stderr, flush=True)  # noqa: T201  # progress
    finally:
        book.close()
        people.close()


def main() -> None:
    """Makes one from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--entries", type=int, default=10_000_000)
    asked = parser.parse_args()
    make(asked.data, asked.entries, told=True)


if __name__ == "__main__":
    main()
