"""`gatebook.enforcer.Enforcer` beside `casbin.Enforcer`: the same calls, the same answers."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import casbin
import pytest
from casbin.persist.adapters import FileAdapter, StringAdapter

from gatebook.enforcer import EnforceContext, Enforcer, NotWritableError
from gatebook.enforcer.sources import SourceError
from gatebook.errors import InvalidRequestError, PolicySetRefusedError

logging.getLogger("casbin").setLevel(logging.CRITICAL)

CASES = Path(__file__).parents[1] / "cases" / "casbin"
FOLDERS = sorted(folder for folder in CASES.iterdir() if (folder / "policy.csv").exists())
RBAC = CASES / "rbac"
REQUESTS_MAX = 1_500
NAMES_MAX = 12


def both(folder: Path) -> tuple[Enforcer, casbin.Enforcer]:
    """Loads a model and its rules twice."""
    files = str(folder / "model.conf"), str(folder / "policy.csv")
    return Enforcer(*files), casbin.Enforcer(*files)


def names_of(theirs: casbin.Enforcer) -> list[str]:
    """Returns the names in the policy and a stranger's, few enough to try them all."""
    lines = [
        line
        for section in ("p", "g")
        for assertion in (theirs.model.model.get(section) or {}).values()
        for line in assertion.policy
    ]
    names = dict.fromkeys(itertools.chain.from_iterable(lines))
    return [*itertools.islice(names, NAMES_MAX), "stranger"]


