"""The names that random Casbin models, rules and requests are made of.

Owns the vocabulary: so few names that rules, links and requests meet often.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gatebook.policy.model import Sections

SUBJECTS = ("ana", "ben", "role1", "role2", "role3", "*")
ROLES = ("role1", "role2", "role3")
GROUPS = ("group1", "group2")
DOMAINS = ("hr", "legal")
BROUGHT_FUNCTION = "alike"
"""A function that no file holds."""
BY_SUBJECT = "subject priority"
NAME_PATTERNS = ("a*", "data*", "role*", "/a/*", "/b/:id")
PARAMETERS = ("yes", "yes", "no")
"""Of the condition of a link, which holds if it is `yes`."""
DOMAIN_PATTERNS = ("h*", "*")
CHAIN_MAX = 12
"""How many links a long chain of roles has, at most: more than Casbin follows."""


class Kind(msgspec.Struct, frozen=True):
    """What stands in the fields of rules, and what requests ask with."""

    rule: tuple[str, ...]
    request: tuple[str, ...]


KINDS: Mapping[str, Kind] = {
    "sub": Kind(SUBJECTS, ("ana", "ben", "chidi", "root", "role1", "")),
    "obj": Kind(("data1", "data2", *GROUPS, "*"), ("data1", "data2", "data3", "group1")),
    "path": Kind(
        ("/a/*", "/a/1", "/b/:id", "/b/{id}", "/b/{id}/{id}", "/b/:id/c", "/b/{x}/c", "/*", "*"),
        ("/a/1", "/a/1/2", "/b/7", "/b/7/c", "/b/7/7", "/b/7?x=1", "/b/", "/c", "/*"),
    ),
    "glob": Kind(
        ("/a/*", "/a/**", "**/c", "/[ab]/1", "/[a-b]/?", "/a/b/c", "*"),
        ("/a/1", "/a/1/2", "/b/1", "/b/7/c", "/a/b/c", "c", "/a"),
    ),
    "pattern": Kind(
        ("/a/.*", "^/a", "/b/[0-9]+$", "(/a/1)|(/c)", "", "/a/1", "/b/\\d/c"), ("/a/1", "/a/1/2", "/b/7", "/b/7/c", "x")
    ),
    "act": Kind(("read", "write", "*"), ("read", "write", "own")),
    "method": Kind(("GET", "^(GET|PUT)$", "P.*", "(GET)|(POST)", ".*"), ("GET", "PUT", "POST", "PATCH")),
    "dom": Kind((*DOMAINS, "*"), (*DOMAINS, "other")),
    "net": Kind(("10.0.0.0/8", "10.1.2.3", "192.168.0.0/16"), ("10.1.2.3", "192.168.1.1", "8.8.8.8")),
}
FIELDS: Mapping[str, tuple[str, ...]] = {
    "eft": ("allow", "allow", "allow", "deny", "deny"),
    "priority": ("1", "2", "3", "10", "20"),
}
OWN_FUNCTIONS: Mapping[str, tuple[str, ...]] = {
    "path": ("keyMatch", "keyMatch2", "keyMatch3", "keyMatch4", "keyMatch5"),
    "glob": ("globMatch",),
    "pattern": ("regexMatch",),
    "method": ("regexMatch",),
    "net": ("ipMatch",),
}
CALCULATIONS = (
    "r.sub.level + r.obj.level * 2 > 3",
    "r.sub.level - 1 <= r.obj.score / 2",
    "(r.sub.level + 5) % 3 == 1",
    "-r.obj.level * -1 != r.sub.level",
    "r.sub.level * r.sub.score >= r.obj.level",
    "r.sub.team + '1' != r.obj.team",
    "r.sub.level in (r.obj.level, 2, 3)",
    "r.sub.team == r.obj.team || r.sub.active != r.obj.active",
)
UNLIKE = (
    "r.sub.team == 1",
    "r.sub.level != 'safety'",
    "r.sub.active == 1",
    "r.obj.active == r.sub.level",
    "r.sub.team in (1, 'growth')",
)
"""Comparisons of different kinds, which Python answers and nobody means."""
FIRST = Sections()
SECTIONS = (FIRST, FIRST, FIRST, FIRST, Sections("r2", "p2", "m2"), Sections("r", "p2", "m2"))
BESIDE = (("p", "ana", "data1", "read"), ("p", "role1", "data2", "write"))
"""Rules of the first sections, where others decide."""
ATTRIBUTED = ("sub", "obj")
"""The tokens whose values have attributes."""


class Patterns(msgspec.Struct, frozen=True):
    """Which functions match the names and the domains of a relation; nothing: they are what they are."""

    names: str = ""
    domains: str = ""


NO_PATTERNS = Patterns()
