"""Measures `gatebook.enforcer.Enforcer` beside `casbin.Enforcer`, on the models of Casbin's published benchmark.

Each model is asked up to 1,000 different requests with subjects drawn at random, half of them denied; no result is
kept by either. Casbin is asked as many of the same as it answers in the same time, and must agree on each.
"""

from __future__ import annotations

import itertools
import logging
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import casbin
import msgspec
from casbin.persist.adapters import StringAdapter
from tests.bench.measure import show
from tests.bench.models import TRIPLE, model

from gatebook.enforcer import Enforcer

Request = tuple[Any, ...]
REQUESTS = 1_000
ROUNDS = 7
ROUND_SECONDS = 0.1

RATIO_LEAST = 5_000
"""How many times faster than Casbin is aimed at with 110,000 lines."""

GROWTH_MOST = 1.3
"""How many times the cost with 1,100 lines is aimed at with 110,000, at most."""

SMALL, LARGE = "RBAC, 1,100 lines", "RBAC, 110,000 lines"

_SAME = "r.obj == p.obj && r.act == p.act"
_ACL = f"r.sub == p.sub && {_SAME}"
_RBAC = f"g(r.sub, p.sub) && {_SAME}"
_RBAC_POLICY = (
    "p, alice, data1, read\np, bob, data2, write\np, data2_admin, data2, read\np, data2_admin, data2, write\n"
    "g, alice, data2_admin\n"
)


class Case(msgspec.Struct, frozen=True):
    """A model with its rules, and what draws a request that should be allowed, or denied."""

    name: str
    model: str
    policy: str
    draw: Callable[[random.Random, bool], Request]


class Owned(dict[str, Any]):
    """An object with attributes, for both: of Casbin's they are attributes, of ours items."""

    __getattr__ = dict.__getitem__


def one_of(allowed: Sequence[Request], denied: Sequence[Request]) -> Callable[[random.Random, bool], Request]:
    """Returns what draws one of a few requests."""
    return lambda dice, allow: dice.choice(allowed if allow else denied)


def rbac(roles: int, domains: int = 0) -> Case:
    """Returns Casbin's generated policy: ten users a role, ten roles an object; in domains, or in none."""
    lines = []
    for number in range(roles):
        domain = f", domain{number % domains}" if domains else ""
        lines.append(f"p, group{number}{domain}, data{number // 10}, read")
        lines += [f"g, user{number * 10 + user}, group{number}{domain}" for user in range(10)]

    def draw(dice: random.Random, allow: bool) -> Request:
        user = dice.randrange(roles * 10)
        role = user // 10
        data = role // 10 if allow else (role // 10 + 1 + dice.randrange(roles // 10 - 1)) % (roles // 10)
        domain = (f"domain{role % domains}",) if domains else ()
        return (f"user{user}", *domain, f"data{data}", "read")

    if not domains:
        return Case(f"RBAC, {len(lines):,} lines", model(_RBAC, roles="g = _, _"), "\n".join(lines), draw)
    names = "sub, dom, obj, act"
    # In the other order, Casbin asks of every role in every domain, and takes minutes for the first answer.
    matcher = f"r.dom == p.dom && g(r.sub, p.sub, r.dom) && {_SAME}"
    text = model(matcher, request=names, rule=names, roles="g = _, _, _")
    return Case(f"RBAC with domains, {len(lines):,} lines", text, "\n".join(lines), draw)


def eval_rules(count: int) -> Case:
    """Returns rules that each hold a condition of their own."""
    lines = [
        f"p, r.sub.age > {number % 50} && r.sub.team == 'team{number}', data{number}, read" for number in range(count)
    ]

    def draw(dice: random.Random, allow: bool) -> Request:
        number = dice.randrange(count)
        return Owned(age=60 if allow else number % 50, team=f"team{number}"), f"data{number}", "read"

    return Case(
        f"ABAC by `eval`, {count:,} lines",
        model(f"eval(p.cond) && {_SAME}", rule="cond, obj, act"),
        "\n".join(lines),
        draw,
    )


