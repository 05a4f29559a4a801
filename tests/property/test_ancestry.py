"""What datasets descend from, against a walk from each of them; and lineages that are deep, wide or too many."""

from __future__ import annotations

import random

import pytest
from tests.property.whole_sets import files_of

from gatebook.governance import inheritance
from gatebook.governance.ancestry import Ancestry
from gatebook.governance.inheritance import effective
from gatebook.governance.lineage import Derivation, Lineage, Made, Name, Source
from gatebook.policy.policy_set import load

ROOM = 12
DECLARED = load(files_of("p, role:a, t.rows, read, *, True, allow\n"), accepted=True)


def made_of(output: str, column: str, source: str, source_column: str) -> Derivation:
    """Returns that one column was made of another."""
    return Derivation(Name("", output), (Made(column, "text", (Source(Name("", source), source_column),)),))


def above(parents: dict[str, set[str]], key: str) -> set[str]:
    """Returns what one descends from, and itself, step by step."""
    found = {key}
    while more := {parent for one in found for parent in parents.get(one, ())} - found:
        found |= more
    return found


@pytest.mark.parametrize("seed", range(40))
def test_ancestry_is_what_a_walk_from_each_dataset_finds(seed: int) -> None:
    """Declared and unknown ancestors are those that can be reached, also around circles and of many parts."""
    drawn = random.Random(seed)
    nodes = [f"n{place}" for place in range(drawn.randint(4, 14))]
    parents = {
        node: {drawn.choice(nodes) for _ in range(drawn.randint(0, 3))} - {node}
        for node in drawn.sample(nodes, drawn.randint(1, len(nodes)))
    }
    declared = set(drawn.sample(nodes, drawn.randint(0, 4)))
    ancestry = Ancestry(parents, declared, str.upper)
    for key in parents:
        reached = above(parents, key)
        unknown = sorted(node.upper() for node in reached if declared.isdisjoint(above(parents, node)))
        assert ancestry.declared_above(key) == tuple(sorted(reached & declared))
        assert ancestry.unknown_above(key) == next(iter(unknown), "")


def test_the_deepest_lineage_is_followed_to_its_end() -> None:
    """Thousands of steps, one after the other, are no more work than as many side by side: the last has the tag."""
    steps = [made_of("t.step0", "x", "t.rows", "level")]
    steps += [made_of(f"t.step{place}", "x", f"t.step{place - 1}", "x") for place in range(1, 5_000)]
    found = effective(DECLARED, Lineage(tuple(steps))).catalogue

    assert found is not None
    assert found.datasets["t.step4999"].columns["x"].tags == ("tag:~secret.key",)


def test_tables_without_number_do_not_free_a_declared_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a catalogue can hold no more, tables that are not declared do not come to be; declared ones inherit."""
    flood = [made_of(f"a.flood{place}", "x", "t.rows", "team") for place in range(20)]
    lineage = Lineage((*flood, made_of("t.sums", "team", "t.rows", "level")))
    monkeypatch.setattr(inheritance, "DATASETS_MAX", ROOM)
    found = effective(DECLARED, lineage).catalogue

    assert found is not None
    assert len(found.datasets) == ROOM
    assert found.datasets["t.sums"].columns["team"].tags == ("tag:~secret.key",)
    assert found.datasets["t.sums"].ceiling.roles == ()


@pytest.mark.parametrize("column", ["LEVEL", "Level", "\uff4cevel"])
@pytest.mark.parametrize("output", ["t.sums", "T.SUMS"])
def test_the_case_of_a_name_hides_no_descent(output: str, column: str) -> None:
    """A store that reports its names in capitals reports about the tables and columns that are declared."""
    found = effective(DECLARED, Lineage((made_of(output, column, "t.rows", "who"),))).catalogue
    assert found is not None
    assert found.datasets["t.sums"].ceiling.roles == ()

    through = (made_of("t.rows", column, "t.sums", "team"), made_of("t.copy", "x", "t.rows", column))
    found = effective(DECLARED, Lineage(through)).catalogue
    assert found is not None
    assert "tag:~secret.key" in found.datasets["t.copy"].columns["x"].tags

    tagged = made_of(output, column, "t.rows", "level")
    found = effective(DECLARED, Lineage((tagged,))).catalogue
    assert found is not None
    assert found.datasets["t.sums"].columns["level"].tags == ("tag:~secret.key",)


def test_the_case_of_a_source_frees_nothing() -> None:
    """What is made of a name that only another case of is declared has that one's tags, and stays sealed besides."""
    found = effective(DECLARED, Lineage((made_of("t.copy", "x", "T.ROWS", "level"),))).catalogue
    assert found is not None
    assert found.datasets["t.copy"].sealed_by == "T.ROWS"
    reported = (made_of("T.ROWS", "level", "t.sums", "team"), made_of("t.copy", "x", "T.ROWS", "level"))
    found = effective(DECLARED, Lineage(reported)).catalogue
    assert found is not None
    assert found.datasets["t.copy"].columns["x"].tags == ("tag:~secret.key",)
