"""The telemetry set and variants of it that tests need."""

from __future__ import annotations

import shutil
from pathlib import Path

TELEMETRY = Path(__file__).parents[1] / "policies" / "telemetry"
DIRECTORY = TELEMETRY / "directory"


def telemetry_without_consent(tmp_path: Path) -> Path:
    """Copies the telemetry set with every purpose free of consent; returns its folder.

    Lets a test look past `CONSENT_REQUIRED` at what the rules and masks say. The set's own policy
    tests are left out, since they expect that consent is asked for.
    """
    folder = tmp_path / "telemetry"
    shutil.copytree(TELEMETRY, folder, ignore=shutil.ignore_patterns("tests"))
    purposes = folder / "purposes.yaml"
    text = purposes.read_text(encoding="utf-8")
    purposes.write_text(text.replace("consent: opt_in", "consent: none"), encoding="utf-8")
    return folder
