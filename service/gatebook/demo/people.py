"""The people of a generated company, as a directory of JSON lines.

Owns who works there. The same seed and count give the same bytes, on every version of Python:

1. people work in teams of 1 to 40, teams in organisations; each team has a manager, who reports to
   the director of the organisation, who reports to the vice president `kai`;
2. everybody is an employee, a few hold one further role, nobody two: the head-counts stay below the
   ceilings of the telemetry set, together with the named people of `personas.jsonl`;
3. ids are `given.family`, with a number when the name is taken, and never those of a persona.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from gatebook.demo.dice import Dice
from gatebook.demo.texts import texts

SEED: Final = 2026
PEOPLE: Final = 12_000
TEAM_MAX: Final = 40
VICE_PRESIDENT: Final = "kai"

ORGS: Final = (
    ("engineering", 46),
    ("sales", 14),
    ("operations", 12),
    ("research", 8),
    ("platform", 6),
    ("finance", 5),
    ("people", 4),
    ("security", 3),
    ("legal", 2),
)
COUNTRIES: Final = (
    ("US", 54),
    ("IN", 12),
    ("GB", 8),
    ("DE", 6),
    ("IE", 4),
    ("CA", 4),
    ("BR", 4),
    ("SG", 3),
    ("FR", 3),
    ("JP", 2),
)

SPECIAL_ROLES: Final[Sequence[tuple[str, str, int]]] = (
    ("role:mci_researcher", "research", 13),
    ("role:incident_responder", "security", 4),
    ("role:finops", "finance", 10),
    ("role:hrbp", "people", 59),
    ("role:promo_committee", "engineering", 8),
    ("role:jury", "engineering", 6),
    ("role:auditor", "legal", 5),
    ("role:privacy_officer", "legal", 3),
    ("role:platform_admin", "platform", 11),
    ("role:leaderboard_member", "engineering", 40),
)
"""Which role, in which organisation, held by how many beside the named people."""


class Person(msgspec.Struct):
    """One generated employee, until it is written. Owned by `generate_people`."""

    id: str
    level: int
    team: str
    org: str
    country: str
    manager: str
    groups: list[str]


def generate_people(seed: int = SEED, count: int = PEOPLE, taken: Collection[str] = ()) -> list[Person]:
    """Returns the generated employees, team by team; `taken` are ids that they must not have."""
    dice = Dice(seed)
    ids = _ids(dice, taken)
    plants = texts("plants")
    people: list[Person] = []
    directors: dict[str, str] = {}
    while len(people) < count:
        team = f"team-{plants[len(people) % len(plants)]}-{len(people):05d}"
        org = dice.weighted(ORGS)
        size = min(1 + dice.skewed(TEAM_MAX * 2) % TEAM_MAX, count - len(people))
        people += _team(dice, ids, team=team, org=org, size=size, directors=directors)
    _assign_special_roles(dice, people)
    return people


def write_directory(folder: Path, personas: Path, seed: int = SEED, count: int = PEOPLE) -> None:
    """Writes the personas and the generated employees as a directory of JSON lines."""
    named = personas.read_bytes()
    taken = {json.loads(line)["id"] for line in named.splitlines() if line.strip()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "personas.jsonl").write_bytes(named)
    people = generate_people(seed, count, taken)
    (folder / "employees.jsonl").write_bytes(json_lines(people))


def json_lines(people: Sequence[Person]) -> bytes:
    """Returns people as JSON lines, the same bytes for the same people."""
    return b"".join(json.dumps(_record(person), separators=(",", ":")).encode() + b"\n" for person in people)


def _record(person: Person) -> Mapping[str, object]:
    attributes = {
        "level": person.level,
        "team": person.team,
        "org": person.org,
        "country": person.country,
        "jurisdiction": person.country,
        "manager": person.manager,
        "agent": False,
    }
    return {"type": "user", "id": person.id, "attributes": attributes, "groups": person.groups}


def _ids(dice: Dice, taken: Collection[str]) -> Iterator[str]:
    """Yields ids that nobody has yet."""
    given, family = texts("given_names"), texts("family_names")
    used: dict[str, int] = dict.fromkeys(taken, 1)
    while True:
        name = f"{dice.among(given)}.{dice.among(family)}"
        used[name] = used.get(name, 0) + 1
        yield name if used[name] == 1 else f"{name}.{used[name]}"


def _team(
    dice: Dice, ids: Iterator[str], *, team: str, org: str, size: int, directors: dict[str, str]
) -> Iterator[Person]:
    """Yields a team: its manager first, or a director where the organisation has none yet."""
    leader = next(ids)
    is_director = org not in directors
    country = dice.weighted(COUNTRIES)
    above = VICE_PRESIDENT if is_director else directors[org]
    directors.setdefault(org, leader)
    roles = ["role:employee"] if size == 1 and not is_director else ["role:employee", "role:manager"]
    yield Person(leader, 8 if is_director else 6, team, org, country, above, roles)
    for _ in range(size - 1):
        # Most of a team sit in one country.
        own = country if dice.below(4) else dice.weighted(COUNTRIES)
        yield Person(next(ids), 2 + dice.below(4), team, org, own, leader, ["role:employee"])


def _assign_special_roles(dice: Dice, people: Sequence[Person]) -> None:
    """Gives each special role to people of its organisation who hold no other."""
    for role, org, head_count in SPECIAL_ROLES:
        candidates = [person for person in people if person.org == org and person.groups == ["role:employee"]]
        for _ in range(min(head_count, len(candidates))):
            chosen = candidates.pop(dice.below(len(candidates)))
            chosen.groups.append(role)
            chosen.level = max(chosen.level, 3)
