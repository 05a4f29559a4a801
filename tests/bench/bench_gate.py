"""How long the gate takes: the audience of everything, and every ceiling, against sizes of directory, catalogue, rules.

The sets are drawn: roles in three levels, conditions on attributes, circumstances, own rows and teams, denies on tags,
masks that tags demand. The last row is what the gate is built for. Times are of the processor, in one thread.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import msgspec
from tests.bench.measure import show
from tests.governed import GOVERNED_MODEL

from gatebook.governance.audience import Audiences
from gatebook.governance.ceilings import exceeded
from gatebook.governance.impact import impact_of
from gatebook.policy.directory import Directory, load_directory
from gatebook.policy.policy_set import PolicySet, load

SEED = 20_261_121
NOW = datetime(2026, 11, 21, tzinfo=UTC)
COLUMNS = 10
ACTIONS = ("read", "export", "share", "write")
PURPOSES = tuple(f"{root}{child}" for root in ("train", "cost", "care", "audit") for child in ("", ".a", ".b"))
SIZES = ((1_000, 20, 1_000), (12_000, 20, 1_000), (12_000, 100, 1_000), (12_000, 100, 10_000))
CONDITIONS = (
    *("True",) * 12,
    *("r.sub.level >= 3", "r.sub.level >= 5 && r.sub.country == 'US'", "r.sub.country in ('US', 'IE', 'DE')"),
    *("r.ctx.network == 'corp'", "r.ctx.network == 'corp' && r.sub.level >= 2"),
    *("r.row.c1 == r.sub.id", "r.row.c2 == r.sub.team", "r.row.c5 >= 3 && r.row.c2 != 'none'"),
)


def files(datasets: int, rules: int) -> dict[str, bytes]:
    """Makes a governed set."""
    dice = random.Random(SEED)
    roles = [f"role:r{number}" for number in range(max(20, rules // 20))]
    texts = {
        "model.conf": GOVERNED_MODEL,
        "gatebook.yaml": (
            f"name: gate\nactions: [{', '.join(ACTIONS)}]\nroles: [{', '.join(roles)}]\n"
            "attribute_sources:\n  local: {context: [network]}\n"
        ),
        "purposes.yaml": "purposes:\n" + "".join(f"  {name}: {{consent: none}}\n" for name in PURPOSES),
        "catalogue.yaml": "".join(_catalogue(datasets, roles)),
        "policy.csv": "".join(f"{', '.join(line)}\n" for line in _lines(dice, datasets, rules, roles)),
    }
    return {name: text.encode() for name, text in texts.items()}


def _catalogue(datasets: int, roles: Sequence[str]) -> Iterator[str]:
    yield "tags:\n" + "".join(f"  t{number}: {{requires_mask: {str(number < 3).lower()}}}\n" for number in range(8))
    yield f"notices:\n  n: {{purposes: [{', '.join(PURPOSES[:9])}], effective_time: 2026-01-01T00:00:00Z}}\n"
    yield "datasets:\n"
    for number in range(datasets):
        yield f"  s{number % 7}.d{number}:\n    sensitivity: internal\n    subject_keys: [c1]\n    retention_days: 10\n"
        yield f"    notice: n\n    ceiling: {{roles: [{roles[number % len(roles)]}], people_max: 40}}\n    columns:\n"
        for column in range(1, COLUMNS + 1):
            type_ = "int" if column == 5 else "text"  # one that is ordered
            yield f"      c{column}: {{type: {type_}, tags: [t{(number + column) % 8}]}}\n"


def _lines(dice: random.Random, datasets: int, rules: int, roles: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for number, role in enumerate(roles):
        if number % 3:
            yield ("g", role, roles[number // 3])
    for _ in range(rules):
        number = dice.randrange(datasets)
        dataset = f"s{number % 7}.d{number}"
        node = dice.choice(
            (dataset, dataset, dataset, f"{dataset}.c{dice.randint(1, COLUMNS)}", f"tag:t{dice.randrange(8)}")
        )
        if dice.random() < 0.01:  # few speak of so much
            node = f"s{number % 7}.*"
        head = (dice.choice(roles), node, dice.choice((*ACTIONS[:1] * 5, *ACTIONS)), dice.choice(("*", *PURPOSES)))
        kind = dice.random()
        if kind < 0.8:  # shares of kinds
            yield ("p", *head, dice.choice(CONDITIONS), "allow" if dice.random() < 0.9 else "deny")
        else:
            yield ("p2", *head, dice.choice(CONDITIONS[:14]), "nullify")


def people(count: int, rules: int) -> bytes:
    """Makes a directory."""
    dice = random.Random(SEED)
    roles = [f"role:r{number}" for number in range(max(20, rules // 20))]
    lines = []
    for number in range(count):
        attributes = {
            "level": dice.randint(1, 9),
            "team": f"team-{number // 20}",
            "country": dice.choice(("US", "IE", "DE", "IN", "GB")),
        }
        groups = sorted({"role:r0", *dice.sample(roles, dice.randint(0, 3))})
        lines.append(
            msgspec.json.encode({"type": "user", "id": f"p{number}", "attributes": attributes, "groups": groups})
        )
    return b"\n".join(lines) + b"\n"


def measured(policy_set: PolicySet, directory: Directory) -> tuple[float, float, int, int]:
    """Returns the seconds of every audience and of every ceiling after it, the cells, and how many are beyond."""
    begun = time.process_time()
    audiences = Audiences(policy_set, directory)
    cells = sum(1 for dataset in audiences.datasets() for _ in audiences.cells(dataset))
    whole = time.process_time() - begun
    begun = time.process_time()
    beyond = sum(one.outside.bit_count() for one in exceeded(audiences))
    ceilings = time.process_time() - begun
    return whole, ceilings, cells, beyond


def compared(policy_set: PolicySet, directory: Directory, sizes: tuple[int, int]) -> Iterator[tuple[str, float, int]]:
    """Yields what a change does to a set, the seconds of its impact, and how many changes of access that makes."""
    made = files(*sizes)
    lines = made["policy.csv"].decode().splitlines(keepends=True)
    kept = [line for number, line in enumerate(lines) if number % 100]
    changes = {
        "nothing": lines,
        "one rule": [*lines, "p, role:r0, s0.d0, read, *, True, allow\n"],
        "1% of lines less": kept,
    }
    for name, text in changes.items():
        new = load({**made, "policy.csv": "".join(text).encode()}, accepted=True)
        begun = time.process_time()
        impact = impact_of(policy_set, new, directory, NOW)
        yield name, time.process_time() - begun, len(impact.changes)


def again(policy_set: PolicySet, sizes: tuple[int, int], lines: bytes) -> Iterator[tuple[str, float, float]]:
    """Yields what changes, and the seconds of every ceiling from nothing and beside what was found before it."""
    made = files(*sizes)
    directory = load_directory({"people.jsonl": lines})
    first = Audiences(policy_set, directory)
    for _ in exceeded(first):
        pass
    before = first.remembered()
    rule = load(
        {**made, "policy.csv": made["policy.csv"] + b"p, role:r0, s0.d0, read, *, True, allow\n"}, accepted=True
    )
    changes = {
        "one rule": (rule, directory),
        "one person": (policy_set, load_directory({"people.jsonl": lines.replace(b'"team-9"', b'"team-8"', 1)})),
        "one person less": (policy_set, load_directory({"people.jsonl": lines.partition(b"\n")[2]})),
    }
    for name, (new, people_now) in changes.items():
        seconds, found = [], []
        for known in (None, before):
            begun = time.process_time()
            audiences = Audiences(new, people_now, before=known)
            found.append([(one.dataset.id, one.action, one.not_proved) for one in exceeded(audiences)])
            seconds.append(time.process_time() - begun)
        if found[0] != found[1]:
            message = f"{name}: what was carried over is not what is found from nothing"
            raise AssertionError(message)
        yield name, seconds[0], seconds[1]


def main() -> None:
    """Prints the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", action="store_true", help="Only the largest.")
    chosen = parser.parse_args()
    rows, impacts, repeated = [], [], []
    for subjects, datasets, rules in SIZES[-1:] if chosen.most else SIZES:
        policy_set = load(files(datasets, rules), accepted=True)
        lines = people(subjects, rules)
        directory = load_directory({"people.jsonl": lines})
        whole, ceilings, cells, beyond = measured(policy_set, directory)
        sizes = (f"{subjects:,}", f"{datasets:,}", f"{rules:,}")
        rows.append((*sizes, f"{cells:,}", f"{whole:.2f}", f"{ceilings:.2f}", f"{beyond:,}"))
        for name, seconds, changes in compared(policy_set, directory, (datasets, rules)):
            impacts.append((*sizes, name, f"{seconds:.2f}", f"{changes:,}"))
        for name, nothing, beside in again(policy_set, (datasets, rules), lines):
            repeated.append((*sizes, name, f"{nothing:.2f}", f"{beside:.2f}"))
    header = ("people", "datasets", "rules", "cells", "audiences s", "ceilings s", "beyond")
    show("the gate: audiences and ceilings", header, rows, "bench_gate")
    carried = ("people", "datasets", "rules", "what changes", "from nothing s", "carried over s")
    show("the gate: every ceiling again after a change", carried, repeated, "bench_gate")
    columns = ("people", "datasets", "rules", "what changes", "impact s", "changes")
    show("the gate: impact of a change", columns, impacts, "bench_gate")


if __name__ == "__main__":
    main()
