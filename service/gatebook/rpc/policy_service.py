"""The servicer of `PolicyService`: validate, publish, look at revisions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from gatebook.audit.entry import nanoseconds, to_timestamp
from gatebook.config import Limits
from gatebook.errors import InvalidPageTokenError, InvalidRequestError
from gatebook.governance.summary import CHANGES_MAX
from gatebook.revisions.active import Activation
from gatebook.revisions.proposals import ProposalKind
from gatebook.revisions.publish import Published
from gatebook.revisions.validate import Validation, declared_name
from gatebook.rpc import decode, encode, encode_impact, lineage_answers
from gatebook.rpc.edge import Call, Edge, ServicerContext, require_valid
from gatebook.rpc.proposals import proposal_message, proposal_of
from gatebook.rpc.receipts import Receipts
from gatebook.rpc.replays import Replays
from gatebook.service import Service
from gatebook.v1 import policy_service_pb2 as pb
from gatebook.v1.policy_service_pb2_grpc import PolicyServiceServicer
from gatebook.values import Revision

INDEX_DIGITS_MAX = 20
Place = tuple[int, int]
NOWHERE: Place = (-1, -1)
WATCH_SECONDS = 5.0
"""How often who watches is looked at, whether or not anything becomes active."""
CHANGES_SHOWN = 100
PARTS_MAX = 2_000
"""How many messages an upload may be, and in how many parts its files may come beyond one each."""


class PolicyServicer(PolicyServiceServicer):
    """Keeps the revisions; every step is an entry of the book."""

    def __init__(self, service: Service, receipts: Receipts, edge: Edge, limits: Limits) -> None:
        """Takes the parts of the service, what writes receipts, and the rim of every call."""
        revisions, publishing, deriving = service.revisions, service.publishing, service.deriving
        self._replays = Replays(service, edge)
        self._revisions = revisions
        self._publishing = publishing
        self._deriving = deriving
        self._comparing = publishing.comparing
        self._receipts = receipts
        self._edge = edge
        self._limits = limits

    async def ValidatePolicySet(  # noqa: N802  # gRPC names it
        self, request: pb.ValidatePolicySetRequest, context: ServicerContext
    ) -> pb.ValidatePolicySetResponse:
        """Reports every finding about a policy set, and changes nothing."""
        async with self._edge.call("ValidatePolicySet", context) as call:
            files = self._files(request.files)
            name = decode.text(request.policy_set, self._limits.name_bytes_max, "policy_set")
            found = await self._publishing.validate(files, name, call.caller.id)
            call.tell(findings=len(found.findings), tests_run=found.tests_run)
            return encode.validation(found)
        raise AssertionError  # the block above returns or aborts

    async def DiffPolicySet(  # noqa: N802  # as above
        self, request: pb.DiffPolicySetRequest, context: ServicerContext
    ) -> pb.DiffPolicySetResponse:
        """Says what a draft, or another revision, gains and loses against a revision."""
        async with self._edge.call("DiffPolicySet", context) as call:
            draft = self._files(request.files) if request.files else {}
            if draft and request.new_digest:
                raise InvalidRequestError("new_digest", "goes without `files`: the draft is the new side")
            name = decode.text(request.policy_set, self._limits.name_bytes_max, "policy_set")
            name = self._revisions.name_of(declared_name(draft, name) if draft else name)
            self._edge.permit_reading(call, name)
            name = name or self._revisions.snapshot().policy_set.name
            if not 0 <= request.changes_max <= CHANGES_MAX:
                raise InvalidRequestError("changes_max", f"is not within 0 and {CHANGES_MAX}")
            digests = (request.old_digest, request.new_digest)
            limit = request.changes_max or CHANGES_SHOWN
            found = await self._comparing.compare(name, draft, digests, limit, call.caller.id)
            call.tell(changes=len(found.changes) + found.changes_left_out)
            return pb.DiffPolicySetResponse(impact=encode_impact.impact(found))
        raise AssertionError  # the block above returns or aborts

    async def PublishPolicySet(  # noqa: N802  # as above
        self, request: pb.PublishPolicySetRequest, context: ServicerContext
    ) -> pb.PublishPolicySetResponse:
        """Validates, tests, stores and activates a policy set."""
        async with self._edge.call("PublishPolicySet", context) as call:
            return await self._publish(request, call)
        raise AssertionError  # the block above returns or aborts

    async def UploadPolicySet(  # noqa: N802  # as above
        self, request_iterator: AsyncIterator[pb.UploadPolicySetRequest], context: ServicerContext
    ) -> pb.UploadPolicySetResponse:
        """Does the same with a set that comes in parts."""
        async with self._edge.call("UploadPolicySet", context) as call:
            whole = pb.UploadPolicySetRequest()
            await self._gather(request_iterator, whole)
            if whole.every_finding:
                return pb.UploadPolicySetResponse(validated=await self._rehearse(whole.part, call))
            return pb.UploadPolicySetResponse(published=await self._publish(whole.part, call))
        raise AssertionError  # the block above returns or aborts

    async def PublishDirectory(  # noqa: N802  # as above
        self, request: pb.PublishDirectoryRequest, context: ServicerContext
    ) -> pb.PublishDirectoryResponse:
        """Replaces the directory snapshot that governed sets read."""
        async with self._edge.call("PublishDirectory", context) as call:
            return await self._publish_directory(request, call)
        raise AssertionError  # the block above returns or aborts

    async def UploadDirectory(  # noqa: N802  # as above
        self, request_iterator: AsyncIterator[pb.UploadDirectoryRequest], context: ServicerContext
    ) -> pb.UploadDirectoryResponse:
        """Does the same with a directory that comes in parts."""
        async with self._edge.call("UploadDirectory", context) as call:
            whole = pb.UploadDirectoryRequest()
            await self._gather(request_iterator, whole)
            return pb.UploadDirectoryResponse(published=await self._publish_directory(whole.part, call))
        raise AssertionError  # the block above returns or aborts

    async def GetRevision(  # noqa: N802  # as above
        self, request: pb.GetRevisionRequest, context: ServicerContext
    ) -> pb.GetRevisionResponse:
        """Returns one revision with its files."""
        async with self._edge.call("GetRevision", context) as call:
            name = self._revisions.name_of(decode.policy_set(request.policy_set, self._limits))
            self._edge.permit_reading(call, name)
            name = name or self._revisions.snapshot().policy_set.name
            record = self._proposed(name, request.digest) or self._record(self._revisions.find(name, request.digest))
            files = await asyncio.to_thread(self._revisions.store.get_policy_set, record.revision.digest)
            return pb.GetRevisionResponse(
                record=record,
                files=[pb.PolicyFile(path=path, content=content) for path, content in sorted(files.items())],
            )
        raise AssertionError  # the block above returns or aborts

    async def ListRevisions(  # noqa: N802  # as above
        self, request: pb.ListRevisionsRequest, context: ServicerContext
    ) -> pb.ListRevisionsResponse:
        """Lists activations, the newest first. The token of a page is the index that it ended with."""
        async with self._edge.call("ListRevisions", context) as call:
            size = decode.page_size(request.page_size, self._limits)
            before = page_start(request.page_token)
            activations = self._revisions.state.activations
            readable = {name for name in {a.policy_set for a in activations} if self._edge.may_read(call, name)}
            wanted = [
                a
                for a in activations
                if a.policy_set in readable
                and request.policy_set in ("", a.policy_set)
                and (before is None or a.index < before)
            ]
            page = wanted[:size]
            more = len(wanted) > size
            return pb.ListRevisionsResponse(
                records=[self._record(a) for a in page], next_page_token=str(page[-1].index) if more else ""
            )
        raise AssertionError  # the block above returns or aborts

    async def WatchRevisions(  # noqa: N802  # as above
        self, request: pb.WatchRevisionsRequest, context: ServicerContext
    ) -> AsyncIterator[pb.WatchRevisionsResponse]:
        """Sends activations as they happen. The token of an answer is the time and the index of its entry."""
        async with self._edge.call("WatchRevisions", context, stream=True) as call:
            name = decode.text(request.policy_set, self._limits.name_bytes_max, "policy_set")
            if name:
                self._edge.permit_reading(call, name)
            after = resume_start(request.resume_token)
            while not self._edge.draining.is_set():
                require_valid(call.caller)
                self._edge.permit(call)  # again: it may be long since it began
                activations = self._revisions.state.activations
                new = [a for a in reversed(activations) if after is None or place_of(a) > after]
                if after is None:
                    new = [a for a in new if a == self._revisions.newest(a.policy_set)]
                for one in new:
                    if (not name or one.policy_set == name) and self._edge.may_read(call, one.policy_set):
                        token = ".".join(map(str, place_of(one)))
                        yield pb.WatchRevisionsResponse(record=self._record(one), resume_token=token)
                after = max([after or NOWHERE, *map(place_of, new)])
                if self._revisions.state.activations is activations:
                    await self._revisions.moved(WATCH_SECONDS)

    async def RollbackPolicySet(  # noqa: N802  # as above
        self, request: pb.RollbackPolicySetRequest, context: ServicerContext
    ) -> pb.RollbackPolicySetResponse:
        """Publishes an earlier revision again, through the same gate."""
        async with self._edge.call("RollbackPolicySet", context) as call:
            name = self._revisions.name_of(decode.policy_set(request.policy_set, self._limits))
            if request.number < 1:
                raise InvalidRequestError("number", "must be that of an earlier revision: `gatebook policy list`")
            publisher = self._edge.publisher(call)
            if request.validate_only:
                found = await self._publishing.rehearse_rollback(name, request.number, publisher)
                return pb.RollbackPolicySetResponse(published=self._rehearsed(found))
            published = await self._publishing.rollback(
                name,
                request.number,
                publisher,
                request_id=decode.text(request.request_id, self._limits.name_bytes_max, "request_id"),
                base=decode.text(request.base, self._limits.name_bytes_max, "base"),
            )
            return pb.RollbackPolicySetResponse(published=await self._published(published, call))
        raise AssertionError  # the block above returns or aborts

    async def ListProposals(  # noqa: N802  # as above
        self, request: pb.ListProposalsRequest, context: ServicerContext
    ) -> pb.ListProposalsResponse:
        """Lists what waits for approvals, the newest first."""
        async with self._edge.call("ListProposals", context) as call:
            waiting = self._publishing.approving.now().waiting
            named = [one for one in waiting if request.policy_set in ("", one.policy_set)]
            readable = [one for one in named if self._edge.may_read(call, one.policy_set)]
            told = [await proposal_message(self._publishing, one) for one in readable]
            return pb.ListProposalsResponse(proposals=told)
        raise AssertionError  # the block above returns or aborts

    async def ApproveRevision(  # noqa: N802  # as above
        self, request: pb.ApproveRevisionRequest, context: ServicerContext
    ) -> pb.ApproveRevisionResponse:
        """Approves what waits, and makes it take effect once it has every approval."""
        async with self._edge.call("ApproveRevision", context) as call:
            name = self._revisions.name_of(decode.policy_set(request.policy_set, self._limits))
            self._edge.permit_reading(call, name)
            given = await self._publishing.approve(
                name, request.digest, request.diff_digest, self._edge.publisher(call)
            )
            response = pb.ApproveRevisionResponse(receipt=self._receipts.basic(given.written))
            if given.revision is None:
                response.proposal.CopyFrom(await proposal_message(self._publishing, given.proposal))
            else:
                response.revision.CopyFrom(encode.revision(given.revision))
            call.tell(activated=given.revision is not None)
            return response
        raise AssertionError  # the block above returns or aborts

    async def WithdrawProposal(  # noqa: N802  # as above
        self, request: pb.WithdrawProposalRequest, context: ServicerContext
    ) -> pb.WithdrawProposalResponse:
        """Ends what waits for approvals."""
        async with self._edge.call("WithdrawProposal", context) as call:
            name = self._revisions.name_of(decode.policy_set(request.policy_set, self._limits))
            self._edge.permit_reading(call, name)
            written = await self._publishing.withdraw(name, request.digest, self._edge.publisher(call))
            return pb.WithdrawProposalResponse(receipt=self._receipts.basic(written))
        raise AssertionError  # the block above returns or aborts

    async def RecordLineage(  # noqa: N802  # as above
        self, request: pb.RecordLineageRequest, context: ServicerContext
    ) -> pb.RecordLineageResponse:
        """Takes an OpenLineage run event."""
        async with self._edge.call("RecordLineage", context) as call:
            told = await self._deriving.record(request.event_json, call.caller.id)
            call.tell(outputs=len(told.outputs))
            return lineage_answers.recorded(told)
        raise AssertionError  # the block above returns or aborts

    async def ProposeReclassification(  # noqa: N802  # as above
        self, request: pb.ProposeReclassificationRequest, context: ServicerContext
    ) -> pb.ProposeReclassificationResponse:
        """Proposes to take a tag off a column."""
        async with self._edge.call("ProposeReclassification", context) as call:
            name = self._revisions.name_of(decode.policy_set(request.policy_set, self._limits))
            most = self._limits.name_bytes_max
            dataset, column = decode.text(request.dataset, most, "dataset"), decode.text(request.column, most, "column")
            tag = decode.text(request.tag, most, "tag")
            publisher = self._edge.publisher(call)
            proposal, written = await self._deriving.propose(name, dataset, column, tag, publisher)
            return pb.ProposeReclassificationResponse(
                proposal=await proposal_message(self._publishing, proposal), receipt=self._receipts.basic(written)
            )
        raise AssertionError  # the block above returns or aborts

    async def GetLineage(  # noqa: N802  # as above
        self, request: pb.GetLineageRequest, context: ServicerContext
    ) -> pb.GetLineageResponse:
        """Returns what the tables of a policy set inherit."""
        async with self._edge.call("GetLineage", context) as call:
            name = self._revisions.name_of(decode.policy_set(request.policy_set, self._limits))
            self._edge.permit_reading(call, name)
            state, snapshot = self._revisions.state, self._revisions.snapshot(name)
            declared = state.policy_sets[snapshot.policy_set.name]
            dataset = decode.text(request.dataset, self._limits.name_bytes_max, "dataset")
            return await asyncio.to_thread(
                lineage_answers.inherited, declared, snapshot.policy_set, state.lineage, dataset
            )
        raise AssertionError  # the block above returns or aborts

    async def ReplayDecisions(  # noqa: N802  # as above
        self, request: pb.ReplayDecisionsRequest, context: ServicerContext
    ) -> AsyncIterator[pb.ReplayDecisionsResponse]:
        """Decides past decisions also under a draft."""
        async with (
            self._edge.call("ReplayDecisions", context, stream=True) as call,
            contextlib.aclosing(self._replays.past(call, request, self._files(request.files))) as answers,
        ):
            async for answer in answers:
                yield answer

    async def ShadowPolicySet(  # noqa: N802  # as above
        self, request: pb.ShadowPolicySetRequest, context: ServicerContext
    ) -> AsyncIterator[pb.ShadowPolicySetResponse]:
        """Decides live decisions also under a draft."""
        async with (
            self._edge.call("ShadowPolicySet", context, stream=True) as call,
            contextlib.aclosing(self._replays.live(call, request, self._files(request.files))) as answers,
        ):
            async for answer in answers:
                yield answer

    async def _rehearse(self, request: pb.PublishPolicySetRequest, call: Call) -> pb.ValidatePolicySetResponse:
        if not request.validate_only:
            raise InvalidRequestError("every_finding", "goes with `validate_only`: a refusal names the first findings")
        files = self._files(request.files)
        name = decode.text(request.policy_set, self._limits.name_bytes_max, "policy_set")
        found = await self._publishing.rehearse(files, name, self._edge.publisher(call))
        call.tell(findings=len(found.findings), tests_run=found.tests_run)
        return encode.validation(found)

    async def _publish(self, request: pb.PublishPolicySetRequest, call: Call) -> pb.PublishPolicySetResponse:
        files = self._files(request.files)
        name = decode.text(request.policy_set, self._limits.name_bytes_max, "policy_set")
        request_id = decode.text(request.request_id, self._limits.name_bytes_max, "request_id")
        base = decode.text(request.base, self._limits.name_bytes_max, "base")
        if request.validate_only:
            return self._rehearsed(await self._publishing.rehearse(files, name, self._edge.publisher(call)))
        publisher = self._edge.publisher(call)
        return await self._published(
            await self._publishing.publish(files, name, publisher, request_id=request_id, base=base), call
        )

    def _rehearsed(self, found: Validation) -> pb.PublishPolicySetResponse:
        if not found.passed:
            raise found.refusal()
        response = pb.PublishPolicySetResponse(
            findings=[encode.finding(f) for f in found.findings], tests_run=found.tests_run
        )
        rules = self._publishing.proposing.rules_for(found)
        if rules is not None:
            proposal = self._publishing.proposing.proposal_of(found)
            lacking = self._publishing.approving.missing(proposal, rules)
            response.proposal.CopyFrom(proposal_of(proposal, found.changes or (), rules, lacking, ()))
        return response

    async def _published(self, published: Published, call: Call) -> pb.PublishPolicySetResponse:
        response = pb.PublishPolicySetResponse(
            changed=published.changed,
            findings=[encode.finding(f) for f in published.findings],
            tests_run=published.tests_run,
        )
        if published.revision is not None:
            response.revision.CopyFrom(encode.revision(published.revision))
            call.tell(number=published.revision.number, changed=published.changed)
        if published.proposal is not None:
            response.proposal.CopyFrom(await proposal_message(self._publishing, published.proposal))
            call.tell(proposed=True)
        if published.written is not None:
            response.receipt.CopyFrom(self._receipts.basic(published.written))
        return response

    def _proposed(self, name: str, digest: str) -> pb.RevisionRecord | None:
        """Returns the record of a revision that waits for approvals, if that is what is asked for."""
        waiting = self._publishing.approving.now().waiting
        for one in waiting:
            if one.kind is ProposalKind.REVISION and (one.policy_set, one.digest) == (name, digest):
                return pb.RevisionRecord(
                    policy_set=name,
                    revision=encode.revision(Revision(digest, 0)),
                    create_time=to_timestamp(one.create_time),
                    index=one.index,
                )
        return None

    async def _publish_directory(self, request: pb.PublishDirectoryRequest, call: Call) -> pb.PublishDirectoryResponse:
        files = self._files(request.files)
        request_id = decode.text(request.request_id, self._limits.name_bytes_max, "request_id")
        published = await self._publishing.publish_directory(files, self._edge.publisher(call), request_id=request_id)
        revision = published.revision or Revision("", 0)  # no directory waits for approvals
        response = pb.PublishDirectoryResponse(
            revision=encode.revision(revision),
            changed=published.changed,
            subjects=published.subjects,
            findings=[encode.finding(f) for f in published.findings],
        )
        if published.written is not None:
            response.receipt.CopyFrom(self._receipts.basic(published.written))
        call.tell(number=revision.number, changed=published.changed)
        return response

    async def _gather(
        self,
        messages: AsyncIterator[pb.UploadPolicySetRequest] | AsyncIterator[pb.UploadDirectoryRequest],
        whole: pb.UploadPolicySetRequest | pb.UploadDirectoryRequest,
    ) -> None:
        """Merges the parts of an upload, as long as they are within the limits."""
        count = 0
        async for message in messages:
            count += 1
            if count > PARTS_MAX:
                raise decode.over_limit("request", "parts", PARTS_MAX, count)
            whole.MergeFrom(message)  # type: ignore[arg-type]  # both are of one kind
            self._require_room(whole.part.files)

    def _require_room(self, messages: Sequence[pb.PolicyFile]) -> None:
        """Requires files within the limits, so that no more of an upload is read than may be published."""
        count = sum(not message.continues for message in messages)
        if count > self._limits.policy_files_max:
            raise decode.over_limit("files", "files", self._limits.policy_files_max, count)
        if len(messages) > count + PARTS_MAX:
            raise decode.over_limit("files", "parts", count + PARTS_MAX, len(messages))
        size = sum(len(message.content) for message in messages)
        if size > self._limits.policy_bytes_max:
            raise decode.over_limit("files", "bytes", self._limits.policy_bytes_max, size)

    def _files(self, messages: Sequence[pb.PolicyFile]) -> dict[str, bytes]:
        if not messages:
            raise InvalidRequestError("files", "must not be empty")
        self._require_room(messages)
        files: dict[str, list[bytes]] = {}
        last = None
        for message in messages:
            if message.continues:
                if message.path != last:
                    raise InvalidRequestError("files", "one continues a file that is not the one before it")
                files[message.path].append(message.content)
                continue
            if message.path in files:
                raise InvalidRequestError("files", "a path is named twice")
            files[message.path] = [message.content]
            last = message.path
        return {path: b"".join(parts) for path, parts in files.items()}

    def _record(self, activation: Activation) -> pb.RevisionRecord:
        newest = self._revisions.newest(activation.policy_set)
        return pb.RevisionRecord(
            policy_set=activation.policy_set,
            revision=encode.revision(activation.revision),
            create_time=to_timestamp(activation.create_time),
            active=activation == newest,
            index=activation.index,
        )


def page_start(token: str) -> int | None:
    """Returns the index before which a page starts; None for the first page."""
    if not token:
        return None
    if not (token.isascii() and token.isdigit() and len(token) <= INDEX_DIGITS_MAX):
        raise InvalidPageTokenError("page_token: not one that this server gave", field="page_token")
    return int(token)


def place_of(activation: Activation) -> Place:
    """Returns where an activation stands among all, in whichever book: times never go backwards."""
    return nanoseconds(to_timestamp(activation.create_time)), activation.index


def resume_start(token: str) -> Place | None:
    """Returns after which activation a watch goes on; None at its beginning."""
    if not token:
        return None
    time, _, index = token.partition(".")
    if not all(part.isascii() and part.isdigit() and len(part) <= INDEX_DIGITS_MAX for part in (time, index)):
        raise InvalidPageTokenError("resume_token: not one that this server gave", field="resume_token")
    return int(time), int(index)
