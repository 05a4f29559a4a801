"""The systemd unit: understood in every line, and closed as far as systemd can see."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.documents import ROOT

UNIT = ROOT / "docs" / "deploy" / "systemd" / "gatebook.service"
SYSTEM = Path("/usr/lib/systemd/system")
EXPOSURE_MAX = 15
"""Tenths: systemd's own scale ends at 100, and below 20 is its best grade."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with the unit, the program that it starts, and systemd's own units."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing: install the Debian package systemd")
    shutil.copytree(SYSTEM, tmp_path / SYSTEM.relative_to("/"), symlinks=True)
    units = tmp_path / "etc" / "systemd" / "system"
    units.mkdir(parents=True)
    shutil.copy(UNIT, units)
    program = tmp_path / "opt" / "gatebook" / "bin" / "gatebook"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return tmp_path


def analyze(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs systemd-analyze."""
    command = ["systemd-analyze", f"--root={root}", "--no-pager", *words, UNIT.name]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_unit_is_understood(root: Path) -> None:
    """Systemd has nothing to say about any line of it."""
    done = analyze(root, "--man=no", "verify")
    assert (0, "") == (done.returncode, done.stdout + done.stderr)


def test_the_unit_is_closed(root: Path) -> None:
    """Its exposure is in systemd's best grade."""
    done = analyze(root, "--offline=true", f"--threshold={EXPOSURE_MAX}", "security")
    assert done.returncode == 0, done.stdout
