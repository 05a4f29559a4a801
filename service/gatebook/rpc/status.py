"""Maps the errors of Gatebook to `google.rpc.Status`.

Every status carries exactly one `google.rpc.ErrorInfo` (domain `gatebook`, reason from
`error_reason.proto`), and beside it `BadRequest`, `PreconditionFailure` or `RetryInfo` where they fit
(AIP-193, google/rpc/error_details.proto).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from gatebook import errors
from gatebook.values import Finding, foremost

DOMAIN = "gatebook"
VIOLATIONS_BYTES_MAX = 4096
"""Peers drop calls whose trailing metadata exceed 8 KiB; `ValidatePolicySet` returns every finding."""

CODES: dict[str, grpc.StatusCode] = {
    "UNAUTHENTICATED": grpc.StatusCode.UNAUTHENTICATED,
    "PERMISSION_DENIED": grpc.StatusCode.PERMISSION_DENIED,
    "UNIMPLEMENTED": grpc.StatusCode.UNIMPLEMENTED,
    "INVALID_REQUEST": grpc.StatusCode.INVALID_ARGUMENT,
    "LIMIT_EXCEEDED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "TOKEN_MISSING": grpc.StatusCode.INVALID_ARGUMENT,
    "POLICY_SET_REQUIRED": grpc.StatusCode.INVALID_ARGUMENT,
    "POLICY_SET_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "POLICY_SET_REFUSED": grpc.StatusCode.FAILED_PRECONDITION,
    "DIRECTORY_REFUSED": grpc.StatusCode.FAILED_PRECONDITION,
    "NO_ACTIVE_REVISION": grpc.StatusCode.FAILED_PRECONDITION,
    "REVISION_NOT_ACTIVE": grpc.StatusCode.FAILED_PRECONDITION,
    "REVISION_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "ENTRY_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "INVALID_PAGE_TOKEN": grpc.StatusCode.INVALID_ARGUMENT,
    "NOT_SEARCHABLE": grpc.StatusCode.FAILED_PRECONDITION,
    "OVERLOADED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "DEADLINE_EXCEEDED": grpc.StatusCode.DEADLINE_EXCEEDED,
    "BOOK_UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "RECEIPT_PENDING": grpc.StatusCode.DEADLINE_EXCEEDED,
    "SIGNER_UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "DRAINING": grpc.StatusCode.UNAVAILABLE,
    "CONTROL_FEED_LOST": grpc.StatusCode.UNAVAILABLE,
    "PERSON_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "ENTRY_PRUNED": grpc.StatusCode.NOT_FOUND,
    "RETENTION_REFUSED": grpc.StatusCode.FAILED_PRECONDITION,
    "NOT_REPLAYABLE": grpc.StatusCode.FAILED_PRECONDITION,
    "REVISION_MOVED": grpc.StatusCode.ABORTED,
    "PROPOSAL_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "APPROVAL_REFUSED": grpc.StatusCode.FAILED_PRECONDITION,
    "INTERNAL": grpc.StatusCode.INTERNAL,
}


BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}


def code_of(error: errors.GatebookError) -> grpc.StatusCode:
    """Returns the gRPC code of an error."""
    return BY_NUMBER[to_status(error).code] if isinstance(error, errors.RelayedError) else CODES[error.reason]


def to_status(error: errors.GatebookError) -> status_pb2.Status:
    """Returns the error as `google.rpc.Status`."""
    if isinstance(error, errors.RelayedError):
        return status_pb2.Status.FromString(error.status)
    status = status_pb2.Status(code=code_of(error).value[0], message=error.message)
    _attach(status, error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata))
    detail = _detail(error)
    if detail is not None:
        _attach(status, detail)
    return status


def _detail(error: errors.GatebookError) -> Any:  # noqa: ANN401  # google.rpc has no types
    match error:
        case errors.InvalidRequestError() | errors.LimitExceededError() | errors.TokenMissingError():
            violation = error_details_pb2.BadRequest.FieldViolation(
                field=error.metadata.get("field", ""), description=error.message
            )
            return error_details_pb2.BadRequest(field_violations=[violation])
        case errors.PolicySetRefusedError():
            return _precondition_failure(error)
        case errors.OverloadedError():
            wait = duration_pb2.Duration()
            wait.FromNanoseconds(int(error.retry_seconds * 1e9))
            return error_details_pb2.RetryInfo(retry_delay=wait)
        case _:
            return None


def _precondition_failure(error: errors.PolicySetRefusedError) -> error_details_pb2.PreconditionFailure:
    failure = _violations(error.findings, error)
    if failure.ByteSize() > VIOLATIONS_BYTES_MAX:
        failure = _violations(foremost(error.findings), error)
    while failure.ByteSize() > VIOLATIONS_BYTES_MAX:
        del failure.violations[-1]
    return failure


def _violations(
    findings: Iterable[Finding], error: errors.PolicySetRefusedError
) -> error_details_pb2.PreconditionFailure:
    violation = error_details_pb2.PreconditionFailure.Violation
    failure = error_details_pb2.PreconditionFailure()
    for finding in findings:
        place = f"{finding.file}:{finding.line}:{finding.column}"
        failure.violations.append(violation(type=finding.invariant, subject=place, description=finding.message))
    for test in error.test_failures:
        told = f"{test.test}: {test.question}: expected {test.expected}, got {test.actual}"
        failure.violations.append(violation(type="TEST_FAILED", subject=f"{test.file}:{test.line}", description=told))
    return failure


def _attach(status: status_pb2.Status, detail: Any) -> None:  # noqa: ANN401  # as above
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)
