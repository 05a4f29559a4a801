"""Decisions that stand: of the same question, as long as the clock changes nothing.

Owns what the clock can change. Where the rules do not ask for the time, a decision depends on it through the notice
of its dataset alone, which begins and ends; and its own times are those of the moment. So between these two times of
a notice the decision of one question under one snapshot is the same, but for `decide_time` and `expires_time`. Where
the rules ask, no decision stands.
"""

from __future__ import annotations

from datetime import datetime

from gatebook.engine.decision import expiry
from gatebook.engine.snapshot import Snapshot
from gatebook.policy.dataset import ALWAYS
from gatebook.values import AccessRequest, Decision


class Standing:
    """The decision of one question of one caller under one snapshot, once there is one.

    Its owner is the memo of the snapshot (`Recall`); it changes on the event loop only.
    """

    __slots__ = ("_end_time", "_made", "_since", "_until")

    def __init__(self) -> None:
        """Begins without a decision."""
        self._made: Decision | None = None

    @property
    def made(self) -> Decision | None:
        """Returns the decision as it was made, which those that `at` returns repeat; None before there is one."""
        return self._made

    def at(self, now: datetime) -> Decision | None:
        """Returns the decision at this time, or None where it has to be made."""
        made = self._made
        if made is None or not self._since <= now < self._until:
            return None
        return Decision(
            made.outcome,
            now,
            expiry(now, self._end_time) if made.expires_time is not None else None,
            made.vocabulary_known,
            made.data_subjects,
            made.row_given,
        )

    def keep(self, snapshot: Snapshot, request: AccessRequest, decision: Decision) -> None:
        """Takes a decision, for as long as it stands."""
        if snapshot.program.timed:
            return
        catalogue = snapshot.policy_set.catalogue
        dataset = None if catalogue is None else catalogue.datasets.get(request.resource)
        self._made, (self._since, self._until), self._end_time = decision, ALWAYS, None
        if catalogue is not None and dataset is not None:
            notice = catalogue.notice_of(dataset)
            self._end_time = notice.end_time
            self._since, self._until = notice.period(decision.decide_time)
