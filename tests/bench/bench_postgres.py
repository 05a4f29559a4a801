"""Measures the index in PostgreSQL: how fast it is made of a book, and how fast it answers what auditors ask.

Runs a server of its own where PostgreSQL is installed. A query is the index's own; what a row shows besides is read
from the book, as it is by the service.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from itertools import islice
from pathlib import Path

from tests import postgres
from tests.bench.bench_audit import key_of, timestamp
from tests.bench.big_book import DAYS, ORIGIN, PEOPLE, TABLES, make, person_name
from tests.bench.measure import ROOT, show

from gatebook.audit.copied import CopiedBook
from gatebook.audit.entry import from_timestamp
from gatebook.audit.index import person_word, stranger_word
from gatebook.audit.people import People
from gatebook.audit.postgres import PostgresIndex
from gatebook.cli.audit_index import covered
from gatebook.v1 import types_pb2
from gatebook.v1.audit_service_pb2 import EntryFilter

ENTRIES = 50_000
QUERIES = 100
PAGE = 50


def wanted(first: CopiedBook) -> dict[str, Callable[[], EntryFilter]]:
    """Returns what is asked, by name."""
    [[record, *_], *_] = [list(batch) for _, batch in zip(range(1), first.batches(), strict=False)]
    began, chance = from_timestamp(record.entry.entry_time), random.Random(7)
    ids = [each.entry.decision.decision_id for each in next(iter(first.batches())) if each.entry.HasField("decision")]

    def week() -> EntryFilter:
        start = began + timedelta(days=chance.uniform(0, DAYS - 7))
        return EntryFilter(
            subject_id=person_name(min(PEOPLE - 1, int(chance.paretovariate(0.3)))),
            start_time=timestamp(start),
            end_time=timestamp(start + timedelta(days=7)),
        )

    return {
        "point by id": lambda: EntryFilter(decision_id=chance.choice(ids)),
        "by person and week": week,
        "by table and effect": lambda: EntryFilter(resource_id=chance.choice(TABLES), effect=types_pb2.EFFECT_DENY),
    }


def main() -> None:
    """Prints the tables, or what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=ENTRIES)
    asked = parser.parse_args()
    if (name := postgres.missing()) is not None:
        print(f"the index in PostgreSQL is not measured: there is no `{name}`")  # noqa: T201  # a benchmark prints
        return
    folder = ROOT / "build" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as made, postgres.running() as socket:
        data = Path(made) / "data"
        make(data, asked.entries)
        people = People.open(data, read_only=True)
        book = CopiedBook(data / "book", key_of(data), people)
        with PostgresIndex(f"postgresql://postgres@/postgres?host={socket}") as index:
            began = time.perf_counter()
            covered(index, data / "book", key_of(data), people, lambda _done, _total: None)
            rate = asked.entries / (time.perf_counter() - began)
            rows = []
            for title, ask in wanted(book).items():
                found = []
                for _ in range(QUERIES):
                    one = ask()
                    who = one.subject_id
                    words = [person_word(each.pseudonym) for each in people.find(who)] if who else []
                    words += [stranger_word(people.blind(who))] if who else []
                    began = time.perf_counter()
                    rows_of = index.find(one, ORIGIN, words, size=asked.entries, limit=PAGE, newest_first=True)
                    list(islice(rows_of, PAGE))
                    found.append((time.perf_counter() - began) * 1e3)
                cuts = statistics.quantiles(found, n=20)
                rows.append((title, f"{cuts[9]:,.1f}", f"{cuts[18]:,.1f}"))
        people.close()
    rows.append(("entries indexed a second", f"{rate:,.0f}", ""))
    command = f"bench_postgres --entries {asked.entries}"
    show(f"The index in PostgreSQL, of {asked.entries:,} entries", ("first page", "p50 ms", "p95 ms"), rows, command)


if __name__ == "__main__":
    main()
