"""What a change of a policy set gains and loses, asked of two sets as files: for a command, and for a server.

Owns the comparison that both show. Each example is asked of both revisions, so that what it claims was decided. It
reads no state and changes none.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from gatebook.authorize import decide, question_of
from gatebook.engine.snapshot import Snapshot
from gatebook.errors import InvalidRequestError, PolicySetRefusedError
from gatebook.governance.impact import impact_of
from gatebook.governance.summary import CHANGES_MAX, Summary, summarise
from gatebook.pace import Pause, no_pause
from gatebook.policy.directory import Directory
from gatebook.policy.policy_set import PolicySet, load
from gatebook.revisions.scan import scanned
from gatebook.revisions.validate import TESTER, build_draft
from gatebook.values import AccessRequest, Decision, MinimumGroup


def compare(
    old: PolicySet,
    new: PolicySet,
    directory: Directory,
    now: datetime,
    *,
    changes_max: int = CHANGES_MAX,
    pause: Pause = no_pause,
) -> Summary:
    """Returns what a change from one set to the other gains and loses under a directory.

    Raises:
        InvalidRequestError: one of them is not governed.
        PolicySetRefusedError: the compiler does not understand a rule.
    """
    for policy_set in (old, new):
        if policy_set.catalogue is None:
            message = f"policy set `{policy_set.name}` has no catalogue, and so no audiences to compare"
            raise InvalidRequestError("policy_set", message)
    # What is live denies whoever is not proved to be within a ceiling.
    before = scanned(build_draft(old, old.digest, directory), now, pause)
    after = build_draft(new, new.digest, directory)

    def confirm(request: AccessRequest, caller: str, is_gain: bool) -> str:  # noqa: FBT001  # one of two directions
        decisions = (_asked(before, request, caller, now), _asked(after, request, caller, now))
        return why_not(*(decisions if is_gain else reversed(decisions)))

    return summarise(impact_of(old, new, directory, now, pause), confirm, changes_max)


def read_set(files: Mapping[str, bytes], name: str, side: str) -> PolicySet:
    """Reads one side of a comparison.

    Raises:
        PolicySetRefusedError: it has findings of severity error; the message says which side it is.
    """
    try:
        return load(files, name)
    except PolicySetRefusedError as refused:
        message = f"the {side} set cannot be compared: {refused}"
        raise PolicySetRefusedError(message, refused.findings, policy_set=name) from refused


def why_not(less: Decision, more: Decision) -> str:
    """Returns why a request does not show that one decision shows more than another; nothing where it does."""
    if not more.allowed:
        return f"{more.reason.name}, {more.message}"
    if less.allowed and _shown(less) == _shown(more):
        return "both revisions allow this very request alike"
    return ""


def _asked(snapshot: Snapshot, request: AccessRequest, caller: str, now: datetime) -> Decision:
    return decide(snapshot, question_of(snapshot, request, caller=caller or TESTER), now)


def _shown(decision: Decision) -> tuple[object, MinimumGroup | None]:
    columns = [(column.column, [(mask.kind, mask.parameters) for mask in column.masks]) for column in decision.columns]
    return columns, decision.minimum_group
