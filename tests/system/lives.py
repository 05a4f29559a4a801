"""Lives of books under strace: counts their file calls, and has the n-th of a kind fail or kill.

Traced is the first thread of the book's process, or all of them, or all of its clerk's. Where there are several, a
number names the call of each thread, and not always the same.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Self

import msgspec
from tests.serving import ROOT
from tests.system.book_life import WRITING

import gatebook
import gatebook_client

PROGRAM = Path(__file__).with_name("book_life.py")
SECONDS_MAX = 60.0
LEFT_OUT = {
    "close",
    "dup",
    "epoll_create1",
    "epoll_ctl",
    "epoll_wait",
    "ioctl",
    "lseek",
    "mmap",
    "munmap",
    "poll",
    "pipe2",
    "pselect6",
    "select",
    "getcwd",
    "recvfrom",
    "sendto",
}
"""Calls that touch no file, or that say nothing of one when they fail: close(2) lets go of it whatever it says."""
_CALL = re.compile(r"^(?:(\d+) +)?(\w+)\(", re.MULTILINE)
BOOK, CLERK, SERVICE = "book", "clerk", "service"


class Ended(msgspec.Struct, frozen=True):
    """How a life ended, and which calls were traced."""

    code: int
    trace: str
    error: str
    """What was raised that no book raises."""

    def calls(self) -> Counter[str]:
        """Returns how often each kind of file call was made, by whichever thread made it most."""
        by_thread = Counter(_CALL.findall(self.trace))
        most: Counter[str] = Counter()
        for (_, call), count in by_thread.items():
            if call not in LEFT_OUT:
                most[call] = max(most[call], count)
        return most


class Lives:
    """The program that forks lives. Python is started once."""

    def __init__(self) -> None:
        """Starts it."""
        sources = [Path(gatebook.__file__).parents[1], Path(gatebook_client.__file__).parents[1], ROOT]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, sources)),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._program = subprocess.Popen(
            [sys.executable, str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> Self:
        """Lives may begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the program."""
        self._program.communicate()

    def live(self, data: Path, role: str, *options: str, kind: str = WRITING) -> Ended:
        """Lets a book live in a data directory in some way, with the calls of somebody in it traced."""
        if role == CLERK:
            data.with_suffix(".wait").touch()
        child = int(self._say(f"{kind}:{data}"))
        strace = None
        try:
            if role != CLERK:
                strace = self._trace(data, child, *(["-f"] if role == SERVICE else []), *options)
                code = int(self._say("go"))
            else:
                self._write("go")
                strace = self._trace(data, self._clerk(data), "-f", *options)
                data.with_suffix(".go").touch()
                code = int(self._read())
        finally:
            if strace is not None:
                strace.wait(SECONDS_MAX)
        error = data.with_suffix(".error")
        trace = data.with_suffix(".trace").read_text("utf-8", "replace")
        return Ended(code, trace, error.read_text("utf-8") if error.exists() else "")

    def live_whole(self, data: Path, *options: str) -> Ended:
        """Lets a book live with all calls of all of its processes traced, in the order in which they ended."""
        child = int(self._say(f"{WRITING}:{data}"))
        until = time.monotonic() + SECONDS_MAX
        children = Path(f"/proc/{child}/task/{child}/children")
        while not (nursery := children.read_text("ascii").split()):
            assert time.monotonic() < until, "no nursery of clerks began"
            time.sleep(0.002)
        strace = self._trace(data, child, "-f", *options, "-p", nursery[0])
        assert strace.stderr is not None
        while "attached" not in strace.stderr.readline():
            pass
        code = int(self._say("go"))
        strace.wait(SECONDS_MAX)
        return Ended(code, data.with_suffix(".trace").read_text("latin-1"), "")

    def _trace(self, data: Path, process: int, *options: str) -> subprocess.Popen[str]:
        command = ["strace", "-o", str(data.with_suffix(".trace")), *options, "-p", str(process)]
        strace = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert strace.stderr is not None
        told = strace.stderr.readline()
        assert "attached" in told, told
        return strace

    def _clerk(self, data: Path) -> int:
        path, until = data.with_suffix(".clerk"), time.monotonic() + SECONDS_MAX
        while not path.exists() or not path.read_text("utf-8"):
            assert time.monotonic() < until, "no clerk began"
            time.sleep(0.002)
        return int(path.read_text("utf-8"))

    def _say(self, line: str) -> str:
        self._write(line)
        return self._read()

    def _write(self, line: str) -> None:
        assert self._program.stdin is not None
        self._program.stdin.write(f"{line}\n")
        self._program.stdin.flush()

    def _read(self) -> str:
        assert self._program.stdout is not None
        return self._program.stdout.readline()
