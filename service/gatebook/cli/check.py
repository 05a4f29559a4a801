"""`gatebook check`: asks one question."""

from __future__ import annotations

import json
import sys

import click

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
from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub


@click.command()
@click.argument("subject")
@click.argument("action")
@click.argument("resource")
@click.option("--columns", default="", metavar="A,B", help="The columns asked for; none means every column.")
@click.option("--purpose", default="", help="Why, such as `model_training.evaluation`.")
@click.option("--context", "context", multiple=True, metavar="KEY=VALUE", help="A circumstance; may be repeated.")
@click.option("--property", "properties", multiple=True, metavar="KEY=VALUE", help="An attribute of the subject.")
@click.option("--row", default="", metavar="JSON", help="The row asked about, as a JSON object.")
@click.option("--type", "subject_type", default="user", show_default=True, help="The type of the subject.")
@click.option("--enforcer", default="", help="Ask as this enforcer, able to apply every obligation.")
@click.option("--partial", is_flag=True, help="Allow the columns that are allowed, and name the others.")
@click.option("--policy-set", default="", help="The policy set; not needed when one is served.")
@click.option("--at-least", default=0, metavar="NUMBER", help="Decide only with this revision or a later one.")
@click.option("--explain", is_flag=True, help="Also show the nearest rules and what they lacked.")
@target_option
@json_option
def check(  # noqa: PLR0913, PLR0917  # one argument per option of the command
    subject: str,
    action: str,
    resource: str,
    columns: str,
    purpose: str,
    context: tuple[str, ...],
    properties: tuple[str, ...],
    row: str,
    subject_type: str,
    enforcer: str,
    partial: bool,  # noqa: FBT001  # click passes flags by name
    policy_set: str,
    at_least: int,
    explain: bool,  # noqa: FBT001  # as above
    target: str,
    as_json: bool,  # noqa: FBT001  # as above
) -> None:
    """Ask whether SUBJECT may do ACTION to RESOURCE. Exits 0 when allowed and 1 when denied.

    \b
    gatebook check kai read ai_usage.team_daily --purpose adoption_visualisation.team_dashboard \\
        --enforcer dashboard
    """  # noqa: D301  # click's own mark for a paragraph that keeps its lines
    access = types_pb2.AccessRequest(
        subject=types_pb2.Subject(type=subject_type, id=subject, properties_json=pairs_json(properties)),
        action=types_pb2.Action(name=action),
        resource=types_pb2.Resource(id=resource, columns=[c.strip() for c in columns.split(",") if c.strip()]),
        purpose=purpose,
        context_json=pairs_json(context),
        row_json=row_object(row),
    )
    if enforcer:
        access.enforcer.id = enforcer
        access.enforcer.supported_masks.extend(k for k in types_pb2.MaskKind.values() if k)
        access.enforcer.supported_obligations.extend(k for k in types_pb2.ObligationKind.values() if k)
    request = pb.CheckAccessRequest(
        policy_set=policy_set, access=access, allow_partial=partial, at_least=at_least, explain=explain
    )
    with channel(target) as opened:
        response = AccessServiceStub(opened).CheckAccess(request, timeout=ASK_TIMEOUT_SECONDS)
    if as_json:
        print_json(response)
    else:
        show(response)
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


def pairs_json(pairs: tuple[str, ...]) -> bytes:
    """Returns `key=value` pairs as a JSON object; a value that is JSON counts as JSON, any other as text.

    Raises:
        click.UsageError: a pair has no `=`.
    """
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise click.UsageError(f"`{pair}` is not KEY=VALUE")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return json.dumps(found).encode() if found else b""


def show(response: pb.CheckAccessResponse) -> None:
    """Prints a decision for a person."""
    console = stdout()
    decision = response.decision
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
    for near in response.explanation.near_rules:
        console.print(f"near  {near.rule.file}:{near.rule.line}  {near.rule.rule}", markup=False, soft_wrap=True)
        for lacked in near.lacked:
            console.print(f"      lacked {lacked}", markup=False, soft_wrap=True)
    if response.explanation.roles:
        console.print(f"roles {', '.join(response.explanation.roles)}", markup=False, soft_wrap=True)
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
