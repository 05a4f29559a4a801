"""The chapter in which everybody asks: what each wanted, was told, and got.

Owns the running of the actors, their telling, and the promises of this chapter: every answer is the one the rules
promise; a denial reads nothing; a plan leaves the rows that the store counts, and of each row what a check of it would;
no masked value leaves in clear; and no group is smaller than it may be.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from rich.text import Text

from gatebook.demo.actor import parse_keys
from gatebook.demo.cast import CAST
from gatebook.demo.company import SET_NAME, Company
from gatebook.demo.gate import Gate
from gatebook.demo.groups import small_groups
from gatebook.demo.processes import BrokenOffError, Processes, finish
from gatebook.demo.promises import Promises
from gatebook.demo.question import Actor, Outcome, Question
from gatebook.demo.rows import hidden, leaks, shown_groups, shown_rows
from gatebook.demo.sample import compare
from gatebook.demo.stage import DEEP, Stage, count, verdict

AT_ONCE = 2
"""How many actors are started before the first of them is waited for."""
HASHING = ("cost_management", "adoption_visualisation.team_dashboard", "program_assessment")
"""The purposes under which the cast gets hashes; each has a key of its own."""
RELATION = re.compile(" by `g[0-9]?`")

Asked = tuple[Actor, Question, Outcome]


def export_keys(processes: Processes, gate: Gate) -> dict[str, str]:
    """Exports the key of each purpose that hashes, as the operator of the gate does once per enforcer."""
    started = [(purpose, processes.start("gatebook", "keys", "export", *_key_of(gate, purpose))) for purpose in HASHING]
    keys = {}
    for purpose, process in started:
        line, trouble = finish(process, "gatebook keys export")
        if process.returncode:
            raise BrokenOffError(f"the key of `{purpose}` could not be exported: {trouble.strip()}")
        keys[purpose] = line
    return keys


def _key_of(gate: Gate, purpose: str) -> tuple[str, ...]:
    return ("--data", str(gate.data), "--policy-set", SET_NAME, "--purpose", purpose)


def play(
    processes: Processes, gate: Gate, company: Company, keys: Mapping[str, str], actors: Sequence[Actor] = CAST
) -> Iterator[Asked]:
    """Runs actors, each in a process of its own; yields each question with what came of it, in order."""
    started: list[tuple[Actor, subprocess.Popen[str]]] = []
    waiting = list(actors)
    while waiting or started:
        while waiting and len(started) < AT_ONCE:
            started.append((waiting[0], _start(processes, gate, company, waiting.pop(0).name)))
        actor, process = started.pop(0)
        own_keys = "".join({keys[question.purpose] for question in actor.questions if question.purpose in keys})
        printed, trouble = finish(process, actor.name, own_keys)
        if process.returncode:
            raise BrokenOffError(f"`{actor.name}` could not ask: {trouble.strip()}")
        outcomes = msgspec.json.decode(printed, type=list[Outcome])
        yield from ((actor, question, outcome) for question, outcome in zip(actor.questions, outcomes, strict=True))


def _start(processes: Processes, gate: Gate, company: Company, name: str) -> subprocess.Popen[str]:
    places = ("--target", gate.target, "--store", str(company.store))
    catalogue = ("--catalogue", str(company.policies / "catalogue.yaml"))
    return processes.start("gatebook.demo.actor", name, *places, *catalogue, stdin=subprocess.PIPE)


def tell(stage: Stage, company: Company, asked: Asked, before: Actor | None) -> None:
    """Tells one question and its answer; the actor is introduced at its first."""
    actor, question, outcome = asked
    if before is not actor:
        if before is not None:
            stage.gap()
        stage.say(actor.title, "bold")
        stage.say(actor.wants, "italic dim")
    named = question.columns if not outcome.got else ()
    columns = f"{', '.join(named)} of " if named else ""
    purpose = f" for {question.purpose}" if question.purpose else ", naming no purpose"
    stage.pairs(
        [
            (verdict(allowed=outcome.allowed), f"{question.action} {columns}{question.dataset}{purpose}"),
            ("", Text(why(outcome), "dim")),
        ]
    )
    if outcome.got:
        stage.say(before_and_after(company, question, outcome), "dim", indent=DEEP)
        if question.shows_sql:
            stage.verbatim(outcome.sql.splitlines(), indent=DEEP)
        show = shown_groups if question.by else shown_rows
        headings, rows, right = show(company, question, outcome)
        stage.table(headings, rows, right=right, indent=DEEP)


def before_and_after(company: Company, question: Question, outcome: Outcome) -> str:
    """Says what everybody could read of the table, and what the SQL of this plan leaves."""
    before = count(company.tables[question.dataset], "row")
    columns = len(company.catalogue.datasets[question.dataset].columns)
    if question.by:
        return f"before: {before} of {columns} columns · after: {count(outcome.rows_left, 'group')}"
    masked = len(hidden(outcome))
    after = f"{count(outcome.rows_left, 'row')} of {len(question.columns)} columns"
    return f"before: {before} of {columns} columns · after: {after}{f', {masked} of them hidden' if masked else ''}"


def why(outcome: Outcome) -> str:
    """Says in a line why an answer was given."""
    entry = f"entry {outcome.receipt.get('index', '0')}"
    if not outcome.allowed:
        return f"{entry} · {outcome.reason}: {cause(outcome)}"
    masks = ", ".join(f"{kind.lower()} {column}" for column, kind in outcome.masks.items() if kind != "NONE")
    group = f"groups of {outcome.group} people or more" if outcome.group else ""
    return " · ".join(filter(None, (entry, f"allowed by {outcome.rules[0]}", masks, group)))


def cause(outcome: Outcome) -> str:
    """Says what stood in the way: the rule that denies, what the nearest rule lacked, or the gate's own message."""
    if outcome.rules:
        return f"the rule at {outcome.rules[0]}"
    if outcome.nearest:
        return f"nearest is {outcome.nearest}, but {', and '.join(map(plain, outcome.lacked))}"
    return outcome.message


