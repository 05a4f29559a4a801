"""What the book says of each step of a draft: judged, refused, proposed, activated.

Owns which facts of a draft are written, and which stay out.
"""

from __future__ import annotations

import hashlib

from gatebook.audit.entry import PolicyEvent
from gatebook.revisions.active import State
from gatebook.revisions.validate import Validation
from gatebook.v1 import entry_pb2
from gatebook.values import Revision


def step_event(
    state: State,
    step: entry_pb2.PolicyStep.ValueType,
    found: Validation,
    *,
    request_id: str = "",
    proposal: entry_pb2.ProposalEntry | None = None,
) -> PolicyEvent:
    """Returns what is written of a step of a draft that was judged."""
    # A name that nothing was ever published under may be anything, and stays out of the book.
    known = found.readable or found.name in state.policy_sets
    return PolicyEvent(
        step=step,
        policy_set=found.name if known else "",
        revision=Revision(found.digest, 0),
        findings=found.findings,
        tests_run=found.tests_run,
        tests_failed=len(found.test_failures),
        request_id_hash=request_hash(request_id),
        proposal=proposal,
    )


def request_hash(request_id: str) -> bytes:
    """Returns what is kept of the id that a caller gave a request."""
    return hashlib.sha256(request_id.encode()).digest() if request_id else b""
