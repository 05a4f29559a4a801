"""The alerts that are shipped: Prometheus's own tool accepts them, and each fires when it should and not before."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RULES = ROOT / "docs" / "deploy" / "prometheus" / "alerts.yaml"
CASES = Path(__file__).parent / "alerts.yaml"
PROMTOOL = shutil.which("promtool")

pytestmark = pytest.mark.skipif(PROMTOOL is None, reason="needs promtool: install the Debian package `prometheus`")


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs promtool."""
    assert PROMTOOL is not None
    return subprocess.run([PROMTOOL, *words], capture_output=True, text=True, check=False)


def test_prometheus_accepts_the_rules() -> None:
    """The rules are well formed."""
    told = promtool("check", "rules", str(RULES))
    assert 0 == told.returncode, told.stdout + told.stderr


def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    """Played against series of which it is known what they mean, each alert fires, and says what it should."""
    cases = tmp_path / "cases.yaml"
    cases.write_text(CASES.read_text(encoding="utf-8").replace("RULES", str(RULES)), encoding="utf-8")
    told = promtool("test", "rules", str(cases))
    assert 0 == told.returncode, told.stdout + told.stderr