def plain(lacked: str) -> str:
    """Says what a rule lacked without naming the relation of the model."""
    return RELATION.sub("", lacked)


def check(promises: Promises, company: Company, asked: Sequence[Asked]) -> None:
    """Checks what the answers promise."""
    wrong = [f"{a.name}: {q.dataset} is {o.reason}, not {q.expected}" for a, q, o in asked if o.reason != q.expected]
    promises.check_all(
        "every question gets the answer that the rules promise", wrong, told=count(len(asked), "question")
    )
    denials = [(a, o) for a, _, o in asked if not o.allowed]
    got = [f"{a.name} got {count(o.rows_left, 'row')}" for a, o in denials if o.got or o.rows_left]
    promises.check_all("who is denied reads not a single row", got, told=count(len(denials), "denial"))
    allows = [(a, q, o) for a, q, o in asked if o.allowed]
    empty = [f"{a.name} got nothing of {q.dataset}: {o.refused}" for a, q, o in allows if is_left_out(company, q, o)]
    promises.check_all("who is allowed gets what the obligations leave", empty, told=count(len(allows), "allow"))
    planned = [(q, o) for _, q, o in allows if o.sql and not q.by]
    wrong_counts = [told for q, o in planned if (told := miscounted(company, q, o))]
    rows = count(sum(o.rows_left for _, o in planned), "row")
    promises.check_all("a plan leaves the rows that the store counts", wrong_counts, told=rows)
    clear = [f"{a.name}: {leak}" for a, q, o in allows for leak in leaks(company, q, o)]
    promises.check_all("no masked value leaves in clear", clear, told=f"{masked_values(allows)} values compared")
    grouped = [(a, q, o) for a, q, o in allows if o.group]
    small = [f"{a.name}: {problem}" for a, q, o in grouped for problem in small_groups(company, q, o)]
    told = count(sum(len(o.got) for _, _, o in grouped), "group")
    promises.check_all("no group is smaller than it must be", small, told=told)


def check_sample(
    promises: Promises, company: Company, gate: Gate, asked: Sequence[Asked], keys: Mapping[str, str]
) -> None:
    """Checks that plans leave of rows what checks of each row leave."""
    compared = [
        compare(company, gate.target, actor, question, parse_keys(keys.get(question.purpose, "")))
        for actor, question, outcome in asked
        if outcome.sql and not question.by
    ]
    broken = [difference for one in compared for difference in one.differences]
    rows, left = sum(one.asked for one in compared), sum(one.left for one in compared)
    told = f"{count(rows, 'row')} asked about, {left} left"
    promises.check_all("of each row a plan leaves what a check of it does", broken, told=told)


def miscounted(company: Company, question: Question, outcome: Outcome) -> str:
    """Says how a plan leaves another number of rows than the store counts for the question."""
    where = f" WHERE {question.where}" if question.where else ""
    ((counted,),) = company.query(f"SELECT count(*) FROM {question.dataset}{where}")  # noqa: S608  # the demo's own
    return "" if counted == outcome.rows_left else f"{question.dataset}: {outcome.rows_left} rows left, not {counted}"


def is_left_out(company: Company, question: Question, outcome: Outcome) -> bool:
    """Tells whether somebody got nothing though there is something; groups may all be too small."""
    if outcome.got:
        return False
    return bool(outcome.refused) or (not question.by and bool(company.rows(question, question.columns, 1)))


def masked_values(asked: Sequence[Asked]) -> str:
    """Returns how many values left under a mask that hides them."""
    return count(sum(len(outcome.got) * len(hidden(outcome)) for _, question, outcome in asked if not question.by))


def summary(asked: Asked) -> dict[str, Any]:
    """Returns what the JSON summary says of one question."""
    actor, question, outcome = asked
    return {
        "actor": actor.name,
        "subject": actor.subject,
        "action": question.action,
        "dataset": question.dataset,
        "purpose": question.purpose,
        "reason": outcome.reason,
        "rules": outcome.rules,
        "masks": outcome.masks,
        "minimum_group": outcome.group,
        "entry": int(outcome.receipt.get("index", "0")),
        "planned": bool(outcome.sql),
        "rows_left": outcome.rows_left,
    }
