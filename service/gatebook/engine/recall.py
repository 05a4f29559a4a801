"""Remembers what follows from the same verdicts: obligations, and outcomes of decisions.

Owns two memos of one snapshot. Both are of pure functions of immutable values: what the verdicts, the
enforcer and the dataset are, the obligations and the outcome are too, whoever asks and whenever. Verdicts are
told apart by which object they are, so that they are cheap to look up; `compiler.remembered` gives the same
object for the same verdicts. What is remembered is bounded in columns and rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gatebook.engine.obligations import Obliged, oblige
from gatebook.engine.verdict import ColumnVerdict
from gatebook.generations import Generations
from gatebook.policy.dataset import Dataset
from gatebook.values import Enforcer, Outcome

COLUMNS_MAX = 65_536
"""Columns, and rules, of all that one snapshot remembers."""


class Recall:
    """The memos of one snapshot."""

    def __init__(self) -> None:
        """Begins empty."""
        self.mark = object()
        """Stands for the snapshot where something is remembered of it by whoever must not keep it."""
        # INVARIANT: whatever stands in a key by its id is held in the item, so that the id is nobody else's.
        self._obliged: Generations[tuple[object, ...], tuple[Any, Obliged]] = Generations(COLUMNS_MAX)
        self._outcomes: Generations[tuple[object, ...], tuple[Any, Outcome]] = Generations(COLUMNS_MAX)

    def oblige(
        self,
        dataset: Dataset,
        verdicts: Sequence[ColumnVerdict],
        enforcer: Enforcer,
        *,
        key_id: str,
        mask_tags: frozenset[str],
        allow_partial: bool,
    ) -> Obliged:
        """Returns what `obligations.oblige` returns."""
        key = (id(dataset), id(verdicts), enforcer, key_id, mask_tags, allow_partial)
        held = self._obliged.get(key)
        if held is not None:
            return held[1]
        obliged = oblige(dataset, verdicts, enforcer, key_id=key_id, mask_tags=mask_tags, allow_partial=allow_partial)
        self._obliged.put(key, ((dataset, verdicts), obliged), 1 + len(verdicts) + len(obliged.rules))
        return obliged

    def outcome(self, texts: tuple[object, ...], objects: tuple[object, ...], make: Callable[[], Outcome]) -> Outcome:
        """Returns the outcome that follows from these texts and objects under the snapshot, and from nothing else."""
        key = (texts, *map(id, objects))
        held = self._outcomes.get(key)
        if held is not None:
            return held[1]
        outcome = make()
        self._outcomes.put(key, (objects, outcome), 1 + len(outcome.columns) + len(outcome.rules))
        return outcome
