"""The errors that Gatebook raises on purpose.

Owns the exception tree. Each class has a stable `reason`: the name of a value of
`gatebook.v1.ErrorReason` without its prefix. Three kinds of trouble are kept apart:

1. the caller's mistake and the world's fault are `GatebookError` subclasses;
2. a bug of ours is an `AssertionError` or `RuntimeError` and fails the call;
3. a denial is no error at all, but a `Decision`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from gatebook.values import Finding, TestFailure


class GatebookError(Exception):
    """Is the base of every error that Gatebook raises on purpose."""

    reason: ClassVar[str] = "INTERNAL"
    cause: str = ""
    """What the log says and the caller is not told; without secrets, and without words of the caller's."""

    def __init__(self, message: str, **metadata: str) -> None:
        """Takes the message (lower case, no full stop) and the metadata of `ErrorInfo`."""
        super().__init__(message)
        self.message = message
        self.metadata: Mapping[str, str] = metadata


class UnauthenticatedError(GatebookError):
    """The caller is nobody that is known. The message never says why, so that a stranger learns nothing."""

    reason = "UNAUTHENTICATED"

    def __init__(self, cause: str) -> None:
        """Takes why, for the log: the caller is not told."""
        super().__init__(
            "no valid credentials: call with a client certificate or a bearer token that this server trusts"
        )
        self.cause = cause


class PermissionDeniedError(GatebookError):
    """The caller may not do this, whether or not what it asks about exists."""

    reason = "PERMISSION_DENIED"

    def __init__(self) -> None:
        """Takes nothing, for the reason that `UnauthenticatedError` does."""
        super().__init__("the policy set `gatebook` does not permit this call")


class UnimplementedError(GatebookError):
    """The server has no such method; only who may look at the server itself is told."""

    reason = "UNIMPLEMENTED"

    def __init__(self) -> None:
        """Takes nothing."""
        super().__init__("this server has no such method: ask its reflection service for those that it has")


class InvalidRequestError(GatebookError):
    """A field of a request is missing or malformed; `field` names it."""

    reason = "INVALID_REQUEST"

    def __init__(self, field: str, message: str) -> None:
        """Takes the path of the field, such as `access.subject.id`, and what is wrong with it."""
        super().__init__(f"{field}: {message}", field=field)
        self.field = field


class LimitExceededError(GatebookError):
    """A size or a count is over its limit; sending the same again does not help."""

    reason = "LIMIT_EXCEEDED"


class TokenMissingError(GatebookError):
    """The model of a plain set needs a token that the request does not supply."""

    reason = "TOKEN_MISSING"


class PolicySetRequiredError(GatebookError):
    """The server serves several policy sets and the request names none."""

    reason = "POLICY_SET_REQUIRED"


class PolicySetNotFoundError(GatebookError):
    """The server serves no such policy set."""

    reason = "POLICY_SET_NOT_FOUND"


class NoActiveRevisionError(GatebookError):
    """No revision of the policy set, or no directory that it needs, is active yet."""

    reason = "NO_ACTIVE_REVISION"


class PolicySetRefusedError(GatebookError):
    """A policy set has findings of severity error, or failing tests. Nothing was changed."""

    reason = "POLICY_SET_REFUSED"

    def __init__(
        self,
        message: str,
        findings: Sequence[Finding] = (),
        test_failures: Sequence[TestFailure] = (),
        **metadata: str,
    ) -> None:
        """Takes every finding and every failing test, sorted by file, line and column."""
        super().__init__(message, findings=str(len(findings)), **metadata)
        self.findings = tuple(findings)
        self.test_failures = tuple(test_failures)


class DirectoryRefusedError(PolicySetRefusedError):
    """A directory has findings of severity error. Nothing was changed."""

    reason = "DIRECTORY_REFUSED"


class CallersRefusedError(GatebookError):
    """The file that says who may call has findings."""

    def __init__(self, message: str, findings: Sequence[Finding]) -> None:
        """Takes every finding, sorted by line and column."""
        super().__init__(message)
        self.findings = tuple(findings)


class RevisionNotActiveError(GatebookError):
    """The revision number in `at_least` is not active yet."""

    reason = "REVISION_NOT_ACTIVE"


class RevisionNotFoundError(GatebookError):
    """There is no such revision."""

    reason = "REVISION_NOT_FOUND"


class EntryNotFoundError(GatebookError):
    """There is no such entry."""

    reason = "ENTRY_NOT_FOUND"


class EntryPrunedError(EntryNotFoundError):
    """The entry was there; under a written policy it is not kept any more."""

    reason = "ENTRY_PRUNED"


class PersonNotFoundError(GatebookError):
    """No store of keys knows the person."""

    reason = "PERSON_NOT_FOUND"

    def __init__(self) -> None:
        """Takes nothing: the id is not repeated."""
        super().__init__("nobody with this id is in the key store, so there is nothing to erase: check the id")


class RetentionRefusedError(GatebookError):
    """The written policy does not permit pruning what was asked for. Nothing was changed."""

    reason = "RETENTION_REFUSED"


class NotReplayableError(GatebookError):
    """A decision cannot be decided again: what it was made of is gone, or this version does not understand it."""

    reason = "NOT_REPLAYABLE"


