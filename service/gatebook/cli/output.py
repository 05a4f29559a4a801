"""How the commands speak: tables for people, JSON for programs, errors that say what to do next.

Exit codes: 0 yes, 1 no (denied, findings, not verified), 2 usage, 3 could not ask.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeVar

import click
import grpc
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from rich.console import Console
from rich.table import Table

from gatebook.cli.credentials import credential_options, opened, tls_trouble
from gatebook.config import DEFAULT_LISTEN, Limits, setting
from gatebook.errors import GatebookError
from gatebook_client.errors import GatebookClientError

YES, NO, USAGE, COULD_NOT_ASK = 0, 1, 2, 3
ASK_TIMEOUT_SECONDS = 30.0
COULD_NOT_ASK_CODES = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.CANCELLED,
    }
)
F = TypeVar("F", bound=Callable[..., object])


def target_option(function: F) -> F:
    """Adds `--target`, and what is shown to it, to a command."""
    return click.option(
        "--target",
        default=lambda: setting("target", DEFAULT_LISTEN),
        show_default=f"$GATEBOOK_TARGET or {DEFAULT_LISTEN}",
        metavar="HOST:PORT",
        help="The server to ask.",
    )(credential_options(function))


def json_option(function: F) -> F:
    """Adds `--json` to a command."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON (proto JSON mapping, original names).")(
        function
    )


def stdout() -> Console:
    """Returns the console for answers."""
    return Console(highlight=False, emoji=False)


def stderr() -> Console:
    """Returns the console for everything that is not the answer."""
    return Console(stderr=True, highlight=False, emoji=False)


def print_json(message: Message) -> None:
    """Prints a message as JSON with original field names."""
    click.echo(to_json(message))


def to_json(message: Message, *, indent: int | None = 2) -> str:
    """Returns a message as JSON with original field names."""
    return json_format.MessageToJson(message, preserving_proto_field_name=True, indent=indent)


def table(*columns: str, rows: Iterable[Iterable[str]], title: str | None = None) -> Table:
    """Builds a plain table whose cells are taken literally."""
    made = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(cell.replace("[", "\\[") for cell in row))
    return made


def counted(number: int, noun: str, several: str = "") -> str:
    """Returns a number of things in words, such as `1 error` or `2 errors`."""
    return f"{number} {noun if number == 1 else several or f'{noun}s'}"


def told_time(seconds: int) -> str:
    """Returns a time in POSIX seconds in words, in UTC."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s after 1970"


def fail(message: str, code: int) -> NoReturn:
    """Prints an error and ends the command."""
    click.echo(f"gatebook: {message}", err=True)
    sys.exit(code)


@contextmanager
def channel(target: str) -> Iterator[grpc.Channel]:
    """Opens a channel; the errors of calls within end the command with a message and an exit code."""
    limits = Limits()
    options = [
        ("grpc.max_receive_message_length", limits.answer_bytes_max),
        ("grpc.max_send_message_length", 2 * limits.message_bytes_max),  # what is larger is refused with a reason
    ]
    try:
        with opened(target, options) as asked:
            yield asked
    except GatebookClientError as error:
        fail(error.message, USAGE)
    except grpc.RpcError as error:
        fail(told(error, target), exit_code(error))


@contextmanager
def errors_told() -> Iterator[None]:
    """Turns the errors of offline commands into a message and exit code 1."""
    try:
        yield
    except GatebookError as error:
        fail(error.message, NO)


def exit_code(error: grpc.RpcError) -> int:
    """Returns the exit code of a failed call: a question that could not be put is no denial."""
    info = error_info(error)
    reason = "" if info is None else info.reason
    if reason == "NO_ACTIVE_REVISION":
        return COULD_NOT_ASK
    if reason == "POLICY_SET_NOT_FOUND" or error.code() is grpc.StatusCode.INVALID_ARGUMENT:
        return USAGE
    return COULD_NOT_ASK if error.code() in COULD_NOT_ASK_CODES else NO


def told(error: grpc.RpcError, target: str) -> str:
    """Returns a failed call in words: what, why, and what to do next."""
    code, details = error.code(), error.details() or ""
    detail = error_info(error)
    if detail is None and code is grpc.StatusCode.UNAVAILABLE and (trouble := tls_trouble(target, details)):
        return trouble
    if detail is None and code is grpc.StatusCode.UNAVAILABLE:
        return f"no server answers at {target}: start one with `gatebook serve`, or name it with --target"
    if detail is None:
        return f"{details or 'the call failed'} ({code.name})"
    if detail.reason == "PERMISSION_DENIED" and click.get_current_context().info_name == "publish":
        details += ": ask whoever keeps that set; on your own machine `gatebook serve --dev` also lets you publish"
    return f"{details} ({detail.reason})"


def error_info(error: grpc.RpcError) -> error_details_pb2.ErrorInfo | None:
    """Returns the `ErrorInfo` of a failed call, if it has one."""
    for detail in details_of(error):
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info
    return None


def details_of(error: grpc.RpcError) -> Iterable[Any]:
    """Returns the details of a failed call, packed."""
    metadata: Any = error.trailing_metadata() or ()
    for key, value in metadata:
        if key == "grpc-status-details-bin":
            return list(status_pb2.Status.FromString(value).details)
    return ()
