"""`gatebook lineage`: what tables are made of, and what they inherit from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import IO

import click

from gatebook.cli.output import channel, json_option, print_json, stdout, target_option
from gatebook.v1 import policy_service_pb2 as pb
from gatebook.v1.policy_service_pb2_grpc import PolicyServiceStub

DEPTH_MAX = 8
LINES_MAX = 10_000


@click.group()
def lineage() -> None:
    """Report what tables are made of, and show what they inherit."""


@lineage.command()
@click.argument("event", type=click.File("rb"), metavar="FILE|-")
@target_option
@json_option
def record(event: IO[bytes], target: str, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Take an OpenLineage run event (JSON): what a COMPLETE run made inherits from what it was made of.

    The same event again changes nothing.
    """
    with channel(target) as opened:
        response = PolicyServiceStub(opened).RecordLineage(pb.RecordLineageRequest(event_json=event.read()))
    if as_json:
        print_json(response)
        return
    for output in response.outputs:
        what = "inherits from what it is made of, by" if output.changed else "was known already, by"
        stdout().print(f"{output.name} {what} entry {output.index}", markup=False)
    if not response.outputs:
        stdout().print(
            f"nothing to record: a {response.event_type} that says nothing was made of anything", markup=False
        )


@lineage.command()
@click.argument("dataset", default="")
@click.option("--policy-set", default="", help="The policy set, where several are served.")
@target_option
@json_option
def show(dataset: str, policy_set: str, target: str, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Show what DATASET inherits, and from where; without one, every table that was made of others."""
    with channel(target) as opened:
        stub = PolicyServiceStub(opened)
        response = stub.GetLineage(pb.GetLineageRequest(policy_set=policy_set, dataset=dataset))
        everything = stub.GetLineage(pb.GetLineageRequest(policy_set=policy_set)) if dataset else response
    if as_json:
        print_json(response)
        return
    known = {one.dataset: one for one in everything.datasets}
    if not response.datasets:
        stdout().print("no table was made of others", markup=False)
    for line in islice((line for one in response.datasets for line in _lines(one, known)), LINES_MAX):
        stdout().print(line, markup=False, soft_wrap=True)


@lineage.command()
@click.argument("column", metavar="DATASET.COLUMN")
@click.option("--drop-tag", "tag", required=True, help="The tag that the column inherits, masked on every way.")
@click.option("--policy-set", default="", help="The policy set, where several are served.")
@target_option
@json_option
def reclassify(column: str, tag: str, policy_set: str, target: str, as_json: bool) -> None:  # noqa: FBT001  # click's flag
    """Propose to take a tag off a column that inherited it; it takes effect once two people have approved it.

    They do so with `gatebook policy approve`. Whenever anything more flows into the column, the tag is back.
    """
    dataset, _, name = column.rpartition(".")
    with channel(target) as opened:
        request = pb.ProposeReclassificationRequest(policy_set=policy_set, dataset=dataset, column=name, tag=tag)
        response = PolicyServiceStub(opened).ProposeReclassification(request)
    if as_json:
        print_json(response)
        return
    proposal = response.proposal
    for one in proposal.changes:
        stdout().print(one.message, markup=False, soft_wrap=True)
    stdout().print(f"waits for {proposal.waits_for}", markup=False, soft_wrap=True)
    stdout().print(f"digest {proposal.digest}", markup=False, soft_wrap=True)
    stdout().print(f"diff {proposal.diff_digest}", markup=False, soft_wrap=True)


def _lines(one: pb.InheritedDataset, known: Mapping[str, pb.InheritedDataset]) -> Iterator[str]:
    yield f"{one.dataset} ({'declared' if one.declared else 'derived'})"
    if one.sealed_by:
        yield f"  sealed: nothing is known of {one.sealed_by}, so nobody is allowed anything"
    most = f"{one.ceiling_people_max} people" if one.HasField("ceiling_people_max") else "any number of people"
    yield f"  ceiling: {', '.join(one.ceiling_roles) or 'nobody'}; {most}"
    yield f"  purposes: {', '.join(one.purposes) or 'none'}; kept {one.retention_days} days; {one.sensitivity}"
    for origin in one.origins:
        yield f"  made of {origin.dataset} by {origin.job}, run {origin.run_id}, entry {origin.index}"
    for column in one.columns:
        yield f"  {_told(column)}"
        yield from _sources(column, known, ((one.dataset, column.column),))


def _sources(
    column: pb.InheritedColumn, known: Mapping[str, pb.InheritedDataset], above: tuple[tuple[str, str], ...]
) -> Iterator[str]:
    """Yields what flowed into a column, and into that: not what stands above already, and so deep at most."""
    for source in column.sources:
        words = [f"{source.dataset}.{source.column}" if source.column else f"any column of {source.dataset}"]
        words += ["masked"] if source.masked else []
        words += ["chooses rows"] if source.indirect else []
        yield f"  {'  ' * len(above)}from {', '.join(words)}"
        place = (source.dataset, source.column)
        if source.dataset in known and place not in above and len(above) < DEPTH_MAX:
            for inner in known[source.dataset].columns:
                if inner.column == source.column:
                    yield from _sources(inner, known, (*above, place))


def _told(column: pb.InheritedColumn) -> str:
    told = f"{column.column} {column.type}"
    told += f" [{', '.join(column.tags)}]" if column.tags else ""
    words = []
    for tag in column.inherited:
        state = " (taken off)" if tag.dropped else " (masked)" if tag.masked else ""
        words.append(f"{tag.tag}{state}")
    return f"{told} inherits {', '.join(words)}" if words else told
