"""`gatebook explain`: why a decision of the book came out as it did."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click
import grpc
from rich.console import Console

from gatebook.cli.audit_filter import origin_option
from gatebook.cli.check import mask_text, show_outcome
from gatebook.cli.output import (
    ASK_TIMEOUT_SECONDS,
    NO,
    YES,
    channel,
    fail,
    json_option,
    print_json,
    stdout,
    target_option,
)
from gatebook.errors import VerificationError
from gatebook.tlog.keys import VerifierKey
from gatebook.tlog.proof import verify_proof
from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import audit_service_pb2, policy_service_pb2, types_pb2
from gatebook.v1.access_service_pb2_grpc import AccessServiceStub
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub

EXPLAIN_TIMEOUT_SECONDS = 120.0
INDEX_DIGITS_MAX = 19
"""A longer number is the id of a decision."""
DIGEST_SHOWN = 12


@click.command()
@click.argument("entry", metavar="DECISION_ID|INDEX")
@click.option("--no-changes", is_flag=True, help="Leave out what would allow a denial, which takes longest to find.")
@click.option("--proof", type=click.Path(dir_okay=False, path_type=Path), help="Write the proof of its entry here.")
@origin_option
@target_option
@json_option
def explain(*, entry: str, no_changes: bool, proof: Path | None, origin: str, target: str, as_json: bool) -> None:
    """Say why a decision of the book came out as it did, and decide it again.

    Exits 0 where deciding again, under the revisions of then, gives what the book says, and 1 where it does not. The
    proof that the book holds the entry is checked; `gatebook audit verify` checks the whole book.
    """
    with channel(target) as opened:
        decision_id = entry
        if entry.isascii() and entry.isdecimal() and len(entry) <= INDEX_DIGITS_MAX:
            decision_id = decision_at(opened, int(entry), origin)
        request = pb.ExplainDecisionRequest(decision_id=decision_id, origin=origin, without_changes=no_changes)
        response = AccessServiceStub(opened).ExplainDecision(request, timeout=EXPLAIN_TIMEOUT_SECONDS)
    try:
        size = proved_size(response)
    except VerificationError as error:
        fail(f"the server sent a proof that does not hold: {error.message}", NO)
    if proof is not None:
        proof.write_text(response.explanation.proof, encoding="utf-8")
    if as_json:
        print_json(response)
    else:
        show(response, size)
    sys.exit(YES if response.replayed.equal else NO)


def decision_at(opened: grpc.Channel, index: int, origin: str) -> str:
    """Returns the id of the decision that an entry is; ends the command where it is none."""
    asked = audit_service_pb2.GetEntryRequest(index=index, origin=origin)
    found = AuditServiceStub(opened).GetEntry(asked, timeout=ASK_TIMEOUT_SECONDS).record.entry
    if not found.HasField("decision"):
        fail(f"entry {index} is no decision: `gatebook audit show {index}` says what it is", NO)
    return found.decision.decision_id


def proved_size(response: pb.ExplainDecisionResponse) -> int:
    """Returns the size of the checkpoint that proves the entry, under the key that the server names.

    Raises:
        VerificationError: the proof does not hold.
    """
    told, receipt = response.explanation, response.decision.receipt
    return verify_proof(told.proof.encode(), receipt.leaf_hash, VerifierKey.parse(told.verifier_key)).size


def show(response: pb.ExplainDecisionResponse, size: int) -> None:
    """Prints an explanation for people."""
    console = stdout()
    show_question(console, response)
    show_grounds(console, response)
    for near in response.explanation.near_rules:
        line(console, "near", f"{near.rule.file}:{near.rule.line}  {near.rule.rule}")
        for lacked in near.lacked:
            line(console, "", f"lacked {lacked}")
    show_changes(console, response.explanation)
    show_replay(console, response)
    receipt = response.decision.receipt
    line(console, "proof", f"entry {receipt.index} of {receipt.origin} is in its checkpoint of {size} entries")


def show_question(console: Console, response: pb.ExplainDecisionResponse) -> None:
    """Prints what was asked, what was decided, and under which revisions."""
    told, decision = response.explanation, response.decision
    access = told.access
    asked = [f"{access.subject.id} {access.action.name} {access.resource.id}"]
    if access.resource.columns:
        asked.append(f"columns {', '.join(access.resource.columns)}")
    if access.purpose:
        asked.append(f"for {' < '.join(told.purpose_lineage) or access.purpose}")
    asked.append(f"asked by {told.caller}")
    line(console, "asked", ", ".join(asked))
    show_outcome(console, types_pb2.Decision(effect=decision.effect, reason=decision.reason, message=decision.message))
    line(console, "set", revision(f"{told.policy_set} revision", decision.policy_revision))
    if decision.HasField("directory_revision"):
        line(console, "directory", revision("revision", decision.directory_revision))


def show_grounds(console: Console, response: pb.ExplainDecisionResponse) -> None:
    """Prints what the decision rests on."""
    told, decision = response.explanation, response.decision
    for rule in told.rules:
        show_rule(console, rule)
    for column in told.columns:
        show_column(console, column)
    if decision.HasField("minimum_group"):
        group = decision.minimum_group
        line(console, "group", f"at least {group.k} distinct {', '.join(group.entity_columns)}")
    if decision.notice_id:
        line(console, "notice", f"{decision.notice_id} permits {', '.join(told.notice_purposes)}")
    if told.roles:
        line(console, "roles", ", ".join(told.roles))


def line(console: Console, name: str, text: str) -> None:
    """Prints one line."""
    console.print(f"{name:<10}{text}", markup=False, soft_wrap=True)


def revision(what: str, found: types_pb2.Revision) -> str:
    """Returns a revision in words."""
    return f"{what} {found.number} {found.digest[:DIGEST_SHOWN]}"


def show_rule(console: Console, rule: pb.ExplainedRule) -> None:
    """Prints a rule, and the links by which it applies."""
    line(console, "rule", f"{rule.rule.file}:{rule.rule.line}  {rule.rule.rule}")
    for path in (rule.subject_path, rule.resource_path, rule.purpose_path):
        show_path(console, path)


def show_path(console: Console, path: Sequence[policy_service_pb2.PathStep]) -> None:
    """Prints links."""
    for step in path:
        line(console, "", f"by {step.text}  {step.file}:{step.line}")


def show_column(console: Console, column: pb.ExplainedColumn) -> None:
    """Prints a column with its tags and masks."""
    effect = types_pb2.Effect.Name(column.effect).removeprefix("EFFECT_").lower()
    reason = types_pb2.ReasonCode.Name(column.reason).removeprefix("REASON_CODE_")
    tags = f"  {', '.join(column.tags)}" if column.tags else ""
    line(console, "column", f"{column.column}  {effect} {reason}{tags}")
    for mask in column.masks:
        by = f"  by {mask.rule.file}:{mask.rule.line}" if mask.HasField("rule") else ""
        line(console, "", f"mask {mask_text(mask.mask)}{by}")


def show_changes(console: Console, told: pb.DecisionExplanation) -> None:
    """Prints what would allow a denial."""
    for change in told.changes:
        verdict = "the gate would refuse it" if change.refused else ""
        for place, edit in enumerate(change.edits):
            line(console, "and" if place else "change", edit.text + (f"  ({verdict})" if verdict and not place else ""))
        for finding in change.findings:
            told_where = f"{finding.file}:{finding.line}: " if finding.file else ""
            line(console, "", f"refused: {told_where}{finding.message} ({finding.invariant})")
    for left_out in (*told.changes_left_out, *told.withheld):
        line(console, "left out", left_out)


def show_replay(console: Console, response: pb.ExplainDecisionResponse) -> None:
    """Prints whether deciding again gives what is written."""
    replayed = response.replayed
    at = replayed.decide_time.ToDatetime().isoformat(sep=" ", timespec="milliseconds")
    if replayed.equal:
        line(console, "replayed", f"the same, decided again for {at} by Gatebook {replayed.version}")
        return
    line(console, "replayed", f"NOT the same, decided again for {at} by Gatebook {replayed.version}:")
    for one in replayed.differences:
        line(console, "", f"{one.field}: written {one.written or 'nothing'}, now {one.replayed or 'nothing'}")
