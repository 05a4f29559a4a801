"""Tallies: they count what a histogram of Prometheus counts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from gatebook.tally import BYTES, COUNTS, SECONDS, Distribution

BOUNDS = st.sampled_from([SECONDS, COUNTS, BYTES])


@given(st.data(), BOUNDS)
def test_a_distribution_counts_as_prometheus_does(data: st.DataObject, bounds: tuple[float, ...]) -> None:
    """Whatever is observed, bounds included, each bucket holds what the client of Prometheus counts in it."""
    anything = st.floats(min_value=0, max_value=2 * bounds[-1]) | st.sampled_from(bounds)
    values = data.draw(st.lists(anything, max_size=30))
    theirs = Histogram("observed", "as its own client counts", buckets=bounds, registry=CollectorRegistry())
    ours = Distribution(bounds)
    for value in values:
        theirs.observe(value)
        ours.observe(value)
    samples = [sample for family in theirs.collect() for sample in family.samples]
    assert [sample.value for sample in samples if sample.name == "observed_bucket"] == ours.cumulative()
    assert [sample.value for sample in samples if sample.name == "observed_sum"] == [ours.total]
