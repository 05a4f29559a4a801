"""Findings as SARIF 2.1.0, which code hosts show on the lines of a change.

Owns the form of the log. Rules:

1. each invariant is a rule with its help, each finding and each failed policy test a result;
2. places are relative to the root of the repository, so that they are those of the change (SARIF 3.4.4);
3. a result is known again by what its line says, not by its number, so that it is not new when lines move (3.27.17);
4. the way by which somebody could be allowed is a code flow, and its steps are related locations.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from gatebook import __version__
from gatebook.policy.bundle import DIRECTORY_FOLDER
from gatebook.policy.invariants import HELP, TEST_FAILED
from gatebook.values import Counterexample, Finding, PathStep, Severity, TestFailure

SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
ROOT: Final = "%SRCROOT%"
FINGERPRINT: Final = "primaryLocationLineHash"
"""The name by which code hosts know results again."""
ROOTS_MAX = 64
_NUMBER = re.compile(r"\d+")

Json = dict[str, Any]


class _Places:
    """Knows where files of a policy set lie in their repository, and what their lines say."""

    def __init__(self, folder: Path) -> None:
        """Takes the folder of the set."""
        self._folder = folder.resolve()
        self._root = repository_of(self._folder)
        self._lines: dict[str, Sequence[str]] = {}

    def of(self, file: str, line: int, column: int = 0) -> Json | None:
        """Returns the physical location of a line; None of what is no file here."""
        path = self._path(file)
        if path is None:
            return None
        region = {"startLine": max(line, 1), **({"startColumn": column} if line and column else {})}
        return {"artifactLocation": {"uri": self.uri(path), "uriBaseId": ROOT}, "region": region}

    def uri(self, path: Path) -> str:
        """Returns the place of a file from the root of its repository."""
        return quote(path.relative_to(self._root).as_posix())

    def text(self, file: str, line: int) -> str:
        """Returns what a line says; nothing where there is none."""
        if file not in self._lines:
            path = self._path(file)
            is_there = path is not None and path.is_file()
            self._lines[file] = path.read_text(errors="replace").split("\n") if path is not None and is_there else ()
        lines = self._lines[file]
        return lines[line - 1].strip() if 0 < line <= len(lines) else ""

    def _path(self, file: str) -> Path | None:
        if not file:
            return None
        beside = self._folder / DIRECTORY_FOLDER / file
        within = self._folder / file
        return beside if not within.exists() and beside.exists() else within


def repository_of(folder: Path) -> Path:
    """Returns the root of the repository that holds a folder; the folder itself where there is none."""
    for parent in (folder, *folder.parents)[:ROOTS_MAX]:
        if (parent / ".git").exists():
            return parent
    return folder


def sarif_log(findings: Sequence[Finding], failures: Sequence[TestFailure], folder: Path, docs_url: str = "") -> Json:
    """Returns findings, and expectations that do not hold, as a SARIF log.

    Args:
        findings: What is wrong with the set.
        failures: The expectations that do not hold.
        folder: The folder of the set.
        docs_url: Where the pages of Gatebook can be read, so that rules lead there.
    """
    places = _Places(folder)
    results = [*(_of_finding(it, places) for it in findings), *(_of_failure(it, places) for it in failures)]
    _number(results)
    used = sorted({result["ruleId"] for result in results})
    for result in results:
        result["ruleIndex"] = used.index(result["ruleId"])
    driver = {
        "name": "gatebook",
        "version": __version__,
        "semanticVersion": __version__,
        "rules": [_rule(name, docs_url) for name in used],
    }
    base = {"description": {"text": "the root of the repository"}}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {ROOT: base},
        "results": results,
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def as_text(log: Json) -> str:
    """Returns a log as it is written."""
    return json.dumps(log, indent=2, ensure_ascii=False) + "\n"


def _rule(name: str, docs_url: str) -> Json:
    told = HELP.get(name, "See the message.")
    link = f"{docs_url.rstrip('/')}/findings.md#{name.lower()}" if docs_url else ""
    made: Json = {
        "id": name,
        "name": "".join(word.capitalize() for word in name.split("_")),
        "shortDescription": {"text": told},
        "help": {"text": told, "markdown": f"{told}\n\n[`{name}`]({link})" if link else told},
    }
    return {**made, "helpUri": link} if link else made


def _of_finding(finding: Finding, places: _Places) -> Json:
    example = finding.counterexample
    level = "error" if finding.severity is Severity.ERROR else "warning"
    place = places.of(finding.file, finding.line, finding.column)
    made: Json = {
        "ruleId": finding.invariant,
        "level": level,
        "message": {"text": finding.message},
        "locations": [{"physicalLocation": place}] if place else [],
        "partialFingerprints": _fingerprint(finding, places),
    }
    if example is not None and example.path:
        steps = [_step(step, places) for step in example.path]
        flow = {"message": {"text": _told(example)}, "threadFlows": [{"locations": [{"location": it} for it in steps]}]}
        made["codeFlows"] = [flow]
        made["relatedLocations"] = [{"id": at, **step} for at, step in enumerate(steps, 1)]
    return made


def _of_failure(failure: TestFailure, places: _Places) -> Json:
    message = f"{failure.test}: {failure.question}: expected {failure.expected}, got {failure.actual}"
    return _of_finding(Finding(failure.file, failure.line, 0, TEST_FAILED, message), places)


def _told(example: Counterexample) -> str:
    told = f"the way by which `{example.subject}` could be allowed"
    return told if example.confirmed else f"{told}; not confirmed: {example.why_not}"


def _step(step: PathStep, places: _Places) -> Json:
    place = places.of(step.file, step.line)
    return {"message": {"text": step.text}, **({"physicalLocation": place} if place else {})}


def _fingerprint(finding: Finding, places: _Places) -> Json:
    said = (finding.file, finding.invariant, places.text(finding.file, finding.line), finding.dataset, finding.action)
    # Without a line, the message tells one from another; its numbers may be those of other lines.
    message = "" if said[2] and finding.invariant != TEST_FAILED else _NUMBER.sub("", finding.message)
    return {FINGERPRINT: sha256("\n".join((*said, message)).encode()).hexdigest()[:32]}


def _number(results: Sequence[Json]) -> None:
    """Tells results of one fingerprint apart by their order."""
    seen: Counter[str] = Counter()
    for result in results:
        fingerprint = result["partialFingerprints"][FINGERPRINT]
        seen[fingerprint] += 1
        result["partialFingerprints"][FINGERPRINT] = f"{fingerprint}:{seen[fingerprint]}"
