"""Findings in order."""

from __future__ import annotations

from gatebook.values import Finding


def test_findings_sort_by_place() -> None:
    """File, line, column and what is said decide; findings that say the same stay beside each other."""
    first, second = Finding("a.csv", 2, 1, "RULE", "wrong"), Finding("a.csv", 10, 1, "RULE", "wrong")
    counted = Finding("a.csv", 2, 1, "RULE", "wrong", excess=3, ceiling=40)

    assert [first, first, counted, second] == sorted([second, first, first, counted])
