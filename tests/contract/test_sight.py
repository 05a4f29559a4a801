"""Who sees which entries of the book, by the policy set `gatebook`, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import grpc.aio
import pytest
from tests.authorised import (
    GRANTED,
    PEOPLE,
    Authorised,
    Ended,
    authorised,
    caller,
    check,
    claiming,
    gatebook_set,
    publish,
    question,
    read_to_the_end,
)

from gatebook.v1 import audit_service_pb2, entry_pb2
from gatebook.v1.audit_service_pb2_grpc import AuditServiceStub


@asynccontextmanager
async def asked_about(tmp_path: Path) -> AsyncIterator[Authorised]:
    """A server that two services have asked about two people."""
    callers = {**PEOPLE, "spark": caller("spark"), "auditor": caller("auditor")}
    lines = (*GRANTED, "g, cn:spark, role:service", "g, cn:auditor, role:auditor", "g, cn:keeper, role:keeper")
    async with authorised(tmp_path, callers, *lines) as server:
        for name in ("trino", "spark") * 3:
            for subject in ("farah", "kai"):
                assert Ended("OK") == await check(server, name, question(subject))
        yield server


async def listed(server: Authorised, name: str, page_size: int, **asked: Any) -> list[audit_service_pb2.EntryRecord]:  # noqa: ANN401  # of the filter
    """Returns all entries that a caller sees, page by page."""
    found: list[audit_service_pb2.EntryRecord] = []
    async with server.channel() as channel:
        stub, token = AuditServiceStub(channel), ""
        for _ in range(1_000):
            request = audit_service_pb2.ListEntriesRequest(page_size=page_size, page_token=token)
            request.filter.MergeFrom(audit_service_pb2.EntryFilter(**asked))
            page = await stub.ListEntries(request, metadata=claiming(name))
            found += page.entries
            token = page.next_page_token
            if not token:
                return found
    raise AssertionError


async def test_who_sees_which_entries(tmp_path: Path) -> None:
    """A service sees what it asked, a person what is about them, an auditor everything: in pages of any size."""
    decisions = {"kind": entry_pb2.ENTRY_KIND_DECISION}
    seen: dict[str, set[tuple[str, str]]] = {}
    async with asked_about(tmp_path) as server:
        for name in ("trino", "farah"):
            pages = [[r.index for r in await listed(server, name, size)] for size in (1, 2, 1_000)]
            assert pages[0] == pages[1] == pages[2]
            assert 6 == len(set(pages[0]))
        for name in ("trino", "spark", "farah", "kai"):
            seen[name] = {(r.entry.caller, r.request.subject.id) for r in await listed(server, name, 5)}
        everything = await listed(server, "auditor", 5)
        decided = await listed(server, "auditor", 1_000, **decisions)

    assert {("cn:trino", "farah"), ("cn:trino", "kai")} == seen["trino"]
    assert {("cn:spark", "farah"), ("cn:spark", "kai")} == seen["spark"]
    assert {("cn:trino", "farah"), ("cn:spark", "farah")} == seen["farah"]
    assert {("cn:trino", "kai"), ("cn:spark", "kai")} == seen["kai"]
    assert 12 == len(decided)
    assert list(range(len(everything))) == sorted(r.index for r in everything)


async def test_what_one_may_not_see_is_not_there(tmp_path: Path) -> None:
    """An entry of another is answered like one that does not exist, by index and by decision id."""

    async def get(server: Authorised, **selector: Any) -> Ended:  # noqa: ANN401  # of the request
        request = audit_service_pb2.GetEntryRequest(**selector).SerializeToString()
        how, _ = await server.call("trino", "/gatebook.v1.AuditService/GetEntry", request)
        return how

    def plain(how: Ended, word: str) -> tuple[str, str]:
        return how.code, how.message.replace(word, "X")

    async with asked_about(tmp_path) as server:
        records = await listed(server, "auditor", 1_000, kind=entry_pb2.ENTRY_KIND_DECISION)
        own = next(r for r in records if r.entry.caller == "cn:trino")
        hidden = next(r for r in records if r.entry.caller == "cn:spark")
        ids = own.entry.decision.decision_id, hidden.entry.decision.decision_id
        assert "OK" == (await get(server, index=own.index)).code
        assert "OK" == (await get(server, decision_id=ids[0])).code
        by_index = [plain(await get(server, index=i), str(i)) for i in (hidden.index, 0, 12_345)]
        by_id = [plain(await get(server, decision_id=i), i) for i in (ids[1], "0" * 32)]

    assert [("NOT_FOUND", "there is no entry X for you to see")] * 3 == by_index
    assert [("NOT_FOUND", "there is no decision `X` for you to see")] * 2 == by_id


async def test_a_tail_shows_what_is_seen_and_ends_with_the_right(tmp_path: Path) -> None:
    """A tail sends only what its caller sees, from the start of the book on."""
    async with asked_about(tmp_path) as server, server.channel() as channel:
        tail = AuditServiceStub(channel).TailEntries(
            audit_service_pb2.TailEntriesRequest(start_index=0), metadata=claiming("trino")
        )
        found: list[audit_service_pb2.EntryRecord] = []
        while len(found) < 6:
            found += (await tail.read()).entries
        server.authentication.callers["keeper"] = caller("keeper")
        without = gatebook_set(tmp_path / "without", "g, cn:keeper, role:keeper")
        assert Ended("OK") == await publish(server, "keeper", without)
        with pytest.raises(grpc.aio.AioRpcError) as over:
            await read_to_the_end(tail)

    assert {"cn:trino"} == {r.entry.caller for r in found}
    assert grpc.StatusCode.PERMISSION_DENIED == over.value.code()


async def test_no_page_token_tells_of_entries_that_are_not_seen(tmp_path: Path) -> None:
    """Where all that follows a page is hidden, it is the last page: what is not seen is as what is not there."""
    async with asked_about(tmp_path) as server, server.channel() as channel:
        order = audit_service_pb2.ENTRY_ORDER_OLDEST_FIRST
        wanted = audit_service_pb2.EntryFilter(kind=entry_pb2.ENTRY_KIND_DECISION)
        request = audit_service_pb2.ListEntriesRequest(filter=wanted, order=order, page_size=6)
        stub = AuditServiceStub(channel)
        hidden = await stub.ListEntries(request, metadata=claiming("trino"))
        request.page_size = 5
        more = await stub.ListEntries(request, metadata=claiming("trino"))
        request.page_token = more.next_page_token
        last = await stub.ListEntries(request, metadata=claiming("trino"))

    assert (6, "") == (len(hidden.entries), hidden.next_page_token)
    assert more.next_page_token
    assert hidden.entries == [*more.entries, *last.entries]
    assert not last.next_page_token


async def test_a_tail_is_judged_anew_for_each_page(tmp_path: Path) -> None:
    """A right that is revoked while a tail sends a long round is gone with the next page of it."""
    async with asked_about(tmp_path) as server, server.channel() as channel:
        server.authentication.callers["keeper"] = caller("keeper")
        without = gatebook_set(tmp_path / "without", "g, cn:keeper, role:keeper")
        reader, pages = server.service.reader, 0
        read = reader.page

        async def page(request: audit_service_pb2.ListEntriesRequest, *place: Any) -> Any:  # noqa: ANN401  # passed on
            nonlocal pages
            pages += 1
            request.page_size = 1
            if pages == 2:
                assert Ended("OK") == await publish(server, "keeper", without)
            return await read(request, *place)

        found: list[audit_service_pb2.EntryRecord] = []

        async def read_on() -> None:
            while True:
                found.extend((await tail.read()).entries)

        with mock.patch.object(reader, "page", page):
            tail = AuditServiceStub(channel).TailEntries(
                audit_service_pb2.TailEntriesRequest(start_index=0), metadata=claiming("trino")
            )
            with pytest.raises(grpc.aio.AioRpcError) as over:
                await read_on()

    assert grpc.StatusCode.PERMISSION_DENIED == over.value.code()
    assert 2 == pages
    assert 2 == len(found)
