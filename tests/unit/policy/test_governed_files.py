"""What the readers of settings, purposes, catalogue and directory accept, and what they find."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gatebook.errors import DirectoryRefusedError
from gatebook.policy.catalogue import parse_catalogue
from gatebook.policy.directory import load_directory
from gatebook.policy.purposes import parse_purposes
from gatebook.policy.settings import parse_settings
from gatebook.values import Finding

CASES = Path(__file__).parents[2] / "cases" / "governed_files.yaml"
PURPOSES, _ = parse_purposes(
    "purposes: {training: {consent: none}, training.evaluation: {}, cost: {consent: none}}", ""
)


def _catalogue(text: str, file: str) -> Sequence[Finding]:
    return parse_catalogue(text, file, purposes=PURPOSES, actions=("read", "export"))[1]


def _directory(text: str, file: str) -> Sequence[Finding]:
    try:
        load_directory({file: text.encode()})
    except DirectoryRefusedError as refused:
        return refused.findings
    return ()


READERS: dict[str, Callable[[str, str], Sequence[Finding]]] = {
    "gatebook.yaml": lambda text, file: parse_settings(text, file)[1],
    "purposes.yaml": lambda text, file: parse_purposes(text, file)[1],
    "catalogue.yaml": _catalogue,
    "people.jsonl": _directory,
    "people.csv": _directory,
}


def _cases() -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in YAML(typ="safe", pure=True).load(CASES)]


@pytest.mark.parametrize("case", _cases())
def test_reader_finds_everything_at_once(case: dict[str, Any]) -> None:
    """A reader reports every finding of a file, sorted, with line, column and what to do."""
    found = READERS[case["file"]](case["text"], case["file"])

    actual = [f"{f.line}:{f.column} {f.invariant} {f.message}" for f in found]
    assert case["findings"] == actual
