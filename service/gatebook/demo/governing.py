"""The chapter in which the rules change: a careless draft is refused, a careful one takes effect when two agree.

Owns what is drafted, who publishes and approves it, each with the real commands and a token of their own, and the
promises of this chapter: what opens a table to everybody is refused with a name and a way; nobody approves a change
of their own, and one person is not enough; every step is an entry; and what was approved is what people get, no more.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

import gatebook_client
from gatebook.demo import readers
from gatebook.demo.cast import NOOR_AGAIN
from gatebook.demo.company import SET_NAME, Company
from gatebook.demo.gate import Gate
from gatebook.demo.processes import BrokenOffError, Processes
from gatebook.demo.promises import Promises
from gatebook.demo.question import ALLOWED
from gatebook.demo.rows import leaks
from gatebook.demo.rules import APPROVERS, REQUESTER, Rules, append
from gatebook.demo.stage import DEEP, Stage, count
from gatebook.v1.entry_pb2 import PolicyStep

MCI: Final = Path("policy") / "mci.csv"
RULE: Final = "p, role:employee, mci.prompts{}, read, security_investigation.exposure_review, {}, allow"
CARELESS: Final = (
    RULE.format("", "True"),
    "p2, role:employee, tag:content, read, security_investigation.exposure_review, True, none",
)
CAREFUL: Final = tuple(
    RULE.format(f".{column}", "r.row.subject_id == r.sub.id") for column in ("subject_id", "ts", "tool")
)
"""Of one's own rows, and no column with a text."""
TESTS: Final = Path("tests") / "mci.yaml"
EXPECTED: Final = "      ivan: PURPOSE_NOT_GRANTED\n      others: {}\n"
"""Nobody else had a rule for prompts; now everybody has some, of another purpose, and is denied for another reason."""
TOLD: Final = ("AUDIENCE_CEILING", "GUARDRAIL_REFUTED")
STEPS: Final = (
    *("VALIDATED", "TESTED", "PROVED", "COMPARED", "PROPOSED"),
    *("APPROVED", "APPROVED", "ACTIVATED"),
)
PLACE: Final = re.compile(r"[\w./-]+:\d+:")
"""Where a finding, or an expectation that fails, is."""
REFUSED_OWN: Final = "whoever proposed a change does not approve it"
GAINS: Final = ("+ ", "    read ", "      nothing -> ", "gained by ")
"""How the lines begin that say who gains what, and how it was before."""
TIMEOUT_SECONDS: Final = 30.0


class Governed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of the chapter: the findings of the refusal, who gains what, the answers, the steps in the book."""

    refusal: Sequence[str]
    gained: Sequence[str]
    answers: Sequence[str]
    revision: int
    steps: Sequence[str]
    rows_left: int


def tell_change(
    stage: Stage, processes: Processes, gate: Gate, company: Company, rules: Rules, promises: Promises
) -> Governed:
    """Changes the rules, and lets the story's first asker ask again."""
    stage.chapter(
        "The rules change, and two must agree",
        "It began with one grant. gus, who owns the programme, means well: everybody shall look up what lay open of "
        "them. The gate judges what he drafts for everybody in the directory, and then others decide.",
    )
    people = People(processes, gate, rules)
    first = gate_size(gate)
    draft = rules.telemetry.parent / "draft" / SET_NAME
    refusal = refuse(stage, people, draft, rules)
    diff = propose(stage, people, draft, rules)
    gained = difference(stage, people, draft, company, rules)
    answers = approve(stage, people, diff)
    with gatebook_client.connect_blocking(gate.target, timeout_seconds=TIMEOUT_SECONDS) as gatebook:
        entries = [
            one for one in gatebook.entries(oldest_first=True, start_index=first) if one.entry.HasField("policy")
        ]
    written = [(one.index, one.entry.caller, _step(one.entry.policy.step)) for one in entries]
    steps = [step for _, _, step in written]
    stage.gap()
    stage.say("Each step is an entry of the book, with who took it:")
    callers = dict.fromkeys(caller for _, caller, _ in written)
    stage.pairs(
        (caller, ", ".join(f"{index} {step.lower()}" for index, by, step in written if by == caller))
        for caller in callers
    )
    stage.gap()
    [asked] = readers.play(processes, gate, company, {}, (NOOR_AGAIN,))
    readers.tell(stage, company, asked, None)
    told = Governed(
        refusal=refusal,
        gained=gained,
        answers=answers,
        revision=entries[-1].entry.policy.revision.number if entries else 0,
        steps=steps,
        rows_left=asked[2].rows_left,
    )
    check(promises, company, told, asked)
    return told


