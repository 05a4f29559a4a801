"""The report of a change in a real browser: it is laid out, runs nothing, and loads nothing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.contract.test_diff import HOSTILE, MCI, OPENED, hostile
from tests.serving import POLICIES, gatebook

from gatebook.cli.report import report_of

CHROMIUM = shutil.which("chromium")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: install the Debian package `chromium`")


def chromium(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs the browser without a window."""
    assert CHROMIUM is not None
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", profile, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


def test_hostile_names_run_nothing(tmp_path: Path) -> None:
    """A page full of hostile names has the title that it was given, and no element of theirs, after all scripts ran."""
    page = tmp_path / "hostile.html"
    page.write_text(report_of(hostile(), HOSTILE, HOSTILE), encoding="utf-8")

    dom = chromium(tmp_path, "--dump-dom", "--virtual-time-budget=5000", page.as_uri()).stdout

    assert "<title>&lt;script&gt;" in dom
    assert "<script" not in dom
    assert "<img" not in dom


def test_a_browser_lays_it_out(tmp_path: Path) -> None:
    """The page of a change is drawn, by day and by night, and can be printed."""
    draft = tmp_path / "draft"
    shutil.copytree(POLICIES / "telemetry", draft)
    with (draft / MCI).open("a", encoding="utf-8") as file:
        file.write(OPENED)
    page = tmp_path / "report.html"
    gatebook("policy", "diff", str(POLICIES / "telemetry"), str(draft), "--html", str(page))
    picture, paper = tmp_path / "report.png", tmp_path / "report.pdf"

    chromium(tmp_path, "--window-size=1200,1600", f"--screenshot={picture}", page.as_uri())
    chromium(tmp_path, f"--print-to-pdf={paper}", page.as_uri())
    drawn = chromium(tmp_path, "--dump-dom", page.as_uri()).stdout

    assert picture.read_bytes().startswith(b"\x89PNG")
    assert paper.read_bytes().startswith(b"%PDF")
    assert drawn.count("<svg") >= 2  # who gains what, and a way
