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
from gatebook.revisions.validate import audience_findings
from gatebook.values import Finding, Severity


def scanned(snapshot: Snapshot, now: datetime, pause: Pause = no_pause) -> Snapshot:
    """Returns a snapshot that denies whoever is not proved to be within a ceiling."""
    if snapshot.directory is None:
        return snapshot
    audiences = Audiences(snapshot.policy_set, snapshot.directory, Moment(now), pause)
    not_proved = {
        (one.dataset.id, one.action): frozenset(subject.id for subject in audiences.people.among(one.not_proved))
        for one in exceeded(audiences)
    }
    return msgspec.structs.replace(snapshot, not_proved=not_proved)


def scan_findings(snapshots: Iterable[Snapshot], now: datetime) -> tuple[Finding, ...]:
    """Returns a finding for each ceiling that is exceeded by what is live."""
    beyond = (snapshot for snapshot in snapshots if snapshot.not_proved)
    return tuple(found for snapshot in beyond for found in audience_findings(snapshot, now, Severity.WARNING))
