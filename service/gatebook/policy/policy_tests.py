"""Runs policy tests: asks each question and says, in words, where the answer is another.

Owns the comparison. It decides nothing: whoever runs the tests brings `decide`, so that tests and
requests are answered by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

import msgspec

from gatebook.errors import GatebookError
from gatebook.expression.text import to_text
from gatebook.policy.bundle import policy_test_files
from gatebook.policy.expectation import Expectation, ExpectedMask, PolicyQuestion
from gatebook.policy.masks import Argument, MaskSpec
from gatebook.policy.model import without_spans
from gatebook.policy.policy_test_file import read_policy_tests
from gatebook.values import AccessRequest, ColumnOutcome, Decision, Effect, Finding, Mask, TestFailure

Decide = Callable[[AccessRequest, str, datetime | None], Decision]
"""Decides a request that a caller ("" for nobody in particular) brings at a time (None: now)."""

FAILURES_MAX = 1_000
RULES_SHOWN_MAX = 3

_DERIVED_PARAMETERS = frozenset(("type",))
"""Parameters that a decision adds to a mask, and no rule writes."""


class TestOutcome(msgspec.Struct, frozen=True):
    """What came of the tests of a policy set: how many expectations ran, which failed, bad files."""

    __test__ = False

    run: int
    failures: tuple[TestFailure, ...] = ()
    findings: tuple[Finding, ...] = ()


def run_tests(files: Mapping[str, bytes], decide: Decide) -> TestOutcome:
    """Asks every question of the test files of a policy set, in order."""
    run = 0
    failures: list[TestFailure] = []
    findings: list[Finding] = []
    for path in policy_test_files(files):
        questions, file_findings = read_policy_tests(path, files[path])
        findings += file_findings
        for question in questions:
            run += 1
            failure = ask(question, decide)
            if failure is not None and len(failures) < FAILURES_MAX:
                failures.append(failure)
    return TestOutcome(run, tuple(failures), tuple(sorted(findings)))


def ask(question: PolicyQuestion, decide: Decide) -> TestFailure | None:
    """Asks one question; returns None when the answer is as expected."""
    try:
        decision = decide(question.request, question.caller, question.time)
    except GatebookError as err:
        return _failure(
            question, (question.expectation.reason or question.expectation.effect).name, f"no answer: {err.message}"
        )
    differences = list(compare(question.expectation, decision))
    if not differences:
        return None
    expected = "; ".join(wanted for wanted, _ in differences)
    return _failure(question, expected, "; ".join(got for _, got in differences))


def compare(expectation: Expectation, decision: Decision) -> Iterator[tuple[str, str]]:
    """Yields what was expected and what came instead, each in words."""
    if expectation.effect is not decision.effect or expectation.reason not in (None, decision.reason):
        yield (expectation.reason or expectation.effect).name, _answer(decision)
        if expectation.effect is not decision.effect:
            return
    if expectation.columns is not None:
        yield from _compare_columns(expectation, decision)
    if expectation.masks is not None:
        yield from _compare_masks(expectation.masks, decision)
    k = 0 if decision.minimum_group is None else decision.minimum_group.k
    if expectation.minimum_group not in (None, k):
        yield f"a minimum group of {expectation.minimum_group}", f"a minimum group of {k}"


def question_in_words(request: AccessRequest) -> str:
    """Returns a request as the question that it is."""
    columns = f" columns {', '.join(f'`{column}`' for column in request.columns)} of" if request.columns else ""
    purpose = f" for `{request.purpose}`" if request.purpose else ""
    context = ", ".join(f"{key} {value!r}" for key, value in sorted(request.context.items()))
    row = ", ".join(f"{key} {value!r}" for key, value in sorted((request.row or {}).items()))
    return (
        f"may {request.subject.type} `{request.subject.id}` {request.action}{columns} `{request.resource}`{purpose}"
        f"{f' with {context}' if context else ''}{f', where the row has {row}' if row else ''}?"
    )


def _compare_columns(expectation: Expectation, decision: Decision) -> Iterator[tuple[str, str]]:
    withheld = {outcome.column: outcome for outcome in decision.columns if outcome.effect is not Effect.ALLOW}
    for column, reason in (expectation.columns or {}).items():
        outcome = withheld.get(column)
        if outcome is None or reason not in (None, outcome.reason):
            got = "not withheld" if outcome is None else f"withheld: {outcome.reason.name}"
            yield f"`{column}` withheld: {(reason or Effect.DENY).name}", f"`{column}` {got}"
    for column, outcome in withheld.items():
        if column not in (expectation.columns or {}):
            yield f"`{column}` not withheld", f"`{column}` withheld: {outcome.reason.name}"


def _compare_masks(masks: Mapping[str, tuple[ExpectedMask, ...]], decision: Decision) -> Iterator[tuple[str, str]]:
    outcomes = {outcome.column: outcome for outcome in decision.columns}
    for column in sorted({*masks, *(outcome.column for outcome in decision.columns if outcome.masks)}):
        wanted = masks.get(column, ())
        got = outcomes.get(column, ColumnOutcome(column, Effect.UNSPECIFIED, decision.reason)).masks
        if len(wanted) != len(got) or not all(map(_is_same, wanted, got)):
            yield (
                f"`{column}` masked by {', then '.join(mask.text for mask in wanted) or 'nothing'}",
                f"`{column}` masked by {', then '.join(map(_shown, got)) or 'nothing'}",
            )


def _is_same(wanted: ExpectedMask, got: Mask) -> bool:
    condition = None if got.condition is None else without_spans(got.condition)
    return (wanted.mask.kind, wanted.mask.parameters(), wanted.condition) == (got.kind, _written(got), condition)


def _shown(mask: Mask) -> str:
    text = str(MaskSpec(mask.kind, tuple(_written(mask).values())))
    return text if mask.condition is None else f"{text} if {to_text(mask.condition)}"


def _written(mask: Mask) -> dict[str, Argument]:
    return {name: value for name, value in mask.parameters.items() if name not in _DERIVED_PARAMETERS}


def _answer(decision: Decision) -> str:
    """Returns effect, reason, message and rules of a decision."""
    reason = "" if decision.effect is Effect.ALLOW else f" {decision.reason.name}"
    message = f": {decision.message}" if decision.message else ""
    rules = ", ".join(f"`{rule.rule.strip()}` ({rule.file}:{rule.line})" for rule in decision.rules[:RULES_SHOWN_MAX])
    more = f" and {len(decision.rules) - RULES_SHOWN_MAX} more" if len(decision.rules) > RULES_SHOWN_MAX else ""
    return f"{decision.effect.name}{reason}{message}{f', by {rules}{more}' if rules else ''}"


def _failure(question: PolicyQuestion, expected: str, actual: str) -> TestFailure:
    words = question_in_words(question.request)
    return TestFailure(question.file, question.expectation.line, question.test, words, expected, actual)
