"""How rarely the collector of rings looks at what is old, while a server serves."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from gatebook.server import OLD_COLLECTIONS, collect_rarely


@pytest.fixture
def collector() -> Iterator[None]:
    """Gives the collector back as it was."""
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


class Ring:
    """Refers to itself."""

    def __init__(self) -> None:
        """Closes the ring."""
        self.me = self


@pytest.mark.usefixtures("collector")
def test_what_was_there_is_left_alone_and_what_comes_is_not() -> None:
    """What is there at the start is not looked at any more; young rings go as ever, and old ones later."""
    kept = [Ring() for _ in range(100)]
    young, middle, _ = gc.get_threshold()
    collect_rarely()

    assert gc.get_freeze_count() >= len(kept)
    assert (young, middle, OLD_COLLECTIONS) == gc.get_threshold()
    looked_at = {id(found) for found in gc.get_objects()}
    assert not any(id(ring) in looked_at for ring in kept)
    for _ in range(100):
        Ring()
    gc.collect()
    assert not [found for found in gc.get_objects() if isinstance(found, Ring)]
