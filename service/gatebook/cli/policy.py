"""`gatebook policy`: lint, test, publish, list, show."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import click
import grpc
import msgspec
from google.rpc import error_details_pb2

from gatebook.cli.approving import approve, list_waiting, rollback, tell_published, watch, withdraw
from gatebook.cli.audience import audience
from gatebook.cli.diff import diff
from gatebook.cli.findings import format_options, told
from gatebook.cli.formatting import fmt
from gatebook.cli.importing import import_
from gatebook.cli.init import init
from gatebook.cli.on_changed import on_changed
from gatebook.cli.output import (
    ASK_TIMEOUT_SECONDS,
    NO,
    YES,
    channel,
    details_of,
    error_info,
    errors_told,
    json_option,
    print_json,
    stderr,
    stdout,
    table,
    target_option,
)
from gatebook.cli.prove import prove
from gatebook.cli.replay import replay, shadow
from gatebook.cli.schema import schema
from gatebook.cli.signatures import proof, verify
from gatebook.cli.uploading import check_policy_set, send_policy_set, size_of, working
from gatebook.policy import bundle
from gatebook.revisions.validate import declared_name, validate
from gatebook.v1 import policy_service_pb2 as pb
from gatebook.v1.policy_service_pb2_grpc import PolicyServiceStub

folder = click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
name_option = click.option(
    "--name", default="", help="The name of the set; else that in its gatebook.yaml, or the folder's."
)
directory_option = click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The subjects that tests speak of; else the `directory/` of the set.",
)


@click.group()
def policy() -> None:
    """Lint, test, publish and look at policy sets."""


for command in (
    approve,
    audience,
    diff,
    fmt,
    import_,
    init,
    proof,
    prove,
    replay,
    rollback,
    schema,
    shadow,
    verify,
    watch,
    withdraw,
    on_changed(lambda: policy, ("fmt", "lint", "test")),
):
    policy.add_command(command)


@policy.command(short_help="Report everything that is wrong with a policy set.")
@folder
@name_option
@format_options
def lint(
    folder: Path,
    name: str,
    form: str,
    out: Path | None,
    docs_url: str,
    as_json: bool,  # noqa: FBT001  # click passes flags by name
) -> None:
    """Report everything that is wrong with the policy set in FOLDER, with file, line and column."""
    with errors_told():
        files = bundle.read_folder(folder)
        with working("reading", size_of(files)):
            found = validate(files, name or folder.resolve().name, test=False)
        beside = bundle.ignored_files(folder)
    found = msgspec.structs.replace(found, findings=(*found.findings, *beside))
    told(found, folder, form=form, out=out, docs_url=docs_url, as_json=as_json)


@policy.command()
@folder
@name_option
@directory_option
@format_options
def test(  # click passes options by name
    folder: Path,
    name: str,
    directory: Path | None,
    form: str,
    out: Path | None,
    docs_url: str,
    as_json: bool,  # noqa: FBT001  # click passes flags by name
) -> None:
    """Run the tests of the policy set in FOLDER, without a server."""
    with errors_told():
        people = directory or bundle.directory_beside(folder)
        subjects = None if people is None else bundle.read_directory_folder(people)
        files = bundle.read_folder(folder)
        with working("reading, compiling and testing", size_of(files)):
            found = validate(files, name or folder.resolve().name, directory_files=subjects)
    told(found, folder, form=form, out=out, docs_url=docs_url, as_json=as_json)


@policy.command()
@folder
@name_option
@click.option("--dry-run", is_flag=True, help="Only report what would happen.")
@click.option("--request-id", default="", help="Publishing again with the same id and files changes nothing.")
@click.option("--base", default="", help="The digest that FOLDER was made from: refuse where another one is active.")
@target_option
@json_option
def publish(  # click's options
    folder: Path,
    name: str,
    dry_run: bool,  # noqa: FBT001  # click passes flags by name
    request_id: str,
    base: str,
    target: str,
    as_json: bool,  # noqa: FBT001  # as above
) -> None:
    """Validate, test, store and activate the policy set in FOLDER, or propose it where approvals are asked for.

    It exits with 0 where the set is active, and with 1 where it is refused or waits for approvals.
    """
    with errors_told():
        files = bundle.read_folder(folder)
    set_name = declared_name(files, name or folder.resolve().name)
    draft = pb.PublishPolicySetRequest(request_id=request_id, policy_set=set_name, base=base)
    with channel(target) as opened:
        stub = PolicyServiceStub(opened)
        response = pb.PublishPolicySetResponse() if dry_run else publish_or_refusal(stub, draft, files)
        if dry_run or isinstance(response, error_details_pb2.PreconditionFailure):
            sys.exit(told_why(stub, draft, files, response, as_json=as_json))
    if as_json:
        print_json(response)
    sys.exit(tell_published(set_name, response, silent=as_json))


def publish_or_refusal(
    stub: PolicyServiceStub, draft: pb.PublishPolicySetRequest, files: Mapping[str, bytes]
) -> pb.PublishPolicySetResponse | error_details_pb2.PreconditionFailure:
    """Publishes a draft, or returns why it is refused; a refusal names the first findings, a validation all of them."""
    try:
        return send_policy_set(stub, draft, files)
    except grpc.RpcError as error:
        info = error_info(error)
        if info is None or info.reason != "POLICY_SET_REFUSED":
            raise
        why = error_details_pb2.PreconditionFailure()
        any(detail.Unpack(why) for detail in details_of(error))
        return why


def told_why(
    stub: PolicyServiceStub,
    draft: pb.PublishPolicySetRequest,
    files: Mapping[str, bytes],
    response: pb.PublishPolicySetResponse | error_details_pb2.PreconditionFailure,
    *,
    as_json: bool,
) -> int:
    """Prints what would happen to a draft, or why it was refused; returns the exit code."""
    checked = check_policy_set(stub, draft.policy_set, files)
    faulty = bool(checked.test_failures) or any(f.severity == pb.SEVERITY_ERROR for f in checked.findings)
    refused = faulty or isinstance(response, error_details_pb2.PreconditionFailure)
    show_validation(checked, as_json=as_json)
    if isinstance(response, error_details_pb2.PreconditionFailure) and not faulty:
        show_refusal(response)
    if not as_json:
        told = "refused, nothing was changed" if refused else "can be published"
        digest = bundle.digest(files)[:12]
        (stderr() if refused else stdout()).print(f"{draft.policy_set} {digest}: {told}", markup=False)
    return NO if refused else YES


def show_refusal(why: error_details_pb2.PreconditionFailure) -> None:
    """Prints why this caller may not publish what has no fault in itself."""
    for violation in why.violations:
        told = f"{violation.subject}: {violation.description} ({violation.type})"
        stderr().print(told, markup=False, soft_wrap=True)


def show_validation(checked: pb.ValidatePolicySetResponse, *, as_json: bool) -> None:
    """Prints the server's findings about a draft."""
    if as_json:
        print_json(checked)
        return
    for finding in checked.findings:
        place = f"{finding.file}:{finding.line}:{finding.column}"
        stderr().print(f"{place}: {finding.message} ({finding.invariant})", markup=False, soft_wrap=True)
    for failure in checked.test_failures:
        told = f"{failure.file}:{failure.line}: {failure.test}: {failure.question}"
        stderr().print(told, markup=False, soft_wrap=True)
        stderr().print(f"    expected {failure.expected}, got {failure.actual}", markup=False, soft_wrap=True)


