"""`gatebook policy approve | withdraw | rollback | watch`, and how a proposal is shown."""

from __future__ import annotations

import sys

import click

from gatebook.cli.output import (
    ASK_TIMEOUT_SECONDS,
    NO,
    channel,
    counted,
    json_option,
    print_json,
    stderr,
    stdout,
    table,
    target_option,
)
from gatebook.cli.uploading import PUBLISH_SECONDS
from gatebook.v1 import policy_service_pb2 as pb
from gatebook.v1 import types_pb2
from gatebook.v1.policy_service_pb2_grpc import PolicyServiceStub

DIGEST_LEAST = 12
SIGNS = {
    types_pb2.CHANGE_DIRECTION_LOOSENS: ("loosens ", "red"),
    types_pb2.CHANGE_DIRECTION_TIGHTENS: ("tightens", "green"),
    types_pb2.CHANGE_DIRECTION_NEITHER: ("neither ", "dim"),
}


def show_proposal(proposal: pb.Proposal) -> None:
    """Prints what waits for approvals: every change, and what it waits for."""
    console = stdout()
    show_changes(proposal)
    which = "loosens" if proposal.loosens else "does not loosen"
    base = f"revision {proposal.base.number}" if proposal.base.number else "nothing"
    console.print(
        f"{proposal.policy_set} {proposal.digest[:DIGEST_LEAST]} {which} what is active ({base})", markup=False
    )
    for one in proposal.approvals:
        fails = "" if one.counts else " (does not count any more)"
        time = one.create_time.ToDatetime().isoformat(sep=" ", timespec="seconds")
        console.print(f"approved by {one.approver} at {time}Z{fails}", markup=False)
    console.print(f"waits for {proposal.waits_for}", markup=False, soft_wrap=True)
    console.print(f"diff {proposal.diff_digest}", markup=False, soft_wrap=True)


def show_changes(proposal: pb.Proposal) -> None:
    """Prints what a draft changes, one line each."""
    for change in proposal.changes:
        word, style = SIGNS.get(change.direction, ("?", "red"))
        place = f"{change.file}:{change.line}" if change.line else change.file
        place += " (before)" if change.in_base else ""
        told = f"{word}  {place}: {change.message} ({change.what})"
        stdout().print(told, style=style, markup=False, soft_wrap=True)


def list_waiting(name: str, target: str, *, as_json: bool) -> None:
    """Prints what waits for approvals, the newest first."""
    with channel(target) as opened:
        request = pb.ListProposalsRequest(policy_set=name)
        response = PolicyServiceStub(opened).ListProposals(request, timeout=PUBLISH_SECONDS)
    if as_json:
        print_json(response)
        return
    rows = (
        (
            one.policy_set,
            one.digest[:DIGEST_LEAST],
            "loosens" if one.loosens else "tightens",
            counted(len(one.changes), "change"),
            one.requested_by,
            ", ".join(given.approver for given in one.approvals if given.counts),
            one.waits_for,
            one.expires_time.ToDatetime().isoformat(sep=" ", timespec="seconds") + "Z",
        )
        for one in response.proposals
    )
    heads = ("set", "digest", "", "changes", "proposed by", "approved by", "waits for", "until")
    stdout().print(table(*heads, rows=rows))


def find_waiting(stub: PolicyServiceStub, name: str, digest: str) -> pb.Proposal:
    """Returns the proposal with a digest that begins so; without one, the only one that waits.

    Raises:
        click.UsageError: the beginning is too short, or none was named and not just one waits.
    """
    if digest and len(digest) < DIGEST_LEAST:
        raise click.UsageError(f"name at least {DIGEST_LEAST} characters of the digest")
    response = stub.ListProposals(pb.ListProposalsRequest(policy_set=name), timeout=PUBLISH_SECONDS)
    found = [one for one in response.proposals if one.digest.startswith(digest)]
    if len(found) == 1:
        return found[0]
    if not digest:
        told = f"{len(found)} revisions of `{name}` wait: name the digest of one" if found else "nothing waits"
        raise click.UsageError(f"{told}; `gatebook policy list --pending` shows what does")
    # The server says how it ended, if it remembers.
    return pb.Proposal(policy_set=name, digest=digest)


