"""Random governed sets: rules over a catalogue of two columns, which stands as edges among them."""

from __future__ import annotations

from hypothesis import strategies as st
from tests.governed import GOVERNED_MODEL
from tests.property.strategies import ROLES, conditions, read_drawn

from gatebook.policy.policy_set import GOVERNED, PolicySet

TWO_WAYS = GOVERNED_MODEL.replace(
    "\nm = ", "\nm = r.ctx.owner == p.sub && g2(r.obj, p.obj) && r.row.active && eval(p.cond) || "
).replace("\nm2 = ", "\nm2 = r.ctx.owner == p2.sub && g2(r.obj, p2.obj) || ")
"""A governed model whose rules match in two ways: by keys that may be unknown, and under a part on the row."""

CATALOGUE = """
g2, t.a, t
g2, t.b, t
g2, t, x.*
g2, t.b, tag:secret.key
g2, tag:secret.key, tag:secret
g3, train, *
g3, train.eval, train
g3, cost, *
"""
SUBJECTS = ("ana", "ben", "chidi")
COLUMNS = ("t.a", "t.b")
ACTIONS = ("read", "export")
PURPOSES = ("train", "train.eval", "cost")


@st.composite
def governed_policies(draw: st.DrawFn) -> str:
    """Draws the rules and group memberships of a governed set."""
    mixed = st.sampled_from(
        ("r.obj != 't.a' || r.sub.active", "r.sub.active && r.row.active", "r.row.level > r.sub.level")
    )
    conditioned = conditions("r.sub", "r.ctx", "r.row") | mixed
    common = (
        st.sampled_from(("role1", "role1", "role2", "role3", "ana")),
        st.sampled_from(("t", "t", "x.*", "t.a", "t.b", "tag:secret", "tag:secret.key")),
        st.sampled_from(("read", "read", "read", "export")),
        st.sampled_from(("*", "*", "train", "train.eval", "cost")),
        st.booleans().flatmap(lambda plain: st.just("True") if plain else conditioned),
    )
    rules = st.one_of(
        st.tuples(st.just("p"), *common, st.sampled_from(("allow", "allow", "allow", "deny"))),
        st.tuples(st.just("p2"), *common, st.sampled_from(("nullify", "hash", "none"))),
        st.tuples(st.just("p3"), *common, st.sampled_from(("3", "5"))),
    )
    edges = st.tuples(st.just("g"), st.sampled_from((*SUBJECTS, *ROLES)), st.sampled_from(ROLES))
    # Ana always has a role that most rules speak of, or hardly anything would be allowed.
    lines = [("g", "ana", "role1"), *draw(st.lists(edges, max_size=6, unique=True))]
    lines += draw(st.lists(rules, min_size=6, max_size=12, unique=True))
    return "".join(f"{', '.join(line)}\n" for line in lines)


def governed_set(policy: str, model: str = GOVERNED_MODEL) -> PolicySet:
    """Reads a governed set; its catalogue and purposes stand as edges among the rules."""
    return read_drawn(GOVERNED, {"model.conf": model.encode(), "policy.csv": (policy + CATALOGUE).encode()})
