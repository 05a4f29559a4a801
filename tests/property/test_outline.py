"""The outline of a request says what its generated message says, however the request is written."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st

from gatebook.audit.wire import varint
from gatebook.rpc import outline
from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import types_pb2

NAMES = st.text(max_size=3)
ACCESSES = st.builds(
    lambda subject, purpose: types_pb2.AccessRequest(subject=types_pb2.Subject(id=subject), purpose=purpose),
    NAMES,
    NAMES,
)
ITEMS = st.builds(pb.CheckItem, correlation_id=NAMES, access=st.none() | ACCESSES, allow_partial=st.booleans())
REQUESTS = st.one_of(
    st.builds(
        pb.CheckAccessRequest,
        request_id=NAMES,
        policy_set=NAMES,
        access=st.none() | ACCESSES,
        allow_partial=st.booleans(),
        explain=st.booleans(),
        at_least=st.integers(-(2**63), 2**63 - 1),
        receipt_level=st.sampled_from((0, 1, 2, 77, -1, -(2**31))),
    ),
    st.builds(
        pb.BatchCheckAccessRequest,
        request_id=NAMES,
        policy_set=NAMES,
        items=st.lists(ITEMS, max_size=3),
        receipt_level=st.sampled_from((0, 1, 2, -1)),
    ),
    st.builds(pb.StreamCheckAccessRequest, policy_set=NAMES, items=st.lists(ITEMS, max_size=3)),
)
VARINTS = st.builds(
    lambda number, longer: varint(number)[:-1] + bytes([varint(number)[-1] | 0x80]) + b"\x80" * longer + b"\x00",
    st.sampled_from((0, 1, 2, 3, 2**31, 2**32 - 1, 2**32 + 2)),
    st.integers(0, 3),
) | st.builds(varint, st.sampled_from((0, 1, 2, 3, 2**31, 2**32 - 1, 2**32 + 2, 2**64 - 1)))
FIELDS = st.builds(lambda number, value: varint(number << 3) + value, st.integers(4, 9), VARINTS) | st.builds(
    lambda number, content: varint(number << 3 | 2) + varint(len(content)) + content,
    st.integers(1, 9),
    st.one_of(ACCESSES, ITEMS).map(lambda message: message.SerializeToString()) | st.binary(max_size=3),
)
"""Fields as somebody may write them who is up to something: again, unknown, at length, of the wrong type."""


def said(of: Message | outline.Check | outline.Many) -> list[object]:
    """Returns what a request or an outline says, and what is asked as a message."""
    found: list[object] = []
    names = ("request_id", "policy_set", "at_least", "explain", "allow_partial", "correlation_id")
    found += [getattr(of, name, None) for name in names]
    found.append(getattr(of, "receipt_level", 0) % (1 << 32))
    if hasattr(of, "access"):
        access = of.access
        found.append(types_pb2.AccessRequest.FromString(access) if isinstance(access, bytes) else access)
    found += [said(item) for item in getattr(of, "items", ())]
    return found


@given(REQUESTS, st.lists(FIELDS, max_size=4), st.lists(FIELDS, max_size=4))
def test_an_outline_says_what_the_message_says(request: Message, before: list[bytes], behind: list[bytes]) -> None:
    """What repeats, merges, is unknown or written at length means the same; what is no message has no outline."""
    raw = b"".join((*before, request.SerializeToString(), *behind))
    try:
        whole = type(request).FromString(raw)
    except DecodeError:
        with pytest.raises(DecodeError):
            said(outline.outline(type(request), raw))
        return

    assert said(whole) == said(outline.outline(type(request), raw))


def test_what_comes_twice_is_merged() -> None:
    """Two halves of what is asked are one question, as protobuf says, and not the second half."""
    halves = (types_pb2.AccessRequest(purpose="audit"), types_pb2.AccessRequest(subject=types_pb2.Subject(id="alice")))
    raw = b"".join(pb.CheckAccessRequest(access=half).SerializeToString() for half in halves)
    merged = types_pb2.AccessRequest(purpose="audit", subject=types_pb2.Subject(id="alice"))

    assert merged == types_pb2.AccessRequest.FromString(outline.check(raw).access)
