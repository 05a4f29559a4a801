"""The client's masks make of rows what DuckDB makes of them in SQL that was written apart."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import duckdb
import pytest
from google.protobuf import struct_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from gatebook.policy.masks import parse_mask
from gatebook.v1 import types_pb2
from gatebook_client.masks import compile_mask

REDACTED = (
    r"regexp_replace(regexp_replace(regexp_replace(v, '\p{Lu}', 'X', 'g'),"
    r" '[\p{Ll}\p{Lt}\p{Lm}\p{Lo}\p{M}]', 'x', 'g'), '\p{N}', '0', 'g')"
)
TEXT_MASKS = {
    "redact": REDACTED,
    "partial:last:4": f"CASE WHEN length(v) <= 4 THEN {REDACTED} ELSE repeat('X', length(v) - 4) || right(v, 4) END",
    "partial:first:2": f"CASE WHEN length(v) <= 2 THEN {REDACTED} ELSE left(v, 2) || repeat('X', length(v) - 2) END",
    "regex:[0-9]+:N": "regexp_replace(v, '[0-9]+', 'N', 'g')",
    "email": (
        r"CASE WHEN regexp_full_match(v, '[^@\s]+@[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*')"
        f" THEN 'XXXXX@' || split_part(v, '@', 2) ELSE {REDACTED} END"
    ),
    "nullify": "NULL",
    "none": "v",
}
PEOPLE = ("ana", "ben.o'neil", "chidi+work", "Farah_2")
HOSTS = ("example.com", "mail.example.org", "corp", "x-1.example")

# Letters, marks, digits and signs of scripts that every Unicode version of the last ten years has alike.
characters = st.one_of(
    st.characters(min_codepoint=32, max_codepoint=126),
    st.sampled_from("ÄÖÜäöüßñéøłŁčďǅΑλφДжשالनमस्तेทไทย漢字かな한글²½Ⅷ٣०€—🙂"),
)
plain = st.characters(min_codepoint=32, max_codepoint=126)
addresses = st.builds(lambda person, host: f"{person}@{host}", st.sampled_from(PEOPLE), st.sampled_from(HOSTS))
nearly_addresses = st.text(st.sampled_from("aA1@. "), max_size=12)
texts = st.one_of(st.text(characters, max_size=24), nearly_addresses, addresses)
ascii_texts = st.one_of(st.text(plain, max_size=24), nearly_addresses, addresses)


@pytest.fixture(scope="module")
def store() -> duckdb.DuckDBPyConnection:
    """Returns an empty database in memory."""
    return duckdb.connect()


def _by_sql(store: duckdb.DuckDBPyConnection, expression: str, values: Sequence[Any], column_type: str) -> list[Any]:
    query = f"SELECT {expression} FROM (SELECT unnest(?::{column_type}[]) AS v)"  # noqa: S608 - texts of this file
    return [row[0] for row in store.execute(query, [list(values)]).fetchall()]


def _by_client(mask: str, values: Sequence[Any]) -> list[Any]:
    spec = parse_mask(mask)
    parameters = struct_pb2.Struct()
    parameters.update(spec.parameters())
    message = types_pb2.Mask(kind=types_pb2.MaskKind.ValueType(spec.kind), parameters=parameters)
    masked = compile_mask(message, {})
    return [masked(value) for value in values]


@pytest.mark.parametrize("mask", TEXT_MASKS)
@settings(max_examples=40)
@given(data=st.data())
def test_masks_of_texts(store: duckdb.DuckDBPyConnection, mask: str, data: st.DataObject) -> None:
    """A mask of texts makes of any texts, nulls included, what its SQL makes of them."""
    some = ascii_texts if mask == "email" else texts  # \w of RE2 knows ASCII only
    values = data.draw(st.lists(st.none() | some, min_size=1, max_size=20))

    assert _by_sql(store, TEXT_MASKS[mask], values, "VARCHAR") == _by_client(mask, values)


@pytest.mark.parametrize("step", [2, 7, 1000])
@settings(max_examples=40)
@given(values=st.lists(st.none() | st.integers(-(2**62), 2**62), min_size=1, max_size=20))
def test_band_of_whole_numbers(store: duckdb.DuckDBPyConnection, step: int, values: list[int | None]) -> None:
    """A band of whole numbers is the multiple below, of negative ones too."""
    below = f"v - ((v % {step}) + {step}) % {step}"

    assert _by_sql(store, below, values, "BIGINT") == _by_client(f"band:{step}", values)


@pytest.mark.parametrize("step", ["0.01", "0.25", "12.5", "1000"])
@settings(max_examples=40)
@given(values=st.lists(st.none() | st.decimals(-(10**9), 10**9, places=2), min_size=1, max_size=20))
def test_band_of_decimal_numbers(store: duckdb.DuckDBPyConnection, step: str, values: list[Decimal | None]) -> None:
    """A band of decimal numbers is exact."""
    decimal = "DECIMAL(18,2)"
    below = f"v - ((v % {step}::{decimal}) + {step}::{decimal}) % {step}::{decimal}"

    assert _by_sql(store, below, values, decimal) == _by_client(f"band:{step}", values)


@pytest.mark.parametrize("unit", ["year", "quarter", "month", "week", "day", "hour"])
@settings(max_examples=40)
@given(
    values=st.lists(
        st.none() | st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2200, 1, 1)),  # noqa: DTZ001 - as stored
        min_size=1,
        max_size=20,
    )
)
def test_truncated_times(store: duckdb.DuckDBPyConnection, unit: str, values: list[dt.datetime | None]) -> None:
    """A time is cut where `date_trunc` cuts it."""
    expected = _by_sql(store, f"date_trunc('{unit}', v)", values, "TIMESTAMP")
    # date_trunc answers a date for units of a day or more.
    times = [dt.datetime.combine(v, dt.time()) if type(v) is dt.date else v for v in expected]

    assert times == _by_client(f"truncate:{unit}", values)


@pytest.mark.parametrize("unit", ["year", "quarter", "month", "week"])
@settings(max_examples=40)
@given(values=st.lists(st.none() | st.dates(dt.date(1900, 1, 1), dt.date(2200, 1, 1)), min_size=1, max_size=20))
def test_truncated_dates(store: duckdb.DuckDBPyConnection, unit: str, values: list[dt.date | None]) -> None:
    """A date is cut where `date_trunc` cuts it."""
    expected = _by_sql(store, f"date_trunc('{unit}', v)::DATE", values, "DATE")

    assert expected == _by_client(f"truncate:{unit}", values)
