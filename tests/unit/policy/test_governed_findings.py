"""What is wrong across the files of a governed set is found, at its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gatebook.errors import PolicySetRefusedError
from gatebook.policy.bundle import read_folder
from gatebook.policy.policy_set import load
from gatebook.values import Finding, Severity

ROOT = Path(__file__).parents[3]
BASE = read_folder(ROOT / "tests/cases/governed")
CASES: list[dict[str, Any]] = YAML(typ="safe").load((ROOT / "tests/cases/governed_findings.yaml").read_text())


def changed(case: dict[str, Any]) -> dict[str, bytes]:
    """Returns the base set with the change of a case; without `by` the file is left out."""
    files = dict(BASE)
    if "by" not in case:
        del files[case["file"]]
        return files
    before = files.get(case["file"], b"").decode()
    assert case["replace"] in before
    files[case["file"]] = before.replace(case["replace"], case["by"], 1).encode()
    return files


def findings_of(files: dict[str, bytes]) -> tuple[Finding, ...]:
    """Returns all findings about a set, whether it loads or not."""
    try:
        return load(files).warnings
    except PolicySetRefusedError as refused:
        return refused.findings


def written(finding: Finding) -> str:
    """Returns a finding as the cases write it."""
    text = f"{finding.file}:{finding.line}:{finding.column} {finding.invariant}"
    return text if finding.severity is Severity.ERROR else f"({text})"


def test_base_is_clean() -> None:
    """The set that the cases change has no findings."""
    policy_set = load(BASE)

    assert ("clinic", "governed", ()) == (policy_set.name, policy_set.kind, policy_set.warnings)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_finding_is_made(case: dict[str, Any]) -> None:
    """Each change of the set is found, and nothing else is."""
    found = findings_of(changed(case))

    assert sorted(case["findings"]) == sorted(map(written, found)), "\n".join(map(str, found))
