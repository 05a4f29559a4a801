"""What the client's masks make of values, by tests/cases/masks.yaml."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import math
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import struct_pb2
from ruamel.yaml import YAML

from gatebook.policy.masks import parse_mask
from gatebook.v1 import types_pb2
from gatebook_client.canonical import canonical_text
from gatebook_client.masks import compile_mask, supported_masks
from gatebook_client.refusal import EnforcementError

CASES: dict[str, Any] = YAML(typ="safe").load(Path(__file__).parents[2] / "cases" / "masks.yaml")
KEY_ID = "telemetry/model_training/0a1b2c3d"
KEY = bytes(range(32))
OSLO = dt.timezone(dt.timedelta(hours=2))


def mask_message(text: str, column_type: str = "", key_id: str = "") -> types_pb2.Mask:
    """Returns a mask of a policy line as a decision carries it."""
    spec = parse_mask(text)
    parameters = struct_pb2.Struct()
    parameters.update(spec.parameters())
    if column_type:
        parameters["type"] = column_type
    return types_pb2.Mask(kind=types_pb2.MaskKind.ValueType(spec.kind), parameters=parameters, key_id=key_id)


def _named(case: dict[str, Any]) -> str:
    return f"{case['mask']} of {case['of']!r}"


@pytest.mark.parametrize("case", [case for case in CASES["values"] if "is" in case], ids=_named)
def test_masked_value(case: dict[str, Any]) -> None:
    """A mask makes of a value what the table says, in the type of the value."""
    masked = compile_mask(mask_message(case["mask"], case.get("type", "")), {})(case["of"])

    assert (case["is"], type(case["is"])) == (masked, type(masked))


@pytest.mark.parametrize("case", [case for case in CASES["values"] if "refused" in case], ids=_named)
def test_refused_value(case: dict[str, Any]) -> None:
    """A value that a mask cannot take raises, and the error does not show the value."""
    with pytest.raises(EnforcementError) as caught:
        compile_mask(mask_message(case["mask"], case.get("type", "")), {})(case["of"])

    assert caught.value.reason == "CLIENT_MASK_NOT_APPLICABLE"


@pytest.mark.parametrize(
    ("unit", "value", "expected"),
    [
        (
            "hour",
            dt.datetime(2026, 6, 18, 9, 59, tzinfo=dt.UTC),
            dt.datetime(2026, 6, 18, 9, tzinfo=dt.UTC),
        ),
        ("day", dt.datetime(2026, 6, 18, 1, tzinfo=OSLO), dt.datetime(2026, 6, 17, tzinfo=dt.UTC)),
        ("hour", dt.datetime(2026, 6, 18, 9, 59), dt.datetime(2026, 6, 18, 9)),  # noqa: DTZ001 - without zone
        ("month", dt.date(2026, 6, 18), dt.date(2026, 6, 1)),
    ],
)
def test_truncated_time_keeps_its_type(unit: str, value: dt.date, expected: dt.date) -> None:
    """A native time is cut in UTC and stays a time, with a zone or without; a date stays a date."""
    masked = compile_mask(mask_message(f"truncate:{unit}"), {})(value)

    assert (expected, type(expected)) == (masked, type(masked))


@pytest.mark.parametrize(
    ("column_type", "expected"),
    [
        ("uuid", uuid.UUID(int=0)),
        ("timestamptz", dt.datetime(1970, 1, 1, tzinfo=dt.UTC)),
        ("date", dt.date(1970, 1, 1)),
        ("numeric", Decimal(0)),
    ],
)
def test_default_of_native_value(column_type: str, expected: Any) -> None:  # noqa: ANN401 - of the type
    """In place of a null the zero value is of the native type."""
    masked = compile_mask(mask_message("default", column_type), {})(None)

    assert (expected, type(expected)) == (masked, type(masked))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("ana", "ana"),
        (True, "true"),
        (-7, "-7"),
        (Decimal("12.500"), "12.5"),
        (12.5, "12.5"),
        (Decimal("-0.0"), "0"),
        (Decimal("1E+3"), "1000"),
        (1e21, "1000000000000000000000"),
        (uuid.UUID("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"), "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        (dt.date(2026, 6, 18), "2026-06-18"),
        (dt.datetime(2026, 6, 18, 11, 30, tzinfo=OSLO), "2026-06-18T09:30:00.000000Z"),
        (dt.datetime(99, 1, 2, tzinfo=dt.UTC), "0099-01-02T00:00:00.000000Z"),
        ({"b": [1], "a": "é"}, '{"a":"é","b":[1]}'),
    ],
)
def test_hash_is_hmac_of_the_canonical_text(value: Any, text: str) -> None:  # noqa: ANN401 - of any type
    """A hash is HMAC-SHA-256, in hexadecimal, of the canonical text under the key that the mask names."""
    masked = compile_mask(mask_message("hash", key_id=KEY_ID), {KEY_ID: KEY})(value)

    assert hmac.new(KEY, text.encode(), hashlib.sha256).hexdigest() == masked


def test_hash_of_a_list_hashes_each() -> None:
    """Each element of a list is hashed by itself, so that lists join with single values."""
    masked = compile_mask(mask_message("hash", key_id=KEY_ID), {KEY_ID: KEY})

    assert [masked("ana"), None, masked("ben")] == masked(["ana", None, "ben"])


@pytest.mark.parametrize("value", [math.nan, math.inf, Decimal("NaN"), b"ana", object(), "\ud800", {"a": {1}}])
def test_value_without_canonical_text_is_not_hashed(value: Any) -> None:  # noqa: ANN401 - of any type
    """What has no canonical text is refused, not hashed by chance."""
    with pytest.raises(EnforcementError):
        compile_mask(mask_message("hash", key_id=KEY_ID), {KEY_ID: KEY})(value)


def test_equal_values_have_one_canonical_text() -> None:
    """Values that a store holds as equal have the same text, whatever the driver makes of them."""
    texts = {canonical_text(value) for value in (5, 5.0, Decimal("5.00"), "5")}

    assert texts == {"5"}


@pytest.mark.parametrize("keys", [{}, {"another/key/00000000": KEY}, {KEY_ID: b""}, {KEY_ID: b"short"}])
def test_hash_without_its_key_is_refused(keys: dict[str, bytes]) -> None:
    """A hash is never made with no key, another key or a weak one."""
    with pytest.raises(EnforcementError) as caught:
        compile_mask(mask_message("hash", key_id=KEY_ID), keys)

    assert caught.value.reason == "CLIENT_MASK_KEY_MISSING"


def test_hash_that_names_no_key_is_refused() -> None:
    """A mask without a key id finds no key, not even one under the empty id."""
    with pytest.raises(EnforcementError):
        compile_mask(mask_message("hash"), {"": KEY})


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        (types_pb2.MASK_KIND_DEFAULT, {}),
        (types_pb2.MASK_KIND_DEFAULT, {"type": "geometry"}),
        (types_pb2.MASK_KIND_CONSTANT, {"type": "text"}),
        (types_pb2.MASK_KIND_CONSTANT, {"type": "int", "value": 7}),
        (types_pb2.MASK_KIND_REGEX, {"pattern": "("}),
        (types_pb2.MASK_KIND_REGEX, {"pattern": "(", "replacement": "x"}),
        (types_pb2.MASK_KIND_REGEX, {"pattern": "(?=a)", "replacement": "x"}),
        (types_pb2.MASK_KIND_REGEX, {"pattern": "", "replacement": "x"}),
        (types_pb2.MASK_KIND_PARTIAL, {"keep": "last"}),
        (types_pb2.MASK_KIND_PARTIAL, {"keep": "middle", "count": 4}),
        (types_pb2.MASK_KIND_PARTIAL, {"keep": "last", "count": 0}),
        (types_pb2.MASK_KIND_PARTIAL, {"keep": "last", "count": -4}),
        (types_pb2.MASK_KIND_PARTIAL, {"keep": "last", "count": 1.5}),
        (types_pb2.MASK_KIND_PARTIAL, {"keep": "last", "count": math.inf}),
        (types_pb2.MASK_KIND_PARTIAL, {"keep": "last", "count": True}),
        (types_pb2.MASK_KIND_BAND, {}),
        (types_pb2.MASK_KIND_BAND, {"step": 0}),
        (types_pb2.MASK_KIND_BAND, {"step": -5}),
        (types_pb2.MASK_KIND_BAND, {"step": math.nan}),
        (types_pb2.MASK_KIND_BAND, {"step": "x"}),
        (types_pb2.MASK_KIND_BAND, {"step": True}),
        (types_pb2.MASK_KIND_TRUNCATE, {}),
        (types_pb2.MASK_KIND_TRUNCATE, {"unit": "minute"}),
    ],
)
def test_mask_with_wrong_parameters_is_refused(kind: types_pb2.MaskKind.ValueType, parameters: dict[str, Any]) -> None:
    """A mask whose parameters are missing or out of range is refused before any row is read."""
    message = types_pb2.Mask(kind=kind)
    message.parameters.update(parameters)

    with pytest.raises(EnforcementError):
        compile_mask(message, {})


@pytest.mark.parametrize("kind", [0, 11, 13, 99, -1])
def test_unknown_mask_is_refused(kind: int) -> None:
    """The zero kind, a custom mask and kinds of later versions are refused."""
    with pytest.raises(EnforcementError) as caught:
        compile_mask(types_pb2.Mask(kind=types_pb2.MaskKind.ValueType(kind)), {})

    assert caught.value.reason == "CLIENT_UNKNOWN_MASK"


def test_regex_is_not_declared_without_re2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where google-re2 is not installed the client neither declares nor applies regex."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)

    with pytest.raises(EnforcementError) as caught:
        compile_mask(mask_message("regex:a:b"), {})

    declared = types_pb2.MASK_KIND_REGEX in supported_masks()
    assert (False, "CLIENT_UNKNOWN_MASK") == (declared, caught.value.reason)
