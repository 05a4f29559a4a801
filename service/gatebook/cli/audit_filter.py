"""The options by which audit commands select entries."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from gatebook.v1 import audit_service_pb2, entry_pb2, types_pb2


def short_names(names: list[str], prefix: str) -> list[str]:
    """Returns the names of enum values without prefix and zero value, in lower case."""
    return [name.removeprefix(prefix).lower() for name in names if not name.endswith("_UNSPECIFIED")]


REASON, EFFECT, KIND = "REASON_CODE_", "EFFECT_", "ENTRY_KIND_"
INDEX = click.IntRange(0, 2**63 - 1)
TEXTS = ("subject_id", "resource_id", "column", "action", "purpose", "revision", "caller", "decision_id")
OPTIONS = (
    click.option(
        "--subject",
        "subject_id",
        metavar="ID",
        help="Entries that concern this person: who asked, about whom, who was looked up, who approved.",
    ),
    click.option("--resource", "resource_id", metavar="ID", help="Decisions about this resource."),
    click.option("--column", metavar="NAME", help="Decisions about this column."),
    click.option("--action", metavar="NAME", help="Decisions about this action."),
    click.option("--purpose", metavar="NAME", help="Decisions for this purpose or a child of it."),
    click.option("--effect", type=click.Choice(short_names(types_pb2.Effect.keys(), EFFECT)), help="What was decided."),
    click.option(
        "--reason",
        type=click.Choice(short_names(types_pb2.ReasonCode.keys(), REASON), case_sensitive=False),
        metavar="REASON",
        help="Why, such as `no_matching_rule`.",
    ),
    click.option("--revision", metavar="DIGEST", help="Decisions under this policy revision, and its own steps."),
    click.option("--caller", metavar="NAME", help="Entries of this caller."),
    click.option("--decision", "decision_id", metavar="ID", help="The decision with this id."),
    click.option("--kind", type=click.Choice(short_names(entry_pb2.EntryKind.keys(), KIND)), help="The kind of entry."),
    click.option("--since", metavar="TIME", help="At or after this time (ISO 8601; UTC unless it says otherwise)."),
    click.option("--until", metavar="TIME", help="Before this time."),
    click.option("--from", "start_index", type=click.IntRange(min=0), default=0, metavar="INDEX", help="From here on."),
    click.option(
        "--to", "end_index", type=click.IntRange(min=0), default=0, metavar="INDEX", help="Before this index."
    ),
)


origin_option = click.option(
    "--origin", default="", metavar="NAME", help="One of the books of a service with several workers."
)


def filter_options(function: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that select entries to a command, which gets them as one filter, `wanted`."""

    @functools.wraps(function)
    def command(**options: Any) -> None:  # noqa: ANN401  # click knows the types
        named = ("effect", "reason", "kind", "since", "until", "start_index", "end_index")
        chosen = {name: options.pop(name) for name in (*TEXTS, *named)}
        function(wanted=entry_filter(chosen), **options)

    for option in reversed(OPTIONS):
        command = option(command)
    return command


def entry_filter(chosen: dict[str, Any]) -> audit_service_pb2.EntryFilter:
    """Returns the filter that the options describe.

    Raises:
        click.UsageError: a time is malformed.
    """
    wanted = audit_service_pb2.EntryFilter(
        **{name: chosen[name] for name in TEXTS if chosen[name]},
        start_index=chosen["start_index"],
        end_index=chosen["end_index"],
    )
    if chosen["effect"]:
        wanted.effect = types_pb2.Effect.Value(EFFECT + chosen["effect"].upper())
    if chosen["reason"]:
        wanted.reason = types_pb2.ReasonCode.Value(REASON + chosen["reason"].upper())
    if chosen["kind"]:
        wanted.kind = entry_pb2.EntryKind.Value(KIND + chosen["kind"].upper())
    if chosen["since"]:
        wanted.start_time.FromDatetime(parse_time("--since", chosen["since"]))
    if chosen["until"]:
        wanted.end_time.FromDatetime(parse_time("--until", chosen["until"]))
    return wanted


def parse_time(option: str, text: str) -> datetime:
    """Returns the time that a person wrote.

    Raises:
        click.UsageError: it is not ISO 8601.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError as err:
        raise click.UsageError(f"{option}: `{text}` is not a time such as 2026-06-22T09:30:00Z") from err
    return time if time.tzinfo else time.replace(tzinfo=UTC)
