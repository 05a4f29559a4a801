"""Search: who may do it, what may it be done to, what may be done; page by page.

Owns the pages of a search. Promises:

1. every candidate is decided as a check decides it, so that a search finds exactly what checks allow: what needs an
   obligation that was not declared is not found;
2. results come in the order of their ids or names, each once;
3. a page belongs to one question of one caller under one revision. Once another revision is active, the token of a
   page is refused and the search begins again, so that no list is put together from two revisions;
4. a page looks at no more than `SCANNED_MAX` candidates, and may end early, or empty, with a token for the rest;
5. each page is one entry of the book, written before it is answered; candidates are no decisions, and no entries.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec.structs import replace

from gatebook.audit.asked import Asked
from gatebook.audit.people import STRANGER, PersonId
from gatebook.audit.recorder import Recorder
from gatebook.authorize import Question, decide, question_of
from gatebook.engine.bind import bind
from gatebook.engine.candidates import Kind, candidates
from gatebook.engine.decision import vocabulary
from gatebook.engine.known import as_known
from gatebook.engine.snapshot import Snapshot
from gatebook.errors import InvalidPageTokenError
from gatebook.values import AccessRequest, Entity

ANY = "*"
"""Stands in a question for the id or name that is searched for."""
SCANNED_MAX = 2_000
SLICE = 50
"""Candidates that are decided without a pause."""
LISTS_KEPT_MAX = 16
NONCE_BYTES = 12
TOKEN_BYTES_MAX = 512


class Search(msgspec.Struct, frozen=True):
    """What is searched for. In the request, what is searched for is `ANY`; `size` None takes that of the token."""

    kind: Kind
    request: AccessRequest
    token: str = ""
    size: int | None = None

    @property
    def type(self) -> str:
        """Returns the type of what is searched for; actions have none."""
        match self.kind:
            case Kind.SUBJECTS:
                return self.request.subject.type
            case Kind.RESOURCES:
                return self.request.resource_type
            case Kind.ACTIONS:
                return ""

    def asks(self, candidate: str) -> AccessRequest:
        """Returns the request that a check of this candidate is."""
        match self.kind:
            case Kind.SUBJECTS:
                return replace(self.request, subject=replace(self.request.subject, id=candidate))
            case Kind.RESOURCES:
                return replace(self.request, resource=candidate)
            case Kind.ACTIONS:
                return replace(self.request, action=candidate)


class Found(msgspec.Struct, frozen=True):
    """One page: ids or names, and the token of the page after, or nothing after the last."""

    type: str
    names: tuple[str, ...]
    scanned: int
    next_token: str = ""


class _Place(msgspec.Struct, frozen=True, array_like=True):
    """What a token says: where the page starts, how long pages are, and to what it belongs."""

    start: int
    size: int
    bound_to: bytes


class Searching:
    """Searches, and remembers the newest lists of candidates. Used on the event loop only."""

    def __init__(self, recorder: Recorder, token_key: bytes) -> None:
        """Takes the pen of the book, and the secret (32 bytes) that page tokens are sealed with.

        A token tells how many candidates came before, and so must not be read or made by others.
        """
        self._recorder = recorder
        self._cipher = AESGCM(token_key)
        self._lists: OrderedDict[tuple[object, ...], tuple[str, ...]] = OrderedDict()

    async def page(
        self,
        snapshot: Snapshot,
        search: Search,
        caller: str,
        *,
        default_size: int,
        may_ask: Callable[[Entity], bool],
        admit: Callable[[int], AbstractContextManager[None]],
    ) -> Found:
        """Returns one page, which is durably in the book.

        Args:
            snapshot: The one that decides, of one page at least.
            search: What is searched for.
            caller: Who searches.
            default_size: How many results a page holds, if neither search nor token say.
            may_ask: Whether the caller may ask about a subject; of subjects, only those are found.
            admit: Gives the block in which so many candidates are decided, if there is room for them.

        Raises:
            InvalidPageTokenError: the token belongs to another search, or to a revision that is not active any more.
            NotSearchableError: the set does not say whom or what it knows.
            TokenMissingError, InvalidRequestError, LimitExceededError: as for a check of any candidate.
            BookUnavailableError: the page could not be written.
        """
        # What no check could ask is refused once, whatever the candidates.
        asked = question_of(snapshot, search.request, caller=caller).asked
        place = self._place(snapshot, search, caller, default_size)
        known = await self._candidates(snapshot, search)
        if place.start > len(known):
            raise _foreign_token()
        end = min(len(known), place.start + SCANNED_MAX)
        with admit(end - place.start):
            found = await self._scan(snapshot, search, caller, known[place.start : end], place.size, may_ask)
        following = place.start + found.scanned
        if following < len(known):
            found = replace(found, next_token=self._token(replace(place, start=following)))
        await self._write(snapshot, search, asked, caller, found)
        # Past the commit point: that it was searched is durably in the book, and what was found may be told.
        return found

    def _place(self, snapshot: Snapshot, search: Search, caller: str, default_size: int) -> _Place:
        """Returns where a page starts."""
        bound_to = _bound_to(snapshot, search, caller)
        if not search.token:
            return _Place(0, default_size if search.size is None else search.size, bound_to)
        try:
            if len(search.token) > TOKEN_BYTES_MAX:
                raise _foreign_token()
            sealed = base64.urlsafe_b64decode(search.token.encode())
            opened = self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], None)
            place = msgspec.msgpack.decode(opened, type=_Place)
        except (ValueError, binascii.Error, InvalidTag) as err:
            raise _foreign_token() from err
        if place.bound_to != bound_to:
            message = "page_token: it belongs to another search, or another revision is active by now; begin again"
            raise InvalidPageTokenError(message, field="page_token")
        if search.size not in (None, place.size):
            raise InvalidPageTokenError(
                f"page_token: it belongs to pages of {place.size}; leave the size out", field="page_token"
            )
        return place

    def _token(self, place: _Place) -> str:
        nonce = os.urandom(NONCE_BYTES)
        return base64.urlsafe_b64encode(
            nonce + self._cipher.encrypt(nonce, msgspec.msgpack.encode(place), None)
        ).decode()

    async def _scan(
        self,
        snapshot: Snapshot,
        search: Search,
        caller: str,
        known: Sequence[str],
        size: int,
        may_ask: Callable[[Entity], bool],
    ) -> Found:
        """Decides candidates until a page is full; then, to the next that is found, so that the last page is known."""
        names: list[str] = []
        now = self._recorder.now()
        for position, candidate in enumerate(known):
            if position % SLICE == SLICE - 1:
                await asyncio.sleep(0)  # other calls get their turn
            if _finds(snapshot, search, candidate, caller, now, may_ask):
                if len(names) == size:
                    return Found(search.type, tuple(names), scanned=position)
                names.append(candidate)
        return Found(search.type, tuple(names), scanned=len(known))

    async def _candidates(self, snapshot: Snapshot, search: Search) -> tuple[str, ...]:
        key = (*_revisions(snapshot), search.kind, search.type)
        known = self._lists.get(key)
        if known is None:
            known = await asyncio.to_thread(candidates, snapshot, search.kind, search.type)
            self._lists[key] = known
            while len(self._lists) > LISTS_KEPT_MAX:
                self._lists.popitem(last=False)
        else:
            self._lists.move_to_end(key)
        return known

    async def _write(self, snapshot: Snapshot, search: Search, asked: Asked, caller: str, found: Found) -> None:
        request = asked.request
        told = {
            "policy_set": snapshot.policy_set.name,
            "policy_revision": snapshot.policy_revision,
            "directory_revision": snapshot.directory_revision,
            "request": _told(request, search.kind),
            "row_given": request.row is not None,
            "page": bool(search.token),
            "scanned": found.scanned,
        }
        about = STRANGER if search.kind is Kind.SUBJECTS else _person(snapshot, request)
        await self._recorder.record_search(
            search.kind.value, caller, question=msgspec.json.encode(told), count=len(found.names), about=about
        )


def _finds(
    snapshot: Snapshot,
    search: Search,
    candidate: str,
    caller: str,
    now: datetime,
    may_ask: Callable[[Entity], bool],
) -> bool:
    """Tells whether a check of this candidate would be allowed, and the caller may ask it."""
    request = search.asks(candidate)
    if search.kind is Kind.SUBJECTS and not may_ask(request.subject):
        return False
    policy_set = snapshot.policy_set
    tokens = {} if snapshot.governed else bind(snapshot.program, as_known(policy_set, request, caller))
    return decide(snapshot, Question(Asked(request, b"", None, b""), caller, tokens), now).allowed


def _foreign_token() -> InvalidPageTokenError:
    return InvalidPageTokenError("page_token: not one that this server gave", field="page_token")


def _bound_to(snapshot: Snapshot, search: Search, caller: str) -> bytes:
    """Returns a digest of all that decides what a search finds, but the time."""
    bound = (*_revisions(snapshot), search.kind.value, caller, _ordered(search.request))
    return hashlib.sha256(msgspec.msgpack.encode(bound, order="sorted")).digest()[:16]


def _ordered(request: AccessRequest) -> dict[str, Any]:
    """Returns the request as JSON has it."""
    plain: dict[str, Any] = msgspec.to_builtins(request, order="deterministic")
    return plain


def _revisions(snapshot: Snapshot) -> Iterator[object]:
    yield snapshot.policy_set.name
    for revision in (snapshot.policy_revision, snapshot.directory_revision):
        yield ("", 0) if revision is None else (revision.digest, revision.number)


def _told(request: AccessRequest, kind: Kind) -> dict[str, Any]:
    """Returns the question as the book tells it; what is searched for stands nowhere."""
    told = _ordered(request)
    told.pop("row")
    if kind is Kind.SUBJECTS:
        told["subject"].pop("id")
    else:
        told.pop("resource" if kind is Kind.RESOURCES else "action")
    return told


def _person(snapshot: Snapshot, request: AccessRequest) -> PersonId:
    """Returns under whose key a question about one subject is sealed; whoever is not known is the stranger."""
    subject, subjects = request.subject, snapshot.policy_set.subjects
    if snapshot.governed:
        known = "subject" in vocabulary(snapshot, request)
    else:
        known = subjects is None or subjects.find(subject.type, subject.id) is not None
    return PersonId(subject.type, subject.id) if known else STRANGER
