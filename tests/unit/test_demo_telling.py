"""How the demo tells its story: plain, narrow, and honest about what is missing."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console
from rich.text import Text

from gatebook.cli.demo import demo
from gatebook.demo.ending import shortened
from gatebook.demo.gate import listening_at
from gatebook.demo.processes import environment
from gatebook.demo.readers import plain
from gatebook.demo.rows import cell
from gatebook.demo.stage import Stage, count, cut, fitted


def test_a_file_gets_plain_lines() -> None:
    """Into a file go no control characters, nothing that moves, no line beyond 100 columns and no blanks at ends."""
    file = io.StringIO()
    stage = Stage(Console(file=file, highlight=False))

    stage.chapter("A title", "Why it is told. " * 20)
    with stage.working("working") as progress:
        progress(1, 2)
    stage.pairs([("name", "[bold]not markup[/] " * 20)])
    stage.table(("number", "text"), [("1", "word " * 60), ("22", Text("red", "red"))], right=("number",))
    stage.verbatim(["$ command", "", "output"])

    lines = file.getvalue().splitlines()
    assert [] == [line for line in lines if not line.isprintable() or len(line) > 100 or line != line.rstrip()]
    assert "1  A title" in file.getvalue()
    assert "[bold]not markup[/]" in file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_what_is_told_whole_is_not_cut(width: int) -> None:
    """On a narrow terminal a long text takes several lines where it must be read in full."""
    file = io.StringIO()
    promise, told = "of each row a plan leaves what a check of it does " * 2, "152 rows asked about, 112 left "
    stage = Stage(Console(file=file, highlight=False, width=width, force_terminal=True, color_system=None))

    stage.table(("", "promise", "cut"), [("kept", promise, told * 9)], whole=("promise",))

    lines = file.getvalue().splitlines()
    assert [] == [line for line in lines if len(line) > width]
    assert "..." in file.getvalue()
    start, end = lines[0].index("promise"), lines[0].index("cut")
    assert promise.split() == " ".join(line[start:end] for line in lines[2:]).split()


def test_a_quiet_stage_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json nothing of the story reaches the output."""
    stage = Stage.open(quiet=True)

    stage.chapter("A title", "Why it is told.")
    stage.table(("a",), [("b",)])

    assert "" == capsys.readouterr().out


@pytest.mark.parametrize(
    ("widths", "available", "expected"),
    [([5, 10], 20, [5, 10]), ([5, 10, 30], 30, [5, 10, 15]), ([20, 20], 30, [15, 15]), ([9, 9], 0, [1, 1])],
)
def test_the_widest_columns_are_cut(widths: list[int], available: int, expected: list[int]) -> None:
    """Where a table is too wide, the widest columns give way, and none vanishes."""
    assert expected == fitted(widths, available)


def test_a_cut_shows() -> None:
    """A text that is cut ends in dots within its width."""
    assert ["short", "longer..."] == [cut(Text("short"), 9).plain, cut(Text("longer than it may be"), 9).plain]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "null"),
        (True, "true"),
        (12345, "12,345"),
        ("2026-06-18T09:30:00Z", "2026-06-18 09:30"),
        (["ana", "ben"], "ana, ben"),
        ("x" * 80, "x" * 57 + "..."),
    ],
)
def test_values_are_shown_for_people(value: object, expected: str) -> None:
    """A value of JSON is shown as a person would write it."""
    assert expected == cell(value)


def test_numbers_agree_with_what_they_count() -> None:
    """One row, two rows, two thousand rows."""
    assert ["1 row", "2 rows", "2,000 rows", "7"] == [count(1, "row"), count(2, "row"), count(2000, "row"), count(7)]


def test_relations_are_not_named() -> None:
    """What a rule lacked is told without the relation of the model."""
    assert "`noor` does not inherit `role:x`" == plain("`noor` does not inherit `role:x` by `g`")


@pytest.mark.parametrize("hashes", [0, 3, 4, 16])
def test_a_long_proof_is_shortened(hashes: int) -> None:
    """Of many hashes the middle is left out and counted; all else stays."""
    proof = ["c2sp.org/tlog-proof@v1", "index 8", *(f"hash{n}" for n in range(hashes)), "", "checkpoint"]

    told = shortened(proof)

    assert [proof[:2], proof[-2:]] == [told[:2], told[-2:]]
    assert min(hashes, 4) == len(told) - 4
    assert (hashes > 3) == (f"... {hashes - 3} more ..." in told)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"event": "serving", "listen": "127.0.0.1:4711"}\n', "127.0.0.1:4711"),
        ('{"event": "draining"}\n', ""),
        ("Traceback\n", ""),
    ],
)
def test_the_port_is_read_from_the_log(line: str, expected: str) -> None:
    """The server says where it listens in one line of its log."""
    assert expected == listening_at(line)


def test_settings_of_the_caller_do_not_reach_the_demo() -> None:
    """A target or another setting in the environment leads no process of the demo elsewhere."""
    found = environment({"GATEBOOK_TARGET": "127.0.0.1:1", "PATH": "/bin"})

    assert {"PATH": "/bin", "COLUMNS": "96", "NO_COLOR": "1"} == found


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without duckdb the command says what to install."""
    monkeypatch.setitem(sys.modules, "duckdb", None)

    result = CliRunner().invoke(demo)

    assert 2 == result.exit_code
    assert "gatebook: the demo needs the package duckdb: run `make demo`" in result.output


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    """The demo writes into a new folder only."""
    result = CliRunner().invoke(demo, ["--keep", str(tmp_path)])

    assert 2 == result.exit_code
    assert "exists already: name a new folder" in result.output
