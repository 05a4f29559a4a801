"""`gatebook plan` against a real server: what it prints, how it exits, and what the book then shows."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result
from tests.serving import POLICIES, RunningServer, serving

from gatebook.cli import main

YES, NO, USAGE, COULD_NOT_ASK = 0, 1, 2, 3
DAILY = ("kai", "read", "ai_usage.team_daily", "--purpose", "adoption_visualisation.team_dashboard")
COSTS = ("fiona", "read", "ai_usage.token_usage", "--purpose", "cost_management", "--enforcer", "report")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of the telemetry set, and of one without a catalogue."""
    with serving(tmp_path_factory.mktemp("plan"), [POLICIES / "telemetry", POLICIES / "basic"]) as running:
        yield running


def plan(server: RunningServer, *arguments: str, policy_set: str = "telemetry") -> Result:
    """Runs the command against the server."""
    return CliRunner().invoke(main, ["plan", *arguments, "--policy-set", policy_set, "--target", server.target])


def test_a_plan_is_shown_as_one_statement(server: RunningServer) -> None:
    """An allow exits 0 and shows the decision, one statement, and where in the book it stands."""
    done = plan(server, *DAILY, "--columns", "day, team_id", "--dialect", "trino")

    assert (YES, "") == (done.exit_code, done.stderr)
    assert done.stdout.startswith("ALLOW")
    assert 'SELECT c1 AS "day", c2 AS "team_id"\nFROM (' in done.stdout
    assert 'FROM "ai_usage"."team_daily"' in done.stdout
    assert "book  " in done.stdout


def test_groups_are_selected_where_rows_may_not_be(server: RunningServer) -> None:
    """Under a minimum group the command says what to name, and then shows the statement of groups."""
    rows = plan(server, *COSTS, "--columns", "team_id,tokens_in")
    groups = plan(
        server, *COSTS, "--columns", "team_id,tokens_in", "--by", "team_id", "--measure", "tokens=sum:tokens_in"
    )

    assert YES == rows.exit_code
    assert "--by and --measure (CLIENT_MINIMUM_GROUP)" in rows.stdout
    assert "SELECT" not in rows.stdout
    assert YES == groups.exit_code
    assert "WHERE n1 >= 5" in groups.stdout


def test_a_denial_shows_no_statement(server: RunningServer) -> None:
    """A denial exits 1, says why, and shows no SQL."""
    done = plan(server, "omar", "read", "mci.prompts", "--purpose", "model_training")

    assert NO == done.exit_code
    assert "DENY DENIED_BY_RULE" in done.stdout
    assert "SELECT" not in done.stdout


def test_a_denial_is_explained(server: RunningServer) -> None:
    """With --explain a denial names the nearest rule and what it lacked."""
    done = plan(server, "dana", "read", "mci.prompts", "--purpose", "model_training", "--explain")

    assert NO == done.exit_code
    assert "near  policy/mci.csv:" in done.stdout
    assert "lacked `dana` does not inherit `role:mci_researcher`" in done.stdout


def test_who_names_no_enforcer_is_told_the_option(server: RunningServer) -> None:
    """Where the answer needs a program that applies it, checks and plans say how to name one."""
    question = ("fiona", "read", "ai_usage.token_usage", "--columns", "team_id", "--purpose", "cost_management")
    done = plan(server, *question)
    checked = CliRunner().invoke(main, ["check", *question, "--policy-set", "telemetry", "--target", server.target])
    named = plan(server, *question, "--enforcer", "report")

    assert (NO, NO, YES) == (done.exit_code, checked.exit_code, named.exit_code)
    for told in (done.stdout, checked.stdout):
        assert "DENY OBLIGATION_NOT_SUPPORTED" in told
        assert "hint  name with --enforcer" in told
    assert "hint" not in named.stdout


@pytest.mark.parametrize("arguments", [DAILY, ("omar", "read", "nowhere")])
def test_json_is_the_answer(server: RunningServer, arguments: tuple[str, ...]) -> None:
    """With --json the answer is printed as it came, and the exit code is the same."""
    told, done = plan(server, *arguments), plan(server, *arguments, "--json")
    answer = json.loads(done.stdout)

    assert told.exit_code == done.exit_code
    assert (done.exit_code == YES) == ("masks_sql" in answer)
    assert answer["decision"]["effect"] == ("EFFECT_ALLOW" if done.exit_code == YES else "EFFECT_DENY")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--dialect", "mysql"),
        ("--style", "numeric"),
        ("--measure", "tokens"),
        ("--measure", "tokens=max:tokens_total"),
        ("--measure", "=sum:tokens_total"),
        ("--context", "network"),
    ],
)
def test_what_cannot_be_meant_is_a_matter_of_usage(server: RunningServer, arguments: tuple[str, ...]) -> None:
    """An option that cannot be meant exits 2 before anybody is asked."""
    assert USAGE == plan(server, *DAILY, *arguments).exit_code


def test_a_set_without_a_catalogue_is_a_matter_of_usage(server: RunningServer) -> None:
    """A plain set has no plans: the command says so and exits 2."""
    done = plan(server, "alice", "read", "report:weekly", policy_set="basic")

    assert USAGE == done.exit_code
    assert "no catalogue" in done.stderr


def test_nobody_to_ask_is_no_denial() -> None:
    """Without a server the command exits 3."""
    done = CliRunner().invoke(main, ["plan", *DAILY, "--target", "127.0.0.1:1"])

    assert COULD_NOT_ASK == done.exit_code


def test_the_book_shows_plans_as_plans(server: RunningServer) -> None:
    """List, show and tail tell plans from checks, with the dialect, and the usual filters find them."""
    target = ("--target", server.target)
    checked = CliRunner().invoke(main, ["check", *DAILY, "--columns", "tool", *target, "--policy-set", "telemetry"])
    planned = plan(server, *DAILY, "--columns", "tool", "--dialect", "postgres", "--json")
    index = json.loads(planned.stdout)["decision"]["receipt"]["index"]
    found = ("--resource", "ai_usage.team_daily", "--column", "tool", "--effect", "allow")

    assert YES == checked.exit_code
    listed = CliRunner().invoke(main, ["audit", "list", *found, "--limit", "2", *target])
    tailed = CliRunner().invoke(main, ["audit", "tail", *found, "-n", "2", *target])
    for told in (listed.stdout.splitlines()[1:-1], tailed.stdout.splitlines()[::-1]):
        assert [True, False] == ["planned in postgres" in line for line in told]
    shown = CliRunner().invoke(main, ["audit", "show", index, *target])
    assert "answered with SQL for postgres" in shown.stdout
    as_json = CliRunner().invoke(main, ["audit", "show", index, *target, "--json"])
    assert "postgres" == json.loads(as_json.stdout)["entry"]["decision"]["plan_dialect"]
