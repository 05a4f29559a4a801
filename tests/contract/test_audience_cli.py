"""`gatebook policy audience`: who could be allowed, as a table and as JSON."""

from __future__ import annotations

import json

from tests.serving import POLICIES, gatebook

TELEMETRY = str(POLICIES / "telemetry")


def test_json_names_everybody_with_their_way() -> None:
    """Each member has links and rule with file and line; who reads own rows alone is counted apart."""
    done = gatebook("policy", "audience", "ai_usage.token_usage", "--policy-set", TELEMETRY, "--limit", "0", "--json")
    told = json.loads(done.stdout)
    gita = [it for it in told["members"] if it["subject"] == "gita" and it["action"] == "read"]

    assert done.returncode == 0
    assert (told["people_certain"], told["people_own_rows"], told["services"]) == (2, 17, 1)
    assert {it["certainty"] for it in gita} == {"CERTAINTY_CERTAIN", "CERTAINTY_OWN_ROWS"}
    assert [(step["text"], step["file"]) for step in gita[0]["path"]] == [
        ("gita has role:finops_lead", "personas.jsonl"),
        ("role:finops_lead inherits role:finops", "policy/roles.csv"),
        ("p, role:finops, ai_usage.token_usage, read, cost_management, True, allow", "policy/ai_usage.csv"),
    ]
    order = list(dict.fromkeys(it["subject"] for it in told["members"]))
    assert order == ["fiona", "gita", "svc-dashboard", *sorted(order[3:])]


def test_action_and_purpose_narrow_and_a_limit_says_what_it_leaves_out() -> None:
    """Of one action and purpose only those are listed who could be allowed it; more than the limit is said."""
    base = ("policy", "audience", "tag:usage.token", "--policy-set", TELEMETRY, "--action", "read")
    costs = json.loads(gatebook(*base, "--purpose", "cost_management", "--json").stdout)
    shown = gatebook(*base, "--limit", "1").stdout

    assert {it["subject"] for it in costs["members"]} == {"fiona", "gita"}
    assert "more: ask with a larger --limit" in shown


def test_each_way_stands_below_its_subject_step_by_step() -> None:
    """What is printed for people has a line for each subject and for each step of the way, with file and line."""
    shown = gatebook("policy", "audience", "mci.prompts", "--policy-set", TELEMETRY, "--action", "read").stdout

    assert shown.splitlines()[:3] == [
        "farah  read mci.prompts for model_training",
        "  by  personas.jsonl:6  farah has role:mci_researcher",
        "  by  policy/mci.csv:5  p, role:mci_researcher, mci.prompts, read, model_training, r.sub.level >= 3, allow",
    ]


def test_what_nobody_knows_is_a_mistake_of_usage() -> None:
    """A node, action or purpose that the set does not know ends with 2 and suggests one."""
    done = gatebook("policy", "audience", "mci.prompt", "--policy-set", TELEMETRY)
    action = gatebook("policy", "audience", "mci.prompts", "--policy-set", TELEMETRY, "--action", "reads")

    assert (done.returncode, action.returncode) == (2, 2)
    assert "did you mean `mci.prompts`?" in done.stderr


def test_a_plain_set_has_no_audiences() -> None:
    """A set without a catalogue says so."""
    people = str(POLICIES / "telemetry" / "directory")
    done = gatebook("policy", "audience", "report", "--policy-set", str(POLICIES / "basic"), "--directory", people)

    assert (done.returncode, "has no catalogue" in done.stderr) == (2, True)
