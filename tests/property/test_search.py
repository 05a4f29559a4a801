"""A search finds exactly what checks allow: against pycasbin for plain sets, against checks for the telemetry set."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import casbin
import pytest
from casbin.persist.adapters import StringAdapter
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.property.agreement import casbin_token
from tests.telemetry_sets import telemetry_without_consent

from gatebook import search
from gatebook.audit.recorder import Recorder
from gatebook.authorize import decide, question_of
from gatebook.engine.candidates import Kind, searchable
from gatebook.engine.snapshot import Snapshot
from gatebook.errors import InvalidPageTokenError, NotSearchableError
from gatebook.policy import bundle
from gatebook.policy.directory import load_directory
from gatebook.policy.policy_set import load
from gatebook.policy.policy_test_file import ABLE_TO_ALL
from gatebook.revisions.validate import build_draft
from gatebook.search import ANY, Search, Searching
from gatebook.values import AccessRequest, Enforcer, Entity, Revision

NOW = datetime(2026, 6, 1, tzinfo=UTC)
MODEL = """
[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act, cond, eft
[role_definition]
g = _, _
g2 = _, _
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = g(r.sub, p.sub) && g2(r.obj, p.obj) && r.act == p.act && eval(p.cond)
"""
USERS, DOCS, ACTIONS = [f"u{i}" for i in range(6)], [f"d{i}" for i in range(5)], ["read", "write", "share"]
RULES = st.tuples(
    st.sampled_from([*USERS, "role:a", "role:b"]),
    st.sampled_from([*DOCS, "box"]),
    st.sampled_from(ACTIONS),
    st.sampled_from(["True", "r.sub.level > 2", "r.obj.open == True", "r.sub.level > 1 && r.obj.open == False"]),
    st.sampled_from(["allow", "allow", "allow", "deny"]),
)
LINKS = st.tuples(st.sampled_from(USERS), st.sampled_from(["role:a", "role:b"]))
BOXED = st.sampled_from(DOCS)
TOKEN_KEY = bytes(range(32))


class Book:
    """Stands for the book: tells the time, and keeps what is written."""

    def __init__(self) -> None:
        """Begins empty."""
        self.written: list[tuple[str, str, dict[str, Any], int, Any]] = []

    def now(self) -> datetime:
        """Tells the time."""
        return NOW

    async def record_search(self, method: str, caller: str, *, question: bytes, count: int, about: Any) -> None:  # noqa: ANN401  # a PersonId
        """Writes a search."""
        self.written.append((method, caller, json.loads(question), count, about))


def find(snapshot: Snapshot, asked: Search, page: int, book: Book | None = None, sets: int = 10_000) -> list[str]:
    """Returns all results, page by page."""
    searching = Searching(cast("Recorder", book or Book()), TOKEN_KEY)
    found: list[str] = []

    async def collect() -> None:
        token = ""
        for _ in range(sets):
            one = await searching.page(
                snapshot,
                replace(asked, token=token),
                "local",
                default_size=page,
                may_ask=lambda _: True,
                admit=lambda _: contextlib.nullcontext(),
            )
            assert len(one.names) <= page
            found.extend(one.names)
            token = one.next_token
            if not token:
                return
        raise AssertionError("the search does not end")

    asyncio.run(collect())
    return found


def lines(*records: dict[str, Any]) -> bytes:
    """Returns JSON lines."""
    return "\n".join(json.dumps(record) for record in records).encode()


@settings(max_examples=40)
@given(
    st.lists(RULES, max_size=12, unique=True),
    st.sets(LINKS, max_size=6),
    st.sets(BOXED, max_size=3),
    st.integers(1, 4),
)
def test_search_of_a_plain_set_equals_brute_force_with_casbin(
    rules: list[tuple[str, ...]], links: set[tuple[str, str]], boxed: set[str], page: int
) -> None:
    """Subjects, resources and actions, in order and page by page, are those that Casbin's enforcer allows."""
    told = [f"p, {', '.join(rule)}" for rule in rules]
    told += [f"g, {user}, {role}" for user, role in sorted(links)] + [f"g2, {doc}, box" for doc in sorted(boxed)]
    policy = "\n".join(told)
    users = {user: {"level": position} for position, user in enumerate(USERS)}
    docs = {doc: {"open": position % 2 == 0} for position, doc in enumerate(DOCS)}
    files = {
        "model.conf": MODEL.encode(),
        "policy.csv": policy.encode(),
        "gatebook.yaml": b"actions: [read, write, share]\n",
        "directory/users.jsonl": lines(*({"type": "user", "id": u, "properties": p} for u, p in users.items())),
        "resources/docs.jsonl": lines(*({"type": "doc", "id": d, "properties": p} for d, p in docs.items())),
    }
    snapshot = build_draft(load(files, "plain"), "", None)
    model = casbin.Model()
    model.load_model_from_text(MODEL)
    enforcer = casbin.Enforcer(model, StringAdapter(policy or "# none"))

    def allowed(user: str, doc: str, action: str) -> bool:
        if not rules:
            return False  # Casbin cannot evaluate the condition of a rule that is not there
        return bool(enforcer.enforce(casbin_token(user, users[user]), casbin_token(doc, docs[doc]), action))

    def asked(kind: Kind, user: str, doc: str, action: str) -> Search:
        return Search(kind, AccessRequest(Entity("user", user), action, doc, resource_type="doc"))

    for doc, action in itertools.product(DOCS[:3], ACTIONS[:2]):
        expected = [user for user in USERS if allowed(user, doc, action)]
        assert expected == find(snapshot, asked(Kind.SUBJECTS, ANY, doc, action), page)
    for user, action in itertools.product(USERS[::2], ACTIONS[:2]):
        expected = [doc for doc in DOCS if allowed(user, doc, action)]
        assert expected == find(snapshot, asked(Kind.RESOURCES, user, ANY, action), page)
    for user, doc in itertools.product(USERS[::2], DOCS[:2]):
        expected = sorted(action for action in ACTIONS if allowed(user, doc, action))
        assert expected == find(snapshot, asked(Kind.ACTIONS, user, doc, ANY), page)


@pytest.fixture(scope="module")
def telemetry(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """The telemetry set with its directory, where purposes need no consent, so that something is allowed."""
    files = bundle.read_folder(telemetry_without_consent(tmp_path_factory.mktemp("search")))
    directory = load_directory(bundle.read_directory_folder(Path("policies/telemetry/directory")))
    return replace(build_draft(load(files), "", directory), directory_revision=Revision("", 1))


@pytest.mark.parametrize("enforcer", [ABLE_TO_ALL, Enforcer()], ids=["able to all", "able to nothing"])
@pytest.mark.parametrize("purpose", ["model_training", "cost_management", "adoption_visualisation"])
def test_search_of_the_telemetry_set_equals_checks(telemetry: Snapshot, purpose: str, enforcer: Enforcer) -> None:
    """What is found is what checks with the same purpose, context and enforcer allow, and nothing else."""
    assert telemetry.directory is not None
    assert telemetry.policy_set.catalogue is not None
    users = sorted(s.id for s in telemetry.directory.subjects.values() if s.type == "user")
    datasets = sorted(telemetry.policy_set.catalogue.datasets)
    base = AccessRequest(
        Entity("user", ANY), "read", ANY, purpose=purpose, enforcer=enforcer, context={"network": "corp"}
    )

    def allowed(user: str, dataset: str) -> bool:
        request = replace(base, subject=Entity("user", user), resource=dataset)
        return decide(telemetry, question_of(telemetry, request, caller="local"), NOW).allowed

    pairs = {(user, dataset) for user in users for dataset in datasets if allowed(user, dataset)}
    for dataset in datasets:
        asked = Search(Kind.SUBJECTS, replace(base, resource=dataset, resource_type="dataset"))
        assert [u for u in users if (u, dataset) in pairs] == find(telemetry, asked, 7)
    for user in users[:10]:
        asked = Search(Kind.RESOURCES, replace(base, subject=Entity("user", user), resource_type="dataset"))
        assert [d for d in datasets if (user, d) in pairs] == find(telemetry, asked, 2)
    if enforcer is ABLE_TO_ALL and purpose == "cost_management":
        assert pairs  # else nothing was compared


RECORDS = load(bundle.read_folder(Path("policies/records")), "records")
WHO_READS = Search(Kind.SUBJECTS, AccessRequest(Entity("user", ANY), "read", "record-1", resource_type="record"))


def test_a_page_looks_at_a_limited_number_of_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page ends at its limit of candidates, empty if need be, and the rest is on the pages after."""
    monkeypatch.setattr(search, "SCANNED_MAX", 2)
    nobodies = [{"type": "user", "id": f"nobody-{i}"} for i in range(9)]
    files = {**RECORDS.files, "directory/more.jsonl": lines({"type": "user", "id": "zoe"}, *nobodies)}
    files["policy.csv"] += b"g, zoe, role:reader\n"
    snapshot = build_draft(load({k: v for k, v in files.items() if not k.startswith("tests/")}, "records"), "", None)
    book = Book()

    found = find(snapshot, WHO_READS, 50, book)

    assert ["alice", "bob", "zoe"] == found
    assert [2, 0, 0, 0, 0, 1] == [count for _, _, _, count, _ in book.written]


@pytest.mark.parametrize(
    "changed",
    [
        {"request": replace(WHO_READS.request, action="write")},
        {"request": replace(WHO_READS.request, context={"a": 1})},
        {"kind": Kind.RESOURCES},
        {"size": 2},
        {"token": "AAAA"},
        {"token": "\u00e4"},
        {"token": "A" * 600},
    ],
    ids=str,
)
def test_a_token_belongs_to_one_search(changed: dict[str, Any]) -> None:
    """The token of a page is refused with another question, kind or size, and when it was never given."""
    snapshot = build_draft(RECORDS, "", None)
    with pytest.raises(InvalidPageTokenError):
        _second_page(snapshot, snapshot, changed)


def test_a_token_ends_with_its_revision() -> None:
    """Once another revision is active, the search begins again."""
    snapshot = build_draft(RECORDS, "", None)
    newer = replace(snapshot, policy_revision=Revision("other", 2))

    with pytest.raises(InvalidPageTokenError, match="another revision"):
        _second_page(snapshot, newer, {})

    assert ("bob",) == _second_page(snapshot, snapshot, {}).names


def test_a_token_is_sealed() -> None:
    """A token tells nothing of how many candidates came before, and no bit of it can be changed."""
    searching = Searching(cast("Recorder", Book()), TOKEN_KEY)
    snapshot = build_draft(RECORDS, "", None)
    terms: dict[str, Any] = {"default_size": 1, "may_ask": lambda _: True, "admit": lambda _: contextlib.nullcontext()}

    def token_after(token: str) -> str:
        return asyncio.run(searching.page(snapshot, replace(WHO_READS, token=token), "local", **terms)).next_token

    first, again = token_after(""), token_after("")
    sealed = base64.urlsafe_b64decode(first)
    for bit in range(8 * len(sealed)):
        changed = (int.from_bytes(sealed) ^ 1 << bit).to_bytes(len(sealed))
        with pytest.raises(InvalidPageTokenError):
            token_after(base64.urlsafe_b64encode(changed).decode())

    assert len(first) == len(again)
    assert first != again


def _second_page(first: Snapshot, second: Snapshot, changed: dict[str, Any]) -> search.Found:
    searching = Searching(cast("Recorder", Book()), TOKEN_KEY)
    terms: dict[str, Any] = {"default_size": 1, "may_ask": lambda _: True, "admit": lambda _: contextlib.nullcontext()}

    async def turn() -> search.Found:
        token = (await searching.page(first, WHO_READS, "local", **terms)).next_token
        return await searching.page(second, replace(WHO_READS, **{"token": token, **changed}), "local", **terms)

    return asyncio.run(turn())


def test_subjects_whom_the_caller_may_not_ask_about_are_not_found() -> None:
    """Of subjects, only those are found about whom a check may be asked."""
    searching = Searching(cast("Recorder", Book()), TOKEN_KEY)
    page = searching.page(
        build_draft(RECORDS, "", None),
        WHO_READS,
        "local",
        default_size=10,
        may_ask=lambda subject: subject.id == "bob",
        admit=lambda _: contextlib.nullcontext(),
    )

    assert ("bob",) == asyncio.run(page).names


PLAIN = {
    "model.conf": MODEL.encode(),
    "policy.csv": b"p, ana, d1, read, True, allow\n",
}


@pytest.mark.parametrize(
    ("changed", "able"),
    [
        ({}, {Kind.ACTIONS}),
        ({"directory/a.jsonl": b""}, {Kind.SUBJECTS, Kind.ACTIONS}),
        ({"resources/a.jsonl": b""}, {Kind.RESOURCES, Kind.ACTIONS}),
        ({"model.conf": MODEL.replace("r.act == p.act", "keyMatch(r.act, p.act)").encode()}, set()),
        ({"model.conf": MODEL.replace("m = ", "m = r.sub == 'root' || ").encode()}, set()),
        (
            {
                "model.conf": MODEL.replace("r.act == p.act", "keyMatch(r.act, p.act)").encode(),
                "gatebook.yaml": b"actions: [read]\n",
            },
            {Kind.ACTIONS},
        ),
    ],
)
def test_what_cannot_be_complete_is_refused(changed: dict[str, bytes], able: set[Kind]) -> None:
    """A set that does not say whom or what it knows is not searched for it, rather than in part."""
    snapshot = build_draft(load({**PLAIN, **changed}, "plain"), "", None)

    for kind in Kind:
        asked = Search(kind, AccessRequest(Entity("user", "ana"), "read", "d1", resource_type="doc"))
        with contextlib.nullcontext() if kind in able else pytest.raises(NotSearchableError):
            find(snapshot, asked, 5)
    assert able == searchable(snapshot)


def test_a_search_is_one_entry_without_the_name_that_was_searched_for() -> None:
    """The book tells what was asked, by whom and how much was found, and not what was found."""
    book = Book()

    find(build_draft(RECORDS, "", None), WHO_READS, 10, book)

    [(method, caller, question, count, _)] = book.written
    assert ("SearchSubjects", "local", 2) == (method, caller, count)
    assert {"type": "user", "properties": {}} == question["request"]["subject"]
    assert ("read", "record-1") == (question["request"]["action"], question["request"]["resource"])
