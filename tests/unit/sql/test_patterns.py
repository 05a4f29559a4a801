"""Patterns that all engines read alike."""

from __future__ import annotations

import pytest

from gatebook.sql.patterns import portable

ACCEPTED = {
    "[0-9]+": "[0-9]+",
    "[?].*": "[?][^\n]*",
    "[A-Za-z0-9._-]+@[A-Za-z0-9.-]+": "[A-Za-z0-9._-]+@[A-Za-z0-9.-]+",
    r"\d{3,}x": "[0-9]{3,}x",
    r"\w\.": r"[0-9A-Za-z_]\.",
    "[^@]+": "[^@]+",
    "AB 12": "AB 12",
}
REFUSED = [
    *("", "a*", "a?b*", "a|b", "(a)", "^a", "a$", r"\ba", r"\pL", "(?i)a", "a+?", "a++", "a**", "{1}"),
    *(
        "[z-a]+",
        "[a-Z]",
        "[a-b-c]",
        "[a&&b]",
        "[[:alpha:]]",
        "[]a]",
        "[a",
        "a{2,1}",
        "a{0}",
        "a{256}",
        "a\\",
        "é",
        "a\n",
    ),
]


@pytest.mark.parametrize("pattern", ACCEPTED)
def test_accepted(pattern: str) -> None:
    """A row of characters and classes, each perhaps repeated, is written as all engines read it."""
    assert ACCEPTED[pattern] == portable(pattern)


@pytest.mark.parametrize("pattern", REFUSED)
def test_refused(pattern: str) -> None:
    """Whatever else there is in regular expressions is refused, and so is what can match nothing."""
    assert portable(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "accepted"),
    [
        ("[a-z]+@[a-z]+", True),
        ("[?].*", True),
        ("a+b?[ab]", False),
        (".*x", False),
        ("[^a]+[b]", False),
        ("a{2}a", True),
    ],
)
def test_longest(pattern: str, accepted: bool) -> None:
    """Where an engine wants the longest match, no repeated part may take what one behind it wants."""
    assert accepted == (portable(pattern, longest=True) is not None)
