"""Callers who do not read, do not ask or go away: each is let go of, with all that was held for it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from tests.contract.test_limits import QUESTION, batch, small_server, told_code
from tests.http2 import DATA, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, Raw, frame, message, request

from gatebook.config import Limits
from gatebook.v1 import audit_service_pb2

TAIL = "/gatebook.v1.AuditService/TailEntries"
LIST = "/gatebook.v1.AuditService/ListEntries"
NO_WINDOW = INITIAL_WINDOW_SIZE.to_bytes(2, "big") + bytes(4)


@pytest.mark.parametrize(
    ("method", "asked"),
    [
        (TAIL, audit_service_pb2.TailEntriesRequest(start_index=0)),
        (LIST, audit_service_pb2.ListEntriesRequest(page_size=1_000)),
    ],
    ids=["stream", "unary"],
)
async def test_who_does_not_take_an_answer_is_cut_off(tmp_path: Path, method: str, asked: Any) -> None:  # noqa: ANN401  # any message
    """A connection on which an answer waits for too long is closed, and what was held for it is let go of."""
    async with small_server(tmp_path, Limits(send_seconds=0.5)) as server:
        await server.access.BatchCheckAccess(batch(200))
        call = frame(HEADERS, END_HEADERS, 1, request(method)) + frame(
            DATA, END_STREAM, 1, message(asked.SerializeToString())
        )

        def ask_and_wait() -> bool:
            with Raw(server.port, NO_WINDOW) as raw:
                raw.send(call)
                return raw.ended(20)

        cut_off = await asyncio.to_thread(ask_and_wait)
        await server.is_idle()
        answered = await server.access.BatchCheckAccess(batch(1))

    assert cut_off
    assert len(answered.results) == 1


async def test_a_stream_on_which_nothing_is_asked_is_ended(tmp_path: Path) -> None:
    """A stream without a question for too long ends with DEADLINE_EXCEEDED; its answers have been sent."""
    async with small_server(tmp_path, Limits(stream_idle_seconds=0.5)) as server:
        stream = server.access.StreamCheckAccess()
        await stream.write(QUESTION)
        answered = await stream.read()
        ended = await stream.code()
        await server.is_idle()

    assert len(answered.results) == 1
    assert ended is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_callers_that_vanish_leave_nothing_behind(tmp_path: Path) -> None:
    """Cancelled checks, batches, streams and tails leave no task, no count and no bytes; the book holds whole calls."""
    async with small_server(tmp_path, Limits()) as server:
        await server.access.BatchCheckAccess(batch(1))
        await server.is_idle()
        before = len(asyncio.all_tasks())
        for number in range(60):
            tail = server.audit.TailEntries(audit_service_pb2.TailEntriesRequest(start_index=0))
            stream = server.access.StreamCheckAccess()
            await stream.write(QUESTION)
            calls = [server.access.BatchCheckAccess(batch(size)) for size in (1, 40, 300)]
            await asyncio.sleep(number / 10_000)
            for call in (tail, stream, *calls):
                call.cancel()
        await server.is_idle()
        for _ in range(200):
            if len(asyncio.all_tasks()) <= before:
                break
            await asyncio.sleep(0.05)
        left = len(asyncio.all_tasks()) - before
        answered = await server.access.BatchCheckAccess(batch(1))

    assert left <= 0
    assert len(answered.results) == 1


async def test_a_call_whose_request_comes_too_late(tmp_path: Path) -> None:
    """A call whose request is not there in time is ended with DEADLINE_EXCEEDED."""
    async with small_server(tmp_path, Limits(request_seconds=0.6)) as server:
        stream = server.access.StreamCheckAccess()
        assert await told_code(stream) == "DEADLINE_EXCEEDED"
        await server.is_idle()
