"""`gatebook.enforcer.Enforcer` beside `casbin.Enforcer`: the same calls, the same answers."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import casbin
import pytest

from gatebook.enforcer import EnforceContext, Enforcer, NotWritableError
from gatebook.errors import InvalidRequestError

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
        getattr(ours, "frobnicate")()  # noqa: B009  # a type checker would see it


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