@policy.command("list")
@click.option("--name", default="", help="Only this policy set.")
@click.option("--page-size", default=50, show_default=True)
@click.option("--pending", is_flag=True, help="Those that wait for approvals instead.")
@target_option
@json_option
def list_revisions(
    name: str,
    page_size: int,
    pending: bool,  # noqa: FBT001  # click passes flags by name
    target: str,
    as_json: bool,  # noqa: FBT001  # as above
) -> None:
    """List the revisions that were activated, or that wait for approvals, the newest first."""
    if pending:
        list_waiting(name, target, as_json=as_json)
        return
    with channel(target) as opened:
        request = pb.ListRevisionsRequest(policy_set=name, page_size=page_size)
        response = PolicyServiceStub(opened).ListRevisions(request, timeout=ASK_TIMEOUT_SECONDS)
    if as_json:
        print_json(response)
        return
    rows = (
        (
            record.policy_set or "(directory)",
            str(record.revision.number),
            record.revision.digest[:12],
            record.create_time.ToDatetime().isoformat(sep=" ", timespec="seconds") + "Z",
            str(record.index),
            "active" if record.active else "",
        )
        for record in response.records
    )
    stdout().print(table("set", "number", "digest", "activated", "entry", "", rows=rows))
    if response.next_page_token:
        stderr().print("more: ask with a larger --page-size")


@policy.command()
@click.option("--name", default="", help="The policy set; not needed when one is served.")
@click.option("--digest", default="", help="The revision; none means the active one.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Write the files into this new folder.")
@target_option
@json_option
def show(name: str, digest: str, out: Path | None, target: str, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Show one revision with its files."""
    with channel(target) as opened:
        request = pb.GetRevisionRequest(policy_set=name, digest=digest)
        response = PolicyServiceStub(opened).GetRevision(request, timeout=ASK_TIMEOUT_SECONDS)
    if out is not None:
        write_files(out, {file.path: file.content for file in response.files})
    if as_json:
        print_json(response)
        return
    record = response.record
    state = "active" if record.active else "not active"
    console = stdout()
    console.print(f"{record.policy_set} revision {record.revision.number} {state}", markup=False)
    console.print(f"digest {record.revision.digest}", markup=False)
    rows = ((file.path, str(len(file.content))) for file in response.files)
    console.print(table("file", "bytes", rows=rows))


def write_files(out: Path, files: dict[str, bytes]) -> None:
    """Writes files into a folder that does not exist yet.

    Raises:
        click.UsageError: the folder exists, or a path would lead out of it.
    """
    if out.exists():
        raise click.UsageError(f"`{out}` exists already: name a new folder")
    for path, content in files.items():
        if not bundle.is_safe(path):
            raise click.UsageError(f"the server sent the unsafe path `{path}`")
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(content)
