"""A backup brings nobody back: whoever was erased after it was made is erased when it is released."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests import killed
from tests.contract.test_erasure import about, ask, erase, files_with, listed, row_of, verify
from tests.contract.test_rotation import rotate
from tests.serving import POLICIES, ROOT, gatebook, serving

from gatebook.audit.people import People
from gatebook.v1 import entry_pb2

TELEMETRY = POLICIES / "telemetry"


def restore(backup: Path, data: Path, *options: str, code: int = 0) -> Any:  # noqa: ANN401  # what it says in JSON
    """Restores a backup and lets it go on; returns what it says, or the error where another code is due."""
    done = gatebook("restore", str(backup), "--data", str(data), "--continue", *options, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr if code else json.loads(done.stdout)


def is_suppressed(data: Path, person: str) -> bool:
    """Tells whether an id is in the suppression list of a data directory."""
    people = People.open(data, read_only=True)
    try:
        return people.forgotten.is_suppressed(person)
    finally:
        people.close()


def begun(data: Path, origin: str) -> Path:
    """Makes a book in which three people are named."""
    with serving(data, [TELEMETRY], "--dev", "--origin", origin) as server:
        ask(server, about("eli"), about("farah"), about("kai"))
    return data


def erased_in(data: Path, *people: str) -> None:
    """Goes on with a book, and erases people in it."""
    with serving(data, [], "--dev") as server:
        for person in people:
            erase(server, person, requested_by="bea", approved_by="ana")


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """Gives a data directory, of which there is a backup beside it."""
    data = begun(tmp_path / "original", "gatebook.example.org/audit")
    made = gatebook("backup", str(tmp_path / "b.tar"), "--data", str(data))
    assert made.returncode == 0, made.stderr
    return data


def require_gone(data: Path, row: tuple[bytes, ...], person: str) -> None:
    """Requires that a person is erased in a restored book, which says so and verifies."""
    with serving(data, [], "--dev") as server:
        entries = listed(server)
        found = listed(server, subject_id=person)
        again = [line for line in server.lines if line["event"] == "erasures applied again"]
    assert found == again == []
    steps = [one.entry.erasure.step for one in entries if one.entry.HasField("erasure")]
    assert steps == [entry_pb2.ERASURE_STEP_BEGUN, entry_pb2.ERASURE_STEP_COMPLETED]
    [reason] = [one.stated_reason for one in entries if one.entry.erasure.pseudonyms]
    assert reason.startswith("as entry ")
    assert files_with(data, row[1], row[2]) == []
    assert is_suppressed(data, person)
    done = verify(data)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("copied", ["the directory", "the published book"])
def test_whom_the_original_erased_is_erased(original: Path, tmp_path: Path, copied: str) -> None:
    """The book that went on names who was erased: their keys are in no file of the restored one, the others' are."""
    row, other = row_of(original, "eli"), row_of(original, "farah")
    erased_in(original, "eli")
    copy = original if copied == "the directory" else shutil.copytree(original / "book", tmp_path / "copy")
    data = tmp_path / "restored"

    told = restore(tmp_path / "b.tar", data, "--erasures-of", str(copy))

    assert (told["released"], told["erased"]) == (True, 1)
    assert told["lost_size"] > told["size"]
    require_gone(data, row, "eli")
    assert row_of(data, "farah") == other


def test_whom_a_successor_erased_is_erased(original: Path, tmp_path: Path) -> None:
    """The book was closed after the backup, and its successor erased somebody."""
    row = row_of(original, "eli")
    rotate(original)
    erased_in(original, "eli")
    data = tmp_path / "restored"

    told = restore(tmp_path / "b.tar", data, "--erasures-of", str(original))

    assert (told["erased"], told["lost_size"]) == (1, 0)
    require_gone(data, row, "eli")


def test_an_erasure_of_somebody_new_keeps_its_mark(original: Path, tmp_path: Path) -> None:
    """Who came and was erased after the backup is not in it, and is on the suppression list all the same."""
    with serving(original, [], "--dev") as server:
        ask(server, about("dana"))
    erased_in(original, "dana")
    data = tmp_path / "restored"

    told = restore(tmp_path / "b.tar", data, "--erasures-of", str(original))

    assert told["erased"] == 1
    assert is_suppressed(data, "dana")


def test_who_came_back_before_the_backup_stays(tmp_path: Path) -> None:
    """An erasure that the backup knows is not carried out again on who was seen since."""
    original = begun(tmp_path / "original", "gatebook.example.org/audit")
    erased_in(original, "eli")
    with serving(original, [], "--dev") as server:
        ask(server, about("eli"))
    assert gatebook("backup", str(tmp_path / "b.tar"), "--data", str(original)).returncode == 0
    data = tmp_path / "restored"

    told = restore(tmp_path / "b.tar", data, "--erasures-of", str(original))

    assert told["erased"] == 0
    assert row_of(data, "eli") == row_of(original, "eli")


