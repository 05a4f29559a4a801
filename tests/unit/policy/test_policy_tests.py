"""Policy tests: their files are read strictly, and a failure says what was asked, expected and answered."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML
from tests.decisions import decision_of

from gatebook.errors import TokenMissingError
from gatebook.expression.parse import parse
from gatebook.policy.policy_test_file import ABLE_TO_ALL, read_policy_tests
from gatebook.policy.policy_tests import run_tests
from gatebook.values import (
    AccessRequest,
    ColumnOutcome,
    Decision,
    Effect,
    Entity,
    Mask,
    MaskKind,
    MinimumGroup,
    Reason,
    Revision,
    RuleRef,
)

ROOT = Path(__file__).parents[3]
FILES: list[dict[str, Any]] = YAML(typ="safe").load((ROOT / "tests/cases/policy_test_files.yaml").read_text())
SCHEMA = json.loads((resources.files("gatebook.policy") / "schemas/policy_test.schema.json").read_text())
SHIPPED = sorted(ROOT.glob("policies/*/tests/*.yaml"))
NOW = datetime(2026, 6, 1, tzinfo=UTC)

ONE = """\
subjects: {farah: }
resources: {prompts: {id: mci.prompts, columns: [prompt_text]}}
tests:
  - name: farah trains on prompts
    subjects: [farah]
    actions: [read]
    resources: [prompts]
    purpose: model_training
    expect: EXPECTED
"""


def decision(effect: Effect, reason: Reason, **more: Any) -> Decision:  # noqa: ANN401  # any field of a decision
    """Returns a decision with the fields that a test does not look at filled in."""
    return decision_of(
        effect=effect,
        reason=reason,
        message=more.pop("message", ""),
        policy_set="telemetry",
        policy_revision=Revision("0" * 64, 1),
        directory_revision=None,
        decide_time=NOW,
        **more,
    )


def failures_of(expected: str, answer: Decision) -> list[tuple[str, str]]:
    """Returns what fails when the one question of `ONE` is answered so."""
    outcome = run_tests({"tests/a.yaml": ONE.replace("EXPECTED", expected).encode()}, lambda *_: answer)
    assert () == outcome.findings
    return [(failure.expected, failure.actual) for failure in outcome.failures]


@pytest.mark.parametrize("case", FILES, ids=lambda case: case["name"])
def test_file_is_read_strictly(case: dict[str, Any]) -> None:
    """Each thing wrong with a test file is found, and stands where it is found."""
    _, findings = read_policy_tests("tests/a.yaml", case["text"].encode())

    assert sorted(case["findings"]) == sorted(f"{it.line}:{it.column} {it.invariant}" for it in findings), findings


@pytest.mark.parametrize("case", FILES, ids=lambda case: case["name"])
def test_schema_describes_the_form(case: dict[str, Any]) -> None:
    """The shipped JSON schema accepts what is well formed, and never refuses what the reader accepts."""
    yaml = YAML(typ="safe")
    yaml.allow_duplicate_keys = True
    document = json.loads(json.dumps(yaml.load(case["text"]), default=str))

    accepts = jsonschema.Draft202012Validator(SCHEMA).is_valid(document)

    assert case["schema"] == ("accepts" if accepts else "refuses")
    assert case["findings"] or accepts


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_schema_accepts_shipped_tests(path: Path) -> None:
    """The tests of the shipped policy sets have the form that the schema describes."""
    document = json.loads(json.dumps(YAML(typ="safe").load(path.read_text()), default=str))

    jsonschema.validate(document, SCHEMA)


def test_schema_is_a_schema() -> None:
    """The shipped file is itself a valid JSON schema."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_question_holds_what_the_test_says() -> None:
    """A test becomes one request for each subject, resource and action, in that order."""
    text = next(case["text"] for case in FILES if case["name"] == "every key")

    questions, _ = read_policy_tests("tests/a.yaml", text.encode())

    first = questions[0]
    assert 8 == len(questions)
    assert ("svc-trino", datetime(2026, 6, 1, 9, tzinfo=UTC), 24) == (first.caller, first.time, first.expectation.line)
    assert (
        AccessRequest(
            subject=Entity("user", "farah", {"level": 3}),
            action="read",
            resource="mci.prompts",
            columns=("prompt_text",),
            purpose="model_training",
            context={"network": "corp", "ports": [1, 2.5], "proxy": None},
            row={"is_secure_field": True},
            enforcer=first.request.enforcer,
            allow_partial=True,
            action_properties={"audience": ["role:employee"]},
            resource_type="table",
            resource_properties={"owner": "ana"},
        )
        == first.request
    )
    reasons = [question.expectation.reason for question in questions[1:]]
    assert [Reason.CEILING_EXCEEDED, None, None, *[Reason.NO_MATCHING_RULE] * 4] == reasons


def test_enforcer_can_do_everything_unless_the_test_says_otherwise() -> None:
    """Without `enforcer` no expectation fails for what the enforcer cannot do."""
    questions, _ = read_policy_tests("tests/a.yaml", ONE.replace("EXPECTED", "ALLOW").encode())

    assert ABLE_TO_ALL == questions[0].request.enforcer
    assert (len(MaskKind) - 1, None) == (len(ABLE_TO_ALL.supported_masks), questions[0].request.row)


