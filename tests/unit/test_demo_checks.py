"""The checks of the demo can fail: each finds what it is there to find."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gatebook.demo.cast import DASHBOARD, FINANCE, MANAGER, RESPONDER
from gatebook.demo.company import Company, found_company, require_clock
from gatebook.demo.crash import Crash
from gatebook.demo.groups import small_groups
from gatebook.demo.processes import BrokenOffError
from gatebook.demo.promises import Promises
from gatebook.demo.question import Actor, Outcome, Question
from gatebook.demo.readers import check, miscounted
from gatebook.demo.rows import leaks
from gatebook.demo.sample import ROWS_EACH, differences, sample_of
from gatebook.demo.tamper import entry_span

RESPONSE, BY_TEAM, BY_PERSON = RESPONDER.questions[0], DASHBOARD.questions[1], FINANCE.questions[1]
ALLOW = Outcome(allowed=True, reason="ALLOWED", message="", rules=("policy/mci.csv:1",), rows_left=50)


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Company:
    """Returns a company of some hundred people."""
    return found_company(tmp_path_factory.mktemp("company"), employees=200, scale=0.1)


def masked(company: Company, question: Question) -> list[dict[str, Any]]:
    """Returns the first stored rows with their text nulled."""
    return [{**row, "prompt_text": None} for row in company.rows(question, question.columns, 5)]


def outcome(got: list[dict[str, Any]], **changes: object) -> Outcome:
    """Returns an allow with rows or groups."""
    return msgspec.structs.replace(ALLOW, got=tuple(got), **changes)


def groups(company: Company, k: int) -> list[dict[str, Any]]:
    """Returns the groups of teams that may leave, and the remainder."""
    table = f"FROM {BY_TEAM.dataset} WHERE {BY_TEAM.where}"
    counted = dict(company.query(f"SELECT team_id, count(DISTINCT subject_id) {table} GROUP BY 1"))
    named = [{"team_id": team, "people": people} for team, people in counted.items() if people >= k]
    rest = sum(people for people in counted.values() if people < k)
    return [*named, {"team_id": None, "people": rest}]


def test_masked_rows_leak_nothing(company: Company) -> None:
    """Rows whose masked columns are masked break no promise."""
    got = outcome(masked(company, RESPONSE), masks={"prompt_text": "NULLIFY"})

    assert [] == list(leaks(company, RESPONSE, got))


def test_a_clear_value_is_found(company: Company) -> None:
    """A masked column that leaves as it is stored is found, on every row."""
    got = outcome(company.rows(RESPONSE, RESPONSE.columns, 5), masks={"prompt_text": "NULLIFY"})

    assert ["`mci.prompts.prompt_text` left in clear"] * 5 == list(leaks(company, RESPONSE, got))


def test_a_column_nobody_asked_for_is_found(company: Company) -> None:
    """A column beyond the question is found."""
    got = outcome([{**row, "model": "large"} for row in masked(company, RESPONSE)], masks={})

    assert ["`mci.prompts.model` was not asked for"] == list(leaks(company, RESPONSE, got))


def test_large_groups_may_leave(company: Company) -> None:
    """The groups that SQL counts, with their remainder, break no promise."""
    assert [] == list(small_groups(company, BY_TEAM, outcome(groups(company, 3), group=3)))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (lambda found: [*found, {"team_id": "team-of-one", "people": 1}], "group `team-of-one` is smaller than 3"),
        (lambda found: [{**found[0], "people": 999}, *found[1:]], "people, the store"),
        (lambda found: found[1:], "is missing"),
        (lambda found: [*found, {"team_id": None, "people": 3}], "a remainder of"),
    ],
    ids=["a small group", "a wrong count", "a group left out", "two remainders"],
)
def test_a_wrong_group_is_found(company: Company, changed: Any, expected: str) -> None:  # noqa: ANN401  # a function of groups
    """Groups that are too small, miscounted, missing or left over twice are found."""
    (found,) = small_groups(company, BY_TEAM, outcome(changed(groups(company, 3)), group=3))

    assert expected in found


def test_a_single_person_is_found(company: Company) -> None:
    """A group of one person, named by a hash that SQL does not know, is found."""
    got = outcome([{"subject_id": "9c1f", "uses": 1, "cost_usd": "0.1"}], group=5)

    assert ["group `9c1f` is smaller than 5"] == list(small_groups(company, BY_PERSON, got))


def test_broken_answers_are_told(company: Company) -> None:
    """A wrong reason, a denial that reads, and an allow that gets nothing break a promise each."""
    promises = Promises()
    actor = Actor(name="lee", title="", subject="lee", wants="", questions=())
    denied = msgspec.structs.replace(ALLOW, allowed=False, reason="NO_MATCHING_RULE")

    check(promises, company, [(actor, RESPONSE, denied), (actor, RESPONSE, ALLOW)])

    broken = {one.promise: one.told for one in promises.checked if not one.kept}
    assert {
        "every question gets the answer that the rules promise": "lee: mci.prompts is NO_MATCHING_RULE, not ALLOWED",
        "who is denied reads not a single row": "lee got 50 rows",
        "who is allowed gets what the obligations leave": "lee got nothing of mci.prompts: ",
    } == broken
    assert not promises.kept


def test_a_wrong_number_of_rows_is_found(company: Company) -> None:
    """A plan that leaves other rows than the store counts is found."""
    question = MANAGER.questions[0]
    (counted,) = company.query(f"SELECT count(*) FROM {question.dataset} WHERE {question.where}")[0]  # noqa: S608  # the demo's own

    assert "" == miscounted(company, question, msgspec.structs.replace(ALLOW, rows_left=counted))
    assert f"{question.dataset}: {counted + 1} rows left, not {counted}" == miscounted(
        company, question, msgspec.structs.replace(ALLOW, rows_left=counted + 1)
    )


def test_a_sample_has_rows_of_both_kinds(company: Company) -> None:
    """A sample holds rows that the question should get and rows that it should not, with all of their columns."""
    question = MANAGER.questions[0]
    managers = [row["manager_id"] for row in sample_of(company, question)]

    assert {True, False} == {manager == "dana" for manager in managers}
    assert len(managers) <= 2 * ROWS_EACH


@pytest.mark.parametrize(
    ("planned", "expected"),
    [
        ([{"rating": 4}], []),
        ([{"rating": 3}], ["`hr.performance_metrics.rating` is not what a check of the row leaves"]),
        ([{"note": 4}], ["`hr.performance_metrics.note` ", "`hr.performance_metrics.rating` "]),
        ([], ["the plan of `hr.performance_metrics` leaves 0 rows, checks leave 1"]),
        ([{"rating": 4}] * 2, ["the plan of `hr.performance_metrics` leaves 2 rows, checks leave 1"]),
    ],
    ids=["the same", "another value", "another column", "a row too few", "a row too many"],
)
def test_what_a_plan_leaves_otherwise_is_found(planned: list[dict[str, Any]], expected: list[str]) -> None:
    """A value, a column or a row that a plan leaves otherwise than checks do is found."""
    found = sorted(differences(MANAGER.questions[0], planned, [{"rating": 4}]))

    assert len(expected) == len(found)
    assert all(told.startswith(part) for told, part in zip(found, expected, strict=True))


def test_no_promise_is_no_success() -> None:
    """A story that checked nothing has kept nothing."""
    assert not Promises().kept


def test_broken_cases_are_named() -> None:
    """A broken promise names some of its cases and counts the others."""
    promises = Promises()

    promise = promises.check_all("all is well", (f"case {number}" for number in range(5)), told="5 cases")

    assert (False, "case 0; case 1; case 2, and 2 more") == (promise.kept, promise.told)


@pytest.mark.parametrize(
    ("leaves", "expected"),
    [({7: b"leaf"}, []), ({7: b"fell"}, ["entry 7"]), ({8: b"leaf"}, ["entry 7"]), ({}, ["entry 7"])],
    ids=["kept", "another leaf", "another index", "lost"],
)
def test_a_lost_receipt_is_found(leaves: Mapping[int, bytes], expected: list[str]) -> None:
    """A receipt whose entry is not at its index with its leaf hash is missing."""
    crash = Crash(('{"index": "7", "leaf_hash": "bGVhZg=="}\n',), 1, leaves, 0)

    assert expected == crash.missing


@pytest.mark.parametrize(("within", "expected"), [(0, b"one"), (1, b""), (2, b"three")])
def test_the_bytes_of_an_entry_are_found(within: int, expected: bytes) -> None:
    """An entry of a bundle lies after its length and before the next one's."""
    bundle = b"\0\3one" + b"\0\0" + b"\0\5three"

    start, end = entry_span(bundle, within)

    assert expected == bundle[start:end]


def test_an_early_clock_is_refused(company: Company) -> None:
    """Before the notices take effect the rules answer otherwise, so the demo says what is wrong instead."""
    with pytest.raises(BrokenOffError, match="the clock says 2026-05-10, but the story begins on 2026-05-11"):
        require_clock(company.catalogue, datetime(2026, 5, 10, tzinfo=UTC))


def test_missing_rules_are_refused(tmp_path: Path) -> None:
    """Away from the source tree the demo says from where to run it."""
    with pytest.raises(BrokenOffError, match="run the demo from a checkout"):
        found_company(tmp_path, employees=100, scale=0.1, policies=tmp_path)
