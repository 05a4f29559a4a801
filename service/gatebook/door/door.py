"""The door of the service: every call passes it, on whatever transport it came.

    identify   who calls?                     UNAUTHENTICATED
    permit     may they call this?            PERMISSION_DENIED
    admit      is there room for it now?      OVERLOADED, DRAINING
    finish     count it and log its one line

What is refused here is counted and logged, and is no entry: nobody can fill the book with rubbish. A
transport translates its own calls into these four steps and does nothing else about callers.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

import msgspec

from gatebook.audit.sight import Sight
from gatebook.config import Limits
from gatebook.door.admission import Admission
from gatebook.door.authentication import PLAINTEXT, Authentication
from gatebook.door.authority import Authority
from gatebook.door.caller import Caller, CallerKind, Credentials
from gatebook.door.trace import NONE, Trace, read_trace
from gatebook.errors import PermissionDeniedError
from gatebook.log import LateLogger
from gatebook.revisions.publisher import Publisher
from gatebook.tally import COMMITS
from gatebook.values import Entity


class Finished(msgspec.Struct, frozen=True, gc=False):
    """A call that is over, as its log line and the metrics tell it. Without personal data or ids chosen by callers."""

    operation: str
    """The method, such as `CheckAccess`."""
    caller: str
    code: str
    """The name of the gRPC status code, whatever the transport."""
    seconds: float
    told: dict[str, object]
    kind: CallerKind | None = None
    """How the caller was recognised; None where it was not."""
    trace: Trace = NONE


class Door:
    """Recognises, permits and admits callers, and is told when their calls are over."""

    def __init__(self, limits: Limits, authority: Authority, authentication: Authentication = PLAINTEXT) -> None:
        """Takes the limits, who may do what, and what recognises callers: without one, plain text on loopback."""
        self._authority = authority
        self.admission = Admission(limits, authentication.quotas)
        self._authentication = authentication
        self.observers: list[Callable[[Finished], None]] = []
        self.traces = False
        """Whether an observer tells traces."""
        self._log = LateLogger("gatebook.rpc")

    def trace(self, header: str) -> Trace:
        """Returns the trace that a call belongs to: what its header says, or, if somebody traces, one that begins here.

        From here on the commits of the running task, and of those that it begins, are those of this call.
        """
        came = read_trace(header)
        if not self.traces:
            return came
        commits: list[tuple[float, float]] = []
        COMMITS.set(commits)
        return Trace(came.trace_id or secrets.token_bytes(16), came.parent_id, came.sampled, commits)

    async def identify(self, credentials: Credentials) -> Caller:
        """Returns who calls.

        Raises:
            UnauthenticatedError: nobody that is known.
        """
        return await self._authentication.identify(credentials)

    def permit(self, caller: Caller, operation: str) -> None:
        """Lets a caller call an operation.

        Raises:
            PermissionDeniedError: it may not, whether or not what it asks for exists.
        """
        if not self._authority.may_call(caller, operation):
            raise PermissionDeniedError

    def permit_asking(self, caller: Caller, policy_set: str, subject: Entity, actor: Entity | None = None) -> None:
        """Lets a caller ask a policy set about a subject, and about who acts on the subject's behalf.

        It is asked before the set is looked up, so that who may not ask does not learn what exists. In a
        batch the refusal of one item is the error of that item.

        Args:
            caller: Who asks.
            policy_set: The name of the set, as `Revisions.name_of` gives it.
            subject: Whom the question is about.
            actor: Who acts on the subject's behalf.

        Raises:
            PermissionDeniedError: it may not, whether or not set, subject and actor exist.
        """
        if not self.may_ask(caller, policy_set, subject, actor):
            raise PermissionDeniedError

    def may_ask(self, caller: Caller, policy_set: str, subject: Entity, actor: Entity | None = None) -> bool:
        """Tells whether a caller may ask a policy set about a subject: of a search, only those are found."""
        return self._authority.may_ask(caller, policy_set, subject, actor)

    def permit_searching(self, caller: Caller, policy_set: str, subject_type: str) -> None:
        """Lets a caller search the subjects of a type of whom it may ask about some; `may_ask` says about whom.

        Raises:
            PermissionDeniedError: it may ask about none of them, whether or not set and type exist.
        """
        if not self._authority.may_ask_some(caller, policy_set, subject_type):
            raise PermissionDeniedError

    def permit_reading(self, caller: Caller, policy_set: str) -> None:
        """Lets a caller read the revisions of a policy set.

        Raises:
            PermissionDeniedError: it may not, whether or not there is such a set.
        """
        if not self.may_read(caller, policy_set):
            raise PermissionDeniedError

    def may_read(self, caller: Caller, policy_set: str) -> bool:
        """Tells whether a caller may read the revisions of a policy set, or those of the directory ("")."""
        return self._authority.may_read(caller, policy_set)

    def publisher(self, caller: Caller) -> Publisher:
        """Returns a caller as one who publishes: its rights are looked up when it comes to that."""
        return self._authority.publisher(caller)

    def sight(self, caller: Caller) -> Sight:
        """Returns what a caller sees of the book, until the next publish of `gatebook`."""
        return self._authority.sight(caller)

    def finish(self, finished: Finished) -> None:
        """Writes the one line of a call, and tells it to who counts."""
        spent_us = int(finished.seconds * 1_000_000)
        self._log.info(
            "call",
            method=finished.operation,
            caller=finished.caller,
            code=finished.code,
            duration_us=spent_us,
            **finished.told,
        )
        for observer in self.observers:
            observer(finished)
