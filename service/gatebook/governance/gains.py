"""Who gains by a draft, as changes that loosen: everybody who could be allowed more, or shown more, than before.

Owns the words. What they rest on is the impact (`impact`), which counts what is not decided as a gain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime

from gatebook.governance.change import Change, Direction
from gatebook.governance.gained import grant_of
from gatebook.governance.impact import Impact, impact_of
from gatebook.governance.people import NOBODY, Bits, first_of
from gatebook.policy.bundle import CATALOGUE_FILE
from gatebook.policy.directory import Directory
from gatebook.policy.policy_set import PolicySet


def gains(base: PolicySet, draft: PolicySet, directory: Directory, now: datetime) -> Iterator[Change]:
    """Yields a change for each dataset and action on which somebody gains."""
    impact = impact_of(base, draft, directory, now)
    found: dict[tuple[str, str], Bits] = {}
    for change in impact.gains:
        key = (change.dataset, change.action)
        found[key] = found.get(key, NOBODY) | change.subjects
    for (dataset, action), bits in found.items():
        yield _change(impact, dataset, action, bits)


def _change(impact: Impact, dataset: str, action: str, bits: Bits) -> Change:
    people = impact.after.people
    subjects = [subject.id for subject in people.among(bits)]
    digest = hashlib.sha256("\n".join(subjects).encode()).hexdigest()
    count = len(subjects)
    message = f"{count:,} {'subject gains' if count == 1 else 'subjects gain'} by `{action}` of `{dataset}`"
    catalogue = impact.after.policy_set.catalogue
    known = None if catalogue is None else catalogue.datasets.get(dataset)
    file, line = CATALOGUE_FILE, 0 if known is None else known.line
    one = next(it for it in impact.gains if (it.dataset, it.action) == (dataset, action))
    subject = people.subjects[first_of(one.subjects)]
    grant = grant_of(impact, one, subject)
    if grant is not None:
        file, line = grant.rule.file, grant.rule.line
        message += f": for one `{subject.id}`, by {grant.rule.text}"
    return Change(file, line, "SOMEBODY_GAINS", message, Direction.LOOSENS, dataset, dataset, subjects=digest)
