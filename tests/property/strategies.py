"""Random plain sets and requests, of Casbin's classic models; `governed_sets` has the governed ones.

Owns what is drawn. Everything is small, so that rules, roles and requests meet often; conditions are
texts that Casbin reads as we do. Values are complete and of the right type, except in `strange_values`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from hypothesis import strategies as st

from gatebook.errors import PolicySetRefusedError
from gatebook.policy.brought import NOTHING_BROUGHT, Brought
from gatebook.policy.casbin_files import read_casbin
from gatebook.policy.policy_set import PLAIN, PolicySet
from gatebook.policy.settings import Settings
from gatebook.values import Severity

EFFECTS = {
    "allow": "some(where (p.eft == allow))",
    "deny": "!some(where (p.eft == deny))",
    "both": "some(where (p.eft == allow)) && !some(where (p.eft == deny))",
    "priority": "priority(p.eft) || deny",
    "subject priority": "subjectPriority(p.eft) || deny",
}
USUAL_SETTINGS = Settings()
ROLES = ("role1", "role2", "role3")
FIELDS: Mapping[str, st.SearchStrategy[str]] = {
    "sub": st.sampled_from(("ana", "ben", *ROLES)),
    "obj": st.sampled_from(("data1", "data2", "group1", "group2")),
    "act": st.sampled_from(("read", "write")),
    "dom": st.sampled_from(("hr", "legal")),
    "eft": st.sampled_from(("allow", "allow", "deny")),
    "priority": st.integers(0, 12).map(str),
    "path": st.sampled_from(("/a/*", "/a/1", "/b/:id", "/b/:id/c", "/*", "*")),
    "method": st.sampled_from(("GET", "^(GET|PUT)$", "P.*", "(GET)|(POST)", "^P(OS|U)T", "PU?", "POx*S")),
    "glob": st.sampled_from(("/a/**", "/a/*", "/b/*/c", "/[ab]/1", "*/a/1", "/a*", "/**")),
}
REQUESTS: Mapping[str, tuple[str, ...]] = {
    "sub": ("ana", "ben", "chidi", "root", "role1"),
    "obj": ("data1", "data2", "data3", "group1"),
    "act": ("read", "write"),
    "dom": ("hr", "legal"),
    "path": ("/a/1", "/a/1/2", "/b/7", "/b/7/c", "/b/", "/c"),
    "method": ("GET", "PUT", "POST"),
}
ATTRIBUTES = st.fixed_dictionaries(
    {
        "level": st.integers(-1, 4),
        "score": st.sampled_from((0.5, 2.0, 2.5)),
        "team": st.sampled_from(("safety", "growth", "data1")),
        "active": st.booleans(),
        "owner": st.sampled_from(("ana", "ben")),
    }
)


def comparisons(subject: str) -> st.SearchStrategy[str]:
    """Draws comparisons over the attributes of `subject`, such as `r.sub`."""
    number = st.sampled_from((f"{subject}.level", f"{subject}.score", f"({subject}.level + 1)", f"-{subject}.level"))
    ordered = st.tuples(number, st.sampled_from(("<", "<=", ">", ">=", "==", "!=")), st.sampled_from(("1", "2.5", "3")))
    team = st.sampled_from(
        (
            f"{subject}.team == 'safety'",
            f"{subject}.team != 'growth'",
            f"{subject}.team in ('safety', 'growth')",
            f"{subject}.team not in ('safety', 'data1')",
            f"keyMatch({subject}.team, 's*')",
            f"{subject}.active",
            f"{subject}.active == False",
            "True",
            "False",
        )
    )
    return ordered.map(" ".join) | team


def conditions(*subjects: str) -> st.SearchStrategy[str]:
    """Draws conditions over the attributes of any of `subjects`."""
    leaf = st.one_of([comparisons(subject) for subject in subjects])
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(" && ".join),
            st.tuples(inner, inner).map(lambda pair: f"({pair[0]} || {pair[1]})"),
            inner.map(lambda text: f"!({text})"),
        ),
        max_leaves=4,
    )


class Shape(msgspec.Struct, frozen=True):
    """One classic Casbin model, and which kind of value each field of a rule and a request has."""

    name: str
    request: Mapping[str, str]
    rule: Mapping[str, str]
    matcher: str
    effect: str = "allow"
    roles: Mapping[str, int] = {}

    @property
    def model(self) -> str:
        """Returns the text of `model.conf`."""
        definitions = "".join(f"{key} = {', '.join('_' * arity)}\n" for key, arity in self.roles.items())
        return (
            f"[request_definition]\nr = {', '.join(self.request)}\n"
            f"[policy_definition]\np = {', '.join(self.rule)}\n"
            + (f"[role_definition]\n{definitions}" if self.roles else "")
            + f"[policy_effect]\ne = {EFFECTS[self.effect]}\n[matchers]\nm = {self.matcher}\n"
        )


_TRIPLE = {"sub": "sub", "obj": "obj", "act": "act"}
_WITH_EFFECT = {**_TRIPLE, "eft": "eft"}
_RBAC = "g(r.sub, p.sub) && r.obj == p.obj && r.act == p.act"
_ACL = "r.sub == p.sub && r.obj == p.obj && r.act == p.act"
_DOMAIN = {"sub": "sub", "dom": "dom", "obj": "obj", "act": "act"}

SHAPES = (
    Shape("acl", _TRIPLE, _TRIPLE, _ACL),
    Shape(
        "acl without subjects",
        {"obj": "obj", "act": "act"},
        {"obj": "obj", "act": "act"},
        "r.obj == p.obj && p.act == r.act",
    ),
    Shape("superuser", _TRIPLE, _TRIPLE, f"{_ACL} || r.sub == 'root'"),
    Shape("rbac", _TRIPLE, _TRIPLE, _RBAC, roles={"g": 2}),
    Shape(
        "rbac, any of two ways", _TRIPLE, _WITH_EFFECT, f"{_RBAC} || r.sub == p.sub && r.act == p.act", "both", {"g": 2}
    ),
    Shape(
        "domains",
        _DOMAIN,
        _DOMAIN,
        f"g(r.sub, p.sub, r.dom) && r.dom == p.dom && {_ACL.partition(' && ')[2]}",
        roles={"g": 3},
    ),
    Shape(
        "domains of the rule",
        _DOMAIN,
        {**_DOMAIN, "eft": "eft"},
        "g(r.sub, p.sub, p.dom) && r.dom == p.dom && r.obj == p.obj",
        "both",
        {"g": 3},
    ),
    Shape(
        "two domains",
        {"sub": "sub", "dom": "dom", "home": "dom", "obj": "obj"},
        {"sub": "sub", "obj": "obj", "eft": "eft"},
        "g(r.sub, p.sub, r.dom) && r.obj == p.obj || g(r.sub, p.sub, r.home) && g(r.sub, p.sub, 'hr')"
        " || g(r.sub, p.sub, 'legal') && r.obj == 'data2'",
        "both",
        {"g": 3},
    ),
    Shape("one domain", _TRIPLE, _TRIPLE, "g(r.sub, p.sub, 'hr') && r.obj == p.obj", roles={"g": 3}),
    Shape(
        "resource roles",
        _TRIPLE,
        _TRIPLE,
        "g(r.sub, p.sub) && g2(r.obj, p.obj) && r.act == p.act",
        roles={"g": 2, "g2": 2},
    ),
    Shape("allow and deny", _TRIPLE, _WITH_EFFECT, _RBAC, "both", {"g": 2}),
    Shape("deny override", _TRIPLE, _WITH_EFFECT, _RBAC, "deny", {"g": 2}),
    Shape("allow override with denies", _TRIPLE, _WITH_EFFECT, _ACL, "allow"),
    Shape("priority", _TRIPLE, _WITH_EFFECT, _RBAC, "priority", {"g": 2}),
    Shape("explicit priority", _TRIPLE, {"priority": "priority", **_WITH_EFFECT}, _RBAC, "priority", {"g": 2}),
    Shape("subject priority", _TRIPLE, _WITH_EFFECT, _RBAC, "subject priority", {"g": 2}),
    Shape(
        "subject priority in domains",
        _DOMAIN,
        {**_DOMAIN, "eft": "eft"},
        "g(r.sub, p.sub, r.dom) && r.dom == p.dom && r.obj == p.obj",
        "subject priority",
        {"g": 3},
    ),
    Shape("negated", _TRIPLE, _WITH_EFFECT, "!(r.sub == p.sub) && r.obj == p.obj", "both"),
    Shape(
        "restful",
        {"sub": "sub", "obj": "path", "act": "method"},
        {"sub": "sub", "obj": "path", "act": "method"},
        "r.sub == p.sub && keyMatch2(r.obj, p.obj) && regexMatch(r.act, p.act)",
    ),
    Shape(
        "keyMatch",
        {"sub": "sub", "obj": "path", "act": "method"},
        {"sub": "sub", "obj": "path", "act": "method", "eft": "eft"},
        "g(r.sub, p.sub) && keyMatch(r.obj, p.obj) && regexMatch(r.act, p.act)",
        "both",
        {"g": 2},
    ),
    Shape("abac", _TRIPLE, _TRIPLE, "r.sub == r.obj.owner && r.act == p.act || r.sub.level > 2 && r.obj == p.obj"),
    Shape(
        "abac by rules",
        _TRIPLE,
        {"cond": "cond", **_WITH_EFFECT},
        "r.obj == p.obj && r.act == p.act && eval(p.cond)",
        "both",
    ),
    Shape(
        "abac by rules first",
        _TRIPLE,
        {"cond": "cond", "obj": "obj", "eft": "eft"},
        "eval(p.cond) && r.obj == p.obj",
        "priority",
    ),
    Shape("abac without rules", _TRIPLE, _TRIPLE, "r.sub == r.obj.owner"),
    Shape(
        "constant in the rule",
        _TRIPLE,
        _TRIPLE,
        "g(r.sub, p.sub) && r.obj == p.obj && (r.act == p.act || p.act == 'write')",
        roles={"g": 2},
    ),
    Shape(
        "superuser within",
        _TRIPLE,
        _WITH_EFFECT,
        "(g(r.sub, p.sub) || r.sub == 'root') && r.obj == p.obj",
        "both",
        {"g": 2},
    ),
    Shape(
        "two choices",
        _TRIPLE,
        _WITH_EFFECT,
        "(r.sub == p.sub || g(r.sub, p.sub)) && (r.obj == p.obj || g2(r.obj, p.obj)) && r.act == p.act",
        "priority",
        {"g": 2, "g2": 2},
    ),
    Shape(
        "any of them",
        _TRIPLE,
        _WITH_EFFECT,
        "r.sub == p.sub && r.act in (p.act, 'write') && p.obj in ('data1', r.obj)",
        "both",
    ),
    Shape("heirs", _TRIPLE, _WITH_EFFECT, "g(p.sub, r.sub) && r.act == p.act", "both", {"g": 2}),
    Shape(
        "role of the rule",
        _TRIPLE,
        _WITH_EFFECT,
        "g(p.sub, 'role1') && r.obj == p.obj || g('ana', p.sub) && r.act == p.act",
        "both",
        {"g": 2},
    ),
    Shape(
        "roles of all",
        _TRIPLE,
        _WITH_EFFECT,
        "g(r.sub, p.sub) && g2(r.obj, p.obj) && g3(r.act, p.act)",
        "both",
        {"g": 2, "g2": 2, "g3": 2},
    ),
    Shape(
        "prefixes",
        {"sub": "sub", "obj": "path", "act": "method"},
        {"sub": "sub", "obj": "path", "act": "method", "eft": "eft"},
        "g(r.sub, p.sub) && (keyMatch2(r.obj, p.obj) || keyMatch(r.obj, p.obj)) && regexMatch(r.act, p.act)",
        "both",
        {"g": 2},
    ),
    Shape(
        "globs",
        {"sub": "sub", "obj": "path"},
        {"sub": "sub", "obj": "glob", "eft": "eft"},
        "r.sub == p.sub && globMatch(r.obj, p.obj)",
        "both",
    ),
)


@st.composite
def policies(draw: st.DrawFn, shape: Shape, rules_max: int = 7) -> str:
    """Draws a `policy.csv` for a shape."""
    kinds = {**FIELDS, "cond": conditions("r.sub", "r.obj")}
    rules = st.tuples(*(kinds[kind] for kind in shape.rule.values())).map(lambda fields: ", ".join(("p", *fields)))
    least = draw(st.sampled_from((0, 4, rules_max)))
    lines = draw(st.lists(rules, min_size=least, max_size=rules_max, unique=True))
    for key, arity in shape.roles.items():
        nodes = FIELDS[{"g2": "obj", "g3": "act"}.get(key, "sub")]
        parents = st.sampled_from({"g2": ("group1", "group2"), "g3": ("read", "all")}.get(key, ROLES))
        edge = st.tuples(st.just(key), nodes, parents, *([FIELDS["dom"]] if arity == 3 else []))
        if shape.effect.startswith("subject"):
            edge = edge.filter(lambda it: it[1] < it[2])  # rules have no order by a cycle
        lines += draw(st.lists(edge.map(", ".join), min_size=least // 2, max_size=6, unique=True))
    return "".join(f"{line}\n" for line in lines)


def plain_set(model: str, policy: str, matcher: str = "m", brought: Brought = NOTHING_BROUGHT) -> PolicySet:
    """Reads a plain set without linting it, so that every reading of the engine is met."""
    files = {"model.conf": model.encode(), "policy.csv": policy.encode()}
    return read_drawn(PLAIN, files, Settings(matcher=matcher), brought)


def holed(attributes: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Draws attributes of which some are missing, null or strange."""
    return st.builds(
        lambda whole, holes: {name: value for name, value in {**whole, **holes}.items() if value != "missing"},
        attributes,
        st.dictionaries(
            st.sampled_from(("level", "score", "team", "active", "owner")),
            st.sampled_from((None, "missing")) | strange_values(),
            max_size=3,
        ),
    )


def strange_values() -> st.SearchStrategy[Any]:
    """Draws what a caller might send in the place of a proper value."""
    scalars = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=5),
        st.sampled_from(("ana", "read", "safety")),
    )
    return st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(("level", "id", "team")), inner, max_size=3)
        ),
        max_leaves=5,
    )


def read_drawn(
    kind: str, files: Mapping[str, bytes], settings: Settings = USUAL_SETTINGS, brought: Brought = NOTHING_BROUGHT
) -> PolicySet:
    """Reads the files of a set that was drawn, without linting it."""
    casbin, findings = read_casbin(files, brought=brought)
    if any(finding.severity is Severity.ERROR for finding in findings):
        raise PolicySetRefusedError(f"what is drawn cannot be read: {findings[0].message}", findings)
    return PolicySet("drawn", kind, "", casbin.model, casbin.rules, casbin.edges, settings, None, None, files, ())
