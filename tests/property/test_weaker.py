"""That one condition implies another, against the values of both under every value of what is open."""

from __future__ import annotations

from itertools import product
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gatebook.expression.environment import Named
from gatebook.expression.junction import bare
from gatebook.expression.parse import parse
from gatebook.expression.tree import Expression
from gatebook.expression.truth import evaluate
from gatebook.governance.weaker import implies

ATOMS = (
    *("r.row.n > 1", "r.row.n >= 1", "r.row.n == 1", "1 < r.row.n", "r.row.n < 1", "r.row.n <= 2", "r.row.n in (1, 2)"),
    *("r.row.n == True", "r.row.n in (1, 'a')", "r.row.t == 'a'", "r.row.t in ('a', 'b')", "r.row.t in ('a',)"),
    *("r.row.t > 'a'", "r.row.t >= 'a'", "r.row.t != 'a'", "r.row.t == r.row.n", "r.row.b", "True", "False"),
)
VALUES: dict[str, tuple[Any, ...]] = {
    "n": (0, 1, 1.5, 2, 3, "a", True, None, ("a",)),
    "t": ("", "a", "ab", "b", 1, None, ("a",)),
    "b": (True, False, None),
}
ORDER = {False: 0, None: 1, True: 2}


def conditions() -> st.SearchStrategy[str]:
    """Draws conditions of few paths."""
    return st.recursive(
        st.sampled_from(ATOMS),
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda pair: f"({pair[0]} && {pair[1]})"),
            st.tuples(inner, inner).map(lambda pair: f"({pair[0]} || {pair[1]})"),
            inner.map(lambda text: f"!({text})"),
        ),
        max_leaves=4,
    )


def read(text: str) -> Expression:
    """Reads a condition without its places."""
    return bare(parse(text))


def truths(text: str) -> list[int]:
    """Returns how true a condition is under every value."""
    tree = parse(text)
    found = []
    for values in product(*VALUES.values()):
        row = dict(zip(VALUES, values, strict=True))
        truth = evaluate(tree, {"r": {"row": row, "sub": Named("ana", {})}}, {})
        found.append(ORDER[truth if isinstance(truth, bool) else None])
    return found


@settings(max_examples=300, deadline=None)
@given(conditions(), conditions(), st.sampled_from(("{0}", "({0} && {1})", "({0} || {1})", "!({1})")))
def test_what_is_implied_is_never_less_true(one: str, other: str, shape: str) -> None:
    """A condition that is implied is at least as true as the other, for every value, also where it is unknown."""
    other = shape.format(one, other)
    for first, second in ((one, other), (other, one)):
        if implies(read(first), read(second)):
            assert all(a <= b for a, b in zip(truths(first), truths(second), strict=True)), (first, second)


IMPLIED = (
    ("r.row.n > 1 && r.row.b", "r.row.b"),
    ("r.row.b", "r.row.b || r.row.n > 1"),
    ("r.row.b && r.row.n > 1", "r.row.n > 1 && r.row.b"),
    ("r.row.t == 'a'", "r.row.t in ('a', 'b')"),
    ("r.row.n > 2", "r.row.n >= 1"),
    ("r.row.n == 2", "1 < r.row.n"),
    ("!(r.row.b || r.row.n > 1)", "!(r.row.n > 1)"),
    ("False", "r.row.b"),
)


def test_what_is_plainly_weaker_is_implied() -> None:
    """A dropped conjunct, a further alternative, and wider constants are seen; the reverse never is."""
    assert all(implies(read(one), read(other)) for one, other in IMPLIED)
    reversed_ = [(one, other) for one, other in IMPLIED if one != "r.row.b && r.row.n > 1"]
    assert not any(implies(read(other), read(one)) for one, other in reversed_)
