"""Measures the audit of a large book: rebuild of the index, export, queries by way of a real server, and its memory.

Makes a book of real entries (`big_book`), smaller ones for comparison, and deletes them afterwards; `--data` takes one
that is there, to which the server that is asked adds entries. Ten million entries take 8 GB of disk:

    .venv/bin/python -m tests.bench.bench_audit --entries 10000000
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp
from tests.bench.big_book import DAYS, PEOPLE, TABLES, make, person_name
from tests.bench.measure import ROOT, show
from tests.serving import POLICIES, RunningServer, serving

from gatebook.audit.clerk import Published
from gatebook.audit.copied import CopiedBook
from gatebook.audit.export import Export
from gatebook.audit.exported import Shape
from gatebook.audit.index import Index
from gatebook.audit.people import People
from gatebook.audit.tile_folder import TileFolder
from gatebook.tlog.keys import VerifierKey
from gatebook.v1 import audit_service_pb2 as pb
from gatebook.v1 import entry_pb2, types_pb2
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub

ENTRIES = 200_000
SMALL_ENTRIES = 10_000
EXPORTED_ENTRIES = 200_000
QUERIES = 100
PAUSE_SECONDS = 0.05
"""Between queries: somebody who asks often, and not a load test."""
MEBIBYTE = 1 << 20
Ask = Callable[[], object]


def rebuild(data: Path) -> tuple[float, float]:
    """Builds the index anew, as the clerk does; returns entries per second, and CPU microseconds for each."""
    for file in data.glob("index.db*"):
        file.unlink()
    key = key_of(data)
    people = People.open(data, read_only=True)
    book = Published(TileFolder(data / "book"), CopiedBook(data / "book", key).checkpoint.size)
    index = Index.open(data / "index.db", book, people, key.name)
    began, cpu = time.perf_counter(), time.process_time()
    index.catch_up(book, book.size)
    seconds, spent = time.perf_counter() - began, time.process_time() - cpu
    index.close()
    people.close()
    return book.size / seconds, spent / book.size * 1e6


def export(data: Path, folder: Path) -> tuple[float, float]:
    """Exports a book as Parquet; returns entries per second, and CPU microseconds for each."""
    book = CopiedBook(data / "book", key_of(data))
    began, cpu = time.perf_counter(), time.process_time()
    made = Export(folder, book.checkpoint.origin, Shape())
    made.run(book.batches(), book.checkpoint, book.note, lambda _done, _total: None)
    seconds, spent = time.perf_counter() - began, time.process_time() - cpu
    return made.manifest.size / seconds, spent / made.manifest.size * 1e6


def key_of(data: Path) -> VerifierKey:
    """Returns the verifier key of a book."""
    return VerifierKey.parse((data / "book" / "vkey").read_text("utf-8").strip())


class Auditor:
    """Asks a server what auditors ask."""

    def __init__(self, stub: AuditServiceStub, ids: list[str], first_time: datetime) -> None:
        """Takes ids of decisions, and when the book begins."""
        self._stub = stub
        self._ids = ids
        self._first = first_time
        self._chance = random.Random(7)
        self._next: pb.ListEntriesRequest | None = None

    def by_id(self) -> object:
        """Asks for one decision."""
        return self._stub.GetEntry(pb.GetEntryRequest(decision_id=self._chance.choice(self._ids)))

    def by_person_and_week(self) -> object:
        """Asks what a person did in a week."""
        start = self._first + timedelta(days=self._chance.uniform(0, DAYS - 7))
        wanted = pb.EntryFilter(
            subject_id=person_name(min(PEOPLE - 1, int(self._chance.paretovariate(0.3)))),
            start_time=timestamp(start),
            end_time=timestamp(start + timedelta(days=7)),
        )
        return self._list(wanted)

    def by_table_and_effect(self) -> object:
        """Asks for the denials, or allows, of a table."""
        effects = (types_pb2.EFFECT_DENY, types_pb2.EFFECT_DENY, types_pb2.EFFECT_ALLOW)
        return self._list(pb.EntryFilter(resource_id=self._chance.choice(TABLES), effect=self._chance.choice(effects)))

    def next_page(self) -> object:
        """Asks for the page after the one that was told last."""
        if self._next is None or not self._next.page_token:
            self.by_table_and_effect()
        assert self._next is not None
        answer = self._stub.ListEntries(self._next)
        self._next.page_token = answer.next_page_token
        return answer

    def by_reason(self) -> object:
        """Asks for something that no key of the index is about."""
        return self._list(
            pb.EntryFilter(reason=types_pb2.REASON_CODE_COLUMN_DENIED, column="key_text", action="export")
        )

    def by_rare_kind(self) -> object:
        """Asks for what there is nearly nothing of."""
        return self._list(pb.EntryFilter(kind=entry_pb2.ENTRY_KIND_SYSTEM))

    def _list(self, wanted: pb.EntryFilter) -> object:
        self._next = pb.ListEntriesRequest(filter=wanted)
        answer = self._stub.ListEntries(self._next)
        self._next.page_token = answer.next_page_token
        return answer


def timestamp(moment: datetime) -> Timestamp:
    """Returns a time as a message."""
    made = Timestamp()
    made.FromDatetime(moment.astimezone(UTC))
    return made


def latencies(ask: Ask, server: RunningServer) -> tuple[float, float, float]:
    """Returns p50 and p95 of an answer and the processor time of server and clerk for each, in milliseconds."""
    found = []
    began_cpu = cpu_seconds(server)
    for _ in range(QUERIES):
        time.sleep(PAUSE_SECONDS)
        began = time.perf_counter()
        ask()
        found.append((time.perf_counter() - began) * 1e3)
    cuts = statistics.quantiles(found, n=20)
    return cuts[9], cuts[18], (cpu_seconds(server) - began_cpu) / QUERIES * 1e3


def cpu_seconds(server: RunningServer) -> float:
    """Returns the processor time that a server and its clerk have used (proc(5), /proc/pid/stat)."""
    used = 0
    for pid in (server.process.pid, *server.children()):
        fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
        used += int(fields[11]) + int(fields[12])
    return used / os.sysconf("SC_CLK_TCK")


def memory(server: RunningServer) -> tuple[float, float]:
    """Returns the resident memory of a server and of its clerk, in MiB."""
    [clerk] = server.children()
    return resident(server.process.pid), resident(clerk)


def resident(pid: int) -> float:
    """Returns what of the memory of a process is its own (RssAnon), in MiB: not what the system caches of files."""
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024 / MEBIBYTE
    raise AssertionError(line)


def asked(data: Path) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """Asks a server of a book; returns the latencies, and its memory after the start and after all queries."""
    rows: list[tuple[str, ...]] = []
    size = CopiedBook(data / "book", key_of(data)).checkpoint.size
    with serving(data, [POLICIES / "basic"]) as server, server.channel() as channel:
        stub = AuditServiceStub(channel)
        chance = random.Random(8)
        places = sorted(chance.randrange(size) for _ in range(QUERIES))
        started = memory(server)
        ids = [
            entry.decision.decision_id
            for place in places
            if (entry := stub.GetEntry(pb.GetEntryRequest(index=place)).record.entry).HasField("decision")
        ]
        first = stub.GetEntry(pb.GetEntryRequest(index=0)).record.entry.entry_time.ToDatetime(UTC)
        auditor = Auditor(stub, ids, first)
        for name, ask in {
            "point by id": auditor.by_id,
            "by person and week": auditor.by_person_and_week,
            "by table and effect": auditor.by_table_and_effect,
            "the page after": auditor.next_page,
            "by reason, column and action": auditor.by_reason,
            "by a kind that is rare": auditor.by_rare_kind,
        }.items():
            told = latencies(ask, server)
            rows.append((f"{name}, of {size:,} entries", *(f"{each:,.1f}" for each in told)))
        after = memory(server)
    return rows, (f"{size:,}", *(f"{each:,.0f}" for each in (*started, *after)))


@contextmanager
def places(data: Path | None, entries: int) -> Iterator[tuple[Path, Path, Path]]:
    """Gives a large and a small book, and one to export, made for this unless the large one is named."""
    folder = ROOT / "build" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="gatebook-audit-") as made:
        small = Path(made) / "small"
        make(small, SMALL_ENTRIES)
        if data is None:
            data = Path(made) / "large"
            make(data, entries, told=entries > ENTRIES)
        exported = data
        if CopiedBook(data / "book", key_of(data)).size > EXPORTED_ENTRIES:
            exported = Path(made) / "exported"
            make(exported, EXPORTED_ENTRIES)
        yield data, small, exported


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=ENTRIES)
    parser.add_argument(
        "--data", type=Path, help="a data directory that `big_book` made; its index is kept if it has one"
    )
    chosen = parser.parse_args()
    with places(chosen.data, chosen.entries) as (large, small, exported):
        rates = []
        if not (large / "index.db").exists():
            rate, cpu = rebuild(large)
            rates.append(("rebuild of the index", f"{rate:,.0f}", f"{cpu:.1f}"))
        with tempfile.TemporaryDirectory(dir=small.parent) as folder:
            rate, cpu = export(exported, Path(folder) / "lake")
        rates.append(("export as Parquet", f"{rate:,.0f}", f"{cpu:.1f}"))
        show("The audit of a book", ("what", "entries/s", "us of CPU each"), rates, "bench_audit")
        in_small, memory_small = asked(small)
        in_large, memory_large = asked(large)
        show(
            "First pages and the next",
            ("query", "p50 ms", "p95 ms", "CPU ms each"),
            [*in_small, *in_large],
            "bench_audit",
        )
        header = ("entries", "server MiB at start", "its clerk", "server after all queries", "its clerk")
        show("Memory", header, [memory_small, memory_large], "bench_audit")


if __name__ == "__main__":
    main()
