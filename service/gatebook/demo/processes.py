"""The processes of the demo: every one that it starts, it ends.

Owns their lives. Each runs this very Python with a module of its own, without the settings of whoever runs the
demo, and in a session of its own: Ctrl-C reaches the demo alone, which then ends the others.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Self

END_SECONDS = 5.0
RUN_SECONDS = 120.0
COLUMNS = "96"


class BrokenOffError(Exception):
    """The demo cannot go on; the text says why and what to do. No server ever answers with it."""


class Processes:
    """The processes that are under way. Use it inside `with`: leaving ends them."""

    def __init__(self) -> None:
        """Starts with none."""
        self._started: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends every process that is still there."""
        alive = [process for process in self._started if process.poll() is None]
        for process in alive:
            process.terminate()
        for process in alive:
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(END_SECONDS)

    def start(self, *arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """Starts `python -m ...`, with its output and its errors in pipes."""
        process = subprocess.Popen(  # noqa: S603  # our own modules, and words of our own
            [sys.executable, "-m", *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=environment(os.environ),
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs `python -m ...` to its end; whoever calls looks at the exit code."""
        process = self.start(*arguments)
        out, err = finish(process, arguments[0])
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def finish(process: subprocess.Popen[str], name: str, given: str | None = None) -> tuple[str, str]:
    """Waits for the end of a process; returns its output and its errors.

    Raises:
        BrokenOffError: it takes too long.
    """
    try:
        return process.communicate(given, timeout=RUN_SECONDS)
    except subprocess.TimeoutExpired as err:
        raise BrokenOffError(f"`{name}` did not end within {RUN_SECONDS:.0f} s: is the machine very busy?") from err


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment of a process of the demo: that of the caller without any setting of Gatebook."""
    kept = {name: value for name, value in inherited.items() if not name.startswith("GATEBOOK_")}
    return {**kept, "COLUMNS": COLUMNS, "NO_COLOR": "1"}
