"""Sends policy sets and directories: in one message, or in parts with the progress shown.

Owns how files are cut, and what a person sees meanwhile: a bar and a clock on a terminal, and nothing elsewhere.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gatebook.cli.output import stderr
from gatebook.config import MIB
from gatebook.v1 import policy_service_pb2 as pb
from gatebook.v1.policy_service_pb2_grpc import PolicyServiceStub

WHOLE_BYTES_MAX = 8 * MIB
"""What is larger is sent in parts."""
PART_BYTES = MIB
PUBLISH_SECONDS = 900.0
"""How long a command waits for a publish: a million lines are checked, compiled and followed by every worker."""
SHOWN_BYTES = MIB
"""Of what is smaller no progress is shown: it is over before anybody has read it."""

JUDGED = "the server reads, tests and compiles it"


def size_of(files: Mapping[str, bytes]) -> int:
    """Returns how many bytes files have together."""
    return sum(map(len, files.values()))


def is_whole(files: Mapping[str, bytes]) -> bool:
    """Tells whether files fit one message."""
    return size_of(files) <= WHOLE_BYTES_MAX


def whole_files(files: Mapping[str, bytes]) -> list[pb.PolicyFile]:
    """Returns files as one message has them."""
    return [pb.PolicyFile(path=path, content=content) for path, content in sorted(files.items())]


def send_policy_set(
    stub: PolicyServiceStub, request: pb.PublishPolicySetRequest, files: Mapping[str, bytes]
) -> pb.PublishPolicySetResponse:
    """Publishes a policy set; `request` says everything but its files."""
    with publishing(f"`{request.policy_set}`", files) as progress:
        if is_whole(files):
            request.files.extend(whole_files(files))
            whole: pb.PublishPolicySetResponse = stub.PublishPolicySet(request, timeout=PUBLISH_SECONDS)
            return whole
        first = pb.UploadPolicySetRequest(part=request)
        return stub.UploadPolicySet(_in_parts(first, files, progress), timeout=PUBLISH_SECONDS).published


def check_policy_set(
    stub: PolicyServiceStub, policy_set: str, files: Mapping[str, bytes]
) -> pb.ValidatePolicySetResponse:
    """Has a policy set checked, which changes nothing; returns every finding."""
    with working(f"checking `{policy_set}`", size_of(files)) as progress:
        if is_whole(files):
            asked = pb.ValidatePolicySetRequest(policy_set=policy_set, files=whole_files(files))
            whole: pb.ValidatePolicySetResponse = stub.ValidatePolicySet(asked, timeout=PUBLISH_SECONDS)
            return whole
        rehearsal = pb.PublishPolicySetRequest(policy_set=policy_set, validate_only=True)
        first = pb.UploadPolicySetRequest(part=rehearsal, every_finding=True)
        return stub.UploadPolicySet(_in_parts(first, files, progress), timeout=PUBLISH_SECONDS).validated


def send_directory(
    stub: PolicyServiceStub, request: pb.PublishDirectoryRequest, files: Mapping[str, bytes]
) -> pb.PublishDirectoryResponse:
    """Publishes a directory; `request` says everything but its files."""
    with publishing("the directory", files) as progress:
        if is_whole(files):
            request.files.extend(whole_files(files))
            whole: pb.PublishDirectoryResponse = stub.PublishDirectory(request, timeout=PUBLISH_SECONDS)
            return whole
        parts = (
            pb.UploadDirectoryRequest(part=pb.PublishDirectoryRequest(files=[part]))
            for part in parts_of(files, progress)
        )
        first = pb.UploadDirectoryRequest(part=request)
        return stub.UploadDirectory(itertools.chain((first,), parts), timeout=PUBLISH_SECONDS).published


def _in_parts(
    first: pb.UploadPolicySetRequest, files: Mapping[str, bytes], progress: Progress | None
) -> Iterator[pb.UploadPolicySetRequest]:
    yield first
    for part in parts_of(files, progress):
        yield pb.UploadPolicySetRequest(part=pb.PublishPolicySetRequest(files=[part]))


def parts_of(files: Mapping[str, bytes], progress: Progress | None = None) -> Iterator[pb.PolicyFile]:
    """Yields files in parts that fit a message, and moves the bar on."""
    for path, content in sorted(files.items()):
        for start in range(0, max(1, len(content)), PART_BYTES):
            part = content[start : start + PART_BYTES]
            yield pb.PolicyFile(path=path, content=part, continues=start > 0)
            if progress is not None:
                progress.advance(progress.task_ids[0], len(part))
    if progress is not None:
        # A bar that is full has stopped its clock, so what comes next has one of its own.
        progress.update(progress.task_ids[0], visible=False)
        progress.add_task(JUDGED, total=None)


def publishing(what: str, files: Mapping[str, bytes]) -> contextlib.AbstractContextManager[Progress | None]:
    """Shows, within the block, what is sent in parts, and that the server is at work on it."""
    if is_whole(files):
        return working(f"publishing {what}: {JUDGED}", size_of(files))
    return working(f"publishing {what}", size_of(files), in_parts=True)


@contextlib.contextmanager
def working(what: str, size_bytes: int, *, in_parts: bool = False) -> Iterator[Progress | None]:
    """Shows, within the block, that something is under way: to people, and where it takes long enough to be seen."""
    console = stderr()
    if size_bytes < SHOWN_BYTES or not console.is_terminal:
        yield None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(what, total=size_bytes if in_parts else None)
        yield progress
