"""A prefix loses no match: what does not begin with it, the pattern does not match."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gatebook.expression.functions import BUILTINS
from gatebook.expression.prefixes import PREFIXED, is_plain, prefix_of

TEXTS = st.text("/ab.*:{1}?|\n", max_size=8)
PATTERNS = st.text(r"/ab.*:{1}?|()[]^$\+,", max_size=10)


@pytest.mark.parametrize("function", sorted(PREFIXED))
@example(text="/a", pattern="/a/**")
@example(text="b", pattern="a|b")
@example(text="/", pattern="/a*")
@given(text=TEXTS, pattern=PATTERNS)
def test_only_texts_that_begin_so_can_match(function: str, text: str, pattern: str) -> None:
    """A plain text that does not begin with the prefix gives False, never True or UNKNOWN."""
    outcome = BUILTINS[function].call(text, pattern)

    refused = outcome is None and BUILTINS[function].call("/a", pattern) is None
    assert refused or outcome is False or text.startswith(prefix_of(function, pattern)) or not is_plain(function, text)
