"""Searches of the client against a real service, over both of its kinds, and against one that answers strangely."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.serving import POLICIES, RunningServer, serving

import gatebook_client
from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import types_pb2
from gatebook_client.asking import Asking
from gatebook_client.errors import GatebookClientError, MalformedAnswerError
from gatebook_client.question import Check, Enforcer, Resource
from gatebook_client.searching import Pages, _subjects

RECORD_1 = Resource("record-1", "record")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with the set `records`, which can be searched, and `basic`, which cannot."""
    data: Path = tmp_path_factory.mktemp("searching") / "data"
    with serving(data, [POLICIES / "records", POLICIES / "basic"]) as running:
        yield running


def test_both_clients_find_the_same(server: RunningServer) -> None:
    """Subjects, resources and actions are found page by page, by the asyncio and the blocking client alike."""

    async def search() -> list[list[str]]:
        async with gatebook_client.connect(server.target, policy_set="records") as gatebook:
            return [
                [name async for name in gatebook.search_subjects("read", RECORD_1, page_size=1)],
                [name async for name in gatebook.search_resources("alice", "read", type="record", page_size=1)],
                [name async for name in gatebook.search_actions("alice", RECORD_1, page_size=1)],
            ]

    with gatebook_client.connect_blocking(server.target, policy_set="records") as gatebook:
        blocking = [
            list(gatebook.search_subjects("read", RECORD_1, page_size=1)),
            list(gatebook.search_resources("alice", "read", type="record", page_size=1)),
            list(gatebook.search_actions("alice", RECORD_1, page_size=1)),
        ]

    assert [["alice", "bob"], ["record-1", "record-2"], ["read", "write"]] == blocking
    assert blocking == asyncio.run(search())


def test_a_set_that_cannot_be_searched_says_so(server: RunningServer) -> None:
    """A set that does not say whom it knows finds nobody by an error, not by an empty list."""
    with (
        gatebook_client.connect_blocking(server.target, policy_set="basic") as gatebook,
        pytest.raises(GatebookClientError, match="directory"),
    ):
        list(gatebook.search_subjects("read", "report:weekly"))


@pytest.mark.parametrize(
    ("found", "token"),
    [
        ([("user", "b"), ("user", "a")], ""),
        ([("user", "a"), ("user", "a")], ""),
        ([("agent", "a")], ""),
        ([("user", "")], ""),
        ([("user", "a")], "again"),
    ],
)
def test_a_list_that_cannot_be_trusted_is_refused(found: list[tuple[str, str]], token: str) -> None:
    """Results out of order, twice, of another type or nameless, and a page that leads to itself, are no answer."""
    pages = Pages(Check(("user", "*"), "read", "d"), Asking.of("", Enforcer()), 0, 10)
    pages.token = "again"  # noqa: S105  # no secret
    subjects = [types_pb2.Subject(type=type_, id=id_) for type_, id_ in found]

    with pytest.raises(MalformedAnswerError):
        _subjects(pages, pb.SearchSubjectsResponse(subjects=subjects, next_page_token=token), "user")
