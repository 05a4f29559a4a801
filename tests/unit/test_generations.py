"""A cache in two generations: bounded, and it keeps what is used."""

from __future__ import annotations

from gatebook.generations import ByIdentity, Generations


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


class Thing:
    """Something of which something is made."""


def test_what_was_made_of_an_object_goes_with_it() -> None:
    """However many objects come and go, only of those that somebody keeps something is held."""
    cache: ByIdentity[Thing, int] = ByIdentity(1_000_000)
    kept = [Thing() for _ in range(10)]
    for number, thing in enumerate(kept):
        cache.put(thing, number, 1)
    for _ in range(1_000):
        cache.put(Thing(), -1, 1)

    assert len(cache) == len(kept)
    assert [cache.get(thing) for thing in kept] == list(range(10))


def test_no_object_gets_what_was_made_of_another() -> None:
    """An object that takes the place of one that is gone, and so its id, is unknown."""
    cache: ByIdentity[Thing, int] = ByIdentity(1_000)
    ids = set()
    again = 0
    for number in range(1_000):
        thing = Thing()
        again += id(thing) in ids
        ids.add(id(thing))
        assert cache.get(thing) is None
        cache.put(thing, number, 1)
        assert cache.get(thing) == number
        del thing

    assert again


def test_an_item_that_was_dropped_leaves_its_room() -> None:
    """What is dropped counts no more, so that others stay."""
    cache: Generations[int, str] = Generations(10)
    for number in range(1_000):
        cache.put(number, "short-lived")
        cache.drop(number)
    cache.put(-1, "kept")
    cache.put(-2, "kept")

    assert (cache.get(-1), cache.get(-2), len(cache)) == ("kept", "kept", 2)
