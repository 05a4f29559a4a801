"""Random governed sets with all that a real one has: catalogue, notice, purposes, sources of attributes, directory.

Everything is small, so that every person, column, purpose, circumstance and row can be tried. Conditions come in two
sorts: those that the analysis of audiences decides, and those of functions and sums, of which it may say that
somebody is possible.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import msgspec
from hypothesis import strategies as st
from tests.governed import GOVERNED_MODEL

from gatebook.engine.snapshot import Snapshot
from gatebook.policy.directory import load_directory
from gatebook.policy.policy_set import load
from gatebook.revisions.validate import build_draft

SETTINGS = """
name: whole
actions: [read, export]
roles: [role:a, role:b, role:c]
attribute_sources:
  local: {context: [net], subject: [badge]}
  kiosk: {context: [shift]}
"""
CATALOGUE = """
tags:
  secret: {requires_mask: true}
  secret.key: {}
  plain: {}
notices:
  n: {purposes: [train, cost], effective_time: 2026-01-01T00:00:00Z}
datasets:
  t.rows:
    sensitivity: internal
    subject_keys: [who]
    retention_days: 10
    notice: n
    ceiling: {roles: [role:a], people_max: 2}
    columns:
      who: text
      team: {type: text, tags: [plain]}
      level: {type: int, tags: [secret.key]}
      active: bool
  t.sums:
    sensitivity: aggregated
    subject_keys: []
    group_minimum: 4
    retention_days: 10
    notice: n
    purposes: [cost]
    ceiling: {roles: [role:b], people_max: all}
    columns:
      team: text
      level: int
"""
PURPOSES = """
purposes:
  train: {consent: none}
  train.eval: {}
  cost: {consent: none}
  other: {consent: none}
