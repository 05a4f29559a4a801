"""A cache in two generations: bounded, and it keeps what is used."""

from __future__ import annotations

from gatebook.generations import Generations


def test_it_never_holds_more_than_it_may() -> None:
    """However many items come, at most the stated number is at hand."""
    cache: Generations[int, str] = Generations(10)
    sizes = set()
    for i in range(1_000):
        cache.put(i, str(i))
        sizes.add(len(cache))

    assert max(sizes) == 10


def test_what_is_used_stays() -> None:
    """An item that is asked for again and again is not forgotten, while all others are."""
    cache: Generations[int, str] = Generations(10)
    cache.put(-1, "used")
    for i in range(1_000):
        cache.put(i, str(i))
        assert cache.get(-1) == "used"

    assert cache.get(0) is None