def test_whom_another_worker_erased_is_erased(original: Path, tmp_path: Path) -> None:
    """A book with a store of its own tells by id. What it erased before the backup was made does not count."""
    row = row_of(original, "eli")
    other = begun(tmp_path / "other", "gatebook.example.org/other")
    erased_in(other, "farah")
    with serving(original, [], "--dev") as server:  # so that the backup is younger than that
        ask(server, about("farah"))
    assert gatebook("backup", str(tmp_path / "later.tar"), "--data", str(original)).returncode == 0
    erased_in(other, "eli")
    data = tmp_path / "restored"

    told = restore(tmp_path / "later.tar", data, "--erasures-of", str(other / "book"))

    assert told["erased"] == 1
    require_gone(data, row, "eli")
    assert row_of(data, "farah")


@pytest.mark.usefixtures("original")
def test_another_store_needs_its_key(tmp_path: Path) -> None:
    """Without the other book's keys nobody can tell whom it erased: nothing is released."""
    other = begun(tmp_path / "other", "gatebook.example.org/other")
    erased_in(other, "eli")
    copy, data = shutil.copytree(other / "book", tmp_path / "elsewhere" / "copy"), tmp_path / "restored"

    refused = restore(tmp_path / "b.tar", data, "--erasures-of", str(copy), code=1)

    assert "with its keys" in refused
    assert (data / "restored.json").exists()
    held = gatebook("restore", "--data", str(data), "--continue", "--erasures-of", str(other))
    assert held.returncode == 0, held.stderr
    assert "1 person, as the other book says" in held.stdout


def test_a_copy_that_cannot_be_read_releases_nothing(original: Path, tmp_path: Path) -> None:
    """Where the entry of an erasure is damaged nobody is given back: the book stays held."""
    erased_in(original, "eli")
    copy, data = shutil.copytree(original / "book", tmp_path / "copy"), tmp_path / "restored"
    for bundle in (copy / "tile" / "entries").rglob("*"):
        if bundle.is_file():
            bundle.write_bytes(bundle.read_bytes()[:-1] + b"\xff")

    restore(tmp_path / "b.tar", data, "--erasures-of", str(copy), code=1)

    assert (data / "restored.json").exists()


@pytest.mark.usefixtures("original")
def test_a_copy_of_another_key_is_refused(tmp_path: Path) -> None:
    """A book of the same origin that the key did not sign erases nobody."""
    forged = begun(tmp_path / "forged", "gatebook.example.org/audit")
    erased_in(forged, "eli")
    data = tmp_path / "restored"

    refused = restore(tmp_path / "b.tar", data, "--erasures-of", str(forged), code=1)

    assert "which is not the key of" in refused
    assert (data / "restored.json").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--continue"], "say --no-erasures"),
        (["--no-erasures"], "go with --continue"),
        (["--continue", "--no-erasures", "--erasures-of", "."], "contradict"),
    ],
)
def test_a_release_says_who_was_erased(original: Path, tmp_path: Path, options: list[str], told: str) -> None:
    """Nobody lets a backup go on without a word about erasures since."""
    data = tmp_path / "restored"
    done = gatebook("restore", str(tmp_path / "b.tar"), "--data", str(data), *options)

    assert original.is_dir()
    assert (done.returncode, told in done.stderr) == (2, True)
    assert not data.exists()


STEPS = {
    "nobody is deleted": "gatebook.audit.forgotten:Forgotten.erase:1",
    "the row is deleted": "gatebook.audit.forgotten:Forgotten.scrub:1",
    "the store is written anew": "gatebook.backup.erasures:encode_erasure:1",
    "all but the mark is done": "gatebook.backup.restore:remove_hold:1",
}


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_any_step_is_made_up_for(original: Path, tmp_path: Path, step: str) -> None:
    """A release that is killed leaves a held book that verifies; the same command and a start end it."""
    row, data = row_of(original, "eli"), tmp_path / "restored"
    erased_in(original, "eli")
    release = ["restore", "--data", str(data), "--continue", "--erasures-of", str(original)]
    assert gatebook("restore", str(tmp_path / "b.tar"), "--data", str(data)).returncode == 0

    program = [sys.executable, *killed.PROGRAM, STEPS[step], *release]
    assert subprocess.run(program, cwd=ROOT, capture_output=True, check=False).returncode == -signal.SIGKILL
    assert (data / "restored.json").exists()
    again = gatebook(*release)
    assert again.returncode == 0, again.stdout + again.stderr
    with serving(data, [], "--dev") as server:
        steps = [one.entry.erasure.step for one in listed(server) if one.entry.HasField("erasure")]
        assert listed(server, subject_id="eli") == []

    assert steps.count(entry_pb2.ERASURE_STEP_BEGUN) == steps.count(entry_pb2.ERASURE_STEP_COMPLETED) > 0
    assert files_with(data, row[1], row[2]) == []
    assert verify(data).returncode == 0
