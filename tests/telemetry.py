"""The telemetry policy set for tests, as shipped and with every purpose free of consent."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tests.serving import POLICIES

TELEMETRY = POLICIES / "telemetry"


def telemetry_without_consent(folder: Path) -> Path:
    """Copies the set and lets no purpose need consent, so that tests can look past that step.

    The policy tests of the copy are left out: they speak of the set as shipped.
    """
    copy = folder / "telemetry"
    shutil.copytree(TELEMETRY, copy, ignore=shutil.ignore_patterns("tests"))
    purposes = copy / "purposes.yaml"
    text, changed = re.subn(r"consent: *opt_(in|out)", "consent: none", purposes.read_text())
    if not changed:
        raise AssertionError("no purpose of the telemetry set needs consent")
    purposes.write_text(text)
    return copy
