"""Findings as SARIF: valid by the schema of its authors, on the lines of the change, known again when lines move."""

from __future__ import annotations

import ast
import json
import re
import shutil
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML
from tests.schema_store import schema_titled, schema_with

from gatebook.cli import main
from gatebook.policy.invariants import HELP

ROOT = Path(__file__).parents[2]
SCHEMA = schema_titled("Static Analysis Results Format (SARIF) Version 2.1.0 JSON Schema")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with the clinic's policy set in `access/clinic`, to which everybody was let."""
    (tmp_path / ".git").mkdir()
    folder = tmp_path / "access" / "clinic"
    shutil.copytree(ROOT / "policies/clinic", folder)
    return tmp_path


def sarif(folder: Path, command: str = "test", *options: str) -> tuple[dict[str, Any], int]:
    """Returns the log of a command, which is valid, and its exit code."""
    ended = CliRunner().invoke(main, ["policy", command, str(folder), "--format", "sarif", *options])
    log: dict[str, Any] = json.loads(ended.stdout)
    jsonschema.validate(log, SCHEMA)
    return log, ended.exit_code


def results(log: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the results of a log."""
    found: list[dict[str, Any]] = log["runs"][0]["results"]
    return found


def test_a_set_without_findings_has_an_empty_log(repository: Path) -> None:
    """A run that finds nothing says so: a code host closes what it showed before."""
    log, code = sarif(repository / "access/clinic")

    assert ([], 0) == (results(log), code)


def test_a_finding_stands_on_the_line_of_the_change(repository: Path) -> None:
    """A place is from the root of the repository, with line and column, and says which rule was broken and why."""
    rules = repository / "access/clinic/policy.csv"
    rules.write_text(rules.read_text() + "p, role:nobody, clinic.visits, read, treatment, True, allow\n")

    log, code = sarif(repository / "access/clinic", "lint", "--docs-url", "https://docs.example/gatebook/")

    [result] = results(log)
    place = result["locations"][0]["physicalLocation"]
    [rule] = log["runs"][0]["tool"]["driver"]["rules"]
    assert code == 1
    assert place["artifactLocation"] == {"uri": "access/clinic/policy.csv", "uriBaseId": "%SRCROOT%"}
    assert place["region"] == {"startLine": rules.read_text().count("\n"), "startColumn": 4}
    assert (rule["id"], rule["helpUri"]) == (
        result["ruleId"],
        f"https://docs.example/gatebook/findings.md#{result['ruleId'].lower()}",
    )
    assert HELP[result["ruleId"]] == rule["help"]["text"]


def test_the_way_of_a_counterexample_can_be_walked(repository: Path) -> None:
    """Beyond a ceiling, the log names the person's links and the rule, each in its file and line."""
    catalogue = repository / "access/clinic/catalogue.yaml"
    catalogue.write_text(catalogue.read_text().replace("people_max: 6", "people_max: 0", 1))

    log, code = sarif(repository / "access/clinic")

    shown = [result for result in results(log) if "codeFlows" in result]
    assert code == 1
    assert shown
    for result in shown:
        steps = [it["location"] for it in result["codeFlows"][0]["threadFlows"][0]["locations"]]
        files = [it["physicalLocation"]["artifactLocation"]["uri"] for it in steps if "physicalLocation" in it]
        assert files[-1] == "access/clinic/policy.csv"
        assert all((repository / file).is_file() for file in files), files
        assert len(steps) == len(files) == len(result["relatedLocations"])


def test_a_failed_expectation_is_a_result(repository: Path) -> None:
    """A policy test that fails stands on its line, with what was asked, expected and answered."""
    shutil.copytree(ROOT / "policies/basic", repository / "basic")
    for tests in (repository / "basic/tests").glob("*.yaml"):
        tests.write_text(tests.read_text().replace(": ALLOW", ": DENY"))

    log, code = sarif(repository / "basic")

    failed = [result for result in results(log) if result["ruleId"] == "POLICY_TEST_FAILED"]
    assert code == 1
    assert failed
    assert all("expected DENY, got ALLOW" in result["message"]["text"] for result in failed)


def test_results_are_known_again_when_lines_move(repository: Path) -> None:
    """Lines before a finding do not make it another; two equal lines are two results."""
    rules = repository / "access/clinic/policy.csv"
    text = rules.read_text() + "p, role:nobody, clinic.visits, read, treatment, True, allow\n" * 2
    rules.write_text(text)
    before, _ = sarif(repository / "access/clinic", "lint")
    rules.write_text("# moved\n\n" + text)
    after, _ = sarif(repository / "access/clinic", "lint")

    fingerprints = [[json.dumps(it["partialFingerprints"]) for it in results(log)] for log in (before, after)]
    assert fingerprints[0] == fingerprints[1]
    assert len(set(fingerprints[0])) == len(fingerprints[0]) > 1


def test_a_log_goes_into_a_file_beside_the_text(repository: Path) -> None:
    """With --out people read the text, and the file is for the code host."""
    out = repository / "findings.sarif"
    arguments = ["policy", "lint", str(repository / "access/clinic"), "--format", "sarif", "--out", str(out)]

    ended = CliRunner().invoke(main, arguments)

    assert ended.exit_code == 0
    assert "0 errors" in ended.stdout
    jsonschema.validate(json.loads(out.read_text()), SCHEMA)


KINDS_OF_CHANGE = (
    "rule_changes.py",
    "catalogue_changes.py",
    "loosening.py",
    "gains.py",
    "zones.py",
    "reclassification.py",
)
"""Name what a draft changes, in the same letters; docs/gate.md speaks of these."""
NO_FINDINGS = frozenset(("POLICY_SET_REFUSED", "SCHED_IDLE", "SC_CLK_TCK", "COLUMN_TYPES", "NOT_UNDERSTOOD"))


def test_every_invariant_has_its_help() -> None:
    """Whatever a finding can be called has a sentence in the page and in SARIF."""
    names = set()
    for package in ("policy", "governance", "revisions"):
        for path in sorted((ROOT / "service/gatebook" / package).glob("*.py")):
            for node in () if path.name in KINDS_OF_CHANGE else ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    names |= {
                        it.value for it in node.args if isinstance(it, ast.Constant) and isinstance(it.value, str)
                    }
                if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant):
                    names |= {node.value.value} if isinstance(node.value.value, str) else set()
    named = {name for name in names if re.fullmatch(r"[A-Z]{2,}[0-9]*(_[A-Z0-9]+)+", name)} - NO_FINDINGS

    assert not named - HELP.keys()


def test_the_page_of_findings_has_each_of_them() -> None:
    """docs/findings.md is what the rules of a log say, and its anchors are those that they lead to."""
    rows = re.findall(
        r'^\| <a id="(\w+)"></a>`(\w+)` \| (.*) \|$', (ROOT / "docs/findings.md").read_text(), re.MULTILINE
    )

    assert [(name.lower(), name, told) for name, told in sorted(HELP.items())] == rows


def test_the_workflow_is_one() -> None:
    """docs/deploy/ci/policies.yml is a workflow by the schema of its host, and each command of it is one of ours."""
    text = (ROOT / "docs/deploy/ci/policies.yml").read_text()
    workflow = YAML(typ="safe").load(text)
    jsonschema.validate(workflow, schema_with("jobs", "on", "permissions", "concurrency"))

    steps = [step["run"] for step in workflow["jobs"]["policies"]["steps"] if "run" in step]
    asked = [step.split() for step in steps if step.startswith("gatebook ")]
    assert asked
    for _, *words in asked:
        command = main.get_command(click.Context(main), words[0])
        assert isinstance(command, click.Group)
        inner = command.get_command(click.Context(command), words[1])
        assert inner is not None
        known = {option for parameter in inner.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known
