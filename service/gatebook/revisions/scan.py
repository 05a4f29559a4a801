"""Looks whether audiences are within their ceilings whenever what decides is built: at a publish, or a start.

Owns the scan of what is live. A directory is never refused for a ceiling: people who have left must go at once.
Instead, whoever is not proved to be within a ceiling that it exceeds is denied, from the first decision under it on.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from gatebook.engine.snapshot import Snapshot
from gatebook.expression.moments import Moment
from gatebook.governance.audience import Audiences
from gatebook.governance.ceilings import exceeded
from gatebook.pace import Pause, no_pause
from gatebook.policy.policy_set import PolicySet
from gatebook.revisions.validate import audience_findings
from gatebook.values import Finding, Severity


def scanned(snapshot: Snapshot, now: datetime, pause: Pause = no_pause, declared: PolicySet | None = None) -> Snapshot:
    """Returns a snapshot that denies whoever is not proved to be within a ceiling.

    Where its tables inherit, whoever is not proved to be within by what is `declared` alone is denied too: what narrows
    an audience by lineage gives nobody back what a ceiling takes.
    """
    if snapshot.directory is None:
        return snapshot
    not_proved: dict[tuple[str, str], frozenset[str]] = {}
    ways = [snapshot.policy_set]
    if declared is not None and declared is not snapshot.policy_set:
        ways.append(declared)
    for policy_set in ways:
        audiences = Audiences(policy_set, snapshot.directory, Moment(now), pause)
        for one in exceeded(audiences):
            key = (one.dataset.id, one.action)
            found = frozenset(subject.id for subject in audiences.people.among(one.not_proved))
            not_proved[key] = not_proved.get(key, frozenset()) | found
    return msgspec.structs.replace(snapshot, not_proved=not_proved)


def scan_findings(snapshots: Iterable[Snapshot], now: datetime) -> tuple[Finding, ...]:
    """Returns a finding for each ceiling that is exceeded by what is live."""
    beyond = (snapshot for snapshot in snapshots if snapshot.not_proved)
    return tuple(found for snapshot in beyond for found in audience_findings(snapshot, now, Severity.WARNING))
