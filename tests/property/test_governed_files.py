"""Whatever stands in a file of a governed set or a directory, it is accepted or refused, never a crash."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.telemetry_sets import DIRECTORY, TELEMETRY

from gatebook.errors import DirectoryRefusedError
from gatebook.policy.catalogue import parse_catalogue
from gatebook.policy.directory import load_directory
from gatebook.policy.purposes import parse_purposes
from gatebook.policy.settings import parse_settings
from gatebook.policy.yaml_nodes import DEPTH_MAX, parse_yaml
from gatebook.values import Finding

PARSERS: dict[str, Callable[[str, str], tuple[Any, list[Any]]]] = {
    "gatebook.yaml": parse_settings,
    "purposes.yaml": parse_purposes,
    "catalogue.yaml": parse_catalogue,
}
SPLICES = st.sampled_from([*" \n:[]{}\"'|#~\t\x00\u00e9\ud800", "", "- ", "&a ", "*a", "!x ", "null", "1e9", "---\n"])


@st.composite
def damaged(draw: st.DrawFn, text: str) -> str:
    """Draws a text with a few places cut out or written over."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(start + 20, len(text))))
        text = text[:start] + draw(SPLICES) + text[end:]
    return text


def check(parse: Callable[[str, str], tuple[Any, list[Any]]], text: str) -> None:
    """Checks that a text is accepted without findings or refused with places."""
    value, findings = parse(text, "file")

    assert (value is None) == bool(findings)
    assert findings == sorted(findings)
    assert all(it.line >= 1 and it.column >= 1 and it.message.encode() for it in findings)


def directory_findings(text: str) -> list[Finding] | None:
    """Returns what refuses a directory; None when nothing does."""
    try:
        load_directory({"people.jsonl": text.encode("utf-8", "surrogatepass")})
    except DirectoryRefusedError as refused:
        return list(refused.findings)
    return None


@pytest.mark.parametrize("file", PARSERS)
@settings(max_examples=60)
@given(data=st.data())
def test_damaged_file_is_accepted_or_refused(file: str, data: st.DataObject) -> None:
    """A damaged file of the telemetry set has a value or findings, not both and not neither."""
    # The beginning of the file is enough, and keeps the test fast.
    text = "\n".join((TELEMETRY / file).read_text(encoding="utf-8").splitlines()[:60])
    check(PARSERS[file], data.draw(damaged(text)))


@settings(max_examples=100)
@given(text=st.text(max_size=200))
def test_any_text_is_accepted_or_refused(text: str) -> None:
    """Text that was never YAML is refused with its place."""
    for parse in PARSERS.values():
        check(parse, text)


@settings(max_examples=150)
@given(data=st.data())
def test_damaged_directory_is_accepted_or_refused(data: st.DataObject) -> None:
    """A damaged directory loads or is refused with findings, sorted, that a terminal can print."""
    text = data.draw(damaged((DIRECTORY / "personas.jsonl").read_text(encoding="utf-8")))
    findings = directory_findings(text)

    assert findings is None or findings == sorted(findings)
    assert findings != []
    assert all(it.message.encode() for it in findings or ())


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_deep_nesting_is_refused_without_recursion(opening: str) -> None:
    """A hundred thousand open brackets end at the depth limit."""
    node, findings = parse_yaml(opening * 100_000, "file")

    assert node is None
    assert [f"nested deeper than {DEPTH_MAX} levels"] == [it.message for it in findings]


def test_oversized_file_is_refused_unread() -> None:
    """A file over the limit is refused before it is parsed."""
    node, findings = parse_yaml("a: b\n" * 1_000_000, "file")

    assert node is None
    assert ["YAML_SYNTAX"] == [it.invariant for it in findings]
