"""Reads the Casbin files of a policy set, `model.conf` and the rule files, strictly.

Owns the order of rules: files by path, lines as they stand, and then what `rule_order` says. Every finding of every
file comes back at once; with any error among them, what was read must not be used to decide.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import msgspec

from gatebook.pace import Pause, no_pause
from gatebook.policy.brought import NOTHING_BROUGHT, Brought
from gatebook.policy.bundle import MODEL_FILE, POLICY_FILE, rule_files
from gatebook.policy.model import Model
from gatebook.policy.model_file import parse_model
from gatebook.policy.rule_order import in_order
from gatebook.policy.rules_file import RulesReader
from gatebook.values import Edge, Finding, Rule, Severity


class CasbinFiles(msgspec.Struct, frozen=True):
    """What the Casbin files of a policy set say."""

    model: Model
    rules: tuple[Rule, ...]
    edges: tuple[Edge, ...]


def read_casbin(
    files: Mapping[str, bytes], pause: Pause = no_pause, brought: Brought = NOTHING_BROUGHT
) -> tuple[CasbinFiles, list[Finding]]:
    """Returns the model, rules and edges of a policy set, and every finding about them, unsorted."""
    if MODEL_FILE not in files:
        finding = Finding(MODEL_FILE, 0, 0, "MISSING_FILE", f"a policy set needs a `{MODEL_FILE}`; add it")
        return CasbinFiles(Model({}, {}, {}, {}, {}), (), ()), [finding]
    model, findings = parse_model(MODEL_FILE, files[MODEL_FILE], brought)
    reader = RulesReader(model, pause, brought)
    rules: list[Rule] = []
    edges: list[Edge] = []
    paths = rule_files(files)
    if not paths:
        message = f"a policy set needs a `{POLICY_FILE}`, which may be empty; add it"
        findings.append(Finding(POLICY_FILE, 0, 0, "MISSING_FILE", message))
    for path in paths:
        more_rules, more_edges, more_findings = reader.read(path, files[path])
        rules += more_rules
        edges += more_edges
        findings += more_findings
    if all(finding.severity is not Severity.ERROR for finding in findings):
        with contextlib.suppress(ValueError):  # a cycle, which is a finding of its own
            rules = in_order(model, rules, edges, pause)
    return CasbinFiles(model, tuple(rules), tuple(edges)), findings