def cases() -> Iterator[Case]:
    """Yields the models of the table that Casbin publishes, and 1,000 conditions."""
    two = "p, alice, data1, read\np, bob, data2, write\n"
    ours = [("alice", "data1", "read"), ("bob", "data2", "write")]
    others = [("alice", "data2", "read"), ("bob", "data1", "write"), ("eve", "data1", "read")]
    yield Case("ACL, 2 lines", model(_ACL), two, one_of(ours, others))
    through = [*ours, ("alice", "data2", "write")]
    denied = [("bob", "data1", "read"), ("eve", "data2", "read")]
    yield Case("RBAC, 5 lines", model(_RBAC, roles="g = _, _"), _RBAC_POLICY, one_of(through, denied))
    yield from (rbac(100), rbac(1_000), rbac(10_000))
    yield Case(
        "RBAC with resource roles, 6 lines",
        model("g(r.sub, p.sub) && g2(r.obj, p.obj) && r.act == p.act", roles="g = _, _\ng2 = _, _"),
        "p, alice, data1, read\np, bob, data2, write\np, data_group_admin, data_group, write\n"
        "g, alice, data_group_admin\ng2, data1, data_group\ng2, data2, data_group\n",
        one_of([*ours, ("alice", "data2", "write")], [("bob", "data1", "write"), ("eve", "data1", "read")]),
    )
    in_domain = "sub, dom, obj, act"
    yield Case(
        "RBAC with domains, 6 lines",
        model(
            f"g(r.sub, p.sub, r.dom) && r.dom == p.dom && {_SAME}",
            request=in_domain,
            rule=in_domain,
            roles="g = _, _, _",
        ),
        "p, admin, domain1, data1, read\np, admin, domain1, data1, write\np, admin, domain2, data2, read\n"
        "p, admin, domain2, data2, write\ng, alice, admin, domain1\ng, bob, admin, domain2\n",
        one_of(
            [("alice", "domain1", "data1", "read"), ("bob", "domain2", "data2", "write")],
            [("alice", "domain2", "data2", "read"), ("bob", "domain1", "data1", "write")],
        ),
    )
    # The time of Casbin's first answer in a domain grows with the square of the links there.
    yield rbac(10_000, domains=1_000)
    yield Case(
        "ABAC, no rule",
        model("r.sub == r.obj.Owner"),
        "",
        one_of(
            [("alice", Owned(Owner="alice"), "read"), ("bob", Owned(Owner="bob"), "write")],
            [("alice", Owned(Owner="bob"), "read"), ("eve", Owned(Owner="bob"), "write")],
        ),
    )
    yield eval_rules(1_000)
    yield Case(
        "RESTful, 5 lines",
        model("r.sub == p.sub && keyMatch(r.obj, p.obj) && regexMatch(r.act, p.act)"),
        "p, alice, /alice_data/*, GET\np, alice, /alice_data/resource1, POST\np, bob, /alice_data/resource2, GET\n"
        "p, bob, /bob_data/*, POST\np, cathy, /cathy_data, (GET)|(POST)\n",
        one_of(
            [
                ("alice", "/alice_data/resource1", "GET"),
                ("bob", "/bob_data/x", "POST"),
                ("cathy", "/cathy_data", "POST"),
            ],
            [
                ("bob", "/alice_data/resource1", "GET"),
                ("alice", "/bob_data/x", "POST"),
                ("cathy", "/cathy_data", "PUT"),
            ],
        ),
    )
    both = "some(where (p.eft == allow)) && !some(where (p.eft == deny))"
    yield Case(
        "deny-override, 6 lines",
        model(_RBAC, rule=f"{TRIPLE}, eft", roles="g = _, _", effect=both),
        "".join(f"{line}, allow\n" for line in _RBAC_POLICY.splitlines()[:4])
        + "p, alice, data2, write, deny\ng, alice, data2_admin\n",
        one_of([*ours, ("alice", "data2", "read")], [("alice", "data2", "write"), ("eve", "data1", "read")]),
    )
    yield Case(
        "priority, 9 lines",
        model(_RBAC, rule=f"{TRIPLE}, eft", roles="g = _, _", effect="priority(p.eft) || deny"),
        "p, alice, data1, read, allow\np, data1_deny_group, data1, read, deny\n"
        "p, data1_deny_group, data1, write, deny\n"
        "p, alice, data1, write, allow\np, data2_allow_group, data2, read, allow\np, bob, data2, read, deny\n"
        "p, bob, data2, write, deny\ng, alice, data1_deny_group\ng, bob, data2_allow_group\n",
        one_of(
            [("alice", "data1", "read"), ("bob", "data2", "read")],
            [("alice", "data1", "write"), ("bob", "data2", "write")],
        ),
    )


