"""A tag that was masked on every way comes off a column by two people, and is back when anything more flows in."""

from __future__ import annotations

from pathlib import Path

import grpc
from tests.approving import Guarded, guarded, refused
from tests.run_events import output, run_event, source

from gatebook.v1 import policy_service_pb2 as pb
from gatebook.v1.policy_service_pb2_grpc import PolicyServiceStub

TABLE, COLUMN, TAG = "mlops.training_features", "action_seq", "behavior.keystroke"
REFUSED = (grpc.StatusCode.FAILED_PRECONDITION, "APPROVAL_REFUSED")
INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


def made(*sources: dict[str, object]) -> bytes:
    """Returns an event by which the column was made of these sources."""
    return run_event(output(TABLE, {COLUMN: list(sources)}))


MASKED = made(source("mci.keystroke_events.key_code", masking=True))
CLEAR = made(source("mci.keystroke_events.key_code"))
MORE = made(source("mci.pointer_events.x", masking=True))


def record(server: Guarded, event: bytes) -> None:
    """Reports an event."""
    with server.acting("kai") as channel:
        PolicyServiceStub(channel).RecordLineage(pb.RecordLineageRequest(event_json=event))


def propose(server: Guarded, tag: str = TAG) -> pb.Proposal:
    """Proposes to take a tag off."""
    request = pb.ProposeReclassificationRequest(policy_set="telemetry", dataset=TABLE, column=COLUMN, tag=tag)
    with server.acting("kai") as channel:
        return PolicyServiceStub(channel).ProposeReclassification(request).proposal


def inherited(server: Guarded) -> dict[str, tuple[bool, bool]]:
    """Returns the tags that the column inherits: whether masked on every way, and whether taken off."""
    with server.acting("kai") as channel:
        request = pb.GetLineageRequest(policy_set="telemetry", dataset=TABLE)
        [dataset] = PolicyServiceStub(channel).GetLineage(request).datasets
    [column] = [one for one in dataset.columns if one.column == COLUMN]
    return {tag.tag: (tag.masked, tag.dropped) for tag in column.inherited}


def test_at_04_a_masked_tag_comes_off_by_two_people(tmp_path: Path) -> None:
    """One approval is not enough, nor the requester's; two are, across a restart; what flows in brings it back."""
    with guarded(tmp_path) as server:
        record(server, MASKED)
        proposal = propose(server)
        own = refused(lambda: server.approve("kai", proposal))
        first = server.approve("gus", proposal)
        again = refused(lambda: server.approve("gus", proposal))
        before = inherited(server)
    with guarded(tmp_path) as server:
        [waiting] = server.waiting()
        server.approve("hana", waiting)
        after, left = inherited(server), server.waiting()
    with guarded(tmp_path) as server:
        restarted, waiting_still = inherited(server), server.waiting()
        record(server, MORE)
        back = inherited(server)

    assert (own, again, first.proposal.people_missing) == (REFUSED, REFUSED, 1)
    assert [one.message for one in waiting.changes] == [one.message for one in proposal.changes]
    assert before == {TAG: (True, False)}
    assert (after, left) == ({TAG: (True, True)}, [])
    assert (restarted, waiting_still) == (after, [])
    assert back == {TAG: (True, False), "behavior.click": (True, False)}


def test_at_04_a_tag_that_comes_in_clear_stays(tmp_path: Path) -> None:
    """It cannot be proposed to take it off, and what was approved before it came in clear is void."""
    with guarded(tmp_path) as server:
        record(server, MASKED)
        proposal = propose(server)
        server.approve("gus", proposal)
        record(server, CLEAR)
        void = refused(lambda: server.approve("hana", proposal))
        unmasked = refused(lambda: propose(server))
        unknown = refused(lambda: propose(server, "hr"))
        declared = refused(lambda: propose(server, "source.internal"))

        assert (void, unmasked, unknown, declared) == (REFUSED, INVALID, INVALID, INVALID)
        assert (inherited(server), server.waiting()) == ({TAG: (False, False)}, [])
