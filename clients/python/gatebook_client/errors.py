"""The errors of the client: why there is no decision.

Owns the exception tree and the reading of gRPC statuses. A denial is not an error. Every error
means no: nothing in this package turns one into an allow.

`reason` is the name of a `gatebook.v1.ErrorReason` without its prefix where the service stated
one, and else the name of the gRPC status code or a reason of the client's own (`UNREACHABLE`,
`MALFORMED_ANSWER`, `CLOSED`, `INSECURE_TARGET`, `NO_CREDENTIALS`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "gatebook"
DETAILS_KEY = "grpc-status-details-bin"

_REJECTIONS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
_CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing wrong with a request: the field, such as `access.subject.id`, and what to do."""

    field: str
    description: str


class GatebookClientError(Exception):
    """Is the base of every error of this package. There is no decision, so the answer is no."""

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        metadata: Mapping[str, str] | None = None,
        violations: tuple[Violation, ...] = (),
        retry_seconds: float | None = None,
    ) -> None:
        """Takes the message and what the service said about the cause."""
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.violations = violations
        self.retry_seconds = retry_seconds

    def __str__(self) -> str:
        """Names the reason, the message and every violation that the message does not tell of."""
        told = [v for v in self.violations if v.description not in self.message]
        found = "".join(f"; {v.field}: {v.description}" for v in told)
        return f"{self.reason}: {self.message}{found}"


class UnavailableError(GatebookClientError):
    """Nobody answers, or the service cannot write its book or is stopping. Trying again may help."""


class OverloadedError(GatebookClientError):
    """Too much is under way; `retry_seconds` says when to try again."""


class DeadlineError(GatebookClientError):
    """No answer came in time."""


class RejectedError(GatebookClientError):
    """The service refused the request as it is; `violations` say why. Trying again does not help."""


class ServiceFaultError(GatebookClientError):
    """The service failed in a way of its own; `metadata` may hold an `error_id` to report."""


class MalformedAnswerError(GatebookClientError):
    """What came back is not an answer to what was asked."""

    def __init__(self, message: str) -> None:
        """Takes what is wrong with the answer."""
        super().__init__(message, reason="MALFORMED_ANSWER")


class ConnectionClosedError(GatebookClientError):
    """The connection was used after it was closed, or before it was opened."""

    def __init__(self, message: str = "the connection is closed; open another one") -> None:
        """Takes what to do."""
        super().__init__(message, reason="CLOSED")


class InsecureTargetError(GatebookClientError):
    """The target would be reached in plain text over a network."""

    def __init__(self, message: str) -> None:
        """Takes what is wrong with the target."""
        super().__init__(message, reason="INSECURE_TARGET")


class CredentialsError(GatebookClientError):
    """What the client should show of itself cannot be had, so nobody was asked."""

    def __init__(self, message: str) -> None:
        """Takes what is wrong with it."""
        super().__init__(message, reason="NO_CREDENTIALS")


@dataclass(slots=True)
class _Details:
    """What the details of a status say."""

    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)
    retry_seconds: float | None = None


def from_call(error: grpc.RpcError) -> GatebookClientError:
    """Reads the error of a failed call."""
    code: grpc.StatusCode = error.code()
    status = status_pb2.Status(code=code.value[0], message=error.details() or "")
    details = _details(_stated(error) or status)
    if code is grpc.StatusCode.UNAVAILABLE and not details.reason:
        details.reason = "UNREACHABLE"
    return _error(code, status.message, details)


def _stated(error: grpc.RpcError) -> status_pb2.Status | None:
    """Returns the status with details that came with an error, if one came and can be read."""
    # Both kinds of channel give pairs; the stubs know only the blocking one's.
    for key, value in cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ()):
        if key == DETAILS_KEY and isinstance(value, bytes):
            with contextlib.suppress(DecodeError):
                return status_pb2.Status.FromString(value)
    return None


def from_status(status: status_pb2.Status) -> GatebookClientError:
    """Reads the error of one item of a batch or stream. A code of OK is an error all the same."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    return _error(code, status.message, _details(status))


def without_position(error: GatebookClientError, path: str) -> GatebookClientError:
    """Returns the error of an item as that of a single check: the paths of its fields lose `path`, the item's own."""
    if isinstance(error, MalformedAnswerError):
        return error
    return type(error)(
        error.message.removeprefix(path),
        reason=error.reason,
        metadata={name: value.removeprefix(path) for name, value in error.metadata.items()},
        violations=tuple(
            Violation(violation.field.removeprefix(path), violation.description.removeprefix(path))
            for violation in error.violations
        ),
        retry_seconds=error.retry_seconds,
    )


def _error(code: grpc.StatusCode, message: str, details: _Details) -> GatebookClientError:
    """Chooses the class by the code, and for RESOURCE_EXHAUSTED by whether waiting helps."""
    kind: type[GatebookClientError] = ServiceFaultError
    if code is grpc.StatusCode.UNAVAILABLE:
        kind = UnavailableError
    elif code is grpc.StatusCode.DEADLINE_EXCEEDED:
        kind = DeadlineError
    elif code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        kind = RejectedError if details.retry_seconds is None else OverloadedError
    elif code in _REJECTIONS:
        kind = RejectedError
    return kind(
        message or "the service gave no message",
        reason=details.reason or code.name,
        metadata=details.metadata,
        violations=tuple(details.violations),
        retry_seconds=details.retry_seconds,
    )


def _details(status: status_pb2.Status) -> _Details:
    """Unpacks the details this client knows; what does not parse is left out."""
    found = _Details()
    for packed in status.details:
        with contextlib.suppress(DecodeError):
            _read_detail(packed.type_url.rpartition("/")[2], packed.value, found)
    return found


def _read_detail(name: str, value: bytes, found: _Details) -> None:
    """Reads one detail into `found`."""
    if name == "google.rpc.ErrorInfo":
        info = error_details_pb2.ErrorInfo.FromString(value)
        if info.domain == DOMAIN:
            found.reason, found.metadata = info.reason, dict(info.metadata)
    elif name == "google.rpc.BadRequest":
        request = error_details_pb2.BadRequest.FromString(value)
        found.violations += [Violation(v.field, v.description) for v in request.field_violations]
    elif name == "google.rpc.PreconditionFailure":
        failure = error_details_pb2.PreconditionFailure.FromString(value)
        found.violations += [Violation(v.subject, v.description) for v in failure.violations]
    elif name == "google.rpc.RetryInfo":
        delay = error_details_pb2.RetryInfo.FromString(value).retry_delay
        found.retry_seconds = max(0.0, delay.seconds + delay.nanos / 1e9)
