"""What reads texts of others never crashes, and never loads half of one."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz import coverage_guided
from tests.fuzz.readers import READERS
from tests.property.test_loader import PIECES

MUTATIONS = 120


@st.composite
def mutated(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """Draws a good text with a few places cut, copied, moved or written over."""
    text = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.sampled_from((0, 1, 1, 3, 12, 60))))
        piece = draw(
            PIECES.map(lambda piece: piece.encode(errors="surrogatepass"))
            | st.binary(max_size=4)
            | st.just(text[start:end] * 2)
        )
        text = text[:start] + piece + text[end:]
    return text


def test_every_reader_is_mutated_in_long_runs() -> None:
    """A long run has all of them read."""
    assert list(coverage_guided.READERS) == list(READERS)


@pytest.mark.parametrize("name", READERS)
def test_good_texts_are_read(name: str) -> None:
    """What stands in the shipped sets, the cases and the vectors is read or refused."""
    assert READERS[name].seeds
    for seed in READERS[name].seeds:
        READERS[name].check(seed)


@pytest.mark.parametrize("name", READERS)
def test_mutated_texts_are_read_whole_or_refused(name: str) -> None:
    """A text with a few mistakes is read whole or refused at a place."""

    @settings(max_examples=MUTATIONS, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(mutated(READERS[name].seeds))
    def check(text: bytes) -> None:
        READERS[name].check(text)

    check()
