"""The refusal: a decision that this client cannot or must not apply to rows.

Owns `EnforcementError`. It names columns and kinds of masks and never a value of a row.
"""

from __future__ import annotations

from gatebook_client.errors import GatebookClientError


class EnforcementError(GatebookClientError):
    """The decision does not let these rows out, or not in this way. Nothing was returned."""

    def __init__(self, reason: str, message: str) -> None:
        """Takes a reason of the client's own (`CLIENT_...`) and what to do."""
        super().__init__(message, reason=reason)
