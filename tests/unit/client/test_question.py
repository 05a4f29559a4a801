"""What the client sends, and what it refuses to send."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook.v1 import audit_service_pb2 as audit_pb2
from gatebook.v1 import entry_pb2, types_pb2
from gatebook_client import Check, InsecureTargetError, Subject, connect
from gatebook_client.asking import Terms
from gatebook_client.audit_calls import EntryFilter, entry_filter, entry_request
from gatebook_client.question import access_request, as_json
from gatebook_client.target import choose_target

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON_VALUES, max_size=5))
def test_attributes_arrive_as_they_are(values: dict[str, Any]) -> None:
    """JSON values of any depth come back equal, integers exactly; text may hold anything but half a character."""
    sent = as_json(values, "context")

    assert values == json.loads(sent)


def test_values_of_a_row_have_text_forms() -> None:
    """Times, decimals and UUIDs, as database drivers return them, become text."""
    row = {
        "time": dt.datetime(2026, 6, 18, 9, 30, tzinfo=dt.UTC),
        "day": dt.date(2026, 6, 18),
        "amount": Decimal("12.50"),
        "id": uuid.UUID(int=1),
    }

    assert {
        "time": "2026-06-18T09:30:00+00:00",
        "day": "2026-06-18",
        "amount": "12.50",
        "id": "00000000-0000-0000-0000-000000000001",
    } == json.loads(as_json(row, "row"))


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), b"bytes", object(), {1, 2}, "\ud800"], ids=lambda v: type(v).__name__
)
def test_what_has_no_json_form_is_refused(value: object) -> None:
    """The refusal names the argument, and nothing is sent."""
    with pytest.raises(ValueError, match="row: cannot be sent as JSON"):
        access_request(Check("farah", "read", "mci.prompts", row={"value": value}), None)


def test_a_single_text_is_no_list_of_columns() -> None:
    """`columns="name"` is refused, since it would ask for the columns n, a, m and e."""
    with pytest.raises(ValueError, match="pass a list"):
        access_request(Check("farah", "read", "mci.prompts", columns="prompt_text"), None)


@pytest.mark.parametrize(
    ("subject", "kind", "identity"),
    [
        ("farah", "user", "farah"),
        (("service", "svc-train"), "service", "svc-train"),
        (Subject("svc-train", "service"), "service", "svc-train"),
    ],
)
def test_a_subject_is_named_in_three_ways(subject: Any, kind: str, identity: str) -> None:  # noqa: ANN401  # all three
    """A text is a user's id; a pair is type and id."""
    sent = access_request(Check(subject, "read", "mci.prompts"), None).subject

    assert (kind, identity) == (sent.type, sent.id)


@pytest.mark.parametrize(
    ("target", "dialled"),
    [
        ("127.0.0.1:7443", "127.0.0.1:7443"),
        ("127.9.9.9:1", "127.9.9.9:1"),
        ("localhost:7443", "127.0.0.1:7443"),
        ("[::1]:7443", "[::1]:7443"),
        (None, "127.0.0.1:7443"),
    ],
)
def test_loopback_is_dialled(monkeypatch: pytest.MonkeyPatch, target: str | None, dialled: str) -> None:
    """Targets on this machine are dialled by address; `localhost` is not resolved."""
    monkeypatch.delenv("GATEBOOK_TARGET", raising=False)

    assert dialled == choose_target(target)


@pytest.mark.parametrize(
    "target",
    [
        "10.0.0.1:7443",
        "0.0.0.0:7443",
        "example.com:7443",
        "127.0.0.1.example.com:7443",
        "localhost.example.com:7443",
        "dns:///127.0.0.1:7443",
        "unix:/run/gatebook.sock",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:port",
        "2130706433:7443",
        "[::ffff:10.0.0.1]:7443",
        "::1",
    ],
)
def test_plain_text_does_not_leave_the_machine(target: str) -> None:
    """Anything but `host:port` on loopback is refused before a byte is sent."""
    with pytest.raises(InsecureTargetError):
        connect(target)


def test_the_environment_names_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """`GATEBOOK_TARGET` counts where no target is given, and is checked as one."""
    monkeypatch.setenv("GATEBOOK_TARGET", "127.0.0.1:9999")
    chosen = choose_target(None)
    monkeypatch.setenv("GATEBOOK_TARGET", "example.com:9999")

    assert "127.0.0.1:9999" == chosen
    with pytest.raises(InsecureTargetError):
        connect()


@pytest.mark.parametrize("timeout_seconds", [0.0, -1.0, float("nan")])
def test_no_connection_is_without_deadline(timeout_seconds: float) -> None:
    """A timeout that is not more than 0 is refused."""
    with pytest.raises(ValueError, match="timeout_seconds"):
        Terms(timeout_seconds)


def test_a_filter_says_what_it_means() -> None:
    """Names become enum values and times Timestamps."""
    start_time = dt.datetime(2026, 6, 18, tzinfo=dt.UTC)
    sent = entry_filter(
        {
            "effect": "deny",
            "reason": "PURPOSE_NOT_GRANTED",
            "kind": "decision",
            "start_time": start_time,
            "end_index": 9,
        }
    )
    expected = audit_pb2.EntryFilter(
        effect=types_pb2.EFFECT_DENY,
        reason=types_pb2.REASON_CODE_PURPOSE_NOT_GRANTED,
        kind=entry_pb2.ENTRY_KIND_DECISION,
        end_index=9,
    )
    expected.start_time.FromDatetime(start_time)

    assert expected == sent


@pytest.mark.parametrize(
    "wrong",
    [
        {"subject": "farah"},
        {"effect": "denied"},
        {"kind": "decisions"},
        {"reason": "NO_SUCH_REASON"},
        {"start_time": dt.datetime(2026, 6, 18)},  # noqa: DTZ001  # without zone on purpose
        {"start_time": "2026-06-18"},
        {"subject_id": 7},
    ],
    ids=str,
)
def test_a_filter_that_is_not_understood_is_refused(wrong: EntryFilter) -> None:
    """A filter with an unknown field or value is not sent: without it more would be shown."""
    with pytest.raises(ValueError, match="is not a filter of entries"):
        entry_filter(wrong)


def test_an_entry_is_named_in_one_way() -> None:
    """By index or by decision id, not by neither or both."""
    for index, decision_id in [(None, ""), (1, "d-1")]:
        with pytest.raises(ValueError, match="either an index or a decision_id"):
            entry_request(index, decision_id)
    assert 0 == entry_request(0, "").index
