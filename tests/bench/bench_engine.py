"""Measures the engine alone: microseconds per decision, beside Casbin's own enforcer.

The first four models are those of Casbin's published benchmark, with its generator.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any

import casbin
import msgspec
from casbin.persist.adapters import StringAdapter
from tests.bench.measure import Step, microseconds, show

from gatebook.compiler.program import compile_program
from gatebook.engine.evaluate import evaluate, evaluate_columns
from gatebook.policy.casbin_files import read_casbin
from gatebook.policy.policy_set import GOVERNED, PLAIN, PolicySet
from gatebook.policy.settings import Settings
from gatebook.values import Effect

_ACL = "r.sub == p.sub && r.obj == p.obj && r.act == p.act"
_RBAC = "g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act"
_REQUEST = {"sub": "user501", "obj": "data9", "act": "read"}


class Case(msgspec.Struct, frozen=True):
    """One model with its rules and a request."""

    name: str
    model: str
    policy: str
    request: dict[str, Any]


def model(
    matcher: str, rule: str = "sub, obj, act", roles: str = "", effect: str = "some(where (p.eft == allow))"
) -> str:
    """Returns the text of a plain model."""
    return (
        f"[request_definition]\nr = sub, obj, act\n[policy_definition]\np = {rule}\n"
        + (f"[role_definition]\n{roles}\n" if roles else "")
        + f"[policy_effect]\ne = {effect}\n[matchers]\nm = {matcher}\n"
    )


def rbac(rules: int, users: int) -> str:
    """Returns Casbin's generated policy: ten rules an object, ten users a role."""
    lines = [f"p, group{number}, data{number // 10}, read" for number in range(rules)]
    lines += [f"g, user{number}, group{number // 10}" for number in range(users)]
    return "\n".join(lines) + "\n"


CASES = (
    Case("ACL, 2 lines", model(_ACL), "p, user501, data9, read\np, ben, data2, write\n", _REQUEST),
    Case("RBAC, 1,100 lines", model(_RBAC, roles="g = _, _"), rbac(100, 1_000), _REQUEST),
    Case("RBAC, 11,000 lines", model(_RBAC, roles="g = _, _"), rbac(1_000, 10_000), _REQUEST),
    Case("RBAC, 110,000 lines", model(_RBAC, roles="g = _, _"), rbac(10_000, 100_000), _REQUEST),
    Case(
        "resource roles, 6 lines",
        model("g(r.sub, p.sub) && g2(r.obj, p.obj) && r.act == p.act", roles="g = _, _\ng2 = _, _"),
        "p, user501, data1, read\np, admin, group1, read\np, admin, group1, write\n"
        "g, user501, admin\ng2, data9, group1\ng2, data8, group1\n",
        _REQUEST,
    ),
    Case(
        "keyMatch2, 1,000 lines",
        model("r.sub == p.sub && keyMatch2(r.obj, p.obj) && r.act == p.act"),
        "".join(f"p, user{number}, /data/:id/{number}, read\n" for number in range(1_000)),
        {"sub": "user501", "obj": "/data/7/501", "act": "read"},
    ),
    Case(
        "ABAC rules, 1,000 lines",
        model("eval(p.cond) && r.obj == p.obj && r.act == p.act", "cond, obj, act"),
        "".join(f"p, r.sub == 'user{number}', data{number}, read\n" for number in range(1_000)),
        {"sub": "user501", "obj": "data501", "act": "read"},
    ),
)

GOVERNED_MODEL = """
[request_definition]
r = sub, obj, act, purpose, ctx, row
[policy_definition]
p = sub, obj, act, purpose, cond, eft
p2 = sub, obj, act, purpose, cond, mask
p3 = sub, obj, act, purpose, cond, k
[role_definition]
g = _, _
g2 = _, _
g3 = _, _
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = g(r.sub.id, p.sub) && g2(r.obj, p.obj) && r.act == p.act && g3(r.purpose, p.purpose) && eval(p.cond)
m2 = g(r.sub.id, p2.sub) && g2(r.obj, p2.obj) && r.act == p2.act && g3(r.purpose, p2.purpose) && eval(p2.cond)
m3 = g(r.sub.id, p3.sub) && g2(r.obj, p3.obj) && r.act == p3.act && g3(r.purpose, p3.purpose) && eval(p3.cond)
"""
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


def compare(case: Case) -> tuple[str, ...]:
    """Measures one plain model, and Casbin on it."""
    start = time.perf_counter()
    read = policy_set(PLAIN, case.model, case.policy)
    loaded = time.perf_counter()
    program = compile_program(read, None)
    compiled = time.perf_counter()
    casbin_model = casbin.Model()
    casbin_model.load_model_from_text(case.model)
    enforcer = casbin.Enforcer(casbin_model, StringAdapter(case.policy))
    values = list(case.request.values())
    if (evaluate(program, case.request).effect is Effect.ALLOW) is not enforcer.enforce(*values):
        raise RuntimeError(f"Gatebook and Casbin disagree: {case.name}")
    found = microseconds({"ours": lambda: evaluate(program, case.request), "theirs": lambda: enforcer.enforce(*values)})
    ours, theirs = found["ours"], found["theirs"]
    times = f"{(loaded - start) * 1e3:,.0f}", f"{(compiled - loaded) * 1e3:,.0f}"
    return case.name, *times, f"{ours:.1f}", f"{theirs:,.0f}", f"{theirs / ours:,.0f}"


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
    """Prints both tables."""
    logging.getLogger("casbin").setLevel(logging.CRITICAL)
    header = ("model", "load ms", "compile ms", "Gatebook us", "Casbin us", "ratio")
    show("Engine: one decision of a plain set", header, [compare(case) for case in CASES], "bench_engine")
    title = f"Engine: one check of a governed set of {DATASETS} datasets and {SUBJECTS:,} subjects"
    rows = [(name, f"{took:.1f}") for name, took in columns().items()]
    show(title, ("check", "us"), rows, "bench_engine")


if __name__ == "__main__":
    main()
