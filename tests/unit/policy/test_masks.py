"""Masks of policy lines, by tests/cases/masks.yaml."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gatebook.policy.dataset import COLUMN_TYPES
from gatebook.policy.masks import (
    MaskError,
    at_least_as_strict,
    castable,
    parse_group,
    parse_mask,
)
from gatebook.values import MaskKind

CASES: dict[str, Any] = YAML(typ="safe").load(Path(__file__).parents[2] / "cases" / "masks.yaml")


def _named(case: dict[str, Any]) -> str:
    return repr(case["mask"])


@pytest.mark.parametrize("case", CASES["accepted"], ids=_named)
def test_mask_is_read_with_its_parameters(case: dict[str, Any]) -> None:
    """A mask of the vocabulary is read as its kind and its parameters."""
    mask = parse_mask(case["mask"])

    assert (case["kind"], case["parameters"]) == (mask.kind.name, mask.parameters())


@pytest.mark.parametrize("case", CASES["accepted"], ids=_named)
def test_mask_is_written_as_it_reads(case: dict[str, Any]) -> None:
    """A mask that was read and written reads as the same mask."""
    mask = parse_mask(case["mask"])

    assert mask == parse_mask(str(mask))


@pytest.mark.parametrize("case", CASES["refused"], ids=_named)
def test_what_is_no_mask_is_refused_at_its_place(case: dict[str, Any]) -> None:
    """What is no mask raises, and the error points at the character."""
    with pytest.raises(MaskError) as caught:
        parse_mask(case["mask"])

    assert case["offset"] == caught.value.offset


def test_mask_of_any_length_is_refused() -> None:
    """A mask longer than the limit is refused before it is read."""
    with pytest.raises(MaskError, match="longer than"):
        parse_mask("constant:" + "x" * 1_000)


@pytest.mark.parametrize("case", CASES["castable"], ids=_named)
def test_types_that_hold_the_mask(case: dict[str, Any]) -> None:
    """A mask is castable to exactly the types of the table."""
    mask = parse_mask(case["mask"])
    expected = frozenset(COLUMN_TYPES) if case["types"] == "every" else frozenset(case["types"])

    assert expected == {column_type for column_type in COLUMN_TYPES if castable(mask, column_type)}


@pytest.mark.parametrize("mask", ["default", "hash", "redact", "constant:x", "band:10", "custom:geohash"])
def test_unknown_type_holds_only_null(mask: str) -> None:
    """Nothing that depends on a column's type can be cast to a type that nobody knows."""
    assert not castable(parse_mask(mask), "geometry")


@pytest.mark.parametrize("chain", CASES["strictness"], ids=str)
def test_stricter_of_two(chain: list[str]) -> None:
    """Of two masks of a chain the earlier is the stricter, and never the later."""
    for strict, weak in combinations([parse_mask(mask) for mask in chain], 2):
        assert (True, False) == (at_least_as_strict(strict, weak), at_least_as_strict(weak, strict))


@pytest.mark.parametrize("pair", CASES["incomparable"], ids=str)
def test_neither_is_stricter(pair: list[str]) -> None:
    """Masks that hide different things do not compare."""
    one, other = (parse_mask(mask) for mask in pair)

    assert (False, False) == (at_least_as_strict(one, other), at_least_as_strict(other, one))


def test_minimum_group_is_read() -> None:
    """A minimum group is a positive whole number."""
    expected = 5

    assert expected == parse_group("5")


@pytest.mark.parametrize(
    "text", ["0", "-5", "05", "5.0", "", "five", "1e3", "\N{ARABIC-INDIC DIGIT FIVE}", "2147483648", "9" * 40]
)
def test_what_is_no_minimum_group_is_refused(text: str) -> None:
    """What is no positive whole number of 31 bits is refused."""
    with pytest.raises(MaskError):
        parse_group(text)


def test_documentation_names_every_mask() -> None:
    """`docs/masks.md` has a row for every mask, and for no other."""
    text = (Path(__file__).parents[3] / "docs" / "masks.md").read_text(encoding="utf-8")
    documented = {cell for line in text.splitlines() for cell in re.findall(r"^\| `([a-z]+)", line)}

    assert {kind.name.lower() for kind in MaskKind if kind} == documented
