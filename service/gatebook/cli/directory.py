"""`gatebook directory`: the snapshot of subjects that governed sets read."""

from __future__ import annotations

from pathlib import Path

import click

from gatebook.cli.output import (
    channel,
    errors_told,
    json_option,
    print_json,
    stderr,
    stdout,
    target_option,
)
from gatebook.cli.uploading import send_directory
from gatebook.policy import bundle
from gatebook.v1 import policy_service_pb2 as pb
from gatebook.v1.policy_service_pb2_grpc import PolicyServiceStub


@click.group()
def directory() -> None:
    """Replace the subjects, their attributes and groups."""


@directory.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--request-id", default="", help="An id of your choice.")
@target_option
@json_option
def publish(folder: Path, request_id: str, target: str, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Validate and activate the directory in FOLDER (JSON lines or CSV)."""
    with errors_told():
        files = bundle.read_directory_folder(folder)
    with channel(target) as opened:
        request = pb.PublishDirectoryRequest(request_id=request_id)
        response = send_directory(PolicyServiceStub(opened), request, files)
    if as_json:
        print_json(response)
        return
    revision = response.revision
    what = "is now active" if response.changed else "was active already"
    told = f"directory revision {revision.number} {revision.digest[:12]} with {response.subjects} subjects {what}"
    stdout().print(told, markup=False)
    for finding in response.findings:
        place = f"{finding.file}:{finding.line}:{finding.column}"
        stderr().print(f"{place}: {finding.message} ({finding.invariant})", markup=False, soft_wrap=True)
    if response.findings:
        stderr().print("who is not proved to be within these ceilings is denied CEILING_EXCEEDED", markup=False)
