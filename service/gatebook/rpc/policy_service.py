"""The servicer of `PolicyService`: validate, publish, look at revisions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from gatebook.audit.entry import to_timestamp
from gatebook.config import Limits
from gatebook.errors import InvalidPageTokenError, InvalidRequestError
from gatebook.revisions.active import Activation, Revisions
from gatebook.revisions.publish import Publishing
from gatebook.rpc import decode, encode
from gatebook.rpc.edge import Call, Edge, ServicerContext
from gatebook.rpc.receipts import Receipts
from gatebook.v1 import policy_service_pb2 as pb
from gatebook.v1.policy_service_pb2_grpc import PolicyServiceServicer

INDEX_DIGITS_MAX = 20
PARTS_MAX = 2_000
"""How many messages an upload may be, and in how many parts its files may come beyond one each."""


class PolicyServicer(PolicyServiceServicer):
    """Keeps the revisions; every step is an entry of the book."""

    def __init__(
        self, revisions: Revisions, publishing: Publishing, receipts: Receipts, edge: Edge, limits: Limits
    ) -> None:
        """Takes the active revisions, what publishes, and the rim of every call."""
        self._revisions = revisions
        self._publishing = publishing
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
            found = self._revisions.find(name, request.digest)
            files = await asyncio.to_thread(self._revisions.store.get_policy_set, found.revision.digest)
            return pb.GetRevisionResponse(
                record=self._record(found),
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
        if request.validate_only:
            found = await self._publishing.rehearse(files, name, self._edge.publisher(call))
            if not found.passed:
                raise found.refusal()
            return pb.PublishPolicySetResponse(
                findings=[encode.finding(f) for f in found.findings], tests_run=found.tests_run
            )
        published = await self._publishing.publish(files, name, self._edge.publisher(call), request_id=request_id)
        response = pb.PublishPolicySetResponse(
            revision=encode.revision(published.revision),
            changed=published.changed,
            findings=[encode.finding(f) for f in published.findings],
            tests_run=published.tests_run,
        )
        if published.written is not None:
            response.receipt.CopyFrom(self._receipts.basic(published.written))
        call.tell(number=published.revision.number, changed=published.changed)
        return response

    async def _publish_directory(self, request: pb.PublishDirectoryRequest, call: Call) -> pb.PublishDirectoryResponse:
        files = self._files(request.files)
        request_id = decode.text(request.request_id, self._limits.name_bytes_max, "request_id")
        published = await self._publishing.publish_directory(files, self._edge.publisher(call), request_id=request_id)
        response = pb.PublishDirectoryResponse(
            revision=encode.revision(published.revision),
            changed=published.changed,
            subjects=published.subjects,
            findings=[encode.finding(f) for f in published.findings],
        )
        if published.written is not None:
            response.receipt.CopyFrom(self._receipts.basic(published.written))
        call.tell(number=published.revision.number, changed=published.changed)
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
