"""Where `gatebook.enforcer.Enforcer` has its model and rules from: files, texts, adapters, and all of it again."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import casbin
import pytest
from casbin.persist.adapters import FileAdapter, StringAdapter

from gatebook.enforcer import Enforcer
from gatebook.enforcer.sources import SourceError
from gatebook.errors import PolicySetRefusedError

RBAC = Path(__file__).parents[1] / "cases" / "casbin" / "rbac"


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


def test_a_refusal_tells_every_finding_at_its_place(tmp_path: Path) -> None:
    """The message alone is enough to mend the files: each finding with the path that was given, line and column."""
    rules = tmp_path / "rights.csv"
    rules.write_text("p, ana, data1, read # a comment\np7, ben, data1, read\np, chidi, data1\n")
    with pytest.raises(PolicySetRefusedError) as refused:
        Enforcer(RBAC / "model.conf", rules)
    with pytest.raises(PolicySetRefusedError) as lenient:
        Enforcer(RBAC / "model.conf", rules, strict=False)
    rules.write_text("p, chidi\n" * 30)
    with pytest.raises(PolicySetRefusedError) as many:
        Enforcer(RBAC / "model.conf", rules)
    rules.write_text("p, ana, data1, read # a comment\n")

    assert [f"{rules}:1:21", f"{rules}:2:1", f"{rules}:3:1"] == [
        line.partition(": ")[0] for line in str(refused.value).splitlines()
    ]
    assert str(lenient.value).startswith(f"{rules}:3:1: the rule has 2 fields")
    assert "and 10 more" in str(many.value).splitlines()[20]
    (warning,) = Enforcer(RBAC / "model.conf", rules, strict=False).warnings
    assert (str(rules), 1) == (warning.file, warning.line)


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
