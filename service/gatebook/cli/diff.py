"""`gatebook policy diff`: what a change gains and loses, in people, columns, masks and row filters."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from gatebook.cli.diff_text import show_impact
from gatebook.cli.output import NO, USAGE, YES, channel, errors_told, fail, json_option, print_json, target_option
from gatebook.cli.report import report_of
from gatebook.cli.sides import ACTIVE, Side, read_side
from gatebook.cli.uploading import PUBLISH_SECONDS, is_whole, size_of, whole_files, working
from gatebook.policy import bundle
from gatebook.policy.directory import load_directory
from gatebook.policy.gatebook_set import GATEBOOK
from gatebook.revisions.compare import compare, read_set
from gatebook.revisions.validate import declared_name
from gatebook.rpc import encode_impact
from gatebook.v1 import policy_service_pb2 as pb
from gatebook.v1.policy_service_pb2_grpc import PolicyServiceStub

SHOWN = 50
PAGE = 1_000
DIGEST_CHARACTERS = 64


@click.command(short_help="Show what a change gains and loses, and for whom.")
@click.argument("old")
@click.argument("new")
@click.option("--policy-set", "folder", default="", metavar="FOLDER", help="The set that OLD and NEW are states of.")
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder of the subjects; else the `directory/` of NEW, or of OLD.",
)
@click.option(
    "--fail-on",
    type=click.Choice(("gain", "change", "never")),
    default="gain",
    show_default=True,
    help="Exit with 1 if anybody gains something, if anybody gains or loses something, or never.",
)
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a report with pictures here too.")
@click.option("--limit", default=SHOWN, show_default=True, help="Changes to show, at most 1,000.")
@click.option("--name", default="", help="The name of the set at the server; not needed when one is served.")
@target_option
@json_option
def diff(  # noqa: PLR0913, PLR0917  # click passes every option
    old: str,
    new: str,
    folder: str,
    directory: Path | None,
    fail_on: str,
    html: Path | None,
    limit: int,
    name: str,
    target: str,
    as_json: bool,  # noqa: FBT001  # click passes flags by name
) -> None:
    """Show what the change from OLD to NEW gains and loses: people, columns, masks, row filters.

    OLD and NEW are each a folder; a state of git, such as `main:policies/telemetry`, or `HEAD~1` with --policy-set;
    or a revision of the server: its number, its digest, or `active`. Both are compared under one directory.

    What is not decided counts as gained. Exit codes: 0 nobody gains anything, 1 somebody does or might.
    """
    limit = max(1, limit)
    with errors_told():
        sides = (read_side(old, folder), read_side(new, folder))
        if sides[0] is None or sides[1] is None:
            impact = _at_server(old, sides, new, name, target, limit)
        else:
            impact = _here(sides[0], sides[1], directory, limit)
    if html is not None:
        html.write_text(report_of(impact, old, new), encoding="utf-8")
    if as_json:
        print_json(impact)
    else:
        show_impact(impact)
    gains, losses = _concerns(impact.gaining), _concerns(impact.losing)
    sys.exit(NO if fail_on != "never" and (gains or (fail_on == "change" and losses)) else YES)


def _concerns(count: pb.ImpactCount) -> bool:
    """Tells whether a count is of anybody."""
    return bool(count.people_certain or count.people_possible or count.people_own_rows or count.services)


def _here(old: Side, new: Side, directory: Path | None, limit: int) -> pb.Impact:
    """Compares two sets without a server."""
    subjects = new.directory or old.directory if directory is None else bundle.read_directory_folder(directory)
    if subjects is None:
        fail(f"neither `{old.said}` nor `{new.said}` has a `directory/`: name the subjects with --directory", USAGE)
    with working("reading and comparing", size_of(old.files) + size_of(new.files) + size_of(subjects)):
        before = read_set(old.files, declared_name(old.files, old.name), "old")
        after = read_set(new.files, declared_name(new.files, new.name), "new")
        summary = compare(before, after, load_directory(subjects), datetime.now(UTC), changes_max=limit)
    return encode_impact.impact(summary)


def _at_server(
    old: str, sides: tuple[Side | None, Side | None], new: str, name: str, target: str, limit: int
) -> pb.Impact:
    """Lets a server compare a draft, or a revision, with a revision of its own, under its directory."""
    if sides[0] is not None:
        fail(f"`{old}` is no revision of the server: what is compared with one of its revisions is the new side", USAGE)
    draft = sides[1]
    if draft is not None and not is_whole(draft.files):
        fail(f"`{new}` is too large for one message: compare it with `gatebook policy show --out FOLDER` of it", USAGE)
    with channel(target) as opened:
        stub = PolicyServiceStub(opened)
        set_name = name or ("" if draft is None else declared_name(draft.files, draft.name))
        request = pb.DiffPolicySetRequest(
            policy_set=set_name,
            files=[] if draft is None else whole_files(draft.files),
            old_digest=_digest(stub, set_name, old),
            new_digest="" if draft is not None else _digest(stub, set_name, new),
            changes_max=min(limit, PAGE),
        )
        response: pb.DiffPolicySetResponse = stub.DiffPolicySet(request, timeout=PUBLISH_SECONDS)
    return response.impact


def _digest(stub: PolicyServiceStub, name: str, revision: str) -> str:
    """Returns the digest of a revision of a server; empty for the active one."""
    if revision == ACTIVE or len(revision) == DIGEST_CHARACTERS:
        return "" if revision == ACTIVE else revision
    found: dict[str, str] = {}
    token = ""
    while True:
        page = stub.ListRevisions(pb.ListRevisionsRequest(policy_set=name, page_size=PAGE, page_token=token))
        for record in page.records:
            known = record.revision
            is_it = str(known.number) == revision if revision.isdigit() else known.digest.startswith(revision)
            if is_it and record.policy_set and (name or record.policy_set != GATEBOOK):
                found.setdefault(record.policy_set, known.digest)
        token = page.next_page_token
        if not token:
            break
    if not found:
        fail(f"the server has no revision `{revision}`; `gatebook policy list` shows them", USAGE)
    if len(found) > 1:
        fail(f"several sets have a revision `{revision}`: say which with --name", USAGE)
    return next(iter(found.values()))
