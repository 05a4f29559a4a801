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
from gatebook.governance.carried import Remembered
from gatebook.governance.ceilings import exceeded
from gatebook.pace import Pause, no_pause
from gatebook.policy.policy_set import PolicySet
from gatebook.revisions.validate import audience_findings
from gatebook.values import Finding, Severity

REMEMBERED_BYTES_MAX = 128 << 20
"""What is remembered of the last scans of all sets at most, about; what was scanned longest ago gives way."""


class Scans:
    """What the last scans found, so that the next costs what has changed. It changes no answer."""

    def __init__(self) -> None:
        """Remembers nothing yet."""
        self._found: dict[str, list[Remembered]] = {}  # the one scanned last is the last

    def of(self, name: str) -> list[Remembered]:
        """Returns what is remembered of a set."""
        return self._found.get(name, [])

    def keep(self, name: str, found: list[Remembered]) -> None:
        """Remembers what was found of a set, instead of what was found of it before."""
        room = REMEMBERED_BYTES_MAX - sum(it.size for it in found)
        kept = [(name, found)]
        for other, its in reversed(self._found.items()):
            room -= 0 if other == name else sum(it.size for it in its)
            if other != name and room >= 0:
                kept.append((other, its))
        self._found = dict(reversed(kept))


def scanned(
    snapshot: Snapshot,
    now: datetime,
    pause: Pause = no_pause,
    declared: PolicySet | None = None,
    scans: Scans | None = None,
) -> Snapshot:
    """Returns a snapshot that denies whoever is not proved to be within a ceiling.

    What `scans` remember of the set is taken over where it is the same, and then replaced.

    Where its tables inherit, whoever is not proved to be within by what is `declared` alone is denied too: what narrows
    an audience by lineage gives nobody back what a ceiling takes.
    """
    if snapshot.directory is None:
        return snapshot
    not_proved: dict[tuple[str, str], frozenset[str]] = {}
    ways = [snapshot.policy_set]
    if declared is not None and declared is not snapshot.policy_set:
        ways.append(declared)
    name = snapshot.policy_set.name
    before = [] if scans is None else scans.of(name)
    found_now = []
    for place, policy_set in enumerate(ways):
        last = before[min(place, len(before) - 1)] if before else None
        audiences = Audiences(policy_set, snapshot.directory, Moment(now), pause, before=last)
        for one in exceeded(audiences):
            key = (one.dataset.id, one.action)
            found = frozenset(subject.id for subject in audiences.people.among(one.not_proved))
            not_proved[key] = not_proved.get(key, frozenset()) | found
        if scans is not None:
            found_now.append(audiences.remembered())
    if scans is not None:
        scans.keep(name, found_now)
    return msgspec.structs.replace(snapshot, not_proved=not_proved)


def scan_findings(snapshots: Iterable[Snapshot], now: datetime) -> tuple[Finding, ...]:
    """Returns a finding for each ceiling that is exceeded by what is live."""
    beyond = (snapshot for snapshot in snapshots if snapshot.not_proved)
    return tuple(found for snapshot in beyond for found in audience_findings(snapshot, now, Severity.WARNING))
