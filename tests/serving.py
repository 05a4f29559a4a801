"""A real server for tests: the command `gatebook serve` in a process of its own, on a port of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

START_SECONDS = 60
STOP_SECONDS = 30
ROOT = Path(__file__).parent.parent
POLICIES = ROOT / "policies"


class LoggedProcess:
    """A process that logs JSON; `lines` are the last lines of its log, parsed, and `raw` the last as they came."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Starts the command, and waits until it says that it is ready."""
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.lines: deque[dict[str, Any]] = deque(maxlen=100_000)
        self.raw: deque[str] = deque(maxlen=1_000)
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._ready.wait(START_SECONDS) or self.process.poll() is not None:
            self.kill()
            raise RuntimeError(f"{' '.join(command)} did not start:\n" + "\n".join(self.raw))

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.raw.append(line.rstrip())
            if line.startswith("{"):
                told = json.loads(line)
                self.lines.append(told)
                if self._is_ready(told):
                    self._ready.set()
        self._ready.set()

    def _is_ready(self, told: Mapping[str, Any]) -> bool:
        """Takes a line of the log, and tells whether it says that the process is ready."""
        raise NotImplementedError

    def stop(self) -> int:
        """Stops the process as an operator would, and returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_SECONDS)
        self._reader.join(STOP_SECONDS)
        return code

    def kill(self) -> None:
        """Kills the process at once, as a power loss would."""
        self.process.kill()
        self.process.wait(STOP_SECONDS)
        self._reader.join(STOP_SECONDS)


class RunningServer(LoggedProcess):
    """A server process on a port of its own."""

    def __init__(
        self, data: Path, *arguments: str, files_max: int = 0, program: Sequence[str] = ("-m", "gatebook")
    ) -> None:
        """Starts the command, which may open so many files (0: as many as this process), and waits until it listens."""
        self.data = data
        command = [sys.executable, *program, "serve", "--data", str(data), "--listen", "127.0.0.1:0"]
        if files_max:
            command = ["bash", "-c", f'ulimit -n {files_max} && exec "$@"', "bash", *command]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GATEBOOK_")}
        super().__init__([*command, "--log", "json", *arguments], environment)

    def _is_ready(self, told: Mapping[str, Any]) -> bool:
        if told.get("event") == "http":
            self.http = str(told["listen"])
        if told.get("event") != "serving":
            return False
        self.target = str(told["listen"])
        return True

    @contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        """Opens a channel to the server."""
        with grpc.insecure_channel(self.target) as channel:
            yield channel

    def children(self) -> list[int]:
        """Returns the processes that the server has started: its clerk, or its workers."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        return [int(pid) for told in tasks.glob("*/children") for pid in told.read_text("ascii").split()]


@contextmanager
def serving(
    data: Path, policies: Sequence[Path] = (), *arguments: str, program: Sequence[str] = ("-m", "gatebook")
) -> Iterator[RunningServer]:
    """Runs a server within the block."""
    named = (word for path in policies for word in ("--policies", str(path)))
    server = RunningServer(data, *named, *arguments, program=program)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


def gatebook(
    *arguments: str, check: bool = False, cwd: Path = ROOT, seconds: float = 120, state: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the command line and returns what it printed; without `state` it remembers nothing of earlier runs."""
    environment = {**{k: v for k, v in os.environ.items() if not k.startswith("GATEBOOK_")}, "COLUMNS": "160"}
    command = [sys.executable, "-m", "gatebook", *arguments]
    with tempfile.TemporaryDirectory() as nothing:
        environment["XDG_STATE_HOME"] = str(state or nothing)
        return subprocess.run(
            command, capture_output=True, text=True, check=check, cwd=cwd, env=environment, timeout=seconds
        )
