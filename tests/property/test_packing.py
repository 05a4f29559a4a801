"""The bytes that the coalescing client puts together by hand are those of the messages."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gatebook.v1 import access_service_pb2 as pb
from gatebook_client import Action, Check, Enforcer, Resource, Subject
from gatebook_client.asking import Asking
from gatebook_client.packing import batch_request, one_request, pack, pack_enforcer
from gatebook_client.question import access_request

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.just("x" * 700)
PROPERTIES = st.dictionaries(TEXT, st.integers() | TEXT | st.lists(TEXT, max_size=2), max_size=3)
SUBJECTS = TEXT | st.tuples(TEXT, TEXT) | st.builds(Subject, TEXT, TEXT, PROPERTIES)
CHECKS = st.builds(
    Check,
    SUBJECTS,
    TEXT | st.builds(Action, TEXT, PROPERTIES),
    TEXT | st.builds(Resource, TEXT, TEXT, PROPERTIES),
    columns=st.lists(TEXT, max_size=3),
    purpose=TEXT,
    context=st.none() | PROPERTIES,
    row=st.none() | PROPERTIES,
    actor=st.none() | SUBJECTS,
    allow_partial=st.booleans(),
)
ENFORCERS = st.builds(
    Enforcer, TEXT, st.frozensets(st.integers(1, 12), max_size=12), st.frozensets(st.integers(1, 4), max_size=4)
)


@given(CHECKS, ENFORCERS)
def test_one_check_packs_to_its_message(check: Check, enforcer: Enforcer) -> None:
    """Whatever is asked: the bytes parse to the request that is built from messages."""
    declared = Asking.of("basic", enforcer).declared
    head = pb.CheckAccessRequest(request_id="r", policy_set="basic", at_least=2).SerializeToString()
    packed = one_request(head, pack(check, pack_enforcer(declared)))
    expected = pb.CheckAccessRequest(
        request_id="r",
        policy_set="basic",
        access=access_request(check, declared),
        allow_partial=check.allow_partial,
        at_least=2,
    )

    assert expected == pb.CheckAccessRequest.FromString(packed)


@given(st.lists(CHECKS, max_size=5), ENFORCERS)
def test_a_batch_packs_to_its_message(checks: list[Check], enforcer: Enforcer) -> None:
    """Items keep their order, their ids and what they say."""
    asking = Asking.of("basic", enforcer)
    expected, _ = asking.batch_request(checks, at_least=3, receipt="full")
    head = pb.BatchCheckAccessRequest()
    head.CopyFrom(expected)
    head.ClearField("items")
    declared = pack_enforcer(asking.declared)
    ids = [str(position) for position in range(len(checks))]
    packed = batch_request(head.SerializeToString(), [pack(check, declared) for check in checks], ids)

    assert expected == pb.BatchCheckAccessRequest.FromString(packed)
