"""Faults that one could make in the analysis of audiences: the comparison with brute force finds each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.property.test_audience import compare

from gatebook.governance.audience import Audiences
from gatebook.governance.conditions import Conditions
from gatebook.governance.judge import Judge, Judged, Left, Level
from gatebook.governance.people import People
from gatebook.policy.dataset import Dataset

PEOPLE = b"".join(
    msgspec.json.encode({"type": "user", "id": name, "attributes": {"level": level, "team": "x"}, "groups": [role]})
    + b"\n"
    for name, level, role in (("ana", 1, "role:a"), ("ben", 3, "role:a"), ("chidi", 2, "role:b"))
)
Patch = Callable[[pytest.MonkeyPatch], None]


def denies_overlooked(patch: pytest.MonkeyPatch) -> None:
    """Nothing denies."""
    patch.setattr(Audiences, "denies", lambda _self, _cell: ())


def denies_always_hold(patch: pytest.MonkeyPatch) -> None:
    """A deny of some rows takes away whoever it may concern."""
    apply = Audiences.applied

    def applied(self: Audiences, rule: Any) -> Any:  # noqa: ANN401  # a value that is private there
        found = apply(self, rule)
        return msgspec.structs.replace(found, unsure=0) if rule.fields[-1] == "deny" else found

    patch.setattr(Audiences, "applied", applied)


def circumstances_known(patch: pytest.MonkeyPatch) -> None:
    """What a caller may state is taken for missing."""
    begin = Conditions.__init__

    def begun(self: Conditions, *arguments: Any) -> None:  # noqa: ANN401  # whatever it takes
        begin(self, *arguments)
        self._believed = frozenset()

    patch.setattr(Conditions, "__init__", begun)


def own_rows_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Who is allowed own rows alone is taken for nobody."""
    judge = Judge.judge

    def judged(self: Judge, left: Left, dataset: Dataset) -> Judged:
        found = judge(self, left, dataset)
        return Judged(Level.NOBODY) if found.level is Level.OWN else found

    patch.setattr(Judge, "judge", judged)


def links_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Only the directory gives roles."""
    patch.setattr(People, "holders", People.given)


FAULTS: dict[str, tuple[Patch, str]] = {
    "denies overlooked": (
        denies_overlooked,
        "p, role:a, t.rows, read, *, True, allow\np, role:a, t.rows, read, *, True, deny\n",
    ),
    "denies always hold": (
        denies_always_hold,
        "p, role:a, t.rows.team, read, *, True, allow\np, role:a, t.rows, read, *, r.row.team == 'x', deny\n",
    ),
    "circumstances known": (circumstances_known, "p, role:a, t.rows.who, read, *, r.ctx.net == 'corp', allow\n"),
    "own rows forgotten": (own_rows_forgotten, "p, role:a, t.rows.who, read, *, r.row.who == r.sub.id, allow\n"),
    "links forgotten": (links_forgotten, "g, role:b, role:a\np, role:a, t.rows.who, read, *, True, allow\n"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is right passes the comparison, and does not with the fault."""
    patch, policy = FAULTS[fault]
    compare(policy, PEOPLE)
    patch(monkeypatch)

    with pytest.raises(AssertionError):
        compare(policy, PEOPLE)
