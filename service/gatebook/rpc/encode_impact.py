"""The report of a change as messages."""

from __future__ import annotations

from gatebook.governance.change import Direction
from gatebook.governance.gained import Example
from gatebook.governance.impact import Shown
from gatebook.governance.summary import Changed, Count, Summary, Tally
from gatebook.rpc.encode import counterexample, path_step
from gatebook.v1 import policy_service_pb2 as pb


def impact(value: Summary) -> pb.Impact:
    """Returns what a change gains and loses as a message."""
    return pb.Impact(
        policy_set=value.policy_set,
        old_digest=value.old_digest,
        new_digest=value.new_digest,
        directory_digest=value.directory_digest,
        digest=value.digest,
        people=value.people,
        gaining=_count(value.gaining),
        losing=_count(value.losing),
        changes=[_changed(change) for change in value.changes],
        changes_left_out=value.changes_left_out,
        tallies=[_tally(tally) for tally in value.tallies],
        set_changes=[
            pb.SetChange(
                what=change.what,
                message=change.message,
                loosens=change.direction is Direction.LOOSENS,
                file=change.file,
                line=change.line,
                dataset=change.dataset,
            )
            for change in value.set_changes
        ],
    )


def _changed(value: Changed) -> pb.AccessChange:
    message = pb.AccessChange(
        dataset=value.dataset,
        action=value.action,
        columns=value.columns,
        purposes=value.purposes,
        gained=[int(aspect) for aspect in value.gained],  # type: ignore[misc]  # the numbers are equal, a test says
        lost=[int(aspect) for aspect in value.lost],  # type: ignore[misc]  # as above
        before=_access(value.before),
        after=_access(value.after),
        count=_count(value.count),
        subjects=value.names,
        subjects_left_out=value.names_left_out,
        roles=[pb.ImpactRole(role=role, people=people) for role, people in value.roles],
    )
    if value.example is not None:
        message.example.CopyFrom(_example(value.example, value.dataset, value.action))
    return message


def _example(value: Example, dataset: str, action: str) -> pb.ImpactExample:
    return pb.ImpactExample(
        counterexample=counterexample(value.counterexample, dataset, action),
        new_steps=value.new_steps,
        obstacles=[path_step(step) for step in value.obstacles],
    )


def _access(value: Shown) -> pb.ImpactAccess:
    return pb.ImpactAccess(rows=value.rows, masks=value.masks, minimum_group=value.minimum_group)


def _count(value: Count) -> pb.ImpactCount:
    return pb.ImpactCount(
        people_certain=value.certain,
        people_possible=value.possible,
        people_own_rows=value.own,
        services=value.services,
    )


def _tally(value: Tally) -> pb.ImpactTally:
    return pb.ImpactTally(
        dataset=value.dataset, role=value.role, gaining=_count(value.gaining), losing=_count(value.losing)
    )
