"""An imported Casbin set answers as Casbin answered the files that it comes from."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.property.agreement import casbin_enforcer, casbin_token
from tests.property.casbin_models import Case, Choices, cases
from tests.property.casbin_names import FIRST
from tests.property.untidy import MODEL_FAULTS, RULE_FAULTS, untidy

from gatebook.cli import main
from gatebook.policy.bundle import MODEL_FILE, POLICY_FILE
from gatebook.policy.importing import NEVER_APPLIED, import_casbin
from gatebook.policy.oracle import Answers
from gatebook.policy.policy_set import load
from gatebook.policy.sampling import sample_tests
from gatebook.revisions.validate import validate

ROOT = Path(__file__).parents[2]
MODEL = (ROOT / "policies/basic/model.conf").read_text()
SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large)
PLAIN = Choices(sections=(FIRST,), patterned=10**9, conditioned=10**9)


def answers(model: str, policy: str, case: Case) -> list[object]:
    """Returns what pycasbin answers of files; None where it fails."""
    enforcer = casbin_enforcer(model, policy)
    found: list[object] = []
    for request in case.requests(30):
        try:
            found.append(enforcer.enforce(*(casbin_token(it, case.attributes.get(it, {})) for it in request)))
        except Exception:  # noqa: BLE001  # Casbin may raise anything
            found.append(None)
    return found


def test_an_imported_set_answers_as_casbin() -> None:
    """Of random models and rules with what people get wrong in them: Casbin answers both alike, and the set loads."""
    counts: Counter[str] = Counter()

    @settings(max_examples=40, derandomize=True, database=None, suppress_health_check=SLOW)
    @given(cases(PLAIN), st.data())
    def check(case: Case, data: st.DataObject) -> None:
        model = data.draw(untidy(case.model.text, MODEL_FAULTS)) if data.draw(st.booleans()) else case.model.text
        policy = data.draw(untidy(case.policy, RULE_FAULTS))
        try:
            before = answers(model, policy, case)
        except Exception:  # noqa: BLE001  # what Casbin cannot read has no answers
            counts["unreadable"] += 1
            return
        imported = import_casbin({MODEL_FILE: model.encode(), POLICY_FILE: policy.encode()}, "imported")
        counts["changed"] += bool(imported.changes)
        if imported.left:
            counts["left"] += 1
            return
        load(imported.files)
        after = answers(imported.files[MODEL_FILE].decode(), imported.files[POLICY_FILE].decode(), case)
        told = [(it is True, now is True) for it, now in zip(before, after, strict=True) if it is not None]
        assert all(it == now for it, now in told), imported.changes
        counts["answered"] += len(before) - before.count(None)

    check()
    assert counts["answered"] > 10
    assert counts["changed"] > 0


def test_its_tests_are_what_casbin_answers() -> None:
    """Of random models: the tests that are kept hold for both, allow and deny, but for the documented differences."""
    counts: Counter[str] = Counter()

    @settings(max_examples=12, derandomize=True, database=None, suppress_health_check=SLOW)
    @given(cases(PLAIN))
    def check(case: Case) -> None:
        files = {MODEL_FILE: case.model.text.encode(), POLICY_FILE: case.policy.encode()}
        imported = import_casbin(files, "imported")
        if imported.left:
            return
        samples = sample_tests(load(imported.files), Answers(files).ask, lambda _: False)
        found = validate({**imported.files, "tests/casbin.yaml": samples.text.encode()}, "imported")
        assert samples.expectations == found.tests_run
        counts["kept"] += found.tests_run
        counts["allowed"] += samples.text.count("ALLOW")
        counts["failed"] += samples.failed
        counts["otherwise"] += len(found.test_failures)

    check()
    assert counts["kept"] > 50
    assert counts["allowed"] > 1
    assert counts["otherwise"] - counts["failed"] < counts["kept"] / 10


LINES = [
    ('p, "role:viewer", report, read, allow', "QUOTED_FIELD", "p, role:viewer, report, read, allow"),
    ("p, role:viewer, report, read, allow # why", "TRAILING_COMMENT", "# why\np, role:viewer, report, read, allow"),
    ("P, role:viewer, report, read, allow", "UNKNOWN_RULE_TYPE", "p, role:viewer, report, read, allow"),
    ("p, role:viewer, report, read, ALLOW", "UNKNOWN_EFFECT", "p, role:viewer, report, read, allow"),
    ("// a remark", "UNKNOWN_RULE_TYPE", "# a remark"),
]


@pytest.mark.parametrize(("line", "invariant", "looks"), LINES)
def test_a_line_that_casbin_never_applied_stays_unapplied(line: str, invariant: str, looks: str) -> None:
    """It becomes a comment, told with its line; as written it is read as it looks."""
    files = {MODEL_FILE: MODEL.encode(), POLICY_FILE: f"g, ana, role:viewer\n{line}\n".encode()}
    kept, written = import_casbin(files, "x"), import_casbin(files, "x", as_written=True)

    assert [(2, invariant, line)] == [(it.line, it.invariant, it.before) for it in kept.changes]
    assert f"g, ana, role:viewer\n{NEVER_APPLIED} {line}\n" == kept.files[POLICY_FILE].decode()
    assert f"g, ana, role:viewer\n{looks}\n" == written.files[POLICY_FILE].decode()
    assert () == kept.left == written.left


def test_an_abac_set_of_casbin_for_go_is_read_as_written(tmp_path: Path) -> None:
    """Quoted conditions, `true` and a byte-order mark: left for somebody to decide, or read as they look."""
    model = tmp_path / "model.conf"
    model.write_text(
        "\ufeff[request_definition]\nr = sub, obj, act\n[policy_definition]\np = rule, obj, act\n"
        "[policy_effect]\ne = some(where (p.eft == allow))\n"
        "[matchers]\nm = eval(p.rule) && keyMatch(r.obj, p.obj) && r.act == p.act\n"
    )
    (tmp_path / "policy.csv").write_text('p, "r.sub.age > 18 && r.sub.age < 60", /data/*, read\np, true, /open, read\n')

    refused = CliRunner().invoke(main, ["policy", "import", str(tmp_path), "--out", str(tmp_path / "kept")])
    told = CliRunner().invoke(main, ["policy", "import", str(tmp_path), "--as-written", "--out", str(tmp_path / "set")])

    assert refused.exit_code == 1
    assert "left" in refused.output
    assert not (tmp_path / "kept").exists()
    assert told.exit_code == 0, told.output
    assert (
        "p, r.sub.age > 18 && r.sub.age < 60, /data/*, read\np, True, /open, read\n"
        == (tmp_path / "set/policy.csv").read_text()
    )
    kept = (tmp_path / "set/tests/casbin.yaml").read_text()
    assert "ALLOW" in kept
    assert "DENY" in kept
    assert CliRunner().invoke(main, ["policy", "test", str(tmp_path / "set")]).exit_code == 0


def test_what_allows_by_default_is_acknowledged_by_name() -> None:
    """An effect that allows what no rule mentions stays what it is, and stands in gatebook.yaml."""
    model = MODEL.replace("some(where (p.eft == allow)) && ", "")
    imported = import_casbin({MODEL_FILE: model.encode(), POLICY_FILE: b"p, ana, report, read, deny\n"}, "x")

    assert () == imported.left
    assert b"acknowledged: [allow-by-default]" in imported.files["gatebook.yaml"]
