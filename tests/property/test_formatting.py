"""Formatting changes the form of a policy set and nothing else."""

from __future__ import annotations

import random
import re
from pathlib import Path

import msgspec
import pytest

from gatebook.errors import PolicySetRefusedError
from gatebook.policy import bundle
from gatebook.policy.formatting import formatted
from gatebook.policy.policy_set import PolicySet, load
from gatebook.policy.policy_test_file import read_policy_tests

ROOT = Path(__file__).parents[2]
SETS = sorted(path.parent for path in ROOT.glob("policies/*/model.conf"))
SPACES = ("", " ", "  ", "\t")


def meaning(policy_set: PolicySet) -> object:
    """Returns what a set says, without where it says it: that of JSON, in which no line is a number of a line."""
    of = {
        "rules": [(rule.ptype, rule.fields, rule.file) for rule in policy_set.rules],
        "edges": [(edge.gtype, edge.child, edge.parent, edge.domains, edge.parameters) for edge in policy_set.edges],
        "settings": policy_set.settings,
        "matchers": {key: it.text for key, it in policy_set.model.matchers.items()},
        "definitions": [(it.key, it.tokens) for it in policy_set.model.policies.values()],
        "effects": {key: it.kind for key, it in policy_set.model.effects.items()},
        "catalogue": policy_set.catalogue,
        "purposes": policy_set.purposes,
        "tests": [
            [msgspec.structs.replace(it, expectation=None) for it in read_policy_tests(path, content)[0]]
            for path, content in policy_set.files.items()
            if path.startswith("tests/")
        ],
        "expectations": [
            [re.sub(r"line=\d+", "", repr(it.expectation)) for it in read_policy_tests(path, content)[0]]
            for path, content in policy_set.files.items()
            if path.startswith("tests/")
        ],
    }
    return re.sub(r"\b(line|column)=\d+", "", repr(of))


def disarranged(files: dict[str, bytes], rng: random.Random) -> tuple[dict[str, bytes], dict[str, list[str]]]:
    """Returns the files in a worse form, with comments put into them, and those comments."""
    made: dict[str, bytes] = {}
    comments: dict[str, list[str]] = {}
    for path, content in files.items():
        comments[path] = []
        if path.endswith((".csv", ".conf", ".yaml")):
            made[path] = "\n".join(_worse(path, content.decode(), comments[path], rng)).encode()
        else:
            made[path] = content
    return made, comments


def _worse(path: str, text: str, comments: list[str], rng: random.Random) -> list[str]:
    lines: list[str] = []
    for line in text.split("\n"):
        if rng.random() < 0.1 and line:
            comments.append(f"# remark {len(comments)} of {path}: all, of it")
            indent = len(line) - len(line.lstrip()) if path.endswith(".yaml") else 0
            lines.append(" " * indent + comments[-1])
        if rng.random() < 0.1:
            lines += [""] * rng.randrange(4)
        lines.append(_worse_line(path, line, comments, rng) + rng.choice(("", "", "  ")))
    return lines


def _worse_line(path: str, line: str, comments: list[str], rng: random.Random) -> str:
    if path.endswith(".csv") and line and not line.startswith("#"):
        parts = re.split(r"(, )(?![^(\[]*[)\]])", line)
        return "".join(f"{rng.choice(SPACES)},{rng.choice(SPACES)}" if part == ", " else part for part in parts)
    if path.endswith(".conf") and re.match(r"[rpg]\d* =", line):
        return line.replace(" ", rng.choice(SPACES))
    if path.endswith(".yaml") and rng.random() < 0.1 and line.strip() and line.rstrip()[-1] not in ",|>":
        comments.append(f"# behind {len(comments)} of {path}")
        return f"{line}  {comments[-1]}"
    return line


@pytest.mark.parametrize("folder", SETS, ids=lambda path: path.name)
@pytest.mark.parametrize("seed", range(2))
def test_formatting_keeps_meaning_and_comments(folder: Path, seed: int) -> None:
    """However badly a set is written, its form afterwards means the same, has all comments, and is its own form."""
    rng = random.Random(f"{folder.name} {seed}")
    files = bundle.read_folder(folder)
    before, comments = disarranged(files, rng)
    try:
        meant = meaning(load(before))
    except PolicySetRefusedError:
        assert folder.name != "basic"  # a comment came into the midst of a text, where it is none
        return

    after = formatted(before)

    assert meant == meaning(load(after))
    assert after == formatted(after)
    for path, said in comments.items():
        at = -1
        for comment in said:
            at = after[path].decode().find(comment, at + 1)
            assert at >= 0, (path, comment)


@pytest.mark.parametrize("folder", SETS, ids=lambda path: path.name)
def test_shipped_sets_are_in_form(folder: Path) -> None:
    """The sets that come along are formatted."""
    files = bundle.read_folder(folder)

    assert [] == [path for path, content in formatted(files).items() if content != files[path]]


def test_disarranged_rules_come_back() -> None:
    """Whatever spaces stand between fields, the form of a rule file is one; order and texts stay."""
    files = bundle.read_folder(ROOT / "policies/basic")
    text = files["policy.csv"].decode()
    worse = "\r\n\r\n\r\n" + text.replace(", ", " ,\t").replace("\n", "  \r\n") + "\r\n\r\n"

    assert text == formatted({**files, "policy.csv": worse.encode()})["policy.csv"].decode()
