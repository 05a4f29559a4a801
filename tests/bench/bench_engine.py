"""Measures the engine alone: microseconds per check of a governed set. Of plain sets, see `bench_casbin`."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.bench.measure import Step, microseconds, show
from tests.governed import GOVERNED_MODEL

from gatebook.compiler.program import compile_program
from gatebook.engine.evaluate import evaluate_columns
from gatebook.policy.casbin_files import read_casbin
from gatebook.policy.policy_set import GOVERNED, PolicySet
from gatebook.policy.settings import Settings

DATASETS, COLUMNS, SUBJECTS, ROLES, TAGS = 15, 12, 12_000, 4, 5


def governed_policy() -> str:
    """Returns a governed set of the size of a company's telemetry, its catalogue and directory as edges."""
    lines = []
    for dataset in range(DATASETS):
        for role in range(ROLES):
            condition = "r.sub.level >= 2 && r.ctx.network == 'corp'"
            purpose = "train" if role % 2 else "cost"
            lines.append(f"p, role:r{role}, d{dataset}, read, {purpose}, {condition}, allow")
        lines.append(f"p2, role:r1, d{dataset}, read, *, r.row.secret == True, nullify")
        lines.append(f"p2, role:r1, d{dataset}.c1, read, *, True, hash")
        lines.append(f"p3, role:r1, d{dataset}, read, train, True, 5")
        lines.append(f"g2, d{dataset}, x.*")
        for column in range(COLUMNS):
            lines.append(f"g2, d{dataset}.c{column}, d{dataset}")
            lines.append(f"g2, d{dataset}.c{column}, tag:t{column % TAGS}.a")
    for tag in range(TAGS):
        lines.append(f"g2, tag:t{tag}.a, tag:t{tag}")
        lines.append(f"p, role:all, tag:t{tag}, read, *, r.row.country == 'DE' && r.sub.level < 1, deny")
        lines.append(f"p2, role:all, tag:t{tag}, read, *, True, redact")
    lines += ["g3, train, *", "g3, train.eval, train", "g3, cost, *"]
    lines += [f"g, user{number}, role:r{number % ROLES}" for number in range(SUBJECTS)]
    lines += [f"g, role:r{role}, role:all" for role in range(ROLES)]
    return "\n".join(lines) + "\n"


def policy_set(kind: str, model_text: str, policy: str) -> PolicySet:
    """Reads a policy set, without the linter and the cross-check with Casbin."""
    files = {"model.conf": model_text.encode(), "policy.csv": policy.encode()}
    read, _ = read_casbin(files)
    return PolicySet("bench", kind, "", read.model, read.rules, read.edges, Settings(), None, None, files, ())


def columns() -> dict[str, float]:
    """Measures governed checks of one and ten columns, with and without a row."""
    program = compile_program(policy_set(GOVERNED, GOVERNED_MODEL, governed_policy()), None)
    question: dict[str, Any] = {
        "subject": "user1",
        "attributes": {"level": 3},
        "action": "read",
        "purpose": "train.eval",
        "context": {"network": "corp"},
        "row": {"secret": False, "country": "DE"},
    }
    asked: dict[str, tuple[int, dict[str, Any]]] = {
        "1 column, allowed": (1, {}),
        "1 column, allowed, row unknown": (1, {"row": None}),
        "10 columns, allowed": (10, {}),
        "10 columns, allowed, row unknown": (10, {"row": None}),
        "1 column, purpose not granted": (1, {"purpose": "cost"}),
        "10 columns, stranger": (10, {"subject": "nobody"}),
    }
    steps: dict[str, Step] = {}
    for name, (count, change) in asked.items():
        nodes = [f"d3.c{column}" for column in range(count)]
        steps[name] = partial(evaluate_columns, program, **{**question, "columns": nodes, **change})
    return microseconds(steps)


def main() -> None:
    """Prints the table."""
    title = f"Engine: one check of a governed set of {DATASETS} datasets and {SUBJECTS:,} subjects"
    rows = [(name, f"{took:.1f}") for name, took in columns().items()]
    show(title, ("check", "us"), rows, "bench_engine")


if __name__ == "__main__":
    main()
