"""`ReplayDecisions` and `ShadowPolicySet` of `PolicyService`: what a draft would change of past and of live decisions.

Owns who is told what: who may read the policy set, of decisions that they see, judged anew as it goes on.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from gatebook.audit.sight import Sight
from gatebook.errors import InvalidRequestError, LimitExceededError
from gatebook.policy import bundle
from gatebook.replay.comparing import Comparing
from gatebook.replay.past_decisions import replay_past
from gatebook.replay.shadow import Shadow
from gatebook.replay.tallies import Differing, Tallies
from gatebook.revisions.validate import declared_name
from gatebook.rpc.edge import Call, Edge, require_valid
from gatebook.service import Service
from gatebook.v1 import policy_service_pb2 as pb
from gatebook.v1 import replay_pb2, types_pb2

ENTRIES_DEFAULT, ENTRIES_MAX = 10_000, 100_000
SECONDS_DEFAULT, SECONDS_MAX = 60, 3_600
TOLD_TOGETHER_MAX = 100
"""Differences in one message; more are counted."""


class Replays:
    """Decides what others decided also under a draft."""

    def __init__(self, service: Service, edge: Edge) -> None:
        """Takes the parts of the service, and the rim of every call."""
        self._service = service
        self._edge = edge

    async def past(
        self, call: Call, request: pb.ReplayDecisionsRequest, files: Mapping[str, bytes]
    ) -> AsyncGenerator[pb.ReplayDecisionsResponse]:
        """Decides past decisions under a draft."""
        service, name = self._service, self._permitted(call, files, request.policy_set)
        entries_max = bounded("entries_max", request.entries_max, ENTRIES_DEFAULT, ENTRIES_MAX)
        active = service.revisions.state.directory_revision
        under = active if request.directory == replay_pb2.REPLAY_DIRECTORY_ACTIVE else None
        wanted = request.filter
        await service.reader.record(service.recorder, call.method, call.caller.id, asked=wanted)
        tallies = Tallies()
        async with Comparing(service.revisions, files, name, service.recorder.now()) as comparing:
            await comparing.require(active)
            async for tallies in replay_past(
                service.reader, comparing, wanted, name, entries_max, self._sight(call), call.caller.id, under
            ):
                yield pb.ReplayDecisionsResponse(progress=progress(tallies))
        call.tell(entries=tallies.seen, found=tallies.differing)
        yield pb.ReplayDecisionsResponse(progress=progress(tallies), tallies=told(tallies), done=True)

    async def live(
        self, call: Call, request: pb.ShadowPolicySetRequest, files: Mapping[str, bytes]
    ) -> AsyncGenerator[pb.ShadowPolicySetResponse]:
        """Decides live decisions under a draft."""
        service, name = self._service, self._permitted(call, files, request.policy_set)
        seconds = bounded("seconds", request.seconds, SECONDS_DEFAULT, SECONDS_MAX)
        shadow = Shadow(service.recorder, name, service.origin)
        async with Comparing(service.revisions, files, name, service.recorder.now()) as comparing:
            await comparing.require(service.revisions.state.directory_revision)
            async with shadow.watching(call.caller.id, bundle.digest(files)):
                yield pb.ShadowPolicySetResponse(progress=progress(shadow.tallies))
                async for found in shadow.differences(comparing, seconds, self._sight(call), self._edge.draining):
                    differing = [difference(one) for one in found[:TOLD_TOGETHER_MAX]]
                    yield pb.ShadowPolicySetResponse(progress=progress(shadow.tallies), differences=differing)
        call.tell(entries=shadow.tallies.seen, found=shadow.tallies.differing)
        yield pb.ShadowPolicySetResponse(progress=progress(shadow.tallies), tallies=told(shadow.tallies), done=True)

    def _permitted(self, call: Call, files: Mapping[str, bytes], name: str) -> str:
        """Returns the name of a draft whose set the caller may read.

        Raises:
            PermissionDeniedError: it may not, whether or not there is such a set.
            InvalidRequestError: no name is given.
        """
        name = declared_name(files, name)
        if not name:
            raise InvalidRequestError("policy_set", "the draft has no name in its `gatebook.yaml`: give one")
        self._edge.permit_reading(call, name)
        return name

    def _sight(self, call: Call) -> Sighted:
        """Returns what says, anew each time, what the caller sees."""
        return Sighted(self._edge, call)


class Sighted:
    """Says what a caller sees now, as long as it may call at all."""

    def __init__(self, edge: Edge, call: Call) -> None:
        """Takes the rim and the call."""
        self._edge = edge
        self._call = call

    def __call__(self) -> Sight:
        """Returns what is seen now.

        Raises:
            UnauthenticatedError, PermissionDeniedError: the caller's credentials or rights have gone meanwhile.
        """
        require_valid(self._call.caller)
        self._edge.permit(self._call)
        return self._edge.sight(self._call)


def bounded(field: str, asked: int, default: int, most: int) -> int:
    """Returns a number that was asked for, or the default for 0.

    Raises:
        InvalidRequestError, LimitExceededError: it is negative, or over its limit.
    """
    if asked < 0:
        raise InvalidRequestError(field, "must not be negative")
    if asked > most:
        raise LimitExceededError(f"{field}: {asked} is over {most:,}", field=field, limit=str(most), actual=str(asked))
    return asked or default


def progress(tallies: Tallies) -> replay_pb2.ReplayProgress:
    """Returns how far it has come."""
    return replay_pb2.ReplayProgress(
        seen=tallies.seen,
        decided=tallies.decided,
        differing=tallies.differing,
        distinct=tallies.distinct,
        left_out=tallies.left_out,
    )


def told(tallies: Tallies) -> list[replay_pb2.DifferenceTally]:
    """Returns what differs, by kind."""

    def named(names: list[tuple[str, int]]) -> list[replay_pb2.NamedCount]:
        return [replay_pb2.NamedCount(name=name, count=count) for name, count in names]

    return [
        replay_pb2.DifferenceTally(
            kind=int(kind),  # type: ignore[arg-type]  # the numbers are equal, see the contract test
            count=tally.count,
            subjects=named(tally.subjects.most_common(20)),
            resources=named(tally.resources.most_common(20)),
            callers=named(tally.callers.most_common(20)),
            examples=[difference(one) for one in tally.examples],
        )
        for kind, tally in tallies
    ]


def difference(one: Differing) -> replay_pb2.DecisionDifference:
    """Returns a decision that differs."""
    request, place, found = one.asked.request, one.place, one.difference
    return replay_pb2.DecisionDifference(
        kinds=[int(kind) for kind in found.kinds],  # type: ignore[misc]  # the numbers are equal, see the contract test
        decision_id=place.decision_id,
        origin=place.origin,
        index=place.index,
        subject=types_pb2.Subject(type=request.subject.type, id=request.subject.id),
        caller=one.asked.caller,
        action=request.action,
        resource_id=request.resource,
        purpose=request.purpose,
        columns=found.columns,
        before=found.before,
        after=found.after,
    )
