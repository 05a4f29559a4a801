"""The chapter in which the server is killed: what was answered is written, whatever happens next.

Owns the load, the kill and the comparison. Clients ask as fast as they can and hold the receipt of every answer;
in the middle of it the server gets SIGKILL. Restarted, it must have each receipt's entry at its index.
"""

from __future__ import annotations

import base64
import json
import subprocess
import threading
from collections.abc import Mapping, Sequence

import msgspec

import gatebook_client
from gatebook.demo.company import Company
from gatebook.demo.gate import Gate
from gatebook.demo.processes import RUN_SECONDS, BrokenOffError, Processes
from gatebook.demo.promises import Promises
from gatebook.demo.stage import Stage, count

CLIENTS = 3
PEOPLE_ASKED = 300
PAGE = 1_000
TIMEOUT_SECONDS = 30.0


class Crash(msgspec.Struct, frozen=True):
    """What one kill left: the receipts that clients hold, and what the book has since `first_index`."""

    receipts: tuple[str, ...]
    unanswered: int
    leaves: Mapping[int, bytes]
    untold: int
    """Decisions that are in the book and that nobody was told."""

    @property
    def missing(self) -> list[str]:
        """Returns the receipts that the book does not keep."""
        held = held_leaves(self.receipts)
        return [f"entry {index}" for index, leaf in held.items() if self.leaves.get(index) != leaf]


class Clients:
    """The clients of one load, and the receipts that they have printed so far. Owned by one call of `kill`."""

    def __init__(self, processes: Processes, gate: Gate, people: Sequence[str], wanted: int) -> None:
        """Starts the clients; `enough` is set once they hold as many receipts as wanted, or all have ended."""
        self.enough = threading.Event()
        self.receipts: list[str] = []
        self.unanswered = 0
        self._wanted = wanted
        self._lock = threading.Lock()
        self._under_way = CLIENTS
        self._threads = [self._start(processes, gate, people) for _ in range(CLIENTS)]

    def join(self) -> None:
        """Waits for the end of all."""
        for thread in self._threads:
            thread.join(RUN_SECONDS)

    def _start(self, processes: Processes, gate: Gate, people: Sequence[str]) -> threading.Thread:
        process = processes.start("gatebook.demo.load", "--target", gate.target, stdin=subprocess.PIPE)
        assert process.stdin is not None  # noqa: S101  # a pipe was asked for
        process.stdin.write("\n".join(people))
        process.stdin.close()
        thread = threading.Thread(target=self._collect, args=(process,), daemon=True)
        thread.start()
        return thread

    def _collect(self, process: subprocess.Popen[str]) -> None:
        """Collects the receipts of one client, up to its last line."""
        for line in process.stdout or ():
            with self._lock:
                if line.startswith('{"unanswered"'):
                    self.unanswered += int(json.loads(line)["unanswered"])
                elif line.endswith("}\n"):
                    self.receipts.append(line)
                if len(self.receipts) >= self._wanted:
                    self.enough.set()
        with self._lock:
            self._under_way -= 1
            if not self._under_way:
                self.enough.set()


def kill(processes: Processes, gate: Gate, company: Company, receipts: int) -> Crash:
    """Loads the gate, kills it once clients hold so many receipts, restarts it, and reads what the book has.

    Raises:
        BrokenOffError: the clients could not ask, or the server does not start again.
    """
    first_index = published_size(gate)
    people = [subject.id for subject in company.directory.subjects.values() if subject.type == "user"][:PEOPLE_ASKED]
    clients = Clients(processes, gate, people, receipts)
    clients.enough.wait(RUN_SECONDS)
    if len(clients.receipts) < receipts:
        raise BrokenOffError(f"the clients ended with {len(clients.receipts)} answers: see {gate.log.name}")
    gate.kill()
    clients.join()
    gate.start()
    leaves, decisions = written_since(gate, first_index)
    return Crash(tuple(clients.receipts), clients.unanswered, leaves, decisions - len(clients.receipts))


def published_size(gate: Gate) -> int:
    """Publishes what is acknowledged; returns the size of the book."""
    with gatebook_client.connect_blocking(gate.target, timeout_seconds=TIMEOUT_SECONDS) as gatebook:
        return int(gatebook.checkpoint(refresh=True).size)


def written_since(gate: Gate, first_index: int) -> tuple[dict[int, bytes], int]:
    """Returns the leaf hashes of the entries from an index on, and how many are decisions."""
    size = published_size(gate)
    leaves: dict[int, bytes] = {}
    decisions = 0
    with gatebook_client.connect_blocking(gate.target, timeout_seconds=TIMEOUT_SECONDS) as gatebook:
        for record in gatebook.entries(oldest_first=True, page_size=PAGE, start_index=first_index, end_index=size):
            leaves[record.index] = record.leaf_hash
            decisions += record.entry.HasField("decision")
    return leaves, decisions


def held_leaves(receipts: Sequence[str]) -> dict[int, bytes]:
    """Returns the leaf hash that each receipt promises, by its index."""
    messages = map(json.loads, receipts)
    return {int(message.get("index", "0")): base64.b64decode(message["leaf_hash"]) for message in messages}


def tell(stage: Stage, crashes: Sequence[Crash]) -> None:
    """Tells each kill in a line."""
    columns = ("kill", "receipts held", "found again", "without an answer", "written, never told")
    rows = [
        (
            str(number),
            count(len(crash.receipts)),
            count(len(crash.receipts) - len(crash.missing)),
            count(crash.unanswered),
            count(crash.untold),
        )
        for number, crash in enumerate(crashes, start=1)
    ]
    stage.table(columns, rows, right=columns[1:])
    stage.gap()
    stage.say(
        "Questions under way at the kill got no answer, and who got none read nothing. Some of their decisions "
        "were written already: first the book, then the answer."
    )


def check(promises: Promises, crashes: Sequence[Crash]) -> None:
    """Checks what a receipt promises."""
    total = sum(len(crash.receipts) for crash in crashes)
    missing = [case for crash in crashes for case in crash.missing]
    promises.check_all(
        "after SIGKILL every receipt's entry is in its place",
        missing,
        told=f"{count(total, 'receipt')}, {count(len(crashes), 'kill')}",
    )
    unanswered = sum(crash.unanswered for crash in crashes)
    promises.check(
        "a question without an answer is a no",
        kept=all(crash.unanswered and crash.untold >= 0 for crash in crashes),
        told=f"{count(unanswered, 'question')} under way",
    )