def test_failure_reads_like_a_sentence() -> None:
    """A failed expectation names the test, the question, what was expected and what came, with reason and rule."""
    answer = decision(
        Effect.DENY,
        Reason.DENIED_BY_RULE,
        message="a rule denies it",
        rules=(RuleRef("p, role:employee, mci.*, read, *, True, deny", "policy/mci.csv", 12, "deny"),),
    )

    outcome = run_tests({"tests/a.yaml": ONE.replace("EXPECTED", "ALLOW").encode()}, lambda *_: answer)

    assert 1 == outcome.run
    (failure,) = outcome.failures
    assert ("tests/a.yaml", 9, "farah trains on prompts") == (failure.file, failure.line, failure.test)
    assert "may user `farah` read columns `prompt_text` of `mci.prompts` for `model_training`?" == failure.question
    assert "ALLOW" == failure.expected
    assert (
        "DENY DENIED_BY_RULE: a rule denies it, by `p, role:employee, mci.*, read, *, True, deny` (policy/mci.csv:12)"
        == failure.actual
    )


@pytest.mark.parametrize(("expected", "reason"), [("DENY", Reason.UNCATALOGUED), ("UNCATALOGUED", Reason.UNCATALOGUED)])
def test_denial_meets_its_expectation(expected: str, reason: Reason) -> None:
    """`DENY` holds for any reason, a reason code for that one."""
    assert [] == failures_of(expected, decision(Effect.DENY, reason))


def test_denial_for_another_reason_fails() -> None:
    """A denial for another reason than the expected one is a failure."""
    assert [("PURPOSE_NOT_GRANTED", "DENY UNCATALOGUED")] == failures_of(
        "PURPOSE_NOT_GRANTED", decision(Effect.DENY, Reason.UNCATALOGUED)
    )


def test_allow_of_what_must_be_denied_fails() -> None:
    """An allow where a denial is expected is a failure."""
    assert [("DENY", "ALLOW")] == failures_of("DENY", decision(Effect.ALLOW, Reason.ALLOWED))


MASKED = decision(
    Effect.ALLOW,
    Reason.ALLOWED,
    columns=(
        ColumnOutcome(
            "key_text",
            Effect.ALLOW,
            Reason.ALLOWED,
            (
                Mask(MaskKind.NULLIFY, condition=parse("row.is_secure_field == True")),
                Mask(MaskKind.CONSTANT, {"value": "x", "type": "text"}),
            ),
        ),
        ColumnOutcome("ts", Effect.ALLOW, Reason.ALLOWED, (Mask(MaskKind.TRUNCATE, {"unit": "hour"}),)),
        ColumnOutcome("body", Effect.DENY, Reason.MASK_REQUIRED),
    ),
    minimum_group=MinimumGroup(5, ("subject_id",)),
)


@pytest.mark.parametrize(
    ("expected", "failures"),
    [
        ("ALLOW", []),
        (
            (
                "{outcome: ALLOW, minimum_group: 5, columns: {body: MASK_REQUIRED}, "
                "masks: {ts: truncate:hour, key_text: [nullify if row.is_secure_field == True, constant:x]}}"
            ),
            [],
        ),
        ("{outcome: ALLOW, columns: {body: DENY}}", []),
        ("{outcome: ALLOW, minimum_group: 10}", [("a minimum group of 10", "a minimum group of 5")]),
        ("{outcome: ALLOW, minimum_group: 0}", [("a minimum group of 0", "a minimum group of 5")]),
        ("{outcome: ALLOW, columns: {}}", [("`body` not withheld", "`body` withheld: MASK_REQUIRED")]),
        (
            "{outcome: ALLOW, columns: {body: DENY, ts: DENIED_BY_RULE}}",
            [("`ts` withheld: DENIED_BY_RULE", "`ts` not withheld")],
        ),
        (
            "{outcome: ALLOW, masks: {key_text: [nullify if row.is_secure_field == True, constant:x]}}",
            [("`ts` masked by nothing", "`ts` masked by truncate:hour")],
        ),
        (
            "{outcome: ALLOW, masks: {ts: truncate:day, key_text: [nullify, constant:x]}}",
            [
                (
                    "`key_text` masked by nullify, then constant:x; `ts` masked by truncate:day",
                    (
                        "`key_text` masked by nullify if row.is_secure_field == True, then constant:x; "
                        "`ts` masked by truncate:hour"
                    ),
                )
            ],
        ),
    ],
)
def test_obligations_are_compared(expected: str, failures: list[tuple[str, str]]) -> None:
    """Withheld columns, masks with their conditions and order, and the minimum group are compared exactly."""
    assert failures == failures_of(expected, MASKED)


def test_question_without_an_answer_fails() -> None:
    """An error of the decision is a failed expectation, also where a denial is expected."""

    def refuse(*_: object) -> Decision:
        raise TokenMissingError("the request does not supply `dom`")

    outcome = run_tests({"tests/a.yaml": ONE.replace("EXPECTED", "DENY").encode()}, refuse)

    assert ["no answer: the request does not supply `dom`"] == [failure.actual for failure in outcome.failures]


def test_malformed_file_is_a_finding_and_others_still_run() -> None:
    """A test file that cannot be read is reported, and never counts as passed."""
    files = {"tests/a.yaml": b"tests: 1\n", "tests/b.yaml": ONE.replace("EXPECTED", "ALLOW").encode()}

    outcome = run_tests(files, lambda *_: decision(Effect.ALLOW, Reason.ALLOWED))

    assert (1, [("tests/a.yaml", 1)]) == (outcome.run, [(it.file, it.line) for it in outcome.findings])