class Measured:
    """Both enforcers of one case, and what their requests cost."""

    def __init__(self, case: Case) -> None:
        """Loads the policy twice, and holds the answers against each other."""
        self.case = case
        self._dice = random.Random(case.name)
        began = time.process_time()
        self._ours = Enforcer(case.model, case.policy or "# none\n")
        self.load_seconds = time.process_time() - began
        read = casbin.Model()
        read.load_model_from_text(case.model)
        self._theirs = casbin.Enforcer(read, StringAdapter(case.policy or "# none"))
        self.first: list[float] = []
        self.ours: list[float] = []
        self.theirs: list[float] = []

    def round(self) -> None:
        """Draws requests anew, and asks both."""
        requests = [self.case.draw(self._dice, index % 2 == 0) for index in range(REQUESTS)]
        self._dice.shuffle(requests)
        self.first.append(_cost(self._ours.enforce, requests))
        passes = max(1, round(ROUND_SECONDS / (self.first[-1] * REQUESTS)))
        self.ours.append(_cost(self._ours.enforce, requests * passes))
        answered, spent = 0, 0.0
        for request in requests:
            began = time.process_time()
            theirs = self._theirs.enforce(*request)
            spent += time.process_time() - began
            answered += 1
            if theirs is not self._ours.enforce(*request):
                raise RuntimeError(f"Gatebook and Casbin disagree on {request}: {self.case.name}")
            if spent > ROUND_SECONDS * 2:
                break
        self.theirs.append(spent / answered)


def _cost(enforce: Callable[..., bool], requests: Sequence[Request]) -> float:
    began = time.process_time()
    for request in requests:
        enforce(*request)
    return (time.process_time() - began) / len(requests)


def main() -> int:
    """Prints the table and whether the aims are reached."""
    logging.getLogger("casbin").setLevel(logging.CRITICAL)
    measured = [Measured(case) for case in cases()]
    for _, it in itertools.product(range(ROUNDS), measured):
        it.round()
    rows, costs = [], {}
    for it in measured:
        ours, first, theirs = (statistics.median(found) * 1e6 for found in (it.ours, it.first, it.theirs))
        costs[it.case.name] = ours, theirs / ours
        rows.append(
            (
                it.case.name,
                f"{it.load_seconds * 1e3:,.0f}",
                f"{first:.2f}",
                f"{ours:.2f}",
                f"{theirs:,.0f}",
                f"{theirs / ours:,.0f}",
            )
        )
    header = ("model", "load ms", "Gatebook us, asked first", "Gatebook us", "Casbin us", "ratio")
    show("One `enforce`: subjects at random, half denied, processor time", header, rows, "bench_casbin")
    growth, ratio = costs[LARGE][0] / costs[SMALL][0], costs[LARGE][1]
    print(f"{LARGE}: {ratio:,.0f} times as fast as Casbin (aim: at least {RATIO_LEAST:,})")  # noqa: T201  # a benchmark prints
    print(f"{LARGE}: {growth:.2f} times its cost with 1,100 lines (aim: at most {GROWTH_MOST})\n")  # noqa: T201  # as above
    return 0 if ratio >= RATIO_LEAST and growth <= GROWTH_MOST else 1


if __name__ == "__main__":
    sys.exit(main())
