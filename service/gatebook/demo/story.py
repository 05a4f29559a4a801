"""The story of the demo, from a generated company to a verified book. Read it from top to bottom.

    company     people and their telemetry are made up; in the old world anybody reads them
    gate        the real server publishes the rules and serves
    readers     everybody asks, each from a process of its own, and gets what the answer lets out
    audience    one question is put about every subject of the directory
    governing   a careless change of the rules is refused, a careful one approved by two
    crash       the server is killed under load, and comes back with every answer it gave
    auditor     a copy of the book is verified offline, and one flipped bit is found

Every chapter checks what it promises; what is broken is told at the end, and makes the demo fail.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from gatebook.demo import audience, crash, governing, readers
from gatebook.demo.company import Company
from gatebook.demo.ending import tell_auditor, tell_promises
from gatebook.demo.gate import Gate
from gatebook.demo.opening import tell_company, tell_gate
from gatebook.demo.processes import Processes
from gatebook.demo.promises import Promise, Promises
from gatebook.demo.rules import copy_rules
from gatebook.demo.stage import Stage


class Scale(msgspec.Struct, frozen=True):
    """How large the demo is: the share of the usual rows, and the receipts that clients hold at each kill."""

    rows: float
    kills: tuple[int, ...]


SCALES: Final = {"small": Scale(0.1, (400,)), "full": Scale(1.0, (1_500, 2_000, 2_500))}


class Told(msgspec.Struct, frozen=True):
    """What the demo did, for its summary."""

    kept: bool
    seconds: float
    promises: Sequence[Promise]
    subjects: int
    rows: int
    questions: Sequence[dict[str, Any]]
    audiences: Sequence[dict[str, Any]]
    change: governing.Governed
    kills: int
    receipts: int
    entries: int
    flipped_entry: int


def tell_story(stage: Stage, folder: Path, *, employees: int, scale: Scale, seed: int) -> Told:
    """Tells the whole story in a folder; returns what came of it.

    Raises:
        BrokenOffError: it cannot go on; the message says why.
    """
    began = time.monotonic()
    promises = Promises()
    rules = copy_rules(folder)
    company = tell_company(stage, folder, rules.telemetry, employees=employees, scale=scale.rows, seed=seed)
    with Processes() as processes:
        gate = Gate(processes, folder, rules, company.people)
        auditor = tell_gate(stage, processes, gate, company, rules, folder)
        asked = tell_readers(stage, processes, gate, company, promises)
        audiences = tell_audience(stage, gate, company, promises)
        change = governing.tell_change(stage, processes, gate, company, rules, promises)
        crashes = tell_crash(stage, processes, gate, company, promises, scale.kills)
        receipts = [f"{msgspec.json.encode(outcome.receipt).decode()}\n" for _, _, outcome in asked]
        receipts += [line for each in crashes for line in each.receipts]
        auditor.collect(receipts)
        flipped = tell_auditor(stage, processes, gate, auditor, promises, asked, audiences)
    seconds = time.monotonic() - began
    tell_promises(stage, promises, seconds)
    return Told(
        kept=promises.kept,
        seconds=round(seconds, 1),
        promises=promises.checked,
        subjects=len(company.directory.subjects),
        rows=sum(company.tables.values()),
        questions=[readers.summary(one) for one in asked],
        audiences=[audience.summary(one) for one in audiences],
        change=change,
        kills=len(crashes),
        receipts=len(receipts) + sum(len(one.leaves) for one in audiences),
        entries=auditor.size,
        flipped_entry=flipped,
    )


def tell_readers(
    stage: Stage, processes: Processes, gate: Gate, company: Company, promises: Promises
) -> list[readers.Asked]:
    """Lets everybody ask."""
    stage.chapter(
        "Everybody asks",
        "Each of these is a program in a process of its own. It asks the gate for a plan. After a yes, and only then, "
        "it runs the SQL of the plan on the store: the rows, columns, masks and groups that its answer leaves.",
    )
    with stage.working("handing out the keys of hashes"):
        keys = readers.export_keys(processes, gate)
    asked: list[readers.Asked] = []
    before = None
    for one in readers.play(processes, gate, company, keys):
        readers.tell(stage, company, one, before)
        before = one[0]
        asked.append(one)
    readers.check(promises, company, asked)
    with stage.working("asking about single rows"):
        readers.check_sample(promises, company, gate, asked, keys)
    return asked


def tell_audience(stage: Stage, gate: Gate, company: Company, promises: Promises) -> tuple[audience.Audience, ...]:
    """Asks about everybody."""
    stage.chapter(
        "Who could read the prompts?",
        "After the incident nobody could say. Here the gate is really asked about every subject of the "
        "directory, once for each purpose, and every answer is an entry of the book.",
    )
    audiences = tuple(audience.ask_about_everybody(gate, company, stage))
    audience.tell(stage, company, audiences)
    audience.check(promises, company, audiences)
    return audiences


def tell_crash(
    stage: Stage, processes: Processes, gate: Gate, company: Company, promises: Promises, kills: Sequence[int]
) -> list[crash.Crash]:
    """Kills the server under load."""
    stage.chapter(
        "The server is killed",
        "A decision is durable before it is answered. So the server may die at any moment: three clients ask as "
        "fast as they can, it gets SIGKILL in the middle, and is started again on the same data.",
    )
    crashes = []
    with stage.working("loading and killing the server") as progress:
        for number, receipts in enumerate(kills, start=1):
            crashes.append(crash.kill(processes, gate, company, receipts))
            progress(number, len(kills))
    crash.tell(stage, crashes)
    crash.check(promises, crashes)
    return crashes
