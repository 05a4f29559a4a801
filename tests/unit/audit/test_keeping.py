"""Erasure and pruning of one book take turns."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from gatebook.audit.control_state import ControlState
from gatebook.audit.erasing import Order
from gatebook.audit.keeping import keeping_of
from gatebook.audit.pruning import PruneOrder, PrunePlan, Pruning
from gatebook.audit.retention_policy import RetentionPolicy
from gatebook.errors import BookUnavailableError, PersonNotFoundError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TWO: dict[str, Any] = {"requested_by": "dana", "approved_by": "kai", "reason": "T-1"}
PRUNE = PruneOrder(before=NOW, keep_days=0, policy=b"keep_days = 1", **TWO)
PLAN = PrunePlan(policy=RetentionPolicy(1), before=NOW, first_index=256, entries=256, held=False, carried=())


class Standing:
    """Stands for the book, its reader, its pen and the store; notes who comes when."""

    origin = "gatebook.test/book"
    stranger = None

    def __init__(self) -> None:
        """Begins with nobody."""
        self.noted: list[str] = []
        self.naming = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.forgotten = self

    def is_suppressed(self, _subject_id: str) -> bool:
        """Nobody objects."""
        return False

    def tag(self, _subject_id: str) -> bytes:
        """Returns a tag."""
        return b"tag"

    def find(self, _subject_id: str) -> tuple[()]:
        """Notes the first step of an erasure."""
        self.noted.append("erasure looks for the person")
        return ()

    async def concerning(self, _pseudonyms: object) -> int:
        """Finds nothing."""
        return 0

    async def people_with(self, ids: set[object]) -> dict[object, None]:
        """Waits while people are named."""
        self.naming.set()
        await self.may_go_on.wait()
        return dict.fromkeys(ids)

    async def record_control(self, *_arguments: object) -> None:
        """Notes the step, and ends there."""
        self.noted.append("pruning writes who is named")
        raise BookUnavailableError("far enough")


async def test_nobody_is_erased_between_naming_and_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is named by a pruning cannot be erased before its entry is written, which would be sealed for them."""
    standing = Standing()

    async def plan(_pruning: Pruning, _order: PruneOrder) -> PrunePlan:
        return PLAN

    monkeypatch.setattr(Pruning, "_plan", plan)
    monkeypatch.setattr(Pruning, "_state", lambda _pruning: ControlState())
    anything = cast("Any", standing)
    keeping = keeping_of(anything, anything, anything, anything)
    pruning = asyncio.create_task(keeping.pruning.prune(PRUNE, "custodian"))
    await standing.naming.wait()
    erasing = asyncio.create_task(keeping.erasing.erase(Order(subject_id="lee", **TWO), "custodian"))
    await asyncio.wait({erasing}, timeout=0.5)  # all the time that it needs, if nothing holds it
    standing.may_go_on.set()
    with pytest.raises(BookUnavailableError):
        await pruning
    with pytest.raises(PersonNotFoundError):
        await erasing

    assert standing.noted[0] == "pruning writes who is named"
