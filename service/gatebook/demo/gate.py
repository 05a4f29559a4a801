"""The real server, `gatebook serve`, in a process of its own on a port that happened to be free.

Owns its starts and its ends: told to stop, it drains; killed, it has no last word. Its log goes to a file.
"""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path

from gatebook.demo.processes import BrokenOffError, Processes
from gatebook.demo.rules import Rules

START_SECONDS = 60.0
STOP_SECONDS = 30.0
LOG_LINES_TOLD = 5


class Gate:
    """One data directory and the server on it; `target` is where the server that runs now listens."""

    def __init__(self, processes: Processes, folder: Path, rules: Rules, directory: Path) -> None:
        """Takes where the data and the log go, what to publish at the first start, and whose tokens count."""
        self.data = folder / "var"
        self.log = folder / "server.log"
        self.target = ""
        self._processes = processes
        sets = ("--policies", str(rules.telemetry), "--policies", str(rules.authority))
        self._published = (*sets, "--directory", str(directory), "--callers", str(rules.callers))
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._told = threading.Event()

    def start(self) -> None:
        """Starts the server and waits until it listens.

        Raises:
            BrokenOffError: it does not start.
        """
        self._told.clear()
        self.target = ""
        arguments = ("serve", "--data", str(self.data), "--listen", "127.0.0.1:0", "--log", "json")
        self._process = self._processes.start("gatebook", *arguments, *self._published)
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        self._told.wait(START_SECONDS)
        if not self.target:
            raise BrokenOffError(f"the server did not start; its log ends with:\n{self._last_words()}")

    def kill(self) -> None:
        """Kills the server at once, as a power loss would: no handler runs, nothing is flushed."""
        process = self._running()
        process.kill()
        process.wait(STOP_SECONDS)
        self._join()

    def stop(self) -> int:
        """Tells the server to stop, as an operator does; returns its exit code."""
        process = self._running()
        process.terminate()
        try:
            code = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired as err:
            raise BrokenOffError(f"the server did not stop; its log ends with:\n{self._last_words()}") from err
        self._join()
        return code

    def _join(self) -> None:
        """Waits until the log of the server that ended is read, so that its end is not taken for that of the next."""
        if self._reader is not None:
            self._reader.join(STOP_SECONDS)

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            raise BrokenOffError(f"the server has ended by itself; its log ends with:\n{self._last_words()}")
        return self._process

    def _read(self, process: subprocess.Popen[str]) -> None:
        """Copies the log to its file and notes where the server listens. Ends with the server."""
        assert process.stderr is not None  # noqa: S101  # `Processes.start` opens the pipe
        with self.log.open("a", encoding="utf-8") as file:
            for line in process.stderr:
                file.write(line)
                file.flush()
                if not self.target and (target := listening_at(line)):
                    self.target = target
                    self._told.set()
        self._told.set()

    def _last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        return "\n".join(lines[-LOG_LINES_TOLD:]) or "(nothing)"


def listening_at(line: str) -> str:
    """Returns where the server listens, if a line of its log says so."""
    if not line.startswith("{"):
        return ""
    told = json.loads(line)
    return str(told["listen"]) if told.get("event") == "serving" else ""
