"""The log: one line per event on standard error, which nobody needs to read.

Whoever logs never waits and never fails, since an answer may depend on it:

1. a line is rendered where it is logged and goes into a bounded queue; a thread of its own writes it, and
   those that wait behind it, at once. That thread also renders the lines of a `LateLogger`: of many together
   each costs a third;
2. with a full queue, or where a line cannot be written, the line is dropped and counted, and the
   count is told before the next line that gets through;
3. the end of the process waits `FLUSH_SECONDS` at most for what is left.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from queue import SimpleQueue

import msgspec
import structlog
from structlog.typing import Processor

LINES_MAX = 10_000
"""Lines that wait for standard error; more are dropped."""
LINES_TOGETHER_MAX = 100
LINGER_SECONDS = 0.02
FLUSH_SECONDS = 1.0
STANDARD_ERROR = 2
Render = Callable[[], str]


class Lines:
    """Lines on their way to a file descriptor, as a file that structlog writes to. Any thread may write."""

    def __init__(self, descriptor: int, tell_dropped: Callable[[int], str], *, lines_max: int = LINES_MAX) -> None:
        """Takes where lines go, and what renders the line that tells how many were dropped."""
        self._descriptor = descriptor
        self._tell_dropped = tell_dropped
        self._lines_max = lines_max
        self._waiting: SimpleQueue[str | Render | threading.Event] = SimpleQueue()
        self._dropped = 0
        self._dropped_total = 0
        self._count_lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Returns how many lines were dropped since the start."""
        return self._dropped_total

    def write(self, line: str | Render) -> None:
        """Hands in a line, or what renders it with its end, or drops it where too many wait."""
        if self._waiting.qsize() < self._lines_max:
            self._waiting.put(line)
        else:
            self._drop()

    def flush(self) -> None:
        """Does nothing: whoever logs does not wait. `drain` waits."""

    def drain(self, seconds: float) -> bool:
        """Waits until what was handed in is written or dropped; returns whether it was in time."""
        reached = threading.Event()
        self._waiting.put(reached)
        return reached.wait(seconds)

    def _drop(self, count: int = 1) -> None:
        with self._count_lock:
            self._dropped += count
            self._dropped_total += count

    def _run(self) -> None:
        while True:
            lines, reached = self._take(self._waiting.get())
            if lines and not (self._write_dropped() and self._write("".join(lines))):
                self._drop(len(lines))
            if reached is not None:
                reached.set()
            elif self._waiting.empty():
                # To wake a thread costs more than a line: what follows soon finds it awake, and wakes nobody.
                time.sleep(LINGER_SECONDS)

    def _take(self, waiting: str | Render | threading.Event) -> tuple[list[str], threading.Event | None]:
        """Returns the lines that wait, up to whoever waits for them."""
        lines: list[str] = []
        while not isinstance(waiting, threading.Event):
            lines.append(waiting if isinstance(waiting, str) else self._rendered(waiting))
            if len(lines) == LINES_TOGETHER_MAX or self._waiting.empty():
                return lines, None
            waiting = self._waiting.get()
        return lines, waiting

    def _rendered(self, render: Render) -> str:
        """Returns a line, or drops it where it cannot be rendered: nothing that is logged ends this thread."""
        try:
            return render()
        except Exception:  # noqa: BLE001  # whatever it is, the next line is to be written
            self._drop()
            return ""

    def _write_dropped(self) -> bool:
        """Tells how many lines were dropped, if any; returns whether the next line may follow."""
        with self._count_lock:
            dropped, self._dropped = self._dropped, 0
        if not dropped or self._write(self._tell_dropped(dropped) + "\n"):
            return True
        with self._count_lock:
            self._dropped += dropped
        return False

    def _write(self, text: str) -> bool:
        """Writes a line, however long that takes; returns whether it could be written."""
        # INVARIANT: past the buffers of Python, whose locks would hold up the end of the process.
        rest = text.encode("utf-8", "backslashreplace")
        try:
            while rest:
                try:
                    rest = rest[os.write(self._descriptor, rest) :]
                except BlockingIOError:
                    select.select([], [self._descriptor], [])
        except (OSError, ValueError):
            return False
        return True


