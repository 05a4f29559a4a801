"""How long a set of a million lines takes to load and to compile, and how much memory, in a fresh process each.

Owns the steps that are told apart: our reading and its findings, Casbin's reading of the same files beside ours,
and the compiling. Memory is what the kernel says of the process: the largest so far, and what the set takes
once it is there, its files included.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from tests.bench.measure import ROOT, show
from tests.bench.models import model, rbac

from gatebook.compiler.program import Program
from gatebook.engine.evaluate import evaluate
from gatebook.engine.snapshot import build_snapshot
from gatebook.policy.casbin_files import read_casbin
from gatebook.policy.draft import Draft
from gatebook.policy.lint import lint
from gatebook.policy.oracle import compare_reading
from gatebook.policy.policy_set import PLAIN, PolicySet
from gatebook.policy.settings import Settings
from gatebook.values import Effect, Revision

MATCHER = "g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act"
T = TypeVar("T")


class Measured(msgspec.Struct):
    """What one process measured: seconds of processor time by step, and mebibytes."""

    seconds: dict[str, float] = {}
    files: int = 0
    before: int = 0
    compiled: int = 0
    peak: int = 0

    def timed(self, step: str, work: Callable[[], T]) -> T:
        """Runs a step."""
        began = time.process_time()
        found = work()
        self.seconds[step] = time.process_time() - began
        return found


def by_roles(lines: int) -> str:
    """Returns Casbin's generated policy: one rule for ten users."""
    rules = lines // 11
    return rbac(rules, lines - rules)


def by_rules(lines: int) -> str:
    """Returns a policy of rules alone: ten for each user, seven for each object."""
    return "".join(f"p, user{number // 10}, data{number % (lines // 7)}, read\n" for number in range(lines))


KINDS: dict[str, tuple[Callable[[int], str], dict[str, str]]] = {
    "users in roles": (by_roles, {"sub": "user501", "obj": "data5", "act": "read"}),
    "rules alone": (by_rules, {"sub": "user7", "obj": "data70", "act": "read"}),
}


def memory_mib() -> int:
    """Returns how much memory this process takes now."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize() >> 20


def measure(kind: str, lines: int) -> Measured:
    """Measures one set in this process."""
    make, question = KINDS[kind]
    files = {"model.conf": model(MATCHER, roles="g = _, _").encode(), "policy.csv": make(lines).encode()}
    measured = Measured(files=sum(map(len, files.values())) >> 20, before=memory_mib())
    read, findings = measured.timed("read", lambda: read_casbin(files))
    draft = Draft(read.model, read.rules, read.edges, Settings(), None, None, files)
    findings += measured.timed("lint", lambda: lint(draft))
    findings += measured.timed("cross-check", lambda: compare_reading(files, read))
    if findings:
        raise RuntimeError(f"the set has findings: {findings[0]}")
    policy_set = PolicySet("bench", PLAIN, "", read.model, read.rules, read.edges, Settings(), None, None, files, ())
    revision = Revision("", 1)
    snapshot = measured.timed(
        "compile", lambda: build_snapshot(policy_set, revision, None, None, mask_master=bytes(32))
    )
    measured.compiled = memory_mib()
    measured.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    require_right(snapshot.program, question)
    return measured


def require_right(program: Program, question: dict[str, str]) -> None:
    """Asks two questions whose answers are known."""
    effects = [evaluate(program, {**question, "obj": item}).effect for item in (question["obj"], "data0")]
    if effects != [Effect.ALLOW, Effect.DENY]:
        raise RuntimeError("the set answers otherwise than its lines say")


def in_fresh_process(kind: str, lines: int) -> Measured:
    """Measures one set in a process that has done nothing else."""
    command = [sys.executable, "-m", "tests.bench.bench_scale", "--one", kind, "--lines", str(lines)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    return msgspec.json.decode(done.stdout, type=Measured)


def row(kind: str, lines: int) -> tuple[str, ...]:
    """Returns the figures of one set as text."""
    measured = in_fresh_process(kind, lines)
    seconds = measured.seconds
    steps = [f"{seconds[step]:.1f}" for step in ("read", "lint", "cross-check", "compile")]
    per_million = (measured.compiled - measured.before) * 1_000_000 // lines
    sizes = [str(it) for it in (measured.files, per_million, measured.peak)]
    return f"{kind}, {lines:,} lines", *steps, f"{sum(seconds.values()):.1f}", *sizes


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--one", choices=sorted(KINDS), help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.one:
        sys.stdout.buffer.write(msgspec.json.encode(measure(chosen.one, chosen.lines)))
        return
    header = (
        "",
        "read s",
        "lint s",
        "cross-check s",
        "compile s",
        "in all s",
        "files MiB",
        "MiB per million",
        "peak MiB",
    )
    rows = [row(kind, lines) for kind in KINDS for lines in (chosen.lines // 10, chosen.lines)]
    show("A large set, from files to a program; processor time", header, rows, "bench_scale")


if __name__ == "__main__":
    main()