"""
Circumstances = tuple[str, Mapping[str, Any], Mapping[str, Any]]
Tried = tuple[Circumstances, Mapping[str, Any]]
CALLERS = ("local", "kiosk", "nobody")
PURPOSE_NAMES = ("train", "train.eval", "cost", "other")
ACTIONS = ("read", "export")
DECIDABLE = (
    *("r.row.who == r.sub.id",) * 5,
    "r.sub.id == r.row.who",
    "r.row.who != r.sub.id",
    "r.row.who == 'ben'",
    "r.row.who == r.sub.boss",
    "r.row.team == r.sub.team",
    "r.row.team in ('x', 'y')",
    "r.row.team < 'x'",
    "r.row.level > r.sub.level",
    "r.row.level == 2",
    "r.row.level <= 1",
    "r.row.active",
    "r.row.active == False",
    "r.sub.level >= 2",
    "r.sub.team == 'x'",
    "r.sub.id == 'ana'",
    "r.sub.id != 'chidi'",
    "r.sub.badge == 'gold'",
    "r.sub.badge != r.sub.team",
    "r.ctx.net == 'corp'",
    "r.ctx.net != 'corp'",
    "r.ctx.shift > 1",
    "r.ctx.net == r.row.who",
    "g(r.sub.id, 'role:b')",
    "!g(r.sub.id, 'role:a')",
    "True",
    "False",
)
UNDECIDED = (
    "keyMatch(r.row.team, 'x*')",
    "r.row.level + 1 > r.sub.level",
    "keyMatch(r.sub.id, 'a*')",
    "r.row.team < r.row.who",
    "r.sub.id in ('ana', 'ben')",
    "g(r.row.who, 'role:b')",
    "!g(r.row.who, 'role:c')",
)


def conditions(atoms: tuple[str, ...]) -> st.SearchStrategy[str]:
    """Draws conditions of some atoms."""
    return st.recursive(
        st.sampled_from(atoms),
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(" && ".join),
            st.tuples(inner, inner).map(lambda pair: f"({pair[0]} || {pair[1]})"),
            inner.map(lambda text: f"!({text})"),
        ),
        max_leaves=3,
    )


@st.composite
def policies(draw: st.DrawFn, atoms: tuple[str, ...] = DECIDABLE) -> str:
    """Draws the rules and links of a set."""
    common = (
        st.sampled_from(("role:a", "role:a", "role:b", "role:c")),
        st.sampled_from(
            ("t.rows", "t.rows", "t.*", "t.rows.team", "t.rows.level", "t.sums", "tag:secret", "tag:plain")
        ),
        st.sampled_from(("read", "read", "read", "export")),
        st.sampled_from(("*", "*", "train", "train.eval", "cost")),
        st.booleans().flatmap(lambda plain: st.just("True") if plain else conditions(atoms)),
    )
    rules = st.one_of(
        st.tuples(st.just("p"), *common, st.sampled_from(("allow", "allow", "allow", "deny"))),
        st.tuples(st.just("p"), *common, st.sampled_from(("allow", "allow", "allow", "deny"))),
        st.tuples(st.just("p2"), *common, st.sampled_from(("nullify", "none", "redact", "regex:a:b", "regex:b:c"))),
        st.tuples(st.just("p3"), *common, st.sampled_from(("3", "5"))),
    )
    edges = st.tuples(
        st.just("g"), st.sampled_from(("role:a", "role:b", "role:c", "dora")), st.sampled_from(("role:a", "role:b"))
    )
    lines = [
        *draw(st.lists(edges, max_size=2, unique=True)),
        *draw(st.lists(rules, min_size=3, max_size=9, unique=True)),
    ]
    return "".join(f"{', '.join(line)}\n" for line in lines)


@st.composite
def directories(draw: st.DrawFn) -> bytes:
    """Draws who there is."""
    lines = []
    for name in ("ana", "ben", "chidi", "dora", "svc-x"):
        attributes = draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "team": st.sampled_from(("x", "y", "z")),
                    "level": st.integers(0, 3),
                    "boss": st.sampled_from(("ana", "ben", "nobody")),
                    "badge": st.sampled_from(("gold", "tin")),
                },
            )
        )
        groups = draw(st.lists(st.sampled_from(("role:a", "role:b", "role:c")), max_size=2, unique=True))
        type_ = "service" if name.startswith("svc") else "user"
        lines.append(msgspec.json.encode({"type": type_, "id": name, "attributes": attributes, "groups": groups}))
    return b"\n".join(lines) + b"\n"


def files_of(policy: str) -> dict[str, bytes]:
    """Returns the files of a set."""
    files = {
        "model.conf": GOVERNED_MODEL,
        "policy.csv": policy,
        "gatebook.yaml": SETTINGS,
        "catalogue.yaml": CATALOGUE,
        "purposes.yaml": PURPOSES,
    }
    return {name: text.encode() for name, text in files.items()}


def snapshot_of(policy: str, people: bytes) -> Snapshot:
    """Returns a set under a directory, compiled. Findings across files do not matter here."""
    return build_draft(load(files_of(policy), accepted=True), "", load_directory({"people.jsonl": people}))


def tried(policy: str, seed: int, at_most: int = 40) -> list[Tried]:
    """Returns some of all circumstances with some of all rows, chosen by a seed."""
    chosen = list(product(circumstances(policy), rows(policy)))
    return random.Random(seed).sample(chosen, min(at_most, len(chosen)))


def circumstances(policy: str) -> Iterator[Circumstances]:
    """Yields callers, contexts and stated properties: one of each that conditions of the policy can tell apart."""
    nets = (None, "corp", "ana", "ben", "lan", {"zone": "x"}) if "r.ctx.net" in policy else (None,)
    shifts = (None, 1, 2) if "r.ctx.shift" in policy else (None,)
    badges = (None, "gold", "x", "tin") if "r.sub.badge" in policy else (None,)
    for caller, net, shift, badge in product(CALLERS, nets, shifts, badges):
        context = {key: value for key, value in (("net", net), ("shift", shift)) if value is not None}
        if caller == "nobody" and (context or badge):
            continue
        yield caller, context, {} if badge is None else {"badge": badge}


def rows(policy: str) -> Iterator[Mapping[str, Any]]:
    """Yields rows: one of each that conditions of the policy can tell apart."""
    everybody = ("ana", "ben", "chidi", "dora", "svc-x", "zoe", "lan", "corp")
    teams = ("x", "y", "z", "a", "xy", None) if "r.row.team" in policy else ("a",)
    levels = (-9, 0, 1, 2, 3, 4, None) if "r.row.level" in policy else (0,)
    actives = (True, False, None) if "r.row.active" in policy else (True,)
    for who, team, level, active in product(
        everybody if "r.row.who" in policy else ("zoe", "ana"), teams, levels, actives
    ):
        yield {"who": who, "team": team, "level": level, "active": active}