class _Forward(logging.Handler):
    """Brings the lines of libraries, which use `logging`, the same way."""

    def emit(self, record: logging.LogRecord) -> None:
        """Logs a record; one that cannot be rendered tells its template."""
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001  # a library's mistake must not fail its caller
            message = str(record.msg)
        level = min(record.levelno // 10 * 10, logging.CRITICAL)  # structlog knows no levels in between
        structlog.get_logger().log(level, message, logger=record.name, exc_info=record.exc_info)


class _Current:
    """Where the lines of this process go, and what renders them late; None until the log is set up."""

    lines: Lines | None = None
    render: Callable[[float, str, dict[str, object]], str] | None = None


class LateLogger:
    """Logs events whose facts nobody changes any more, rendered by the thread that writes them."""

    def __init__(self, name: str) -> None:
        """Takes the name of a logger, which is used as long as the log is not set up."""
        self._name = name

    def info(self, event: str, **facts: object) -> None:
        """Logs an event with facts."""
        lines, render = _Current.lines, _Current.render
        if lines is None or render is None:
            early = structlog.get_logger(self._name)
            early.info(event, **facts)
        else:
            lines.write(partial(render, time.time(), event, facts))


def configure_log(*, as_json: bool, worker: int | None = None) -> None:
    """Sets up structlog: one line per event on standard error, JSON for programs or text for people.

    Where several workers write to one standard error, each line tells which one.
    """
    keep_standard_streams()
    to_json = structlog.processors.JSONRenderer(serializer=lambda event, **_: encode_line(event))
    to_text = structlog.dev.ConsoleRenderer(colors=sys.stderr is not None and sys.stderr.isatty())
    of_worker: list[Processor] = [] if worker is None else [lambda _, __, event: {"worker": worker, **event}]
    processors: list[Processor] = [
        *of_worker,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        to_json if as_json else to_text,
    ]

    def tell_dropped(count: int) -> str:
        line: object = {"event": "log lines dropped", "count": count}
        for process in processors:
            line = process(None, "warning", line)  # type: ignore[arg-type]  # each takes what the one before gives
        return str(line)

    def render_late(now: float, event: str, facts: dict[str, object]) -> str:
        told: object = {**facts, "event": event, "level": "info", "timestamp": iso_time(now)}
        for process in (*of_worker, to_json if as_json else to_text):
            told = process(None, "info", told)  # type: ignore[arg-type]  # as above
        return f"{told}\n"

    lines = _Current.lines = Lines(STANDARD_ERROR, tell_dropped)
    _Current.render = render_late
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=processors,
        logger_factory=structlog.WriteLoggerFactory(file=lines),  # type: ignore[arg-type]  # all of a file that it uses
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Forward()], level=logging.WARNING, force=True)
    logging.captureWarnings(capture=True)


def encode_line(event: object) -> str:
    """Renders an event as one line of JSON, whatever it holds."""
    try:
        return msgspec.json.encode(event, enc_hook=repr).decode()
    except (ValueError, TypeError, OverflowError):  # such as half a surrogate pair in the name of a file
        return json.dumps(event, default=repr, skipkeys=True)


def iso_time(now: float) -> str:
    """Returns a time as each line has it."""
    return datetime.fromtimestamp(now, UTC).isoformat().replace("+00:00", "Z")


def lines_dropped() -> int:
    """Returns how many lines of this process were dropped since the log was set up."""
    return 0 if _Current.lines is None else _Current.lines.dropped


def flush_log(seconds: float = FLUSH_SECONDS) -> None:
    """Waits until the lines so far are written, or for so many seconds."""
    if _Current.lines is not None:
        _Current.lines.drain(seconds)


def keep_standard_streams() -> None:
    """Opens the null device for each standard stream that is closed.

    Otherwise the next file that is opened, such as one of the book, would take its number, and what
    a library writes to standard error would go there.
    """
    null = os.open(os.devnull, os.O_RDWR)
    while null <= STANDARD_ERROR:  # the lowest number that is free
        null = os.dup(null)
    os.close(null)
