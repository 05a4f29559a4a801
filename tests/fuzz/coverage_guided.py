"""Mutates texts towards code that none reached yet: atheris, on one reader.

Run as `python -m tests.fuzz.coverage_guided READER options-of-libfuzzer...` with atheris on the path; ends with a code
other than 0, and the text that did it in a file, when the reader's check does not hold.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ATHERIS = ROOT / "build/fuzz/atheris"
SLOW_SECONDS = 20
"""What takes longer to read is a fault."""
MEMORY_MIB_MAX = 2_048
READERS = (
    "model",
    "rules",
    "governed-rules",
    "settings",
    "catalogue",
    "purposes",
    "directory",
    "expression",
    "pattern",
)
"""Those of `readers`, which must not be imported before it is instrumented."""


class Mutation:
    """One reader under mutation, in a process of its own."""

    def __init__(self, reader: str, *, seed: int, seconds: float, folder: Path) -> None:
        """Begins; `folder` is where findings are written."""
        corpus = folder.parent / "corpus" / reader
        corpus.mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        self.reader = reader
        self.log = folder.parent / f"{reader}-{seed}.log"
        self._prefix, self._folder = f"{reader}-", folder
        self._before = set(self._written())
        options = (
            f"-max_total_time={max(1, int(seconds))}",
            f"-seed={seed % 2**31 or 1}",
            f"-timeout={SLOW_SECONDS}",
            f"-rss_limit_mb={MEMORY_MIB_MAX}",
            f"-artifact_prefix={folder}/{self._prefix}",
            str(corpus),
        )
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                (sys.executable, "-m", "tests.fuzz.coverage_guided", reader, *options),
                cwd=ROOT,
                env={"PYTHONPATH": f"{ATHERIS}:{ROOT}", "PATH": "/usr/bin:/bin"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def end(self, seconds: float) -> tuple[int, list[Path]]:
        """Waits for the end; returns how many texts were read, and which were found."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        found = sorted(set(self._written()) - self._before)
        if code and not found:
            found = [self.log]
        return self._texts(), found

    def _written(self) -> list[Path]:
        return list(self._folder.glob(f"{self._prefix}*"))

    def _texts(self) -> int:
        """Returns the highest number of a run that the log tells."""
        words = self.log.read_text(encoding="utf-8", errors="replace").split()
        return max((int(word[1:]) for word in words if word[:1] == "#" and word[1:].isdigit()), default=0)


def main() -> None:
    """Mutates until the options end it."""
    atheris = importlib.import_module("atheris")  # it is in no environment but its own

    with atheris.instrument_imports(include=["gatebook"], exclude=["gatebook.v1", "gatebook.envoy"]):
        readers = importlib.import_module("tests.fuzz.readers").READERS
    name, *options = sys.argv[1:]
    corpus = Path(options[-1])
    for number, text in enumerate(readers[name].seeds):
        (corpus / f"seed-{number}").write_bytes(text)
    atheris.Setup([sys.argv[0], *options], readers[name].check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
