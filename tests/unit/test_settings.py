"""Settings of the environment."""

from __future__ import annotations

import pytest

from gatebook.config import setting


@pytest.mark.parametrize(
    ("environ", "expected"), [({}, "x"), ({"GATEBOOK_TARGET": ""}, "x"), ({"GATEBOOK_TARGET": "y"}, "y")]
)
def test_a_setting_that_is_empty_counts_as_unset(environ: dict[str, str], expected: str) -> None:
    """An empty variable, as scripts and manifests leave behind, means the default."""
    assert setting("target", "x", environ) == expected
