"""How long guardrails take to be proved, against the numbers of datasets, rules and guardrails.

The sets are those of `bench_gate`. Each guardrail holds of them, so that nothing is found before all is looked at:
nobody without a role reads what has a tag, in clear. Times are of the processor, in one thread.
"""

from __future__ import annotations

import argparse
import time

import msgspec
from tests.bench import bench_gate
from tests.bench.measure import show

from gatebook.governance.prove import Prover, Result
from gatebook.policy.policy_set import PolicySet, load

SIZES = ((20, 100, 1), (20, 1_000, 1), (20, 1_000, 8), (100, 1_000, 8))


def guarded(datasets: int, rules: int, guardrails: int) -> PolicySet:
    """Makes a set with guardrails."""
    files = bench_gate.files(datasets, rules)
    roles = [f"role:r{number}" for number in range(max(20, rules // 20))]
    said = {
        f"tag-{number}": {
            "never": {
                "who": {"without": roles},
                "actions": ["read", "share"],
                "on": [f"tag:t{number}"],
                "unless": {"masked": "any"},
            }
        }
        for number in range(guardrails)
    }
    return load({**files, "guardrails.yaml": msgspec.json.encode({"guardrails": said})}, accepted=True)


def main() -> None:
    """Prints the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", action="store_true", help="Only the largest.")
    chosen = parser.parse_args()
    rows = []
    for datasets, rules, guardrails in SIZES[-1:] if chosen.most else SIZES:
        policy_set = guarded(datasets, rules, guardrails)
        begun = time.process_time()
        verdicts = list(Prover(policy_set).verdicts())
        seconds = time.process_time() - begun
        proved = sum(verdict.result is Result.PROVED for verdict in verdicts)
        questions = sum(verdict.questions for verdict in verdicts)
        rows.append((f"{datasets:,}", f"{rules:,}", f"{guardrails}", f"{proved}", f"{questions:,}", f"{seconds:.2f}"))
    header = ("datasets", "rules", "guardrails", "proved", "questions", "CPU s")
    show("the gate: guardrails", header, rows, "bench_prove")


if __name__ == "__main__":
    main()
