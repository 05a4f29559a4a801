"""`gatebook check`: asks one question."""

from __future__ import annotations

import json
import sys

import click
from rich.console import Console

from gatebook.cli.check_receipt import Wanted, receipt_options, verified_receipt
from gatebook.cli.output import (
    ASK_TIMEOUT_SECONDS,
    NO,
    YES,
    channel,
    json_option,
    print_json,
    stdout,
    table,
    target_option,
)
from gatebook.cli.question import Asked, question_options
from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub


@click.command()
@question_options
@click.option("--row", default="", metavar="JSON", help="The row asked about, as a JSON object.")
@click.option("--explain", is_flag=True, help="Also show the nearest rules and what they lacked.")
@receipt_options
@target_option
@json_option
def check(*, asked: Asked, row: str, explain: bool, wanted: Wanted, target: str, as_json: bool) -> None:
    """Ask whether SUBJECT may do ACTION to RESOURCE. Exits 0 when allowed and 1 when denied.

    \b
    gatebook check kai read ai_usage.team_daily --purpose adoption_visualisation.team_dashboard \\
        --enforcer dashboard
    """  # noqa: D301  # click's own mark for a paragraph that keeps its lines
    asked.access.row_json = row_object(row)
    request = pb.CheckAccessRequest(
        policy_set=asked.policy_set,
        access=asked.access,
        allow_partial=asked.partial,
        at_least=asked.at_least,
        explain=explain,
        receipt_level=wanted.level,
    )
    with channel(target) as opened:
        response = AccessServiceStub(opened).CheckAccess(request, timeout=ASK_TIMEOUT_SECONDS)
        verified = verified_receipt(wanted, response.decision, opened)
    if as_json:
        print_json(response)
    else:
        show(response, asked)
        if verified:
            click.echo(f"proof {verified}")
    sys.exit(YES if response.decision.effect == types_pb2.EFFECT_ALLOW else NO)


def row_object(row: str) -> bytes:
    """Returns the row as it was given, if it is a JSON object.

    Raises:
        click.UsageError: it is none.
    """
    if row:
        try:
            is_object = isinstance(json.loads(row), dict)
        except ValueError:
            is_object = False
        if not is_object:
            raise click.UsageError(f'--row: `{row}` is not a JSON object, such as \'{{"subject_id": "noor"}}\'')
    return row.encode()


def show(response: pb.CheckAccessResponse, asked: Asked) -> None:
    """Prints an answer for a person."""
    console = stdout()
    show_outcome(console, response.decision)
    show_hint(console, response.decision, asked)
    show_explanation(console, response.explanation)
    show_place(console, response.decision)


def show_outcome(console: Console, decision: types_pb2.Decision) -> None:
    """Prints what was decided, and by which rules."""
    allowed = decision.effect == types_pb2.EFFECT_ALLOW
    reason = types_pb2.ReasonCode.Name(decision.reason).removeprefix("REASON_CODE_")
    console.print("[bold green]ALLOW[/]" if allowed else f"[bold red]DENY[/] {reason}", end="  ")
    console.print(decision.message, markup=False)
    if decision.columns:
        console.print(table("column", "effect", "reason", "masks", rows=map(column_row, decision.columns)))
    if decision.HasField("minimum_group"):
        people = ", ".join(decision.minimum_group.entity_columns)
        console.print(f"groups of at least {decision.minimum_group.k} distinct {people}", markup=False)
    for rule in decision.rules:
        console.print(f"rule  {rule.file}:{rule.line}  {rule.rule}", markup=False, soft_wrap=True)


def show_explanation(console: Console, explanation: types_pb2.Explanation) -> None:
    """Prints the nearest rules and what they lacked, if they were asked for."""
    for near in explanation.near_rules:
        console.print(f"near  {near.rule.file}:{near.rule.line}  {near.rule.rule}", markup=False, soft_wrap=True)
        for lacked in near.lacked:
            console.print(f"      lacked {lacked}", markup=False, soft_wrap=True)
    if explanation.roles:
        console.print(f"roles {', '.join(explanation.roles)}", markup=False, soft_wrap=True)


def show_hint(console: Console, decision: types_pb2.Decision, asked: Asked) -> None:
    """Prints what to add to the command, where nobody was named who would do what the answer needs."""
    if decision.reason == types_pb2.REASON_CODE_OBLIGATION_NOT_SUPPORTED and not asked.access.enforcer.id:
        console.print("hint  name with --enforcer the program that applies the answer", markup=False)


def show_place(console: Console, decision: types_pb2.Decision) -> None:
    """Prints where in the book a decision is written."""
    receipt = decision.receipt
    console.print(
        f"book  {receipt.origin} entry {receipt.index}  decision {decision.decision_id}", markup=False, soft_wrap=True
    )


def column_row(outcome: types_pb2.ColumnOutcome) -> tuple[str, str, str, str]:
    """Returns the cells of one column's outcome."""
    masks = ", ".join(mask_text(mask) for mask in outcome.masks)
    return (
        outcome.column,
        types_pb2.Effect.Name(outcome.effect).removeprefix("EFFECT_").lower(),
        types_pb2.ReasonCode.Name(outcome.reason).removeprefix("REASON_CODE_"),
        masks,
    )


def mask_text(mask: types_pb2.Mask) -> str:
    """Returns a mask in words, such as `truncate(unit=hour)`."""
    kind = types_pb2.MaskKind.Name(mask.kind).removeprefix("MASK_KIND_").lower()
    parameters = ", ".join(f"{key}={value}" for key, value in sorted(mask.parameters.items()))
    when = " where its condition holds" if mask.HasField("condition") else ""
    return f"{kind}({parameters}){when}" if parameters else f"{kind}{when}"
