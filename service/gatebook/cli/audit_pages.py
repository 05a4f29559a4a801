"""Lists of entries as commands ask for them: page by page, whole or up to a number."""

from __future__ import annotations

import json
from collections.abc import Iterator

from google.protobuf import json_format

from gatebook.cli.output import ASK_TIMEOUT_SECONDS
from gatebook.errors import VerificationError
from gatebook.tlog.merkle import HASH_BYTES, left_of
from gatebook.v1 import audit_service_pb2 as pb
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub

PAGE_SIZE_MAX = 1_000
NEWEST_FIRST, OLDEST_FIRST = pb.ENTRY_ORDER_NEWEST_FIRST, pb.ENTRY_ORDER_OLDEST_FIRST


def pages(
    stub: AuditServiceStub,
    wanted: pb.EntryFilter,
    order: pb.EntryOrder.ValueType,
    origin: str,
    limit: int | None = None,
    *,
    bare: bool = False,
) -> Iterator[pb.ListEntriesResponse]:
    """Yields pages until there are no more, or together they have `limit` entries; `bare` ones name nobody."""
    request = pb.ListEntriesRequest(filter=wanted, order=order, origin=origin, without_personal_data=bare)
    count = 0
    while limit is None or count < limit:
        request.page_size = PAGE_SIZE_MAX if limit is None else min(PAGE_SIZE_MAX, limit - count)
        page = stub.ListEntries(request, timeout=ASK_TIMEOUT_SECONDS)
        yield page
        count += len(page.entries)
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return


def pruned_edge(stub: AuditServiceStub, origin: str, size: int) -> tuple[int, list[bytes]]:
    """Returns where a book begins, and the maximal subtrees over what is pruned before; both are only said.

    Raises:
        VerificationError: the subtrees are not as many as there must be.
    """
    asked = pb.ListEntriesRequest(origin=origin, order=OLDEST_FIRST, page_size=1)
    begins = stub.ListEntries(asked, timeout=ASK_TIMEOUT_SECONDS).first_index
    if not begins:
        return 0, []
    wanted = pb.GetInclusionProofRequest(index=begins, size=size, origin=origin)
    proof = stub.GetInclusionProof(wanted, timeout=ASK_TIMEOUT_SECONDS)
    edge = left_of(begins, size, proof.hashes)
    if len(edge) != begins.bit_count() or any(len(each) != HASH_BYTES for each in edge):
        raise VerificationError(f"the server proves nothing of the entries before {begins}, which are pruned")
    return begins, edge


def json_line(record: pb.EntryRecord) -> str:
    """Returns an entry as one line of JSON, with its index also where that is 0."""
    fields = json_format.MessageToDict(record, preserving_proto_field_name=True)
    return json.dumps({"index": str(record.index), **fields}, ensure_ascii=False)