def is_attribute_model(folder: Path) -> bool:
    """Tells whether requests of a model hold objects, for which plain texts are no values."""
    return folder.name.startswith("abac")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_enforce_answers_as_casbin(folder: Path) -> None:
    """Whatever texts of the policy a request is put together of, `enforce` and its like answer as Casbin's."""
    if is_attribute_model(folder):
        return
    ours, theirs = both(folder)
    names = names_of(theirs)
    columns: list[Sequence[str]] = [names] * len(theirs.model["r"]["r"].tokens)
    if folder.name == "ip_match":
        columns[0] = ("10.0.0.1", "192.168.2.123", "192.168.3.1")
    requests = list(itertools.product(*columns))
    requests = requests[:: len(requests) // REQUESTS_MAX + 1]
    expected = theirs.batch_enforce(requests)

    assert expected == ours.batch_enforce(requests)
    assert expected == [ours.enforce(*request) for request in requests]
    assert expected == [ours.enforce_ex(*request)[0] for request in requests]
    assert expected == [ours.explain(*request).allowed for request in requests]


@pytest.mark.parametrize("folder", [CASES / "abac", CASES / "abac_rule"], ids=lambda folder: folder.name)
def test_objects_have_attributes(folder: Path) -> None:
    """What Casbin reads of an object that a caller passes, an enforcer reads too; and no method of it."""
    ours, theirs = both(folder)
    people = [
        SimpleNamespace(age=age, owner=owner, team="safety", level=age // 10, name=owner)
        for age in (5, 17, 30, 70)
        for owner in ("ana", "ben")
    ]
    expected = []
    for request in itertools.product(["ana", *people], [*people, "data1", "data2"], ("read", "write", "list")):
        try:
            expected.append((request, theirs.enforce(*request)))
        except Exception:  # noqa: BLE001, S112 - Casbin raises where an attribute is missing
            continue

    assert len(expected) > 30
    assert [allowed for _, allowed in expected] == [ours.enforce(*request) for request, _ in expected]


def readings(
    names: Sequence[str], ptypes: Sequence[str], gtypes: Sequence[str]
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yields every question of the read side, with arguments to ask it with."""
    for question in ("get_policy", "get_all_subjects", "get_all_objects", "get_all_actions"):
        yield question, ()
    for ptype in ptypes:
        for question in ("policy", "all_named_subjects", "all_named_objects", "all_named_actions"):
            yield f"get_{question}" if question != "policy" else "get_named_policy", (ptype,)
        for field in ("sub", "obj", "nothing"):
            yield "get_field_index", (ptype, field)
    for name, other in itertools.product(names, repeat=2):
        yield "get_filtered_policy", (0, name, other)
        yield "get_filtered_named_policy", ("p", 1, other)
        yield "get_permissions_for_user_in_domain", (name, other)
        yield "get_named_permissions_for_user_in_domain", ("p", name, other)
        yield "has_policy", (name, other, "read")
        yield "has_policy", ([name, other, "read"],)
        yield "has_named_policy", ("p9", name)
        yield "has_permission_for_user", (name, other, "read")
    for name in names:
        yield "get_permissions_for_user", (name,)
        yield "get_filtered_policy", (0, lambda field, name=name: field != name)
    for gtype in gtypes:
        yield "get_named_grouping_policy", (gtype,)
        yield "get_all_named_roles", (gtype,)
        for name, other in itertools.product(names, repeat=2):
            yield "get_filtered_named_grouping_policy", (gtype, 0, name, other)
            yield "has_named_grouping_policy", (gtype, name, other)
    if "g" in gtypes:
        yield from role_readings(names)


def role_readings(names: Sequence[str]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yields every question about roles."""
    yield "get_grouping_policy", ()
    yield "get_all_roles", ()
    for name in names:
        for question in (
            "get_roles_for_user",
            "get_users_for_role",
            "get_implicit_roles_for_user",
            "get_implicit_permissions_for_user",
            "get_all_roles_by_domain",
            "get_implicit_users_for_resource",
        ):
            yield question, (name,)
        yield "get_allowed_object_conditions", (name, "read", "data")
    for name, other in itertools.product(names, repeat=2):
        yield "has_role_for_user", (name, other)
        yield "get_filtered_grouping_policy", (0, name, other)
        yield "has_grouping_policy", (name, other)
        for question in (
            "get_roles_for_user_in_domain",
            "get_users_for_role_in_domain",
            "get_implicit_roles_for_user",
            "get_implicit_permissions_for_user",
            "get_implicit_users_for_resource_by_domain",
        ):
            yield question, (name, other)
        yield "get_implicit_permissions_for_user", (name, other, False)
        yield "get_named_implicit_permissions_for_user", ("p", name, other)


def has_usual_fields(theirs: casbin.Enforcer) -> bool:
    """Tells whether rules of every type have a subject, an object and an action."""
    return all(theirs.get_field_index(key, it) >= 0 for key in theirs.model["p"] for it in ("sub", "obj", "act"))


def comparable(answer: object) -> object:
    """Returns an answer without the order of lists, which Casbin takes from sets."""
    return sorted(answer) if isinstance(answer, list) else answer


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_read_side_answers_as_casbin(folder: Path) -> None:
    """Every question of the management and RBAC interfaces gets what Casbin answers, where that answers at all."""
    ours, theirs = both(folder)
    sections = theirs.model.model
    ptypes, gtypes = tuple(sections["p"]), tuple(sections.get("g") or ())
    asked = 0
    for question, arguments in readings(names_of(theirs), ptypes, gtypes):
        if question.startswith(("get_all_", "get_implicit_users")) and not has_usual_fields(theirs):
            continue  # Casbin takes the last field for one that there is not
        try:
            expected = getattr(theirs, question)(*arguments)
        except (IndexError, KeyError, ValueError):
            continue
        asked += 1
        assert comparable(expected) == comparable(getattr(ours, question)(*arguments)), (question, arguments)

    assert asked > 50
    assert theirs.get_policy() == ours.get_policy()


def test_who_may_do_something() -> None:
    """Users who may do something are found as Casbin finds them."""
    ours, theirs = both(RBAC)

    for permission in itertools.product(("data1", "data2"), ("read", "write")):
        expected = theirs.get_implicit_users_for_permission(*permission)
        assert expected == ours.get_implicit_users_for_permission(*permission)


def sources(tmp_path: Path) -> Iterator[tuple[object, ...]]:
    """Yields a model and its rules in every way in which they can be given."""
    model, policy = RBAC / "model.conf", RBAC / "policy.csv"
    yield str(model), str(policy)
    yield model, policy
    yield model.read_text(), policy.read_text()
    yield str(model), FileAdapter(str(policy))
    yield str(model), StringAdapter(policy.read_text())
    parsed = casbin.Model()
    parsed.load_model_from_text(model.read_text())
    yield parsed, FileAdapter(str(policy))
    yield parsed, policy
    yield (casbin.Enforcer(str(model), str(policy)).get_model(),)
    windows = tmp_path / "policy.csv"
    windows.write_bytes(policy.read_bytes().replace(b"\n", b"\r\n"))
    yield model, windows


def test_every_source_gives_the_same_enforcer(tmp_path: Path) -> None:
    """Paths, texts, adapters and models of Casbin's lead to one policy."""
    expected = [line.split(", ")[1:] for line in (RBAC / "policy.csv").read_text().splitlines() if line.startswith("p")]

    for source in sources(tmp_path):
        enforcer = Enforcer(*source)
        assert expected == enforcer.get_policy()
        assert enforcer.enforce("ben", "data2", "read")
        assert not enforcer.enforce("ben", "data1", "read")


def test_a_model_of_casbins_is_written_down_as_it_was() -> None:
    """Names that Casbin escapes in a matcher are restored, also those that look like others."""
    text = (
        "[request_definition]\nr = sub, obj\n[policy_definition]\np = sub, sub_obj, eft\n"
        "[policy_effect]\ne = some(where (p.eft == allow)) && !some(where (p.eft == deny))\n"
        "[matchers]\nm = r.sub == p.sub && keyMatch(r.obj, p.sub_obj) && r.sub != 'r_root'\n"
    )
    parsed = casbin.Model()
    parsed.load_model_from_text(text)
    enforcer = Enforcer(parsed, "p, ana, /a/*, allow\np, ana, /a/b, deny\np, r_root, /a/*, allow\n")

    asked = [("ana", "/a/1"), ("ana", "/a/b"), ("r_root", "/a/1")]
    assert [True, False, False] == enforcer.batch_enforce(asked)


class OtherAdapter:
    """An adapter that knows nothing of Casbin's classes."""

    def __init__(self, *lines: tuple[str, ...]) -> None:
        """Takes the lines that it has."""
        self.lines = list(lines)

    def load_policy(self, model: Any) -> None:  # noqa: ANN401  # a model of Casbin's
        """Adds the lines in the way in which adapters for databases do."""
        for ptype, *fields in self.lines:
            model.add_policy(ptype[0], ptype, fields)


def test_lines_that_casbin_would_drop_are_refused() -> None:
    """A rule of a type that the model does not have is a finding, also when an adapter brings it."""
    adapter = OtherAdapter(("p", "ana", "data1", "read"), ("p2", "ben", "data1", "read"))

    with pytest.raises(PolicySetRefusedError, match="p2"):
        Enforcer(RBAC / "model.conf", adapter)


def test_loading_again() -> None:
    """What an adapter brings decides after `load_policy`; what is refused leaves all as it was."""
    adapter = OtherAdapter(("p", "ana", "data1", "read"))
    enforcer = Enforcer(RBAC / "model.conf", adapter)
    adapter.lines = [("p", "ana", "data2", "read")]

    assert [True, False] == enforcer.batch_enforce([("ana", "data1", "read"), ("ana", "data2", "read")])
    enforcer.load_policy()
    assert [False, True] == enforcer.batch_enforce([("ana", "data1", "read"), ("ana", "data2", "read")])
    adapter.lines.append(("p", "too", "short"))
    with pytest.raises(PolicySetRefusedError):
        enforcer.load_policy()
    assert [False, True] == enforcer.batch_enforce([("ana", "data1", "read"), ("ana", "data2", "read")])


def test_threads_and_loading_again() -> None:
    """While one thread loads two policies in turn, every answer of others is of one of them, whole."""
    policies = [
        [("p", f"user{number}", f"data{(number + turn) % 50}", "read") for number in range(50)] for turn in range(2)
    ]
    adapter = OtherAdapter(*policies[0])
    enforcer = Enforcer(RBAC / "model.conf", adapter)
    mixed: list[object] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            loaded = enforcer.get_policy()
            if loaded not in ([list(line[1:]) for line in policy] for policy in policies):
                mixed.append(loaded)
            asked = [(f"user{number}", f"data{(number + 2) % 50}", "read") for number in range(50)]
            mixed.extend(request for request in asked if enforcer.enforce(*request))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for turn in range(20):
        adapter.lines = list(policies[turn % 2])
        enforcer.load_policy()
    stop.set()
    for thread in threads:
        thread.join()

    assert [] == mixed


@pytest.mark.parametrize("values", [(), ("ana",), ("ana", "data1"), ("ana", "data1", "read", "more")])
def test_a_wrong_number_of_values_is_an_error(values: tuple[str, ...]) -> None:
    """A request that does not fit the model is an error that names the tokens, never a denial."""
    enforcer = Enforcer(RBAC / "model.conf", RBAC / "policy.csv")

    for ask in (enforcer.enforce, enforcer.enforce_ex, enforcer.explain):
        with pytest.raises(InvalidRequestError, match=rf"`sub`, `obj`, `act`.* this one has {len(values)}"):
            ask(*values)


@pytest.mark.parametrize("value", [None, 1, ["ana"], {"ana": 1}, object()])
def test_values_that_are_no_texts_allow_nothing(value: object) -> None:
    """A value that cannot be compared allows nothing, and under a deny it denies."""
    enforcer = Enforcer(RBAC / "model.conf", RBAC / "policy.csv")

    assert not enforcer.enforce(value, "data1", "read")
    assert not enforcer.enforce("ana", value, "read")
    denying = Enforcer(CASES / "deny_override" / "model.conf", CASES / "deny_override" / "policy.csv")
    assert not denying.enforce(*[value] * denying._loaded.count)


class Chameleon:
    """Equals a text and hashes as one."""

    def __eq__(self, other: object) -> bool:
        """Equals the text."""
        return other == "ana"

    def __hash__(self) -> int:
        """Hashes as the text."""
        return hash("ana")


def test_what_only_equals_a_text_is_none() -> None:
    """A value that claims to equal a name is not that name."""
    enforcer = Enforcer(RBAC / "model.conf", RBAC / "policy.csv")

    assert enforcer.enforce("ana", "data1", "read")
    assert not enforcer.enforce(Chameleon(), "data1", "read")


def test_what_changes_a_policy_is_refused() -> None:
    """Each method of Casbin's that ours has not says what to do instead; nothing of Casbin's is simply missing."""
    ours, theirs = both(RBAC)
    public = [name for name in dir(theirs) if not name.startswith("_") and callable(getattr(theirs, name))]
    missing = [name for name in public if not hasattr(ours, name)]
    answered = {name for name in public if name in dir(ours)}

    assert [] == sorted(missing)
    for name in sorted(set(public) - answered):
        with pytest.raises(NotWritableError, match=rf"^`{name}` is not to be had: "):
            getattr(ours, name)()
    with pytest.raises(AttributeError, match="has no attribute `frobnicate`"):
        ours.frobnicate()


def test_a_denial_is_explained() -> None:
    """`enforce_ex` names the rule that allows or denies; `explain` also what came near, and what it lacks."""
    folder = CASES / "rbac_deny"
    denying = Enforcer(folder / "model.conf", folder / "policy.csv")
    (deny,) = [rule for rule in denying.get_policy() if rule[-1] == "deny"]
    enforcer = Enforcer(RBAC / "model.conf", RBAC / "policy.csv")

    assert (False, deny) == denying.enforce_ex(*deny[:3])
    assert (True, ["ana", "data1", "read"]) == enforcer.enforce_ex("ana", "data1", "read")
    assert (False, []) == enforcer.enforce_ex("ana", "data1", "write")
    explanation = enforcer.explain("chidi", "data2", "write")
    assert [("p, writer, data2, write", ("`chidi` does not inherit `writer` by `g`",))] == [
        (near.rule.rule, near.lacked) for near in explanation.near
    ]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (("no/such/model.conf", "p, a, b, c\n"), "cannot read `no/such/model.conf`"),
        ((RBAC / "model.conf", "no/such/policy.csv"), "cannot read `no/such/policy.csv`"),
        ((5, "p, a, b, c\n"), "the model is given as"),
        ((RBAC / "model.conf", 5), "the policy is given as"),
    ],
)
def test_sources_that_are_none(source: tuple[object, object], expected: str) -> None:
    """What is no model or policy is refused with what would be one."""
    with pytest.raises(SourceError, match=expected):
        Enforcer(*source)


@pytest.mark.parametrize(
    "ask",
    [
        lambda it: it.get_named_policy("p9"),
        lambda it: it.get_named_grouping_policy("g9"),
        lambda it: it.get_filtered_policy(0, "a", "b", "c", "d"),
        lambda it: it.get_filtered_policy(-1, "a"),
        lambda it: it.enforce(EnforceContext("r9", "p9", "e9", "m9"), "ana", "data1", "read"),
    ],
)
def test_questions_that_make_no_sense(ask: Callable[[Enforcer], object]) -> None:
    """Asking about what the model does not define is an error that says so."""
    with pytest.raises(InvalidRequestError):
        ask(Enforcer(RBAC / "model.conf", RBAC / "policy.csv"))


def test_who_is_not_strict_gets_casbins_reading() -> None:
    """Rules that are refused can be had as Casbin reads them, with a warning for each finding."""
    text = (RBAC / "model.conf").read_text()
    policy = "p, ana, data1, read # a comment\np2, ben, data1, read\np, chidi, data1, read\ng, x, y\ng, y, x\n"
    with pytest.raises(PolicySetRefusedError):
        Enforcer(text, policy)
    read = casbin.Model()
    read.load_model_from_text(text)
    ours, theirs = Enforcer(text, policy, strict=False), casbin.Enforcer(read, StringAdapter(policy))
    requests = list(itertools.product(("ana", "ben", "chidi"), ("data1", "data2"), ("read", "read # a comment")))

    assert theirs.batch_enforce(requests) == ours.batch_enforce(requests)
    assert theirs.get_policy() == ours.get_policy()
    assert {"TRAILING_COMMENT", "UNKNOWN_RULE_TYPE"} <= {warning.invariant for warning in ours.warnings}


SECTIONS = """
[request_definition]
r = sub, obj, act
r2 = age, obj
[policy_definition]
p = sub, obj, act
p2 = limit, obj, eft
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = r.obj == p.obj && r.act == p.act && (r.sub == p.sub || p.sub == '*')
m2 = r2.obj == p2.obj && eval(p2.limit)
m3 = r.obj == p2.obj
"""
SECTIONS_POLICY = (
    "p, ana, data1, read\np, *, data2, read\np2, r2.age > 17, data1, allow\np2, r2.age > 60, data1, deny\n"
)


@pytest.mark.parametrize("kind", [EnforceContext, casbin.core_enforcer.EnforceContext])
def test_a_context_names_the_sections(kind: Callable[[str, str, str, str], object]) -> None:
    """A request may name the sections that decide it, by our context or by Casbin's."""
    read = casbin.Model()
    read.load_model_from_text(SECTIONS)
    ours, theirs = Enforcer(SECTIONS, SECTIONS_POLICY), casbin.Enforcer(read, StringAdapter(SECTIONS_POLICY))
    second = kind("r2", "p2", "e", "m2"), casbin.core_enforcer.EnforceContext("r2", "p2", "e", "m2")

    for age, obj in itertools.product((16, 18, 61), ("data1", "data2")):
        assert theirs.enforce(second[1], age, obj) is ours.enforce(second[0], age, obj)
    for request in itertools.product(("ana", "ben"), ("data1", "data2"), ("read", "write")):
        usual = kind("r", "p", "e", "m")
        assert theirs.enforce(*request) is ours.enforce(*request) is ours.enforce(usual, *request)
    assert (False, ["r2.age > 60", "data1", "deny"]) == ours.enforce_ex(second[0], 61, "data1")
    with pytest.raises(InvalidRequestError, match="2 values"):
        ours.enforce(second[0], 18, "data1", "more")


class Odd(dict[str, object]):
    """An object that raises what it likes for an attribute that it lacks."""

    __getattr__ = dict.__getitem__


def test_odd_objects_are_values_like_others() -> None:
    """An object is asked for the attributes that the model names, and for no others."""
    enforcer = Enforcer(SECTIONS.replace("r.sub == p.sub", "r.sub.name == p.sub"), SECTIONS_POLICY)

    assert (True, ["ana", "data1", "read"]) == enforcer.enforce_ex(Odd(name="ana"), "data1", "read")
    assert not enforcer.enforce(Odd(), "data1", "read")


CALLS = """
[request_definition]
r = sub, obj
[policy_definition]
p = sub, obj
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = r.sub == p.sub && under(r.obj, p.obj)
"""


def under(name: object, folder: object) -> bool:
    """Tells whether a name lies in a folder."""
    if name == "/broken":
        raise RuntimeError("nobody knows")
    return str(name).startswith(str(folder))


def test_functions_may_be_added() -> None:
    """A function that the matcher calls is added before or after loading; until then asking is an error."""
    late, early = Enforcer(CALLS, "p, ana, /a\n"), Enforcer(CALLS, "p, ana, /a\n", functions={"under": under})

    with pytest.raises(InvalidRequestError, match="calls `under`, which nobody has added"):
        late.enforce("ana", "/a/b")
    late.add_function("under", under)
    for enforcer in (late, early):
        assert [True, False, False] == enforcer.batch_enforce([("ana", "/a/b"), ("ana", "/b"), ("ana", "/broken")])
        enforcer.load_policy()
        assert enforcer.enforce("ana", "/a/b")


def pattern_model(domains: bool) -> str:
    """Returns a model whose roles may be patterns, in domains or not."""
    names, role = (
        ("sub, dom, obj", "g(r.sub, p.sub, r.dom) && r.dom == p.dom") if domains else ("sub, obj", "g2(r.obj, p.obj)")
    )
    return (
        f"[request_definition]\nr = {names}\n[policy_definition]\np = {names}\n"
        f"[role_definition]\ng = _, _{', _' if domains else ''}\ng2 = _, _\n"
        "[policy_effect]\ne = some(where (p.eft == allow))\n"
        f"[matchers]\nm = {role} && " + ("r.obj == p.obj" if domains else "g(r.sub, p.sub)") + "\n"
    )


@pytest.mark.parametrize(
    ("domains", "policy", "requests"),
    [
        (
            False,
            "p, ana, books\ng, ben, ana\ng2, /book/:id, books\ng2, /pen, books\n",
            [("ana", "/book/1"), ("ben", "/book/7"), ("ana", "/pen"), ("ana", "/book/1/2"), ("eve", "/book/1")],
        ),
        (
            True,
            "p, admin, shop1, data1\np, admin, other, data1\ng, ana, admin, shop*\n",
            [
                ("ana", "shop1", "data1"),
                ("ana", "other", "data1"),
                ("ana", "shop2", "data1"),
                ("eve", "shop1", "data1"),
            ],
        ),
    ],
)
def test_relations_may_match_by_patterns(domains: bool, policy: str, requests: list[tuple[str, ...]]) -> None:
    """Names, and domains, of a relation match by the functions that are added, as in Casbin."""
    text = pattern_model(domains)
    read = casbin.Model()
    read.load_model_from_text(text)
    ours, theirs = Enforcer(text, policy), casbin.Enforcer(read, StringAdapter(policy))
    before = ours.batch_enforce(requests)
    for enforcer in (ours, theirs):
        if domains:
            enforcer.add_named_domain_matching_func("g", casbin.util.key_match_func)
        else:
            enforcer.add_named_matching_func("g2", casbin.util.key_match2_func)

    assert theirs.batch_enforce(requests) == ours.batch_enforce(requests) != before
    with pytest.raises(InvalidRequestError, match="`g9`"):
        ours.add_named_matching_func("g9", casbin.util.key_match_func)


def test_links_may_hold_under_conditions() -> None:
    """A link with a condition holds while that is True of its parameters, which may be replaced."""
    text = (RBAC / "model.conf").read_text().replace("g = _, _", "g = _, _, (_, _)")
    policy = "p, reader, data1, read\np, writer, data2, read\ng, ana, reader, 1, 9\ng, ben, writer, 1, 9\n"
    enforcer = Enforcer(text, policy)
    hour = [5]

    def in_hours(first: str, last: str) -> bool:
        return int(first) <= hour[0] <= int(last)

    assert not enforcer.enforce("ana", "data1", "read")
    assert enforcer.add_named_link_condition_func("g", "ana", "reader", in_hours)
    asked = ("ana", "data1", "read")
    assert enforcer.enforce(*asked)
    assert not enforcer.enforce("ben", "data2", "read")
    hour[0] = 10
    assert not enforcer.enforce(*asked)
    assert enforcer.set_named_link_condition_func_params("g", "ana", "reader", "9", "11")
    assert enforcer.enforce(*asked)
    assert enforcer.set_named_link_condition_func_params("g", "ana", "reader", "nine", "11")
    assert not enforcer.enforce(*asked)
    assert [["ana", "reader", "1", "9"], ["ben", "writer", "1", "9"]] == enforcer.get_grouping_policy()