@click.command()
@click.argument("name")
@click.argument("digest", default="")
@click.option(
    "--diff", default="", metavar="DIGEST", help="The digest of the diff that was read: at least 12 characters."
)
@target_option
@json_option
def approve(name: str, digest: str, diff: str, target: str, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Approve a revision of the policy set NAME that waits: the only one, or that with DIGEST.

    It shows what the revision changes and asks, unless --diff names the diff that you have read.
    """
    with channel(target) as opened:
        stub = PolicyServiceStub(opened)
        proposal = find_waiting(stub, name, digest)
        if not diff:
            show_proposal(proposal)
            if not sys.stdin.isatty():
                raise click.UsageError("nobody can be asked here: read the diff, and name it with --diff")
            click.confirm("approve this?", abort=True)
        meant = proposal.diff_digest if not diff or is_beginning(diff, proposal.diff_digest) else diff
        request = pb.ApproveRevisionRequest(policy_set=name, digest=proposal.digest, diff_digest=meant)
        response = stub.ApproveRevision(request, timeout=PUBLISH_SECONDS)
    if as_json:
        print_json(response)
        return
    if response.HasField("revision"):
        revision = response.revision
        stdout().print(f"{name} revision {revision.number} {revision.digest[:12]} is now active", markup=False)
    else:
        waits = f"waits for {response.proposal.waits_for}" if response.proposal.people_missing else "it took effect"
        told = f"{name} {proposal.digest[:12]}: approved; {waits}"
        stdout().print(told, markup=False, soft_wrap=True)


def is_beginning(diff: str, digest: str) -> bool:
    """Tells whether enough characters of a digest were named."""
    return len(diff) >= DIGEST_LEAST and digest.startswith(diff)


@click.command()
@click.argument("name")
@click.argument("digest", default="")
@target_option
@json_option
def withdraw(name: str, digest: str, target: str, as_json: bool) -> None:  # noqa: FBT001  # as above
    """Take back a revision of the policy set NAME that waits, or, as somebody who may approve it, refuse it.

    It is the only one that waits, or that with DIGEST.
    """
    with channel(target) as opened:
        stub = PolicyServiceStub(opened)
        proposal = find_waiting(stub, name, digest)
        request = pb.WithdrawProposalRequest(policy_set=name, digest=proposal.digest)
        response = stub.WithdrawProposal(request, timeout=ASK_TIMEOUT_SECONDS)
    if as_json:
        print_json(response)
        return
    stdout().print(f"{name} {proposal.digest[:12]} waits no more", markup=False)


@click.command()
@click.argument("name")
@click.option("--to", "number", type=click.IntRange(min=1), required=True, help="The number of the earlier revision.")
@click.option("--base", default="", help="Refuse unless this digest is active.")
@click.option("--dry-run", is_flag=True, help="Only report what would happen.")
@click.option("--request-id", default="", help="As of `gatebook policy publish`.")
@target_option
@json_option
def rollback(  # click's options
    name: str,
    number: int,
    base: str,
    dry_run: bool,  # noqa: FBT001  # as above
    request_id: str,
    target: str,
    as_json: bool,  # noqa: FBT001  # as above
) -> None:
    """Publish an earlier revision of the policy set NAME again, through the same gate as any other."""
    request = pb.RollbackPolicySetRequest(
        policy_set=name, number=number, base=base, validate_only=dry_run, request_id=request_id
    )
    with channel(target) as opened:
        response = PolicyServiceStub(opened).RollbackPolicySet(request, timeout=PUBLISH_SECONDS).published
    if as_json:
        print_json(response)
    elif dry_run:
        show_changes(response.proposal)
        stdout().print(f"{name} revision {number}: can be published", markup=False)
    sys.exit(0 if dry_run else tell_published(name, response, silent=as_json))


def tell_published(name: str, response: pb.PublishPolicySetResponse, *, silent: bool) -> int:
    """Prints what a publish came to; returns the exit code: 0 only where it is active."""
    if response.HasField("proposal"):
        if not silent:
            show_proposal(response.proposal)
            told = f"approve: gatebook policy approve {name} {response.proposal.digest[:12]}"
            stderr().print(told, markup=False, soft_wrap=True)
        return NO
    if not silent:
        revision = response.revision
        what = "is now active" if response.changed else "was active already"
        stdout().print(f"{name} revision {revision.number} {revision.digest[:12]} {what}", markup=False)
    return 0


@click.command()
@click.option("--name", default="", help="Only this policy set.")
@click.option("--resume", default="", metavar="TOKEN", help="Go on after the answer that had this token.")
@click.option("--count", type=click.IntRange(min=0), default=0, help="End after so many; 0: never.")
@target_option
@json_option
def watch(name: str, resume: str, count: int, target: str, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Print the revisions that are active, then each that becomes so."""
    with channel(target) as opened:
        request = pb.WatchRevisionsRequest(policy_set=name, resume_token=resume)
        stream = PolicyServiceStub(opened).WatchRevisions(request)
        try:
            for told, response in enumerate(stream, 1):
                tell_revision(response, as_json=as_json)
                if told == count:
                    return
        finally:
            stream.cancel()


def tell_revision(response: pb.WatchRevisionsResponse, *, as_json: bool) -> None:
    """Prints one activation."""
    if as_json:
        print_json(response)
        return
    record = response.record
    time = record.create_time.ToDatetime().isoformat(sep=" ", timespec="seconds")
    what = f"{record.policy_set or '(directory)'} revision {record.revision.number} {record.revision.digest[:12]}"
    stdout().print(f"{time}Z  {what}  entry {record.index}  resume {response.resume_token}", markup=False)
