"""AuthZEN Authorization API 1.0, HTTPS JSON binding: evaluation, evaluations, searches, metadata.

Owns the paths and what each answers. Each policy set is a policy decision point of its own, below `/SET`; where the
server serves exactly one, its paths stand without the name too. Every decision is in the book before it is answered,
every page of a search too, and both come from the same core as those over gRPC.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from gatebook.authorize import Answer, Question, authorize, decide, question_of
from gatebook.config import KIB, Config, Limits
from gatebook.door.door import Door
from gatebook.engine.candidates import Kind, searchable
from gatebook.engine.snapshot import Snapshot
from gatebook.errors import GatebookError, InvalidRequestError, PolicySetNotFoundError, PolicySetRequiredError
from gatebook.gateway import answer
from gatebook.gateway.lineage import PATH, Lineage
from gatebook.gateway.question import Object, access_request, optional_object, people_of, with_defaults
from gatebook.gateway.rim import FAULT, STATUSES, Call, Rim, echoing
from gatebook.rpc.decode import over_limit
from gatebook.rpc.reporting import Reporting
from gatebook.search import Search
from gatebook.service import Service
from gatebook.values import AccessRequest

EVALUATION_BYTES_MAX = 64 * KIB
EVALUATION, EVALUATIONS = "/access/v1/evaluation", "/access/v1/evaluations"
SEARCHES: Final = {
    Kind.SUBJECTS: "/access/v1/search/subject",
    Kind.RESOURCES: "/access/v1/search/resource",
    Kind.ACTIONS: "/access/v1/search/action",
}
METADATA = "/.well-known/authzen-configuration"
EXECUTE_ALL, DENY_ON_FIRST_DENY, PERMIT_ON_FIRST_PERMIT = SEMANTICS = (
    "execute_all",
    "deny_on_first_deny",
    "permit_on_first_permit",
)
CHECK, BATCH = "CheckAccess", "BatchCheckAccess"
"""The operations of the door. Whoever may check may also read the metadata, which say how."""

_HOST = re.compile(r"(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")

Item = AccessRequest | GatebookError
Result = Mapping[str, Any]


def application(service: Service, door: Door, config: Config) -> ASGIApp:
    """Returns what answers HTTP requests: those of AuthZEN, and what jobs report."""
    rim = Rim(door, config.limits, config.http_url)
    binding = Binding(service, rim, config.limits, config.http_url)
    paths = {EVALUATION: binding.evaluation, EVALUATIONS: binding.evaluations}
    paths.update({path: partial(binding.search, kind) for kind, path in SEARCHES.items()})
    routes = [
        Route(prefix + path, endpoint, methods=["POST"])
        for path, endpoint in paths.items()
        for prefix in ("", "/{policy_set}")
    ]
    routes += [Route(METADATA + suffix, binding.metadata, methods=["GET"]) for suffix in ("", "/{policy_set}")]
    lineage = Lineage(rim, Reporting(service.deriving, config))
    routes.append(Route(PATH, lineage.report, methods=["POST"]))
    app = Starlette(routes=routes)
    app.router.redirect_slashes = False
    return echoing(app)


class Binding:
    """Answers each path. Used on the event loop only."""

    def __init__(self, service: Service, rim: Rim, limits: Limits, url: str) -> None:
        """Takes the parts of the service, the rim of every call, the limits, and how callers reach it."""
        self._service = service
        self._revisions = service.revisions
        self._rim = rim
        self._limits = limits
        self._url = url.rstrip("/")

    async def evaluation(self, request: Request) -> Response:
        """Decides one request (Access Evaluation API)."""
        return await self._rim.answer(CHECK, request, self._evaluate, EVALUATION_BYTES_MAX)

    async def evaluations(self, request: Request) -> Response:
        """Decides many requests (Access Evaluations API)."""
        return await self._rim.answer(BATCH, request, self._evaluate_many, self._limits.batch_bytes_max)

    async def search(self, kind: Kind, request: Request) -> Response:
        """Finds subjects, resources or actions (Search APIs)."""
        return await self._rim.answer(kind.value, request, partial(self._search, kind), EVALUATION_BYTES_MAX)

    async def metadata(self, request: Request) -> Response:
        """Tells where everything is (Policy Decision Point Metadata)."""
        return await self._rim.answer(CHECK, request, self._tell_metadata)

    async def _evaluate(self, call: Call) -> Result:
        asked = self._permitted(call, call.body)
        question = self._question(call, self._snapshot(call), asked)
        with self._rim.door.admission.items(call.caller, 1, call.body_bytes):
            [answered] = await authorize(self._service.recorder, self._snapshot(call), [question])
        tell(call, [answered])
        return answer.evaluation(answered, self._service.origin)

    async def _evaluate_many(self, call: Call) -> Result:
        evaluations = call.body.get("evaluations", [])
        if not isinstance(evaluations, list):
            raise InvalidRequestError("evaluations", "is not a list")
        if not evaluations:
            return await self._evaluate(call)
        if len(evaluations) > self._limits.batch_items_max:
            raise over_limit("evaluations", "evaluations", self._limits.batch_items_max, len(evaluations))
        for name in ("subject", "action", "resource", "context"):
            optional_object(call.body, name, "")  # a default of the wrong type is a fault of the whole
        semantic = optional_object(call.body, "options", "").get("evaluations_semantic", EXECUTE_ALL)
        if semantic not in SEMANTICS:
            raise InvalidRequestError("options.evaluations_semantic", f"is none of {', '.join(SEMANTICS)}")
        items = [self._item(call, asked, f"evaluations[{at}].") for at, asked in enumerate(evaluations)]
        results: list[Result] = []
        if all(isinstance(item, GatebookError) for item in items):
            # Who may ask nothing does not learn whether there is such a set.
            results = [failed(item) for item in items if isinstance(item, GatebookError)]
            stop = 1 if semantic == DENY_ON_FIRST_DENY else len(results)
            return {"evaluations": results[:stop]}
        snapshot = self._snapshot(call)
        asked = [self._question_or_error(call, snapshot, item) for item in items]
        size_bytes = max(call.body_bytes, self._measure(asked))
        with self._rim.door.admission.items(call.caller, len(items), size_bytes):
            answers = await self._answers(snapshot, asked, str(semantic))
        tell(call, [one for one in answers if isinstance(one, Answer)])
        origin = self._service.origin
        results = [failed(one) if isinstance(one, GatebookError) else answer.evaluation(one, origin) for one in answers]
        return {"evaluations": results}

    async def _answers(
        self, snapshot: Snapshot, asked: Sequence[Question | GatebookError], semantic: str
    ) -> list[Answer | GatebookError]:
        """Answers in order, up to where the semantic stops; what is beyond is neither decided nor written."""
        answers: list[Answer | GatebookError] = []
        while len(answers) < len(asked):
            # Decided ahead, so that all up to the stop are written with one commit.
            end = foreseen_stop(snapshot, asked, len(answers), semantic, self._service.recorder.now())
            part = asked[len(answers) : end]
            written = iter(
                await authorize(self._service.recorder, snapshot, [one for one in part if isinstance(one, Question)])
            )
            for one in part:
                answers.append(next(written) if isinstance(one, Question) else one)
                if stops(answers[-1], semantic):
                    return answers
        return answers

    def _measure(self, asked: Sequence[Question | GatebookError]) -> int:
        """Returns the size of all questions together: a default counts for each evaluation that it completes.

        Raises:
            LimitExceededError: it is over what one batch may have.
        """
        questions = [one.asked for one in asked if isinstance(one, Question)]
        size_bytes = sum(len(one.personal) + len(one.row or b"") for one in questions)
        if size_bytes > self._limits.batch_bytes_max:
            raise over_limit("evaluations", "bytes", self._limits.batch_bytes_max, size_bytes)
        return size_bytes

    async def _search(self, kind: Kind, call: Call) -> Result:
        asked = self._permitted(call, call.body, sought=kind)
        name = self._name(call)
        page = optional_object(call.body, "page", "")
        size, token = page.get("limit"), page.get("token", "")
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
            raise InvalidRequestError("page.limit", "is not a number from 0 on")
        if not isinstance(token, str):
            raise InvalidRequestError("page.token", "is not a text")
        door = self._rim.door
        found = await self._service.searching.page(
            self._snapshot(call),
            Search(kind, asked, token, None if size is None else min(size, self._limits.page_size_max)),
            call.caller.id,
            default_size=self._limits.page_size_default,
            may_ask=lambda subject: door.may_ask(call.caller, name, subject, asked.actor),
            admit=lambda count: door.admission.items(call.caller, count, call.body_bytes),
        )
        call.told.update(found=len(found.names), scanned=found.scanned)
        results = [{"name": n} if kind is Kind.ACTIONS else {"type": found.type, "id": n} for n in found.names]
        return {"page": {"next_token": found.next_token, "count": len(results)}, "results": results}

    async def _tell_metadata(self, call: Call) -> Result:
        name = str(call.request.path_params.get("policy_set", ""))
        try:
            able = searchable(self._revisions.snapshot(name))
        except PolicySetRequiredError as err:
            message = f"several policy sets are served, each with its own: `{METADATA}/SET`"
            raise PolicySetNotFoundError(message) from err
        base = (self._url or url_of(call.request)) + (f"/{name}" if name else "")
        return {
            "policy_decision_point": base,
            "access_evaluation_endpoint": base + EVALUATION,
            "access_evaluations_endpoint": base + EVALUATIONS,
            **{
                f"search_{path.rpartition('/')[2]}_endpoint": base + path
                for kind, path in SEARCHES.items()
                if kind in able
            },
        }

    def _item(self, call: Call, asked: object, at: str) -> Item:
        """Returns what one evaluation of a batch asks, or why it asks nothing; its error is its own."""
        try:
            if not isinstance(asked, dict):
                raise InvalidRequestError(at.removesuffix("."), "is not an object")
            return self._permitted(call, with_defaults(asked, call.body), at=at)
        except GatebookError as error:
            return error

    def _permitted(self, call: Call, asked: Object, *, at: str = "", sought: Kind | None = None) -> AccessRequest:
        """Returns what is asked, if its caller may ask it; what is refused here is no entry.

        How a request is read depends on its set, so whom it is about is read first: who may not ask does not learn
        from how it is refused what set there is.
        """
        name, door = self._name(call), self._rim.door
        subject, actor = people_of(asked, self._limits, at=at, sought=sought)
        if sought is Kind.SUBJECTS:
            door.permit_searching(call.caller, name, subject.type)
        else:
            door.permit_asking(call.caller, name, subject, actor)
        policy_set = self._revisions.state.policy_sets.get(name)
        governed = policy_set is not None and policy_set.catalogue is not None
        return access_request(asked, self._limits, governed=governed, at=at, sought=sought)

    def _question_or_error(self, call: Call, snapshot: Snapshot, item: Item) -> Question | GatebookError:
        if isinstance(item, GatebookError):
            return item
        try:
            return self._question(call, snapshot, item)
        except GatebookError as error:
            return error

    @staticmethod
    def _question(call: Call, snapshot: Snapshot, asked: AccessRequest) -> Question:
        return question_of(
            snapshot, asked, caller=call.caller.id, caller_request_id=call.request_id, trace_id=call.trace_id
        )

    def _name(self, call: Call) -> str:
        return self._revisions.name_of(str(call.request.path_params.get("policy_set", "")))

    def _snapshot(self, call: Call) -> Snapshot:
        return self._revisions.snapshot(str(call.request.path_params.get("policy_set", "")))


def stops(answered: Answer | GatebookError, semantic: str) -> bool:
    """Tells whether a batch ends with this answer (Evaluations semantics)."""
    allowed = isinstance(answered, Answer) and answered.decision.allowed
    return semantic == (PERMIT_ON_FIRST_PERMIT if allowed else DENY_ON_FIRST_DENY)


def foreseen_stop(
    snapshot: Snapshot, asked: Sequence[Question | GatebookError], start: int, semantic: str, now: datetime
) -> int:
    """Returns where a batch will end, as far as can be known before it is written."""
    if semantic == EXECUTE_ALL:
        return len(asked)
    for position in range(start, len(asked)):
        one = asked[position]
        allowed = isinstance(one, Question) and decide(snapshot, one, now).allowed
        if semantic == (PERMIT_ON_FIRST_PERMIT if allowed else DENY_ON_FIRST_DENY):
            return position + 1
    return len(asked)


def failed(error: GatebookError) -> Result:
    """Returns the result of an evaluation that is no question."""
    return answer.failed(STATUSES.get(error.reason, FAULT), error.message, error.reason)


def url_of(request: Request) -> str:
    """Returns how the caller reached this server, as its `Host` header says.

    Raises:
        InvalidRequestError: there is no such header, or it is no host.
    """
    host = request.headers.get("host", "")
    if not _HOST.fullmatch(host):
        raise InvalidRequestError("host", "is not the name of a host")
    return f"{request.scope['scheme']}://{host}"


def tell(call: Call, answers: Sequence[Answer]) -> None:
    """Adds the outcome of checks to the call's log line."""
    denied = sum(not one.decision.allowed for one in answers)
    call.told.update(items=len(answers), denied=denied)
    if len(answers) == 1:
        call.told.update(decision_id=answers[0].decision_id, decision_reason=answers[0].decision.reason.name)