class People:
    """Those who call as themselves."""

    def __init__(self, processes: Processes, gate: Gate, rules: Rules) -> None:
        """Takes the gate that they call, and where their tokens are."""
        self._processes = processes
        self._gate = gate
        self._rules = rules

    def run(self, person: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs a command of `gatebook` as a person; whoever calls looks at the exit code."""
        as_them = ("--target", self._gate.target, "--token-file", str(self._rules.token(person)))
        return self._processes.run("gatebook", *words, *as_them)


def make_draft(draft: Path, rules: Rules, lines: Sequence[str]) -> None:
    """Makes a draft anew: the set as it is served, and lines of rules at the end of those for recordings."""
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(rules.telemetry, draft)
    append(draft / MCI, "".join(f"{line}\n" for line in lines))


def refuse(stage: Stage, people: People, draft: Path, rules: Rules) -> list[str]:
    """Publishes the careless draft; returns the findings, one line each."""
    make_draft(draft, rules, CARELESS)
    stage.say(f"He adds two lines to {MCI}:")
    stage.verbatim(CARELESS, indent=DEEP)
    with stage.working("publishing"):
        done = people.run(REQUESTER, "policy", "publish", str(draft))
    lines = done.stdout.splitlines() + done.stderr.splitlines()
    findings = [line for line in lines if line.endswith(")") and line.startswith(str(MCI))]
    shown = [line for line in findings if line.endswith(tuple(f"({name})" for name in TOLD))]
    last = [line for line in lines if line.startswith(SET_NAME)]
    stage.say(f"{REQUESTER} $ gatebook policy publish {SET_NAME}", "bold")
    stage.verbatim(map(shortened, shown), indent=DEEP)
    others = sum(PLACE.match(line) is not None for line in lines) - len(shown)
    stage.verbatim([f"... {count(others)} more ...", *last], indent=DEEP)
    return findings if done.returncode == 1 else []


def shortened(finding: str) -> str:
    """Leaves out of a finding about a guardrail how it was refuted, which the way of the other finding tells, too."""
    rule, but, why = finding.partition(". But ")
    return f"{rule} ... {why.rpartition(' ')[2]}" if but else finding


def propose(stage: Stage, people: People, draft: Path, rules: Rules) -> str:
    """Publishes the careful draft, which waits; returns the digest of its diff.

    Raises:
        BrokenOffError: it does not wait for anybody.
    """
    make_draft(draft, rules, CAREFUL)
    text = (draft / TESTS).read_text(encoding="utf-8")
    before, after = (EXPECTED.format(outcome) for outcome in ("NO_MATCHING_RULE", "DENY"))
    (draft / TESTS).write_text(text.replace(before, after), encoding="utf-8")
    stage.say("When something of their own lay open, and in which tool, is enough. He says so, and what tests expect:")
    stage.verbatim(CAREFUL, indent=DEEP)
    with stage.working("publishing"):
        done = people.run(REQUESTER, "policy", "publish", str(draft))
    lines = done.stdout.splitlines()
    diffs = [line.removeprefix("diff ") for line in lines if line.startswith("diff ")]
    if not diffs:
        raise BrokenOffError(f"the careful draft was not proposed: {' '.join([*lines, done.stderr.strip()])}")
    stage.say(f"{REQUESTER} $ gatebook policy publish {SET_NAME}", "bold")
    stage.verbatim([line for line in lines if line.startswith("waits for")], indent=DEEP)
    return diffs[0]


def difference(stage: Stage, people: People, draft: Path, company: Company, rules: Rules) -> list[str]:
    """Shows what the careful draft means for people; returns the lines that say so."""
    folders = (str(rules.telemetry), str(draft), "--directory", str(company.people))
    with stage.working("comparing"):
        done = people.run(APPROVERS[0], "policy", "diff", *folders)
    lines = done.stdout.splitlines()
    stage.say(f"{APPROVERS[0]} $ gatebook policy diff active draft", "bold")
    shown = [line for line in lines if line.startswith(GAINS)]
    stage.verbatim(shown, indent=DEEP)
    return shown


def approve(stage: Stage, people: People, diff: str) -> list[str]:
    """Lets the requester and then the approvers approve; returns what each was answered."""
    answers = []
    for person in (REQUESTER, *APPROVERS):
        with stage.working("approving"):
            done = people.run(person, "policy", "approve", SET_NAME, "--diff", diff)
        answers.append((done.stdout.strip() or done.stderr.strip()).removeprefix("gatebook: "))
        stage.say(f"{person} $ gatebook policy approve {SET_NAME}", "bold")
        stage.verbatim([answers[-1]], indent=DEEP)
    return answers


def gate_size(gate: Gate) -> int:
    """Returns how many entries are published."""
    with gatebook_client.connect_blocking(gate.target, timeout_seconds=TIMEOUT_SECONDS) as gatebook:
        return int(gatebook.checkpoint(refresh=True).size)


def check(promises: Promises, company: Company, told: Governed, asked: readers.Asked) -> None:
    """Checks what was promised of a change."""
    named = {name for name in TOLD for line in told.refusal if f"({name})" in line and "role:employee" in line}
    promises.check(
        "opening a table to all is refused, with a name and a way",
        kept=named == set(TOLD),
        told=" and ".join(sorted(named)).lower().replace("_", " ") or "it was not refused",
    )
    own, one, both = told.answers
    promises.check(
        "a change needs two others, never who asked",
        kept=own.startswith(REFUSED_OWN) and "waits for 1 person" in one and told.steps.count("ACTIVATED") == 1,
        told=f"{count(len(told.answers), 'approval')} tried" if "is now active" in both else both,
    )
    promises.check(
        "every step of a change is in the book",
        kept=tuple(told.steps[-len(STEPS) :]) == STEPS and "REFUSED" in told.steps,
        told=count(len(told.steps), "step"),
    )
    promises.check(
        "a difference is told in people and rows",
        kept=any("own rows" in line for line in told.gained) and any("lost by nobody" in line for line in told.gained),
        told=told.gained[-1] if told.gained else "nothing was told",
    )
    _, question, outcome = asked
    broken = [
        told for told in (readers.miscounted(company, question, outcome), *leaks(company, question, outcome)) if told
    ]
    broken += [f"noor is told {outcome.reason}"] if outcome.reason != ALLOWED else []
    promises.check_all("what was approved is what people get, no more", broken, told=count(outcome.rows_left, "row"))


def _step(step: PolicyStep.ValueType) -> str:
    return PolicyStep.Name(step).removeprefix("POLICY_STEP_")
