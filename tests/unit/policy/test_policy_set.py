"""A policy set is loaded as a whole, or refused with every finding."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatebook.policy.bundle import digest, read_folder
from gatebook.policy.policy_set import load

ROOT = Path(__file__).parents[3]
CLASSIC = sorted((ROOT / "tests/cases/casbin").iterdir())


@pytest.mark.parametrize("folder", CLASSIC, ids=lambda folder: folder.name)
def test_classic_casbin_model_loads_without_findings(folder: Path) -> None:
    """A plain Casbin model with its rules loads as it is, without a single finding."""
    files = read_folder(folder)

    policy_set = load(files, folder.name)

    assert ("plain", folder.name, digest(files), ()) == (
        policy_set.kind,
        policy_set.name,
        policy_set.digest,
        policy_set.warnings,
    )
