"""Plans and their oracle: a dataset with a column of every type, random rules over its rows, and what checks say.

Owns what `tests/property/test_plans.py` and the tests on other engines compare: of each row, whether a check that
states it allows it, and what the masks of the client leave of it. The SQL is none of its business.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import currently_in_test_context, event, given
from hypothesis import strategies as st
from tests.governed import GOVERNED_MODEL

from gatebook.authorize import Question, decide, question_of
from gatebook.engine.snapshot import Snapshot, build_snapshot
from gatebook.planning import plan
from gatebook.policy.directory import Directory, Subject
from gatebook.policy.policy_set import PolicySet, load
from gatebook.rpc import encode
from gatebook.sql.conditions import BEYOND_DOUBLES
from gatebook.sql.dialects import DIALECTS
from gatebook.sql.statement import KeyPad, Parameter, Statement
from gatebook.v1 import types_pb2
from gatebook.values import AccessRequest, Decision, Enforcer, Entity, MaskKind, ObligationKind, Reason, Revision, Rule
from gatebook_client.enforce import enforce

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
KEY = b"k" * 32
THINGS = "lab.things"
TYPES = {
    "name": "text",
    "other": "text",
    "mail": "text",
    "tags": "text[]",
    "more": "text[]",
    "small": "int",
    "big": "bigint",
    "amount": "numeric",
    "flag": "bool",
    "ref": "uuid",
    "seen": "timestamptz",
    "left": "timestamptz",
    "born": "date",
    "died": "date",
    "meta": "jsonb",
}
TAGGED = {"mail": "contact", "amount": "money"}
_COLUMNS = "".join(
    f"      {name}: {{type: '{type_}'{f', tags: [{TAGGED[name]}]' if name in TAGGED else ''}}}\n"
    for name, type_ in TYPES.items()
)
CATALOGUE = f"""
tags:
  contact: {{requires_mask: true}}
  money: {{}}
notices:
  all: {{purposes: [work], effective_time: 2026-01-01T00:00:00Z}}
datasets:
  {THINGS}:
    sensitivity: internal
    subject_keys: [name]
    retention_days: 30
    notice: all
    purposes: [work]
    ceiling: {{roles: [role:reader], people_max: 40}}
    columns:
{_COLUMNS}"""
FILES = {
    "model.conf": GOVERNED_MODEL,
    "policy.csv": f"""
p, role:reader, {THINGS}, read, work, True, allow
p2, role:reader, tag:contact, read, *, True, redact
""",
    "catalogue.yaml": CATALOGUE,
    "purposes.yaml": "purposes:\n  work: {consent: none}\n",
    "gatebook.yaml": "name: lab\nowners: [lab]\nactions: [read]\nroles: [role:reader]\n",
}
BASE = load({path: text.encode() for path, text in FILES.items()})
PEOPLE = Directory(
    "d", {"ana": Subject("user", "ana", {"level": 2, "team": "a", "rate": 0.5}, ("role:reader",), "f", 1)}
)
ABLE = Enforcer("able", frozenset(MaskKind), frozenset(ObligationKind))


Line = tuple[str, str, str, str]
"""A rule: its type, what it is about, when it applies, and its effect, mask or k."""


def set_of(lines: Sequence[Line]) -> PolicySet:
    """Returns the set with other rules, which are not linted, so that every reading is met."""
    rules = [
        Rule(kind, ("role:reader", about, "read", "work", when, what), "policy.csv", number, f"{kind}, {about}, {what}")
        for number, (kind, about, when, what) in enumerate(lines, 1)
    ]
    return msgspec.structs.replace(BASE, rules=tuple(rules))


def snapshot_of(policy: Sequence[Line]) -> Snapshot:
    """Returns the set with other rules, ready to decide."""
    revisions = Revision("a" * 64, 1), Revision("d" * 64, 1)
    return build_snapshot(set_of(policy), revisions[0], PEOPLE, revisions[1], mask_master=b"m" * 32)


def question(
    snapshot: Snapshot, columns: Sequence[str], row: Mapping[str, Any] | None = None, *, allow_partial: bool = False
) -> Question:
    """Returns ana's question about columns."""
    request = AccessRequest(
        subject=Entity("user", "ana"),
        action="read",
        resource=THINGS,
        columns=tuple(columns),
        purpose="work",
        row=None if row is None else as_sent(row),
        enforcer=ABLE,
        allow_partial=allow_partial,
    )
    return question_of(snapshot, request, caller="test")


