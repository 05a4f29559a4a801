"""What Casbin misreads is refused, at the place where it stands.

Each folder of `tests/vectors/policy` is one hazard: a model, rules, and in `expected.yaml` the findings
and, where Casbin answers otherwise than the files look, a request that shows it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gatebook.errors import PolicySetRefusedError
from gatebook.policy.oracle import Oracle
from gatebook.policy.policy_set import load
from gatebook.values import Severity

VECTORS = sorted(path for path in (Path(__file__).parents[2] / "vectors/policy").iterdir() if path.is_dir())


def expected_of(folder: Path) -> dict[str, Any]:
    """Returns what a vector promises."""
    expected: dict[str, Any] = YAML(typ="safe").load((folder / "expected.yaml").read_text())
    return expected


def files_of(folder: Path) -> dict[str, bytes]:
    """Returns the policy files of a vector."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "expected.yaml"}


def casbin_answer(files: dict[str, bytes], request: list[Any]) -> str:
    """Returns what pycasbin makes of the files: allow, deny or error."""
    try:
        return "allow" if Oracle(files).enforce(*request) else "deny"
    except Exception:  # noqa: BLE001  # pycasbin raises whatever its parts raise
        return "error"


@pytest.mark.parametrize("folder", VECTORS, ids=lambda folder: folder.name)
def test_hazard_is_refused(folder: Path) -> None:
    """Each hazard is refused with exactly the findings that its vector names."""
    with pytest.raises(PolicySetRefusedError) as refused:
        load(files_of(folder))

    errors = [found for found in refused.value.findings if found.severity is Severity.ERROR]
    found = [f"{it.file}:{it.line}:{it.column} {it.invariant}" for it in errors]
    assert sorted(expected_of(folder)["findings"]) == sorted(found), "\n".join(map(str, errors))


@pytest.mark.parametrize(
    "folder", [folder for folder in VECTORS if "casbin" in expected_of(folder)], ids=lambda folder: folder.name
)
@pytest.mark.filterwarnings("ignore:Possible nested set:FutureWarning")
def test_casbin_misreads_the_hazard(folder: Path) -> None:
    """The vector is a real hazard: pycasbin answers as it says, which is not what the files look like."""
    shown = expected_of(folder)["casbin"]

    assert shown["answers"] == casbin_answer(files_of(folder), shown["request"])
    assert shown["looks_like"] != shown["answers"]
