"""How questions about the book become requests.

Owns the filter of `entries` and the requests of the audit calls, which both clients share.
"""

from __future__ import annotations

import datetime as dt
from typing import Final, Literal, TypedDict

from gatebook.v1 import audit_service_pb2 as audit_pb2
from gatebook.v1 import entry_pb2, types_pb2
from gatebook_client.errors import MalformedAnswerError

EffectName = Literal["allow", "deny"]
KindName = Literal["decision", "policy", "control", "read", "system"]

PAGE_SIZE: Final = 200

_EFFECTS: Final[dict[str, types_pb2.Effect.ValueType]] = {
    "allow": types_pb2.EFFECT_ALLOW,
    "deny": types_pb2.EFFECT_DENY,
}
_REASONS: Final = frozenset(types_pb2.ReasonCode.keys())
_KINDS: Final[dict[str, entry_pb2.EntryKind.ValueType]] = {
    "decision": entry_pb2.ENTRY_KIND_DECISION,
    "policy": entry_pb2.ENTRY_KIND_POLICY,
    "control": entry_pb2.ENTRY_KIND_CONTROL,
    "read": entry_pb2.ENTRY_KIND_READ,
    "system": entry_pb2.ENTRY_KIND_SYSTEM,
}


class EntryFilter(TypedDict, total=False):
    """Selects entries; every field that is given must match. Times are aware; ends are exclusive.

    `reason` is a name without prefix, such as `PURPOSE_NOT_GRANTED`; a parent purpose matches its
    children.
    """

    subject_id: str
    resource_id: str
    column: str
    action: str
    purpose: str
    effect: EffectName
    reason: str
    revision: str
    caller: str
    decision_id: str
    kind: KindName
    start_time: dt.datetime
    end_time: dt.datetime
    start_index: int
    end_index: int


def list_request(
    criteria: EntryFilter, *, oldest_first: bool, page_size: int, origin: str = ""
) -> audit_pb2.ListEntriesRequest:
    """Returns the request for the first page.

    Raises:
        ValueError: a field is not one of the filter's, or its value is not understood.
    """
    order = audit_pb2.ENTRY_ORDER_OLDEST_FIRST if oldest_first else audit_pb2.ENTRY_ORDER_NEWEST_FIRST
    return audit_pb2.ListEntriesRequest(filter=entry_filter(criteria), page_size=page_size, order=order, origin=origin)


def entry_filter(criteria: EntryFilter) -> audit_pb2.EntryFilter:
    """Converts a filter to a message. What is not understood is refused: ignoring it would show more."""
    message = audit_pb2.EntryFilter()
    for name, value in criteria.items():
        match name, value:
            case ("effect", str()) if value in _EFFECTS:
                message.effect = _EFFECTS[value]
            case ("kind", str()) if value in _KINDS:
                message.kind = _KINDS[value]
            case ("reason", str()) if f"REASON_CODE_{value}" in _REASONS:
                message.reason = types_pb2.ReasonCode.Value(f"REASON_CODE_{value}")
            case ("start_time" | "end_time", dt.datetime(tzinfo=dt.tzinfo())):
                getattr(message, name).FromDatetime(value)
            case ("start_index" | "end_index", int()):
                setattr(message, name, value)
            case (
                "subject_id" | "resource_id" | "column" | "action" | "purpose" | "revision" | "caller" | "decision_id",
                str(),
            ):
                setattr(message, name, value)
            case _:
                raise ValueError(f"{name}: `{value}` is not a filter of entries")
    return message


def entry_request(index: int | None, decision_id: str, origin: str = "") -> audit_pb2.GetEntryRequest:
    """Returns the request for one entry by index or by decision id.

    Raises:
        ValueError: not exactly one of the two is given.
    """
    if (index is None) == (not decision_id):
        raise ValueError("entry: give either an index or a decision_id")
    if index is None:
        return audit_pb2.GetEntryRequest(decision_id=decision_id, origin=origin)
    return audit_pb2.GetEntryRequest(index=index, origin=origin)


def next_page(
    request: audit_pb2.ListEntriesRequest, response: audit_pb2.ListEntriesResponse
) -> audit_pb2.ListEntriesRequest | None:
    """Returns the request for the page after, or None after the last.

    Raises:
        MalformedAnswerError: the page leads to itself, so that the list would never end.
    """
    if not response.next_page_token:
        return None
    if response.next_page_token == request.page_token:
        raise MalformedAnswerError("a page of entries names itself as the next")
    following = audit_pb2.ListEntriesRequest()
    following.CopyFrom(request)
    following.page_token = response.next_page_token
    return following
