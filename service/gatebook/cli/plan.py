"""`gatebook plan`: asks which rows and columns may be had, and shows the SQL that selects them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final

import click
from rich.console import Console

from gatebook.cli.check import show_explanation, show_hint, show_outcome, show_place
from gatebook.cli.output import ASK_TIMEOUT_SECONDS, NO, YES, channel, json_option, print_json, stdout, target_option
from gatebook.cli.question import Asked, question_options
from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub
from gatebook_client.decision import clock, read_decision
from gatebook_client.dialects import DIALECTS, STYLES, Style
from gatebook_client.doubts import Asked as Fitting
from gatebook_client.groups import EVERY_ROW
from gatebook_client.parameters import SHORTEST_KEY
from gatebook_client.plan import Plan, read_plan
from gatebook_client.refusal import EnforcementError
from gatebook_client.statement import Statement

SHOWN_MAX: Final = 80
MEASURES: Final = ("count", "sum", "average", "distinct")


@click.command()
@question_options
@click.option("--dialect", type=click.Choice(sorted(DIALECTS)), default="duckdb", show_default=True, help="Of the SQL.")
@click.option("--by", default="", metavar="A,B", help="Group by these columns, instead of selecting rows.")
@click.option("--measure", "measures", multiple=True, metavar="NAME=FUNCTION:COLUMN", help="A measure of each group.")
@click.option("--explain", is_flag=True, help="Also show the nearest rules to a denial and what they lacked.")
@click.option("--style", type=click.Choice(sorted(STYLES)), help="How parameters stand in the SQL: $1, %s, :p1 or ?.")
@target_option
@json_option
def plan(
    *,
    asked: Asked,
    dialect: str,
    by: str,
    measures: tuple[str, ...],
    explain: bool,
    style: Style | None,
    target: str,
    as_json: bool,
) -> None:
    """Ask which rows and columns of RESOURCE SUBJECT may do ACTION to, as SQL.

    Exits 0 when something is allowed and 1 when denied. A plan is a decision, and an entry of the book.

    \b
    gatebook plan noor read ai_usage.token_usage --purpose subject_access --columns ts,cost_usd \\
        --enforcer report --dialect postgres
    """  # noqa: D301  # click's own mark for a paragraph that keeps its lines
    grouped = tuple(name.strip() for name in by.split(",") if name.strip())
    wanted = dict(map(measure, measures))
    request = pb.PlanAccessRequest(
        policy_set=asked.policy_set,
        access=asked.access,
        allow_partial=asked.partial,
        at_least=asked.at_least,
        dialect=dialect,
        explain=explain,
    )
    sent = clock()
    with channel(target) as opened:
        response = AccessServiceStub(opened).PlanAccess(request, timeout=ASK_TIMEOUT_SECONDS)
    if as_json:
        print_json(response)
        sys.exit(YES if response.decision.effect == types_pb2.EFFECT_ALLOW else NO)
    found = read(asked, response, dialect, sent)
    console = stdout()
    show_outcome(console, response.decision)
    show_hint(console, response.decision, asked)
    show_explanation(console, response.explanation)
    if response.decision.effect == types_pb2.EFFECT_ALLOW:
        show(console, found, grouped, wanted, style, key_ids(response))
    show_place(console, response.decision)
    sys.exit(YES if found.allowed else NO)


def read(asked: Asked, response: pb.PlanAccessResponse, dialect: str, sent: float) -> Plan:
    """Reads the answer as the client does."""
    enforcer = asked.access.enforcer
    fitting = Fitting(
        columns=tuple(asked.access.resource.columns),
        allow_partial=asked.partial,
        masks=frozenset(enforcer.supported_masks),
        obligations=frozenset(enforcer.supported_obligations),
        sent_clock=sent,
        plan=True,
    )
    decision = read_decision(response.decision, fitting)
    return read_plan(response, decision, asked.access.resource.id, DIALECTS[dialect])


def measure(text: str) -> tuple[str, tuple[Any, str]]:
    """Returns a measure by its name in the result.

    Raises:
        click.UsageError: it is no measure.
    """
    name, _, told = text.partition("=")
    function, _, column = told.partition(":")
    if not name or function not in MEASURES or not column:
        message = f"--measure: `{text}` is not NAME=FUNCTION:COLUMN, such as `tokens=sum:tokens_in`; "
        raise click.UsageError(f"{message}the functions are {', '.join(MEASURES)}")
    return name, (function, column)


def key_ids(response: pb.PlanAccessResponse) -> Mapping[str, bytes]:
    """Returns a stand-in for each key that the SQL hashes with: this command shows it and runs nothing."""
    pads = (one.mask_key_pad for one in response.parameters if one.HasField("mask_key_pad"))
    return {pad.key_id: SHORTEST_KEY for pad in pads}


def show(
    console: Console,
    found: Plan,
    by: tuple[str, ...],
    wanted: Mapping[str, Any],
    style: Style | None,
    keys: Mapping[str, bytes],
) -> None:
    """Prints the statement of a plan, or why there is none."""
    for narrowing in found.narrowings:
        console.print(f"narrowed  {narrowing}", markup=False, soft_wrap=True)
    try:
        if by or wanted:
            statement = found.aggregate(
                by=by, measures=wanted or {"rows": ("count", EVERY_ROW)}, style=style, keys=keys
            )
        else:
            statement = found.select(style=style, keys=keys)
        lines = [*statement.sql.splitlines(), *told(statement, ", ".join(keys))]
    except EnforcementError as error:
        message = error.message
        if error.reason == "CLIENT_MINIMUM_GROUP":
            message = "no row may be selected, only groups: name what to group by and measure with --by and --measure"
        console.print(f"no SQL  {message} ({error.reason})", markup=False, soft_wrap=True)
        return
    console.print()
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
    console.print()


def told(statement: Statement, key_id: str) -> list[str]:
    """Returns the lines about the parameters of a statement."""
    parameters = statement.parameters
    named = parameters.items() if isinstance(parameters, dict) else enumerate(parameters, start=1)
    return [f"-- {name}: {made_of(key_id) if isinstance(value, bytes) else cut(repr(value))}" for name, value in named]


def made_of(key_id: str) -> str:
    """Says what stands for a key."""
    return f"made of the key {key_id}"


def cut(text: str) -> str:
    """Returns a text that is not too long for a line: a class of characters may be."""
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}... ({len(text)} characters)"