class InvalidPageTokenError(GatebookError):
    """A page token is malformed or belongs to another filter."""

    reason = "INVALID_PAGE_TOKEN"


class NotSearchableError(GatebookError):
    """The policy set does not say whom or what it knows, so that no search of it would be complete."""

    reason = "NOT_SEARCHABLE"


class OverloadedError(GatebookError):
    """Too much is under way; try again after `retry_seconds`."""

    reason = "OVERLOADED"

    def __init__(self, message: str, retry_seconds: float = 0.1, **metadata: str) -> None:
        """Takes how long the caller should wait."""
        super().__init__(message, **metadata)
        self.retry_seconds = retry_seconds


class DeadlineExceededError(GatebookError):
    """The deadline of the call passed before the work began."""

    reason = "DEADLINE_EXCEEDED"


class DrainingError(OverloadedError):
    """The server is stopping; another one should be asked."""

    reason = "DRAINING"


class ControlFeedLostError(OverloadedError):
    """This worker has lost touch with the first one, so it does not know what is active and decides nothing."""

    reason = "CONTROL_FEED_LOST"

    def __init__(self) -> None:
        """Takes nothing."""
        super().__init__("this worker does not know what is active: ask again")


class ReceiptError(GatebookError):
    """The entry is in the book, and its receipt cannot be given as it was asked for; the decision is not told."""

    def __init__(self, message: str, **entry: str) -> None:
        """Takes what is missing, and where the entry stands."""
        super().__init__(message, **entry)


class ReceiptPendingError(ReceiptError):
    """Its proof did not come in time."""

    reason = "RECEIPT_PENDING"


class SignerUnavailableError(ReceiptError):
    """What signs for the book does not answer."""

    reason = "SIGNER_UNAVAILABLE"


class RelayedError(GatebookError):
    """Another worker of this service answered with an error, which is passed on as it is."""

    def __init__(self, message: str, reason: str, status: bytes) -> None:
        """Takes the message, the reason, and the `google.rpc.Status` in its serialized form."""
        super().__init__(message)
        self.reason = reason  # type: ignore[misc]  # that of the error relayed
        self.status = status


class ListenError(GatebookError):
    """The address to listen on cannot be had."""


class BookUnavailableError(GatebookError):
    """The book cannot be written or read, so there is no answer."""

    reason = "BOOK_UNAVAILABLE"


class BookFailedError(BookUnavailableError):
    """A write or a sync of the book failed. Only a restart helps, which reads again what is on disk."""


class ClerkAwayError(BookUnavailableError):
    """The process that writes tiles and the index has ended; it is started again."""


class ClerkSilentError(ClerkAwayError):
    """It was ended, since it had something to do and nothing was heard of it."""


class SignerAwayError(BookUnavailableError):
    """The program that signs for the book does not, or not rightly; it is asked again."""


class BookRefusedError(GatebookError):
    """The book must not be served: locked, rolled back, of another origin or key, or corrupt."""

    reason = "BOOK_UNAVAILABLE"


class BookCorruptError(BookRefusedError):
    """Bytes of the book are not what was written; `index` is the first bad entry, if known."""

    def __init__(self, message: str, index: int | None = None) -> None:
        """Takes what is wrong and the first bad index."""
        super().__init__(message, **({} if index is None else {"index": str(index)}))
        self.index = index


class VerificationError(GatebookError):
    """A signature, proof, checkpoint or receipt does not verify; `index` is the first bad entry, if known."""

    reason = "INTERNAL"

    def __init__(self, message: str, index: int | None = None) -> None:
        """Takes what is wrong and the first bad index."""
        super().__init__(message, **({} if index is None else {"index": str(index)}))
        self.index = index


class ContradictionError(VerificationError):
    """What is shown does not continue what was signed before; `checkpoints` are the two signed notes that show it.

    With two roots for one size the notes alone convict the key. Otherwise the holder of the key can only
    clear itself with a history that holds both, which what was shown does not.
    """

    def __init__(self, message: str, index: int | None, checkpoints: tuple[bytes, bytes]) -> None:
        """Takes what is wrong, the first entry that is not vouched for, and the notes kept and shown."""
        super().__init__(message, index)
        self.checkpoints = checkpoints


class RevisionMovedError(GatebookError):
    """Another revision is active than the one that a publish was made from."""

    reason = "REVISION_MOVED"

    def __init__(self, policy_set: str, base: str, active: str) -> None:
        """Takes the digests of both; empty where nothing was, or is, active."""
        now, before = active[:12] or "nothing", base[:12] or "nothing"
        told = f"`{policy_set}` was published meanwhile: {now} is active, not {before}"
        super().__init__(
            f"{told}; look at what changed, and publish again", policy_set=policy_set, base=base, active=active
        )


class ProposalNotFoundError(GatebookError):
    """Nothing of this digest waits for approvals."""

    reason = "PROPOSAL_NOT_FOUND"

    def __init__(self, policy_set: str, digest: str, why: str = "") -> None:
        """Takes what was asked for, and how it ended, where that is known."""
        told = f"nothing of `{policy_set}` with the digest {digest[:12]} waits for approvals"
        super().__init__(f"{told}: {why}" if why else told, policy_set=policy_set, digest=digest)


class ApprovalRefusedError(GatebookError):
    """The caller's approval does not count. Nothing was changed."""

    reason = "APPROVAL_REFUSED"
