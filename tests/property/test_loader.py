"""Whatever the files of a policy set are, they are loaded as a whole or refused with places that exist."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gatebook.compiler.program import compile_program
from gatebook.errors import PolicySetRefusedError
from gatebook.policy.bundle import digest, read_folder
from gatebook.policy.policy_set import load
from gatebook.values import Finding, Severity

ROOT = Path(__file__).parents[2]
SEEDS = [
    read_folder(folder)
    for folder in (
        *sorted((ROOT / "tests/cases/casbin").iterdir()),
        ROOT / "policies/basic",
        ROOT / "tests/cases/governed",
    )
]
PIECES = st.sampled_from(
    [
        *"\n\r\t ,#;\\'\"()[]=!&|.*_-0:{}<>",
        "\x00",
        "\ufeff",
        "\u200b",
        "é",
        "\U0001f600",
        "&&",
        "||",
        "==",
        " # ",
        "p, ",
        "g, ",
        "p2, ",
        "r.",
        "p.",
        "r.sub.",
        "eval(",
        "True",
        "true",
        " in ",
        "[matchers]\n",
        "m2 = ",
        "allow",
        "deny",
        "role:",
        "tag:",
        "others: ",
        "? ",
        "- ",
        "&a ",
        "*a",
        "!!int ",
        "%41",
        "regex:(:x",
        "9" * 30,
        "(" * 200,
    ]
)


@st.composite
def damaged_sets(draw: st.DrawFn) -> dict[str, bytes]:
    """Returns the files of a good policy set with a few characters or lines cut, moved or put in."""
    files = dict(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        path = draw(st.sampled_from(sorted(files)))
        text = files[path].decode(errors="surrogateescape")
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        files[path] = (text[:start] + draw(PIECES) + text[end:]).encode(errors="surrogateescape")
    return files


def is_place(files: Mapping[str, bytes], finding: Finding) -> bool:
    """Tells whether the place of a finding is in its file, or is the file or set as a whole."""
    if finding.line == 0:
        return finding.column == 0
    lines = files[finding.file].decode(errors="replace").split("\n")
    return finding.line <= len(lines) and finding.column <= len(lines[finding.line - 1]) + 1


def load_or_refuse(files: Mapping[str, bytes]) -> None:
    """Loads files; asserts that they are refused properly if they are, and can decide if they are not."""
    refusal: PolicySetRefusedError | None = None
    try:
        policy_set = load(files, "damaged")
        compile_program(policy_set, None)
    except PolicySetRefusedError as refused:
        refusal = refused
    else:
        assert digest(files) == policy_set.digest
        assert all(finding.severity is Severity.WARNING for finding in policy_set.warnings)
    if refusal is not None:
        assert any(finding.severity is Severity.ERROR for finding in refusal.findings)
        assert sorted(set(refusal.findings)) == list(refusal.findings)
        assert [] == [finding for finding in refusal.findings if not is_place(files, finding)]


@settings(max_examples=400)
@given(damaged_sets())
def test_damaged_set_is_loaded_whole_or_refused(files: dict[str, bytes]) -> None:
    """A damaged set never crashes the loader, and what it finds has a place in the files."""
    load_or_refuse(files)


@settings(max_examples=150)
@given(
    st.fixed_dictionaries(
        {"model.conf": st.binary(max_size=200)},
        optional={
            name: st.binary(max_size=100)
            for name in ("policy.csv", "gatebook.yaml", "catalogue.yaml", "purposes.yaml", "tests/a.yaml")
        },
    )
)
@example({"model.conf": b"[" * 5_000, "policy.csv": b"(" * 20_000, "tests/a.yaml": b"[" * 5_000})
@example({"model.conf": b"", "policy.csv": b"", "catalogue.yaml": b"", "purposes.yaml": b"", "gatebook.yaml": b""})
def test_any_bytes_are_refused_or_loaded(files: dict[str, bytes]) -> None:
    """Files of any bytes never crash the loader."""
    load_or_refuse(files)


@settings(max_examples=150)
@given(st.lists(PIECES, max_size=30).map("".join), st.sampled_from(SEEDS))
def test_any_rules_are_loaded_whole_or_refused(rules: str, seed: dict[str, bytes]) -> None:
    """Rules of any characters under a good model never crash the loader, and Casbin agrees on those that load."""
    load_or_refuse({**seed, "policy.csv": rules.encode(errors="surrogateescape")})
