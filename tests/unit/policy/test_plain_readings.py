"""What Casbin reads as it looks is read so by us too, and Casbin's own reading agrees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from ruamel.yaml import YAML

from gatebook.errors import PolicySetRefusedError
from gatebook.policy.bundle import BYTES_MAX, FILES_MAX, read_folder
from gatebook.policy.casbin_files import CasbinFiles, read_casbin
from gatebook.policy.oracle import Oracle, compare_reading
from gatebook.policy.policy_set import load
from gatebook.values import Edge, Severity

ROOT = Path(__file__).parents[3]
READINGS: dict[str, Any] = YAML(typ="safe").load((ROOT / "tests/cases/plain_readings.yaml").read_text())
FINDINGS: dict[str, Any] = YAML(typ="safe").load((ROOT / "tests/cases/plain_findings.yaml").read_text())
RBAC = read_folder(ROOT / "tests/cases/casbin/rbac")
GOVERNED = read_folder(ROOT / "tests/cases/governed")


@pytest.mark.parametrize("case", READINGS["cases"], ids=lambda case: case["name"])
def test_set_is_read_as_it_looks(case: dict[str, Any]) -> None:
    """A plain set is read to the rules that stand there, in the order in which Casbin asks them."""
    files = {
        "model.conf": case.get("model", READINGS["model"]).encode(),
        "policy.csv": case["policy"].encode(),
    }

    policy_set = load(files)

    assert case["rules"] == [[rule.ptype, *rule.fields] for rule in policy_set.rules]
    found = [f"{it.file}:{it.line}:{it.column} {it.invariant}" for it in policy_set.warnings]
    assert case.get("warnings", []) == found


@pytest.mark.parametrize("case", FINDINGS["cases"], ids=lambda case: case["name"])
def test_mistake_is_found_at_its_place(case: dict[str, Any]) -> None:
    """Each mistake refuses the set, with the line and the column, in characters, where it stands."""
    files = {
        "model.conf": case.get("model", FINDINGS["model"]).encode(),
        "policy.csv": case["policy"].replace("{long}", "x" * 20_000).encode(),
    }

    with pytest.raises(PolicySetRefusedError) as refused:
        load(files)

    found = [it for it in refused.value.findings if it.severity is Severity.ERROR]
    assert sorted(case["findings"]) == sorted(f"{it.file}:{it.line}:{it.column} {it.invariant}" for it in found), found


def test_rules_of_several_files_stand_in_the_order_of_their_paths() -> None:
    """Rule files are read by path, and a rule knows its file, its line and its text."""
    files = {
        "model.conf": READINGS["model"].encode(),
        "policy/b.csv": b"p, ben, data1, read, allow\n",
        "policy/a.csv": b"\n  p, ana, data1, read, allow\n",
        "policy.csv": b"p, chidi, data1, read, allow\n",
    }

    rules = load(files).rules

    assert [("policy.csv", 1), ("policy/a.csv", 2), ("policy/b.csv", 1)] == [(rule.file, rule.line) for rule in rules]
    assert "  p, ana, data1, read, allow" == rules[1].text


def test_every_finding_of_every_file_comes_at_once() -> None:
    """A set with mistakes in many files is refused once, with all of them, sorted by file, line and column."""
    files = {
        **GOVERNED,
        "policy.csv": b"pp, a, b\n" + GOVERNED["policy.csv"] + b'p, "x", lab.visits, read, *, True, dney\n',
        "purposes.yaml": b"purposes: 1\n",
        "tests/visits.yaml": b"tests: 1\n",
        "model.conf": GOVERNED["model.conf"] + b"[extra]\n",
    }

    with pytest.raises(PolicySetRefusedError) as refused:
        load(files)

    found = [(it.file, it.line, it.column, it.invariant) for it in refused.value.findings]
    assert [
        ("model.conf", 21, 1, "UNKNOWN_SECTION"),
        ("policy.csv", 1, 1, "UNKNOWN_RULE_TYPE"),
        ("policy.csv", 11, 4, "QUOTED_FIELD"),
        ("policy.csv", 11, 36, "UNKNOWN_EFFECT"),
    ] == [place for place in found if place[0] in ("model.conf", "policy.csv")]
    assert {"model.conf", "policy.csv", "purposes.yaml", "tests/visits.yaml"} == {place[0] for place in found}
    assert sorted(found) == found


def test_unknown_file_is_refused() -> None:
    """A file that belongs to no policy set is refused, since it may be a misspelt one."""
    with pytest.raises(PolicySetRefusedError, match=r"catalog\.yaml: no such file belongs to a policy set"):
        load({**RBAC, "catalog.yaml": b"datasets: {}\n"})


def test_unsafe_file_name_is_refused() -> None:
    """A file of a name that other systems read otherwise is refused."""
    with pytest.raises(PolicySetRefusedError, match=r"policy/a b\.csv: name files with letters"):
        load({**RBAC, "policy/a b.csv": b""})


@pytest.mark.parametrize(
    ("files", "invariant"),
    [
        ({f"policy/{number}.csv": b"" for number in range(FILES_MAX)}, "TOO_MANY_FILES"),
        ({"policy/a.csv": bytes(BYTES_MAX)}, "TOO_LARGE"),
    ],
    ids=["files", "bytes"],
)
def test_too_large_a_set_is_refused_unread(files: dict[str, bytes], invariant: str) -> None:
    """A set over a limit is refused before any file of it is read."""
    with pytest.raises(PolicySetRefusedError) as refused:
        load({**RBAC, **files})

    assert [invariant] == [it.invariant for it in refused.value.findings]


@pytest.mark.parametrize("part", ["rules", "edges"])
def test_another_reading_than_casbins_is_a_finding(part: str) -> None:
    """A rule or link that we would read otherwise than Casbin is found, with its line."""
    ours, _ = read_casbin(RBAC)
    lines = list(getattr(ours, part))
    field = "fields" if part == "rules" else "parent"
    lines[1] = msgspec.structs.replace(lines[1], **{field: ("a", "b", "c") if part == "rules" else "a"})

    found = compare_reading(RBAC, msgspec.structs.replace(ours, **{part: tuple(lines)}))

    assert [("policy.csv", lines[1].line, "READ_DIFFERENTLY")] == [(it.file, it.line, it.invariant) for it in found]


def test_a_rule_too_few_is_a_finding() -> None:
    """A rule that Casbin reads and we do not is found."""
    ours, _ = read_casbin(RBAC)

    found = compare_reading(RBAC, CasbinFiles(ours.model, ours.rules[:-1], ours.edges))

    assert ["READ_DIFFERENTLY"] == [it.invariant for it in found]


def test_another_definition_than_casbins_is_a_finding() -> None:
    """A definition that we would read otherwise than Casbin is found, with its line."""
    ours, _ = read_casbin(RBAC)
    matcher = msgspec.structs.replace(ours.model.matchers["m"], text="g(r.sub, p.sub)")
    model = msgspec.structs.replace(ours.model, matchers={"m": matcher})

    found = compare_reading(RBAC, CasbinFiles(model, ours.rules, ours.edges))

    assert [("model.conf", 14, "READ_DIFFERENTLY")] == [(it.file, it.line, it.invariant) for it in found]


def test_files_that_casbin_cannot_read_are_a_finding() -> None:
    """Where Casbin itself fails on the files, that is a finding and no crash."""
    ours, _ = read_casbin(RBAC)

    found = compare_reading({**RBAC, "policy.csv": b"p, a), b, c\n"}, ours)

    assert ["READ_DIFFERENTLY"] == [it.invariant for it in found]


def test_oracle_answers_as_casbin() -> None:
    """The oracle is pycasbin with the files of the set."""
    oracle = Oracle(RBAC)

    answers = [oracle.enforce(who, what, "read") for who in ("ana", "ben", "noor") for what in ("data1", "data2")]

    assert [True, False, False, True, False, False] == answers


def test_oracle_tells_which_rules_of_any_type_apply() -> None:
    """Rules of each type of a governed set are asked one at a time, with links that stand in no rule file."""
    policy_set = load(GOVERNED)
    further = [edge for edge in policy_set.edges if edge.file != "policy.csv"]
    oracle = Oracle(GOVERNED, [*further, Edge("g", "ana", "role:surgeon"), Edge("g", "noor", "role:employee")])
    row = {"sealed": True}

    applies = {
        who: [
            (rule.ptype, rule.line)
            for rule in policy_set.rules
            if oracle.matches(
                rule, {"id": who, "level": 5}, "lab.visits.notes", "read", "treatment", {"network": "ward"}, row
            )
        ]
        for who in ("ana", "noor")
    }

    assert {"ana": [("p", 1), ("p", 2), ("p2", 4)], "noor": []} == applies
