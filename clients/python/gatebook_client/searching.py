"""Searches: for whom, for what, and for which actions a check would be allowed.

Owns the pages of a search, for the asyncio and the blocking client alike. Rules:

1. a search is asked with what the application enforces, as its checks are, so that it finds what they would allow;
2. a result that was not asked for, twice, or out of order raises `MalformedAnswerError`: a list that cannot be
   trusted grants nothing;
3. an error ends a search, whatever `on_error` says: half a list would pass for a whole one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Protocol

from gatebook.v1 import access_service_pb2 as pb
from gatebook.v1 import access_service_pb2_grpc as access_grpc
from gatebook_client.asking import Asking
from gatebook_client.attempts import Line, call, call_blocking
from gatebook_client.errors import MalformedAnswerError
from gatebook_client.question import ActionLike, Check, Resource, ResourceLike, SubjectLike, access_request

PAGE_SIZE = 200
ANY = "*"
"""Stands for what is searched for; the service ignores it."""


class _Response(Protocol):
    """The page of a search."""

    @property
    def next_page_token(self) -> str: ...


class Pages:
    """Reads the pages of one search and keeps the order of what it found. Lives for one search."""

    def __init__(self, check: Check, asking: Asking, at_least: int, page_size: int) -> None:
        """Takes the question that each check would ask."""
        self.terms: dict[str, Any] = {
            "policy_set": asking.policy_set,
            "access": access_request(check, asking.declared),
            "at_least": at_least,
            "page_size": page_size,
        }
        self.token = ""
        self._last = ""

    def read(self, response: _Response, names: Sequence[str], types: Sequence[str], type_: str) -> Sequence[str]:
        """Returns the names of a page.

        Raises:
            MalformedAnswerError: they are not what was asked for, or a page leads to itself.
        """
        for name in names:
            if not name or name <= self._last:
                raise MalformedAnswerError("the results of a search are not in order, each once")
            self._last = name
        if any(one != type_ for one in types):
            raise MalformedAnswerError("a result of a search is of another type")
        if response.next_page_token and response.next_page_token == self.token:
            raise MalformedAnswerError("a page of a search names itself as the next")
        self.token = response.next_page_token
        return names


def _subjects(pages: Pages, response: pb.SearchSubjectsResponse, type_: str) -> Sequence[str]:
    return pages.read(response, [s.id for s in response.subjects], [s.type for s in response.subjects], type_)


def _resources(pages: Pages, response: pb.SearchResourcesResponse, type_: str) -> Sequence[str]:
    return pages.read(response, [r.id for r in response.resources], [r.type for r in response.resources], type_)


def _actions(pages: Pages, response: pb.SearchActionsResponse) -> Sequence[str]:
    return pages.read(response, [a.name for a in response.actions], (), "")


class Searches:
    """The searches of the asyncio client."""

    _asking: Asking
    _line: Line

    @property
    def _access(self) -> access_grpc.AccessServiceAsyncStub:
        raise NotImplementedError

    async def search_subjects(  # noqa: PLR0913  # one argument per part of the question, by keyword
        self,
        action: ActionLike,
        resource: ResourceLike,
        *,
        type: str = "user",  # noqa: A002  # the word of the information model
        columns: Sequence[str] = (),
        purpose: str = "",
        context: Mapping[str, Any] | None = None,
        at_least: int = 0,
        page_size: int = PAGE_SIZE,
        timeout_seconds: float | None = None,
    ) -> AsyncIterator[str]:
        """Yields the ids of everybody of a type who may do `action` to `resource`, in order.

        Raises:
            GatebookClientError: the list is not whole. Another revision became active, say: search again.
        """
        check = Check((type, ANY), action, resource, columns, purpose, context)
        pages, more = Pages(check, self._asking, at_least, page_size), True
        while more:
            request = pb.SearchSubjectsRequest(**pages.terms, page_token=pages.token)
            for name in _subjects(
                pages, await call(self._line, self._access.SearchSubjects, request, timeout_seconds), type
            ):
                yield name
            more = bool(pages.token)

    async def search_resources(
        self,
        subject: SubjectLike,
        action: ActionLike,
        *,
        type: str = "dataset",  # noqa: A002  # as above
        purpose: str = "",
        context: Mapping[str, Any] | None = None,
        at_least: int = 0,
        page_size: int = PAGE_SIZE,
        timeout_seconds: float | None = None,
    ) -> AsyncIterator[str]:
        """Yields the ids of everything of a type that `subject` may do `action` to, in order.

        Raises:
            GatebookClientError: the list is not whole.
        """
        check = Check(subject, action, Resource(ANY, type), (), purpose, context)
        pages, more = Pages(check, self._asking, at_least, page_size), True
        while more:
            request = pb.SearchResourcesRequest(**pages.terms, page_token=pages.token)
            for name in _resources(
                pages, await call(self._line, self._access.SearchResources, request, timeout_seconds), type
            ):
                yield name
            more = bool(pages.token)

    async def search_actions(
        self,
        subject: SubjectLike,
        resource: ResourceLike,
        *,
        columns: Sequence[str] = (),
        purpose: str = "",
        context: Mapping[str, Any] | None = None,
        at_least: int = 0,
        page_size: int = PAGE_SIZE,
        timeout_seconds: float | None = None,
    ) -> AsyncIterator[str]:
        """Yields the names of all actions that `subject` may do to `resource`, in order.

        Raises:
            GatebookClientError: the list is not whole.
        """
        check = Check(subject, ANY, resource, columns, purpose, context)
        pages, more = Pages(check, self._asking, at_least, page_size), True
        while more:
            request = pb.SearchActionsRequest(**pages.terms, page_token=pages.token)
            for name in _actions(pages, await call(self._line, self._access.SearchActions, request, timeout_seconds)):
                yield name
            more = bool(pages.token)


class BlockingSearches:
    """The searches of the blocking client, which see in `Searches`, without `async`."""

    _asking: Asking
    _line: Line
    _access: access_grpc.AccessServiceStub

    def search_subjects(  # noqa: PLR0913  # as above
        self,
        action: ActionLike,
        resource: ResourceLike,
        *,
        type: str = "user",  # noqa: A002  # the word of the information model
        columns: Sequence[str] = (),
        purpose: str = "",
        context: Mapping[str, Any] | None = None,
        at_least: int = 0,
        page_size: int = PAGE_SIZE,
        timeout_seconds: float | None = None,
    ) -> Iterator[str]:
        """Yields the ids of everybody of a type who may do `action` to `resource`, in order.

        Raises:
            GatebookClientError: the list is not whole. Another revision became active, say: search again.
        """
        check = Check((type, ANY), action, resource, columns, purpose, context)
        pages, more = Pages(check, self._asking, at_least, page_size), True
        while more:
            request = pb.SearchSubjectsRequest(**pages.terms, page_token=pages.token)
            yield from _subjects(
                pages, call_blocking(self._line, self._access.SearchSubjects, request, timeout_seconds), type
            )
            more = bool(pages.token)

    def search_resources(
        self,
        subject: SubjectLike,
        action: ActionLike,
        *,
        type: str = "dataset",  # noqa: A002  # as above
        purpose: str = "",
        context: Mapping[str, Any] | None = None,
        at_least: int = 0,
        page_size: int = PAGE_SIZE,
        timeout_seconds: float | None = None,
    ) -> Iterator[str]:
        """Yields the ids of everything of a type that `subject` may do `action` to, in order.

        Raises:
            GatebookClientError: the list is not whole.
        """
        check = Check(subject, action, Resource(ANY, type), (), purpose, context)
        pages, more = Pages(check, self._asking, at_least, page_size), True
        while more:
            request = pb.SearchResourcesRequest(**pages.terms, page_token=pages.token)
            yield from _resources(
                pages, call_blocking(self._line, self._access.SearchResources, request, timeout_seconds), type
            )
            more = bool(pages.token)

    def search_actions(
        self,
        subject: SubjectLike,
        resource: ResourceLike,
        *,
        columns: Sequence[str] = (),
        purpose: str = "",
        context: Mapping[str, Any] | None = None,
        at_least: int = 0,
        page_size: int = PAGE_SIZE,
        timeout_seconds: float | None = None,
    ) -> Iterator[str]:
        """Yields the names of all actions that `subject` may do to `resource`, in order.

        Raises:
            GatebookClientError: the list is not whole.
        """
        check = Check(subject, ANY, resource, columns, purpose, context)
        pages, more = Pages(check, self._asking, at_least, page_size), True
        while more:
            request = pb.SearchActionsRequest(**pages.terms, page_token=pages.token)
            yield from _actions(pages, call_blocking(self._line, self._access.SearchActions, request, timeout_seconds))
            more = bool(pages.token)
