"""A member of a `str` enumeration is the text that it equals, wherever it is looked up."""

from __future__ import annotations

import enum

import pytest

from gatebook.enforcer import Enforcer


class Name(str, enum.Enum):  # noqa: UP042  # the kind whose `str()` is not its value
    """Names, of which `str` makes something else."""

    ANA = "ana"
    BEN = "ben"
    CHILD = "child"
    DOMAIN = "hr"


MODEL = """[request_definition]
r = sub, dom
[policy_definition]
p = sub, dom, eft
[role_definition]
g = _, _, _
g2 = _, _
[policy_effect]
e = {effect}
[matchers]
m = {matcher}
"""
POLICY = """p, ana, hr, deny
p, staff, hr, deny
g, ben, staff, hr
g2, ben, staff
g, child, ben, hr
g2, child, ben
"""


@pytest.mark.parametrize(
    "matcher",
    [
        "g(r.sub, p.sub, r.dom) && r.dom == p.dom",
        "g2(r.sub, p.sub) && r.dom == p.dom",
        "g(r.sub, p.sub, p.dom) && r.dom == p.dom",
        "r.sub == p.sub && r.dom == p.dom",
        "p.sub in r.sub && r.dom == p.dom",
        "g2(p.sub, r.sub) && r.dom == p.dom",
    ],
)
@pytest.mark.parametrize("name", list(Name))
def test_a_deny_of_a_member_is_a_deny(matcher: str, name: Name) -> None:
    """What is denied to a text is denied to a member of an enumeration that equals it, and nothing else is."""
    for is_loose in (False, True):
        enforcer = Enforcer(MODEL.format(effect="!some(where (p.eft == deny))", matcher=matcher), POLICY)
        if is_loose:
            enforcer.add_named_matching_func("g", lambda text, pattern: text == pattern)
        listed = matcher.startswith("p.sub in")
        for domain in (Name.DOMAIN, "hr", "it"):
            as_text = enforcer.enforce([name.value] if listed else name.value, getattr(domain, "value", domain))
            values = ([name] if listed else name, domain)
            assert as_text is enforcer.enforce(*values) is enforcer.enforce_ex(*values)[0], (is_loose, domain)
