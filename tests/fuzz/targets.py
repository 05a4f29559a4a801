"""What a long run asks, over and over, with other seeds.

Owns the list of targets: claims of `tests/property`, of which a seed draws the examples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from tests import planned
from tests.property import test_casbin_models as models
from tests.property import test_engine_governed as governed
from tests.property import test_plans as plans
from tests.property.casbin_models import cases

REQUESTS_MAX = 250
"""How many requests one model is asked."""
ROWS = 10
"""How many rows a plan chooses from, each of which is checked."""


class Target(msgspec.Struct, frozen=True):
    """A claim about drawn values: `check` raises an `AssertionError` where it does not hold.

    `check` counts the requests that it asks, or asks `requests` of them each time. `examples` are drawn in one round.
    """

    check: Callable[..., Counter[str] | None]
    strategies: tuple[st.SearchStrategy[Any], ...]
    examples: int
    requests: int = 0

    def run(self, number: int, examples: int = 0) -> Counter[str]:
        """Draws the examples of a seed; returns what was met.

        Raises:
            AssertionError: the claim does not hold; of the example that is as small as can be.
        """
        counts: Counter[str] = Counter()

        def check(values: tuple[Any, ...]) -> None:
            counts.update(self.check(*values) or Counter(requests=self.requests, examples=1))

        chosen = settings(
            max_examples=examples or self.examples,
            database=None,
            deadline=None,
            derandomize=False,
            phases=(Phase.generate, Phase.shrink),
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )
        seed(number)(chosen(given(st.tuples(*self.strategies))(check)))()
        return counts


def _claim(test: Callable[..., None]) -> Callable[..., None]:
    """Returns what a property test checks of values that were drawn for it."""
    return test.hypothesis.inner_test  # type: ignore[attr-defined,no-any-return]  # Hypothesis adds it


_GOVERNED = partial(Target, examples=20, requests=len(governed.questions({}, {}, None)))
TARGETS: Mapping[str, Target] = {
    "plain": Target(partial(models.compare, requests_max=REQUESTS_MAX), (cases(),), examples=60),
    "plain, strange values": Target(models.compare_strange, (cases(), st.data()), examples=60),
    "plain, untidy files": Target(models.compare_untidy, (cases(), st.data()), examples=60),
    "governed": _GOVERNED(_claim(governed.test_compiled_equals_reference_equals_casbin), governed.COMPLETE),
    "governed, strange values": _GOVERNED(_claim(governed.test_strange_values_never_part_them), governed.STRANGE),
    "governed, unknown rows": _GOVERNED(_claim(governed.test_an_unknown_row_only_narrows), governed.ROWS),
    "governed, nulls": _GOVERNED(_claim(governed.test_nulls_never_open), governed.NULLS),
    "plans": Target(
        _claim(plans.test_rows_and_values_are_those_of_checks),
        (
            planned.policies(),
            st.lists(planned.rows, min_size=ROWS, max_size=ROWS),
            st.lists(st.sampled_from(planned.SHOWN), min_size=1, max_size=5, unique=True),
            st.booleans(),
        ),
        examples=20,
        requests=ROWS,
    ),
}
TURNS = (*["plain"] * 6, *TARGETS)
"""Which targets take turns: most of the time goes to where all three are compared."""
