"""A reader at a terminal: types what a document says into a folder that has nothing but the shipped policies.

Owns what is done for each kind of command. All run in bash, with these exceptions, each with its reason:

    gatebook serve   runs beside the commands that follow, until the next one, `^C` or the end of the document;
                     its ports are any free ones, and the ports that the document names lead there
    gatebook witness serve   runs likewise, until the end of the document
    make TARGET      is not run: the target must exist (it makes environments, or is a test run of its own)
    source .venv     is not run: the environment of the tests is that environment already
    export           holds for every command and program that follows
    go, npm, node, protoc, and what they build in `bin/`, are not run but where `outside` says that they are there:
                     `make test` needs only Python, and tests/system follows the same documents
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

from tests.documents import ROOT

TIMEOUT_SECONDS = 60
COLUMNS = 100
DEFAULT_LISTEN = "127.0.0.1:7443"

_WITNESS = re.compile(r"gatebook witness serve( |$)")
_WITNESSING = re.compile(r"witness serving .*?listen=(\S+)")
DEFAULT_WITNESS = "127.0.0.1:7480"
_SERVE = re.compile(r"gatebook serve( |$)")
_LISTEN = re.compile(r" --listen (\S+)")
_METRICS = re.compile(r" --metrics (\S+)")
_TELLING = re.compile(r" metrics .*listen=(\S+)")
_HTTP = re.compile(r" --http (\S+)")
_ANSWERING = re.compile(r" http .*listen=(\S+)")
_SERVING = re.compile(r"(?<!worker) serving .*listen=(\S+)")
_MAKE = re.compile(r"make( ([a-z-]+))?")
_EXPORT = re.compile(r"export((?: [A-Z_]+=[\w./:-]+)+)")
_OUTSIDE = re.compile(r"(?:^|&& )(?:GOBIN=\S+ )?(?:go|npm|node|protoc|bin/[a-z]+) ")
_ACTIVATE = "source .venv/bin/activate"


@dataclass
class Session:
    """The folder, the environment and the server of one reader."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    shown_listen: str = DEFAULT_LISTEN
    server: subprocess.Popen[str] | None = None
    metrics: tuple[str, str] | None = None
    """Where the document says that operators are told, and where they are."""
    http: tuple[str, str] | None = None
    """Where the document says that HTTP is answered, and where it is."""

    outside: bool = False
    """Whether programs that do not come with Python are there."""
    seconds: int = TIMEOUT_SECONDS
    """How long a command may take."""
    witnesses: dict[str, tuple[str, subprocess.Popen[str]]] = field(default_factory=dict)
    """By the addresses that the document says witnesses have: those that they have, and their processes."""

    def __post_init__(self) -> None:
        """Gives the reader the shipped policies and the commands of the environment."""
        shutil.copytree(ROOT / "policies", self.folder / "policies")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEBOOK_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        terminal = {"PATH": path, "COLUMNS": str(COLUMNS), "GATEBOOK_LOG": "text", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
        self.environment = {**kept, **terminal, "XDG_STATE_HOME": str(self.folder.parent / "state")}

    def leaves_out(self, command: str) -> bool:
        """Tells whether a command needs what is not there."""
        left_out = not self.outside and _OUTSIDE.search(command) is not None
        if left_out:
            print(f"not run: `{command}`: it needs more than Python; tests/system runs it")  # noqa: T201  # as above
        return left_out

    def run(self, command: str) -> tuple[str, int]:
        """Runs a command; returns what it printed and how it ended."""
        made = _MAKE.fullmatch(command)
        if made is not None:
            return self._require_target(made[2] or "help")
        if command == _ACTIVATE:
            print(f"not run: `{command}`: the tests run in that environment")  # noqa: T201  # shown with -s and on failure
            return "", 0
        exported = _EXPORT.fullmatch(command)
        if exported is not None:
            self.environment |= dict(re.findall(r"(\w+)=(\S+)", exported[1]))
            return "", 0
        if _WITNESS.match(command):
            return self._witness(command)
        if _SERVE.match(command):
            return self._serve(command)
        if command == "^C":
            self.stop_server()
            return "", 0
        return self._finish(["bash", "-euo", "pipefail", "-c", self._redirected(command)])

    def run_python(self, program: str) -> tuple[str, int]:
        """Runs a program; returns what it printed and how it ended."""
        return self._finish([sys.executable, "-c", self._redirected(program)])

    def write(self, path: str, content: str) -> None:
        """Makes a file of the reader's."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")

    def stop_server(self) -> None:
        """Presses Ctrl-C where the server runs."""
        if self.server is None:
            return
        self.server.terminate()
        code = self.server.wait(TIMEOUT_SECONDS)
        self.server = None
        assert code == 0, f"the server ended with {code}"

    def stop_witnesses(self) -> None:
        """Presses Ctrl-C where witnesses run."""
        codes = []
        for _, process in self.witnesses.values():
            process.terminate()
            codes.append(process.wait(TIMEOUT_SECONDS))
        self.witnesses.clear()
        assert not any(codes), f"the witnesses ended with {codes}"

    def _witness(self, command: str) -> tuple[str, int]:
        listen = _LISTEN.search(command)
        shown = listen[1] if listen else DEFAULT_WITNESS
        process = self._begin(f"{_LISTEN.sub('', command)} --listen 127.0.0.1:0")
        printed: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_read, args=(process, printed), daemon=True).start()
        told = ""
        while (line := printed.get(timeout=TIMEOUT_SECONDS)) is not None:
            told += line
            if (witnessing := _WITNESSING.search(line)) is not None:
                self.witnesses[shown] = (witnessing[1], process)
                return self._as_shown(told), 0
        return told, process.wait(TIMEOUT_SECONDS)

    def _begin(self, command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "-c", f"exec {self._to_witnesses(command)}"],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _require_target(self, target: str) -> tuple[str, int]:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"no target `{target}`"
        print(f"not run: `make {target}`: it makes environments, or is a test run of its own; the target exists")  # noqa: T201  # as above
        return "", 0

    def _finish(self, words: list[str]) -> tuple[str, int]:
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=self.seconds,
            check=False,
        )
        return self._as_shown(done.stdout), done.returncode

    def _serve(self, command: str) -> tuple[str, int]:
        self.stop_server()
        listen = _LISTEN.search(command)
        self.shown_listen = listen[1] if listen else DEFAULT_LISTEN
        if self.shown_listen.startswith("127.0.0.1:"):
            command = f"{_LISTEN.sub('', command)} --listen 127.0.0.1:0"
        shown_metrics = _METRICS.search(command)
        command = _METRICS.sub(" --metrics 127.0.0.1:0", command)
        shown_http = _HTTP.search(command)
        command = _HTTP.sub(" --http 127.0.0.1:0", command)
        self.server = self._begin(command)
        printed: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_read, args=(self.server, printed), daemon=True).start()
        told = ""
        while (line := printed.get(timeout=TIMEOUT_SECONDS)) is not None:
            told += line
            telling, serving = _TELLING.search(line), _SERVING.search(line)
            if telling is not None and shown_metrics is not None:
                self.metrics = (shown_metrics[1], telling[1])
            answering = _ANSWERING.search(line)
            if answering is not None and shown_http is not None:
                self.http = (shown_http[1], answering[1])
            if serving is not None:
                self.environment["GATEBOOK_TARGET"] = serving[1]
                return self._as_shown(told), 0
        code = self.server.wait(TIMEOUT_SECONDS)
        self.server = None
        return told, code

    def _redirected(self, text: str) -> str:
        for moved in filter(None, (self.metrics, self.http)):
            text = text.replace(*moved)
        text = self._to_witnesses(text)
        return text.replace(self.shown_listen, self.environment.get("GATEBOOK_TARGET", self.shown_listen))

    def _to_witnesses(self, text: str) -> str:
        for shown, (actual, _) in self.witnesses.items():
            text = text.replace(shown, actual)
        return text

    def _as_shown(self, printed: str) -> str:
        target = self.environment.get("GATEBOOK_TARGET")
        for shown, actual in filter(None, (self.metrics, self.http)):
            printed = printed.replace(actual, shown)
        for shown, (actual, _) in self.witnesses.items():
            printed = printed.replace(actual, shown)
        return printed.replace(target, self.shown_listen) if target else printed


def _read(server: subprocess.Popen[str], printed: queue.Queue[str | None]) -> None:
    assert server.stdout is not None
    for line in server.stdout:
        printed.put(line)
    printed.put(None)
