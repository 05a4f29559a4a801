"""The generated company is always the same, and small enough in every place to fit its ceilings."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest
from tests.telemetry_sets import DIRECTORY, TELEMETRY

from gatebook.demo.people import PEOPLE, TEAM_MAX, generate_people, json_lines, write_directory
from gatebook.policy import bundle
from gatebook.policy.catalogue import Catalogue, role_parents
from gatebook.policy.dataset import Ceiling
from gatebook.policy.directory import Directory, load_directory
from gatebook.policy.policy_set import PolicySet, load

PINNED = "b9da6c0a4476805ac1d67727a8299c4caeca5d2e2adcc5ef8220a5339def11c9"


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Directory:
    """Returns the directory of the whole company."""
    folder = tmp_path_factory.mktemp("company")
    write_directory(folder, DIRECTORY / "personas.jsonl")
    return load_directory(bundle.read_directory_folder(folder))


@pytest.fixture(scope="module")
def telemetry() -> PolicySet:
    """Returns the telemetry set."""
    return load(bundle.read_folder(TELEMETRY))


def holders(company: Directory, telemetry: PolicySet, roles: tuple[str, ...]) -> set[str]:
    """Returns the people who hold one of the roles, by themselves or through another role."""
    parents = role_parents(telemetry.edges)
    reached = set(roles)
    while grown := {role for role, above in parents.items() if above & reached} - reached:
        reached |= grown
    return {it.id for it in company.subjects.values() if it.type == "user" and reached.intersection(it.groups)}


def ceilings(catalogue: Catalogue) -> list[tuple[str, Ceiling]]:
    """Returns every ceiling of a catalogue, those for single actions too."""
    return [
        (f"{dataset.id} {action}", ceiling)
        for dataset in catalogue.datasets.values()
        for action, ceiling in (("", dataset.ceiling), *dataset.ceiling.actions.items())
    ]


def test_people_are_the_same_everywhere() -> None:
    """The same seed gives the same bytes, on every version of Python."""
    assert PINNED == hashlib.sha256(json_lines(generate_people(taken={"ana"}))).hexdigest()


def test_another_seed_gives_other_people() -> None:
    """The seed matters."""
    assert json_lines(generate_people(1, 50)) != json_lines(generate_people(2, 50))


def test_nobody_takes_the_id_of_a_persona() -> None:
    """Ids that are taken stay with those who have them."""
    first = generate_people(7, 1)[0].id

    assert f"{first}.2" == generate_people(7, 1, {first})[0].id


def test_company_has_the_promised_size(company: Directory) -> None:
    """There are 12,000 generated employees beside the 29 named people and services."""
    assert PEOPLE + 29 == len(company.subjects)


def test_teams_have_one_to_forty_people(company: Directory) -> None:
    """Teams of every size exist, single people among them, so that minimum groups have work to do."""
    sizes = Counter(
        Counter(it.attributes["team"] for it in company.subjects.values() if "team" in it.attributes).values()
    )

    assert (1, TEAM_MAX) == (min(sizes), max(sizes))
    assert set(range(1, TEAM_MAX + 1)) == set(sizes)


def test_every_manager_is_somebody(company: Directory) -> None:
    """Whoever manages others is in the directory and holds the role; only the vice president has nobody above."""
    without = [it.id for it in company.subjects.values() if it.type == "user" and "manager" not in it.attributes]
    managers = {it.attributes["manager"] for it in company.subjects.values() if "manager" in it.attributes}

    assert ["kai"] == without
    assert managers <= company.subjects.keys()


def test_head_counts_are_within_the_ceilings(company: Directory, telemetry: PolicySet) -> None:
    """No ceiling of the telemetry set holds more people than it says."""
    assert telemetry.catalogue is not None

    counted = [(where, len(holders(company, telemetry, it.roles)), it) for where, it in ceilings(telemetry.catalogue)]
    assert [] == [(where, count) for where, count, it in counted if it.people_max is not None and count > it.people_max]


def test_nobody_holds_two_special_roles(company: Directory) -> None:
    """Who judges work does not read what was recorded, and the other way round."""
    common = {"role:employee", "role:manager", "role:executive"}
    special = [set(it.groups) - common for it in company.subjects.values()]

    assert 1 == max(map(len, special))


def test_rules_stay_below_the_ceilings(telemetry: PolicySet) -> None:
    """Every role that a rule allows, other than to read rows of one's own, lies within the dataset's ceiling."""
    catalogue = telemetry.catalogue
    assert catalogue is not None
    parents = role_parents(telemetry.edges)
    beyond = []
    for rule in telemetry.rules:
        role, node, action, _, condition, *rest = rule.fields
        if rule.ptype != "p" or rest != ["allow"] or "r.row." in condition:
            continue
        reached = {role}
        while grown := {above for it in reached for above in parents.get(it, ())} - reached:
            reached |= grown
        dataset = catalogue.datasets[node]
        if reached.isdisjoint(dataset.ceiling.of(action).roles):
            beyond.append(rule.text)

    assert [] == beyond


def test_directory_is_written_as_it_is_read(tmp_path: Path) -> None:
    """A small company can be written and loaded again."""
    write_directory(tmp_path, DIRECTORY / "personas.jsonl", seed=3, count=10)

    assert 10 + 29 == len(load_directory(bundle.read_directory_folder(tmp_path)).subjects)
