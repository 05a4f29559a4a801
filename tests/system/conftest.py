"""What several tests of programs that are not ours share."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds the program of Go in go_notes."""
    built = tmp_path_factory.mktemp("go") / "notes"
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}
    command = ["go", "build", "-buildvcs=false", "-o", str(built), "."]
    subprocess.run(command, cwd=Path(__file__).with_name("go_notes"), env=environment, check=True, timeout=600)
    return built