def planned(
    snapshot: Snapshot, columns: Sequence[str], dialect: str, *, allow_partial: bool = False
) -> tuple[Decision, Statement]:
    """Returns the plan of the same question about all rows."""
    return plan(snapshot, question(snapshot, columns, allow_partial=allow_partial), NOW, DIALECTS[dialect])


def checked(
    snapshot: Snapshot, columns: Sequence[str], row: Mapping[str, Any], *, allow_partial: bool = False
) -> dict[str, Any] | None:
    """Returns what a check of a row and the client's masks leave of it; nothing where the check denies."""
    decision = decide(snapshot, question(snapshot, columns, row, allow_partial=allow_partial), NOW)
    if not decision.allowed:
        return None
    message = encode.outcome(decision.outcome)
    message.row_filter.kind = types_pb2.ROW_FILTER_KIND_ALL_ROWS
    message.expires_time.FromJsonString("9999-01-01T00:00:00Z")
    # The minimum group is left to whoever asks; here each row is looked at.
    message.ClearField("minimum_group")
    del message.must_apply[:]
    keys = {mask.key_id: KEY for outcome in message.columns for mask in outcome.masks if mask.key_id}
    [left] = enforce(message, [dict(row)], keys=keys)
    # In the place of a text the client leaves a text, since a driver may deliver JSON as one; here it is a JSON text.
    masked_texts = [
        n for n, value in left.items() if TYPES[n] == "jsonb" and isinstance(value, str) and value != row[n]
    ]
    return {**left, **{name: json.loads(left[name]) for name in masked_texts}}


