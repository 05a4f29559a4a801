"""A witness in which open values are ordered is one for the subject itself, not for what stands for its id."""

from __future__ import annotations

import pytest

from gatebook.policy.scaffold import scaffold
from gatebook.revisions.validate import validate

BEGUN = scaffold("governed", "x")
PEOPLE = {path.removeprefix("directory/"): it for path, it in BEGUN.items() if path.startswith("directory/")}
SOURCES = b"{context: [network, zone], subject: [level]}"
ALLOW = "p, role:employee, usage.sessions.minutes, read, reporting, {}, allow\n"
DENY = "p, role:employee, usage.sessions.minutes, read, reporting, {}, deny\n"
RULES = [
    ALLOW.format("r.sub.level > r.row.tool && !(r.ctx.zone > 3)") + DENY.format("!(r.sub.id != 'x')"),
    ALLOW.format("r.row.tool > r.ctx.network"),
    ALLOW.format("True") + DENY.format("r.row.tool <= r.ctx.network"),
    ALLOW.format("True") + DENY.format("r.row.tool < r.row.started && r.sub.level == r.sub.id"),
    ALLOW.format("r.sub.level == r.ctx.zone && r.ctx.zone > 'm' && r.row.person_id != r.sub.id"),
]


@pytest.mark.parametrize("rules", RULES)
def test_whoever_is_certain_is_allowed(rules: str) -> None:
    """Each excess of a ceiling is shown by a request that the draft allows, whatever its conditions order."""
    files = {path: it for path, it in BEGUN.items() if not path.startswith(("directory/", "tests/", "README"))}
    files["gatebook.yaml"] = files["gatebook.yaml"].replace(b"{context: [network]}", SOURCES)
    files["policy.csv"] += rules.encode()

    found = validate(files, "x", directory_files=PEOPLE)

    examples = [finding.counterexample for finding in found.findings if finding.counterexample is not None]
    assert examples, found.findings
    assert all(it.confirmed for it in examples), [it.why_not for it in examples]
