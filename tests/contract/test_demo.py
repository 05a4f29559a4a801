"""`gatebook demo` keeps what it promises, says so in JSON, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.serving import ROOT

from gatebook.demo.cast import CAST

SMALL = [sys.executable, "-m", "gatebook", "demo", "--employees", "300", "--scale", "small"]
pytestmark = pytest.mark.timeout(300)  # the first test plays the whole story
END_SECONDS = 240
WIDTH = 100
TOLD_LINES = 40
"""By then the server runs and the first programs have asked."""


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Starts a small demo whose temporary files lie in a folder."""
    environment = {**os.environ, "TMPDIR": str(folder), "GATEBOOK_TARGET": "127.0.0.1:1"}
    return subprocess.Popen(
        [*SMALL, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Waits for the end of a demo; one that takes too long is told to end, so that it leaves nothing either."""
    try:
        return process.communicate(timeout=END_SECONDS)
    except subprocess.TimeoutExpired:
        process.terminate()
        raise


def processes_in(folder: Path) -> list[str]:
    """Returns the command lines of all processes that name a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:  # it has ended meanwhile
            continue
        if str(folder).encode() in command:
            found.append(command.decode().replace("\0", " "))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder for temporary files of the demo that runs to its end."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[str, Any]:
    """Returns the summary of a demo that ran to its end."""
    process = start(folder, "--json")
    out, err = finish(process)
    assert (0, "") == (process.returncode, err)
    summary: dict[str, Any] = json.loads(out)
    return summary


def question(told: dict[str, Any], actor: str, number: int = 0) -> dict[str, Any]:
    """Returns what the summary says of one question of an actor."""
    found: dict[str, Any] = [one for one in told["questions"] if one["actor"] == actor][number]
    return found


def test_every_promise_is_kept(told: dict[str, Any]) -> None:
    """Each promise of the story was checked, and kept."""
    promises = told["promises"]

    assert [] == [one for one in promises if not one["kept"]]
    assert (True, 22) == (told["kept"], len(promises))


def test_every_question_is_asked(told: dict[str, Any]) -> None:
    """Every actor asked all of its questions, got the reasons it expects, and each answer has its own entry."""
    expected = [(actor.name, question.expected) for actor in CAST for question in actor.questions]

    assert expected == [(one["actor"], one["reason"]) for one in told["questions"]]
    assert len(expected) == len({one["entry"] for one in told["questions"]})


def test_a_rogue_reads_nothing(told: dict[str, Any]) -> None:
    """The leaderboard is denied for whatever purpose it names, and does not even open the store."""
    asked = [one for one in told["questions"] if one["actor"] == "leaderboard"]

    assert {"NO_MATCHING_RULE", "PURPOSE_NOT_PERMITTED"} == {one["reason"] for one in asked}
    assert {(False, 0)} == {(one["planned"], one["rows_left"]) for one in asked}


def test_training_needs_consent(told: dict[str, Any]) -> None:
    """The training job is denied for want of consent."""
    assert "CONSENT_REQUIRED" == question(told, "training")["reason"]


def test_a_dashboard_gets_groups(told: dict[str, Any]) -> None:
    """The dashboard runs one statement and gets groups alone, of ten people at least."""
    asked = question(told, "dashboard", 1)

    assert (10, True) == (asked["minimum_group"], asked["planned"])
    assert 0 < asked["rows_left"] < told["subjects"]


def test_programs_run_the_sql_that_they_were_given(told: dict[str, Any]) -> None:
    """Whoever is allowed got its rows by a plan, and nobody else; a manager gets those of her own people."""
    assert [one["reason"] == "ALLOWED" for one in told["questions"]] == [one["planned"] for one in told["questions"]]
    assert 0 < question(told, "manager")["rows_left"] < question(told, "hr", 1)["rows_left"]
    assert 0 < question(told, "noor", 3)["rows_left"] < told["rows"]


def test_nobody_reads_prompts_in_clear(told: dict[str, Any]) -> None:
    """Asked about every subject, the gate lets out who and when to a few, and the text to nobody."""
    assert {told["subjects"]} == {sum(one["reasons"].values()) for one in told["audiences"]}
    assert {0} == {one["in_clear"] for one in told["audiences"]}
    assert [0, 0, 1] == [one["allowed"] for one in told["audiences"]]


def test_every_receipt_is_compared(told: dict[str, Any]) -> None:
    """Clients held hundreds of receipts when the server was killed, and each was looked for in the book."""
    assert 1 == told["kills"]
    assert told["receipts"] >= 400 + 3 * told["subjects"]
    assert told["entries"] > told["receipts"]


def test_a_careless_change_is_refused_with_a_name_and_a_way(told: dict[str, Any]) -> None:
    """The grant to everybody breaks a ceiling, for a named person by a named line, and a guardrail."""
    ceiling, guardrail = (
        next(line for line in told["change"]["refusal"] if line.endswith(f"({name})"))
        for name in ("AUDIENCE_CEILING", "GUARDRAIL_REFUTED")
    )

    assert re.search(
        r"could be allowed to 3\d\d people .* for one `[a-z.]+`, by .* \(employees\.jsonl:\d+\); p, ", ceiling
    )
    assert "`content-in-clear` does not hold" in guardrail
    assert all("role:employee, mci.prompts, read" in line for line in (ceiling, guardrail))


def test_a_change_takes_effect_when_two_others_agree(told: dict[str, Any]) -> None:
    """Whoever asked is refused, the first of two changes nothing, the second activates; each step is an entry."""
    change = told["change"]
    own, first, second = change["answers"]

    assert re.fullmatch(r"gained by 3\d\d people of their own rows alone; lost by nobody", change["gained"][-1])
    assert own.startswith("whoever proposed a change does not approve it")
    assert "waits for 1 person" in first
    assert second.startswith("telemetry revision 2 ")
    assert ["REFUSED", "VALIDATED"] == sorted(change["steps"][:2])
    assert ["PROPOSED", "APPROVED", "APPROVED", "ACTIVATED"] == change["steps"][-4:]
    assert (2, True) == (change["revision"], 0 < change["rows_left"] < 100)


def test_nothing_is_left_behind(told: dict[str, Any], folder: Path) -> None:
    """After its end no process and no file of the demo is there."""
    assert told["kept"]
    assert [] == processes_in(folder)
    assert [] == list(folder.iterdir())


def test_a_signal_ends_everything(tmp_path: Path) -> None:
    """Told to end in the middle, the demo ends its server and its programs and removes its files.

    What it had told by then is plain text within 100 columns: a pipe is no terminal.
    """
    process = start(tmp_path)
    assert process.stdout is not None
    lines = [next(process.stdout).rstrip("\n") for _ in range(TOLD_LINES)]
    assert [] != processes_in(tmp_path)

    process.send_signal(signal.SIGTERM)
    finish(process)

    assert 128 + signal.SIGTERM == process.returncode
    assert [] == processes_in(tmp_path)
    assert [] == list(tmp_path.iterdir())
    assert [] == [line for line in lines if not line.isprintable() or len(line) > WIDTH or line != line.rstrip()]