def as_sent(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row as it is sent with a check."""
    return {name: _as_sent(value) for name, value in row.items()}


def _as_sent(value: Any) -> Any:  # noqa: ANN401  # a row holds anything
    match value:
        case Decimal():
            return f"{value:f}"
        case dt.datetime() | dt.date():
            return value.isoformat()
        case uuid.UUID():
            return str(value)
        case _:
            return value


def bound(parameters: Iterable[Parameter]) -> list[str | bool | int | float | bytes]:
    """Returns the values of placeholders, with what a client makes of its key."""
    return [
        bytes(byte ^ it.pad for byte in KEY.ljust(64, b"\0")) if isinstance(it, KeyPad) else it for it in parameters
    ]


def comparable(value: Any) -> Any:  # noqa: ANN401  # a row holds anything
    """Returns a value in a form in which equal values of two stores are equal, and others are not."""
    match value:
        case bool() | None:
            return value
        case int() | float() | Decimal():
            return Decimal(value) if not isinstance(value, float) else Decimal(repr(value))
        case dt.datetime():
            return value.astimezone(UTC)
        case uuid.UUID():
            return str(value)
        case dict() | list():
            return json.dumps(value, sort_keys=True)
        case tuple():
            return json.dumps(list(value))
        case _:
            return value


def has_large_numbers(policy: Sequence[Line], held: Sequence[Mapping[str, Any]]) -> bool:
    """Tells whether a number may get so large on its way that a plan takes it for unknown."""
    said = any(large in when for _, _, when, _ in policy for large in (HUGE, "1e30"))
    return said or any(abs(row[name] or 0) > 1_001 for row in held for name in ("small", "big", "amount"))


def note(what: str) -> None:
    """Counts what examples are of, where they are drawn."""
    if currently_in_test_context():
        event(what)


def require_same(
    policy: Sequence[Line],
    held: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    dialect: str,
    selected: Callable[[Statement], dict[int, dict[str, Any]]],
    *,
    allow_partial: bool,
) -> None:
    """Requires of a plan, which `selected` runs, the rows and values of checks of each row; less where it says so."""
    snapshot = snapshot_of(policy)
    decision, statement = planned(snapshot, columns, dialect, allow_partial=allow_partial)
    expected = {
        place: {name: comparable(value) for name, value in left.items()}
        for place, row in enumerate(held)
        if (left := checked(snapshot, columns, row, allow_partial=allow_partial)) is not None
    }
    if not decision.allowed:
        note(f"denied: {decision.reason.name}")
        if decision.reason is not Reason.EVALUATION_ERROR and "may mean something else" not in decision.message:
            assert expected == {}
        return
    note(f"narrowed: {bool(statement.narrowings)}, filtered: {statement.filter is not None}")
    found = {
        place: {name: comparable(value) for name, value in row.items()} for place, row in selected(statement).items()
    }
    is_exact = not statement.narrowings or (
        statement.narrowings == (BEYOND_DOUBLES,) and not has_large_numbers(policy, held)
    )
    refused = [outcome.column for outcome in decision.columns if outcome.reason is Reason.MASK_NOT_APPLICABLE]
    assert found.keys() <= expected.keys()
    for place, row in found.items():
        for name, value in row.items():
            # A column that a check withholds from a row is null there.
            due, clear = expected[place].get(name), comparable(held[place][name])
            assert value == due or (not is_exact and (value is None or value != clear)), (place, name, due)
    if is_exact and not refused:
        assert found.keys() == expected.keys()


HUGE = "9007199254740993"
LETTERS = ("a", "b", "A", "á", "z", "🙂", "a'b", "", "aa", "ab", "Ab 7", 'q"$1')
texts = st.sampled_from(LETTERS)
IDS = (uuid.UUID(int=1), uuid.UUID("6f9619ff-8b86-d011-b42d-00c04fc964ff"))
times = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(lambda it: it.replace(tzinfo=UTC))  # noqa: DTZ001
days = st.dates(dt.date(1900, 1, 1), dt.date(2200, 1, 1))
few_days = st.sampled_from((dt.date(2026, 6, 18), dt.date(2026, 6, 19)))
few_times = st.sampled_from(
    (datetime(2026, 6, 18, 9, 59, 59, 5, tzinfo=UTC), datetime(2026, 6, 18, 23, 30, tzinfo=UTC))
)
decimals = (
    st.decimals(-1000, 1000, places=4)
    | st.decimals(-(10**15), 10**15, places=4)
    | st.sampled_from([Decimal(text) for text in ("0", "0.5", "2", "2.5", "-2.5", "0.1", "1000.0001", "-7")])
)
metas = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "team": st.sampled_from(("a", "b", 3, None, True)),
            "n": st.sampled_from((0, 1, 2.5, "1", None, False)),
            "ok": st.sampled_from((True, False, "true", None)),
            "deep": st.sampled_from(({"x": "a"}, {"x": 1}, ["a"], "a")),
        },
    ),
    st.sampled_from((["a"], "a", 5, True)),
)
rows = st.fixed_dictionaries(
    {
        "name": st.none() | texts,
        "other": st.none() | texts,
        "mail": st.none() | st.sampled_from(("ana@example.com", "Ana @x", "a@b@c", "ä.Ö@ü-1.example", "", "x@y\n")),
        "tags": st.none() | st.lists(texts, max_size=3) | st.sampled_from((["a", None], [])),
        "more": st.none() | st.sampled_from((["a"], ["a", "b"], [])),
        "small": st.none() | st.sampled_from((0, 1, 2, 3, -7, 2**31 - 1, -(2**31))),
        "big": st.none() | st.sampled_from((0, 1, -5, 2**53 + 1, 2**63 - 1, -(2**63) + 1_000_000)),
        "amount": st.none() | decimals,
        "flag": st.none() | st.booleans(),
        "ref": st.none() | st.sampled_from(IDS),
        "seen": st.none() | times | few_times,
        "left": st.none() | few_times,
        "born": st.none() | days | few_days,
        "died": st.none() | few_days,
        "meta": st.none() | metas,
    }
)

numbers = st.recursive(
    st.sampled_from(
        ("r.row.small", "r.row.small", "r.row.big", "r.row.amount", "r.row.meta.n", "r.sub.level", "r.sub.rate")
    )
    | st.sampled_from(("0", "1", "2", "3", "2.5", "0.5", "-7", "1000", HUGE, "0.1", "1e30")),
    lambda inner: st.tuples(inner, st.sampled_from("+-*/%"), inner).map(lambda it: f"({it[0]} {it[1]} {it[2]})"),
    max_leaves=3,
)
orders = st.sampled_from(("<", "<=", ">", ">=", "==", "!="))
quoted = st.sampled_from([f"'{text}'" for text in LETTERS if "'" not in text and '"' not in text])
words = (
    st.sampled_from(("r.row.name", "r.row.name", "r.row.other", "r.row.mail", "r.row.meta.team", "r.sub.team")) | quoted
)
atoms = st.one_of(
    st.tuples(numbers, orders, numbers).map(" ".join),
    st.tuples(words, orders, words).map(" ".join),
    st.tuples(words, st.sampled_from(("in", "not in")), st.lists(quoted, min_size=1, max_size=3)).map(
        lambda it: f"{it[0]} {it[1]} ({', '.join((*it[2], it[2][0]))})"
    ),
    st.tuples(st.sampled_from(("r.row.name", "'a'", "r.sub.team")), st.sampled_from(("r.row.tags", "r.row.more"))).map(
        " in ".join
    ),
    st.sampled_from(
        (
            "r.row.flag",
            "r.row.flag == True",
            "r.row.flag != False",
            "r.row.flag == r.row.meta.ok",
            "r.row.meta.ok",
            "r.row.meta.deep.x == 'a'",
            "r.row.meta == 'a'",
            "r.row.meta == 5",
            "r.row.meta.deep",
            "r.row.born < r.row.died",
            "r.row.born == r.row.died",
            "r.row.seen >= r.row.left",
            "r.row.seen == r.row.left",
            "r.row.seen > r.row.born",
            "r.row.born == '2026-06-18'",
            f"r.row.ref == '{IDS[1]}'",
            f"r.row.ref in ('{IDS[0]}', 'x')",
            "r.row.ref > 'a'",
            "r.row.ref == r.row.name",
            "r.row.tags == r.row.more",
            "r.row.tags == ('a', 'b')",
            "r.row.name > 3",
            "r.row.flag < True",
            "r.row.name + r.row.other == 'ab'",
            "keyMatch(r.row.name, 'a*')",
            "keyMatch(r.row.name, 'ab')",
            "keyMatch(r.row.name, '*')",
            "r.row.missing == 1",
            "r.row.small in (1, 2.5, 'a')",
            "r.row.meta.n in (1, 'a')",
            "r.ctx.any == 1",
            "True",
            "False",
        )
    ),
)
conditions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(" && ".join),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]} || {pair[1]})"),
        inner.map(lambda text: f"!({text})"),
    ),
    max_leaves=4,
)
MASKS = {
    "name": ("redact", "partial:last:1", "partial:first:2", "hash", "regex:[0-9]+:N", "constant:x'y", "constant:other",
             "regex:[a-z]+:L", "default"),
    "mail": ("email", "redact", "none", "regex:[a-z]+:$1", "regex:[?].*:",
             "regex:[A-Za-z0-9._-]+@[A-Za-z0-9.-]+:(address)"),
    "tags": ("redact", "hash", "partial:last:1", "email", "default", 'constant:["a"%2C "b"]'.replace('"', "%22")),
    "small": ("band:3", "band:10", "default", "constant:7", "constant:8", "redact"),
    "big": ("band:1000", "default"),
    "amount": ("band:0.25", "band:2", "default", "constant:12.50"),
    "flag": ("default", "constant:true", "constant:false"),
    "ref": ("default", f"constant:{IDS[0]}"),
    "seen": ("truncate:hour", "truncate:day", "truncate:week", "truncate:month", "truncate:quarter", "truncate:year",
             "default", "constant:2026-01-01T00%3A00%3A00+02%3A00"),
    "born": ("truncate:week", "truncate:month", "truncate:year", "default", "constant:2026-01-01"),
    "meta": ("default", "constant:{%22a%22%3A1}"),
}  # fmt: skip
SHOWN = tuple(MASKS)


@st.composite
def policies(draw: st.DrawFn) -> list[Line]:
    """Draws rules: allows and denies of everything, a tag or a column, masks, minimum groups."""
    objects = st.sampled_from(
        (THINGS, THINGS, THINGS, "tag:contact", "tag:money", *[f"{THINGS}.{name}" for name in SHOWN])
    )
    maybe = st.just("True") | conditions | conditions
    lines: list[Line] = [("p", THINGS, draw(maybe), "allow")]
    lines += draw(
        st.lists(st.tuples(st.just("p"), objects, maybe, st.sampled_from(("allow", "allow", "deny"))), max_size=3)
    )
    for column in draw(st.lists(st.sampled_from(SHOWN), max_size=3, unique=True)):
        kinds = st.sampled_from((*MASKS[column], "nullify", "none"))
        masks = draw(st.lists(st.tuples(maybe, kinds), min_size=1, max_size=3))
        lines += [("p2", f"{THINGS}.{column}", condition, mask) for condition, mask in masks]
    return lines + draw(st.lists(st.tuples(st.just("p3"), st.just(THINGS), maybe, st.just("5")), max_size=1))


drawn_plans = given(
    policies(),
    st.lists(rows, min_size=6, max_size=14),
    st.lists(st.sampled_from(SHOWN), min_size=1, max_size=5, unique=True),
    st.booleans(),
)
"""Gives a test what each plan is made of: rules, the rows of the table, the columns asked for, and `allow_partial`."""
