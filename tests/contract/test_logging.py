"""The log of a server: whatever becomes of standard error, calls are answered and the process ends in order."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import grpc
import pytest
from tests.serving import POLICIES, START_SECONDS, STOP_SECONDS

from gatebook.log import Lines, encode_line
from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub

PIPE_BYTES = 65_536
LINE_BYTES_MIN = 100
QUESTION = types_pb2.AccessRequest(
    subject=types_pb2.Subject(id="alice"),
    action=types_pb2.Action(name="read"),
    resource=types_pb2.Resource(id="report:weekly"),
)


def free_port() -> int:
    """Returns a port that was free just now: a server whose log is lost cannot say which one it took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving_with(data: Path, stderr: int | IO[bytes], shell: str = "") -> Iterator[Callable[[int], None]]:
    """Runs a server with such a standard error; gives what asks it so many times. It must stop in order."""
    target = f"127.0.0.1:{free_port()}"
    serve = [sys.executable, "-m", "gatebook", "serve", "--data", str(data), "--listen", target, "--log", "json"]
    serve += ["--policies", str(POLICIES / "basic")]
    process = subprocess.Popen(["bash", "-c", f'exec "$@" {shell}', "bash", *serve], stderr=stderr)
    try:
        with grpc.insecure_channel(target) as channel:
            grpc.channel_ready_future(channel).result(START_SECONDS)
            stub = AccessServiceStub(channel)

            def ask(count: int) -> None:
                for _ in range(count):
                    decision = stub.CheckAccess(pb.CheckAccessRequest(access=QUESTION), timeout=10).decision
                    assert decision.effect == types_pb2.EFFECT_ALLOW

            yield ask
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_SECONDS) == 0
    finally:
        process.kill()
        process.wait(STOP_SECONDS)


def test_standard_error_that_is_closed(tmp_path: Path) -> None:
    """Without a standard error a server answers, and no file of the book takes its number."""
    with serving_with(tmp_path / "data", subprocess.DEVNULL, "0<&- 1>&- 2>&-") as ask:
        ask(20)


def test_a_pipe_whose_reader_goes(tmp_path: Path) -> None:
    """A server whose log reader has died answers on."""
    read_end, write_end = os.pipe()
    with serving_with(tmp_path / "data", write_end) as ask:
        os.close(write_end)
        ask(1)
        os.close(read_end)
        ask(20)


def test_a_pipe_that_nobody_reads(tmp_path: Path) -> None:
    """A server whose log is not read answers on when the pipe is full."""
    read_end, write_end = os.pipe()
    with serving_with(tmp_path / "data", write_end) as ask:
        os.close(write_end)
        ask(PIPE_BYTES // LINE_BYTES_MIN + 1)
    # It was full: a write that does not fit what is left of a page takes another, so that pages are not.
    assert len(os.read(read_end, 2 * PIPE_BYTES)) > PIPE_BYTES // 2
    os.close(read_end)


def test_a_full_disk_behind_the_log(tmp_path: Path) -> None:
    """A server whose log cannot be stored answers."""
    with Path("/dev/full").open("wb") as full, serving_with(tmp_path / "data", full) as ask:
        ask(20)


def test_what_was_dropped_is_told() -> None:
    """With a full queue lines are dropped without waiting, and their number is told before the next line."""
    read_end, write_end = os.pipe()
    lines = Lines(write_end, "dropped {}".format, lines_max=3)
    lines.write("x" * (2 * PIPE_BYTES) + "\n")  # holds up the thread
    os.read(read_end, 1)
    for number in range(10):
        lines.write(f"{number}\n")
    with os.fdopen(read_end, "rb") as reader:
        reader.readline()
        kept = [reader.readline() for _ in range(4)]
        assert lines.drain(10)
        os.close(write_end)

    assert [b"dropped 7\n", b"0\n", b"1\n", b"2\n"] == kept


def test_a_line_that_cannot_be_rendered_is_dropped() -> None:
    """What the thread that writes renders comes in its turn; what it cannot render is told, and the next lines come."""
    read_end, write_end = os.pipe()
    lines = Lines(write_end, "dropped {}".format)

    def fail() -> str:
        raise ValueError

    for line in ("first\n", lambda: "second\n", fail, lambda: "third\n"):
        lines.write(line)
    assert lines.drain(10)
    lines.write("fourth\n")
    assert lines.drain(10)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as reader:
        told = reader.read().splitlines()

    assert [b"first", b"second", b"third", b"fourth"] == [line for line in told if line != b"dropped 1"]
    assert b"dropped 1" in told
    assert 1 == lines.dropped


@pytest.mark.parametrize("odd", ["\ud800", 1 << 70, float("nan"), object, {1: b"a"}])
def test_every_event_can_be_rendered(odd: object) -> None:
    """Logging never raises, whatever it is told."""
    assert "odd" in encode_line({"event": "odd", "value": odd})
