"""What is remembered changes no decision: a snapshot that answered much decides as one that answered nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.property.test_engine_telemetry import DATASETS, NAMES, PURPOSES, ROLES, SET, VALUES

from gatebook.audit.asked import named
from gatebook.authorize import decide, decide_unless_standing, question_of
from gatebook.compiler import remembered
from gatebook.compiler.remembered import Remembered
from gatebook.engine import recall
from gatebook.engine.recall import Recall
from gatebook.engine.snapshot import Snapshot, build_snapshot
from gatebook.familiar import Familiar
from gatebook.policy.directory import Directory, Subject
from gatebook.values import AccessRequest, Decision, Enforcer, Entity, MaskKind, ObligationKind, Reason, Revision

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
SUBJECTS = {
    f"s{number}": Subject("user", f"s{number}", {"level": number, "country": ("DE", "US")[number % 2]}, roles, "f", 1)
    for number, roles in enumerate([*((role,) for role in ROLES), (), tuple(ROLES), tuple(ROLES[::2])])
}
SNAPSHOT = build_snapshot(
    SET, Revision("a" * 64, 1), Directory("d", SUBJECTS), Revision("d" * 64, 1), mask_master=b"m" * 32
)
ENFORCERS = (
    Enforcer("able", frozenset(MaskKind), frozenset(ObligationKind)),
    Enforcer("masks", frozenset({MaskKind.HASH}), frozenset({ObligationKind.MASKS})),
    Enforcer(),
)


@st.composite
def requests(draw: st.DrawFn) -> AccessRequest:
    """Draws a request to the telemetry set, mostly of names that it knows."""
    dataset = DATASETS[draw(st.sampled_from(sorted(DATASETS)))]
    columns = draw(st.lists(st.sampled_from(sorted(dataset.columns)), max_size=3, unique=True))
    return AccessRequest(
        subject=Entity("user", draw(st.sampled_from([*SUBJECTS, "nobody"])), draw(st.dictionaries(NAMES, VALUES))),
        action=draw(st.sampled_from(("read", "read", "share", "export", "juggle"))),
        resource=dataset.id,
        columns=tuple(columns),
        purpose=draw(st.sampled_from(PURPOSES)),
        context=draw(st.dictionaries(NAMES, VALUES, max_size=2)),
        row=draw(st.none() | st.dictionaries(NAMES, VALUES, max_size=2)),
        enforcer=draw(st.sampled_from(ENFORCERS)),
        allow_partial=draw(st.booleans()),
    )


def fresh() -> Snapshot:
    """Returns the snapshot with nothing remembered."""
    return replace(SNAPSHOT, recall=Recall(), program=replace(SNAPSHOT.program, remembered=Remembered()))


def decided(snapshot: Snapshot, request: AccessRequest, caller: str, now: datetime) -> Decision:
    """Returns the decision of a snapshot."""
    return decide(snapshot, question_of(snapshot, request, caller=caller), now)


class Used:
    """Snapshots that decide all examples, and what was heard of them, in little or much room."""

    def __init__(self, columns_max: int, bytes_max: int) -> None:
        """Takes the room."""
        with (
            mock.patch.object(recall, "COLUMNS_MAX", columns_max),
            mock.patch.object(remembered, "REMEMBERED_COLUMNS_MAX", columns_max),
        ):
            self.snapshots = [fresh(), fresh()]
        self.familiar = Familiar(lambda: 0.0, bytes_max)

    def decided(self, snapshot: Snapshot, request: AccessRequest, caller: str, now: datetime) -> Decision:
        """Returns the decision, made the way that requests on the wire go."""
        heard = self.familiar.hear(repr(request).encode(), lambda: request, allow_partial=request.allow_partial)
        question = heard.question(snapshot, caller, named("request-1"), b"")
        assert question_of(snapshot, request, caller=caller, caller_request_id="request-1").asked == question.asked
        return decide_unless_standing(snapshot, question, now)


@pytest.fixture(scope="module", params=[(65_536, 64 << 20), (64, 100_000)], ids=["roomy", "forgetful"])
def used(request: pytest.FixtureRequest) -> Used:
    """Snapshots with room for all that they remember, or for next to nothing."""
    return Used(*request.param)


@settings(max_examples=200)
@given(
    asked=st.lists(requests(), min_size=1, max_size=3),
    callers=st.lists(st.sampled_from(("local", "svc-trino", "stranger")), min_size=2, max_size=2),
    days=st.lists(st.sampled_from((-4_000, 0, 1, 4_000)), min_size=2, max_size=2),
    which=st.lists(st.sampled_from((0, 1)), min_size=2, max_size=2),
)
def test_what_is_remembered_changes_no_decision(
    used: Used, asked: list[AccessRequest], callers: list[str], days: list[int], which: list[int]
) -> None:
    """Whoever asked before, as whom, when and with which attributes: the decision is that of a new snapshot."""
    for request in (*asked, *asked, *asked):
        for caller, day, place in zip(callers, days, which, strict=True):
            now = NOW + timedelta(days=day)
            found = used.decided(used.snapshots[place], request, caller, now)

            assert decided(fresh(), request, caller, now) == found


@given(request=requests(), seconds=st.lists(st.integers(-3, 3), min_size=2, max_size=6), end=st.booleans())
def test_a_decision_stands_as_long_as_its_notice(request: AccessRequest, seconds: list[int], end: bool) -> None:
    """Around the first and the last moment of a notice, each decision is the one that its moment gives."""
    assert SET.catalogue is not None
    notice = SET.catalogue.notice_of(SET.catalogue.datasets[request.resource])
    turn = notice.end_time if end and notice.end_time is not None else notice.effective_time
    snapshot, familiar = fresh(), Familiar(lambda: 0.0)
    for second in seconds:
        now = turn + timedelta(seconds=second)
        heard = familiar.hear(b"", lambda: request, allow_partial=request.allow_partial)
        question = heard.question(snapshot, "local", b"", b"")

        assert decided(fresh(), request, "local", now) == decide_unless_standing(snapshot, question, now)


def test_most_is_remembered() -> None:
    """Of the same question about different attributes nothing is asked of the rules twice."""
    snapshot = fresh()
    request: dict[str, Any] = {"action": "read", "resource": "ai_usage.token_usage", "purpose": "cost_management"}
    everything = Entity("user", next(i for i, s in SUBJECTS.items() if s.groups == ("role:finops",)))
    outcomes = [
        decided(
            snapshot,
            AccessRequest(everything, **request, context={"trace": number}, enforcer=ENFORCERS[0]),
            "local",
            NOW + timedelta(seconds=number),
        ).outcome
        for number in range(20)
    ]

    assert {Reason.ALLOWED} == {outcome.reason for outcome in outcomes}
    assert len({id(outcome) for outcome in outcomes}) == 1
