"""What reads texts that others wrote: files of policy sets, expressions and patterns.

Owns one check for each reader, given any bytes in the place of what it reads. It holds that

1. nothing is raised but a refusal, whose findings have places in the file;
2. what is loaded is loaded whole: as many rules and links as there are lines;
3. what is loaded can decide, as the reference does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec
from tests.property.test_loader import load_or_refuse

from gatebook.compiler.closure import compile_expression
from gatebook.compiler.program import compile_program
from gatebook.engine.evaluate import evaluate
from gatebook.engine.reference import Reference
from gatebook.errors import DirectoryRefusedError, PolicySetRefusedError
from gatebook.expression.environment import Named
from gatebook.expression.functions import BUILTINS, PATTERN_FUNCTIONS, complaint
from gatebook.expression.parse import ParseError, parse
from gatebook.expression.tree import Path as Names
from gatebook.expression.truth import evaluate as truth_of
from gatebook.policy.bundle import read_folder
from gatebook.policy.directory import load_directory
from gatebook.policy.model import POLICY_KEY, walk
from gatebook.policy.policy_set import PLAIN, PolicySet, load

ROOT = Path(__file__).parents[2]
PLAIN_SET = read_folder(ROOT / "tests/cases/casbin/rbac_deny")
GOVERNED_SET = read_folder(ROOT / "tests/cases/governed")
BYTES_MAX = 4_096
"""How much of a text is read: longer ones only take longer."""
_FIELD_PARTS = 2
_TEXTS = ("", "a", "/a/1", "/a/b/1", "data1", "10.0.0.1", "a\nb", "GET")


class Reader(msgspec.Struct, frozen=True):
    """One reader: `check` reads bytes; `seeds` are good texts for it."""

    check: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


def _file(path: str, others: Mapping[str, bytes]) -> Callable[[bytes], None]:
    def check(content: bytes) -> None:
        files = {**others, path: content[:BYTES_MAX]}
        load_or_refuse(files)
        try:
            policy_set = load(files, "read")
        except PolicySetRefusedError:
            return
        assert _lines(policy_set, path) in (None, _content_lines(content[:BYTES_MAX]))
        if policy_set.kind == PLAIN:
            _decide(policy_set)

    return check


def _lines(policy_set: PolicySet, path: str) -> int | None:
    """Returns how many lines of a rule file were loaded; None for a file without rules."""
    if not path.endswith(".csv"):
        return None
    return sum(it.file == path for it in policy_set.rules) + sum(it.file == path for it in policy_set.edges)


def _content_lines(content: bytes) -> int:
    lines = (line.strip() for line in content.split(b"\n"))
    return sum(bool(line) and not line.startswith(b"#") for line in lines)


def _decide(policy_set: PolicySet) -> None:
    program, reference = compile_program(policy_set, None), Reference(policy_set)
    for text in _TEXTS:
        tokens = {token: Named(text, {"level": 1, "owner": text}) for token in program.tokens}
        assert reference.evaluate(tokens) == evaluate(program, tokens)


def _expression(content: bytes) -> None:
    text = content[:BYTES_MAX].decode(errors="replace")
    try:
        expression = parse(text)
    except ParseError as err:
        assert 0 <= err.offset <= len(text)  # noqa: PT017  # a place within the text
        return
    paths = [node.names for node in walk(expression) if isinstance(node, Names)]
    of_rule = [names for names in paths if POLICY_KEY.fullmatch(names[0])]
    of_request = [names for names in paths if names[0] == "r" and len(names) >= _FIELD_PARTS]
    if any(len(names) != _FIELD_PARTS for names in of_rule) or len(of_rule) + len(of_request) < len(paths):
        return  # other names are refused before an expression is compiled
    fields = {name: "a" for _, name in of_rule}
    tokens = {"sub": Named("ana", {"level": 1, "x": [1, "a", None]}), "obj": "data1", "act": 1.5, "row": {"a": "b"}}
    walked = truth_of(expression, {"r": tokens, **{root: fields for root, _ in of_rule}})
    assert repr(walked) == repr(compile_expression(expression, dict.fromkeys(fields, 0), {})(tokens, ("a",)))


def _pattern(content: bytes) -> None:
    pattern = content[:BYTES_MAX].decode(errors="replace")
    for function in sorted(PATTERN_FUNCTIONS):
        refused = complaint(function, pattern)
        for text in (*_TEXTS, pattern):
            rest = ("id",) * (BUILTINS[function].arity - 2)
            answer = BUILTINS[function].call(text, pattern, *rest)
            assert answer is None or not refused


def _directory(content: bytes) -> None:
    try:
        load_directory({"people.jsonl": content[:BYTES_MAX]})
    except DirectoryRefusedError as refused:
        assert refused.findings  # noqa: PT017  # a refusal says why


def _seeds(*names: str) -> tuple[bytes, ...]:
    """Returns the beginning of every file of these names in the shipped sets and the cases."""
    folders = (ROOT / "policies", ROOT / "tests/cases", ROOT / "tests/vectors/policy")
    paths = (path for folder in folders for name in names for path in sorted(folder.rglob(name)))
    return _beginnings(path.read_bytes() for path in paths)


def _beginnings(contents: Iterable[bytes]) -> tuple[bytes, ...]:
    return tuple(dict.fromkeys(content[:BYTES_MAX] for content in contents))


def _said(prefix: bytes) -> tuple[bytes, ...]:
    """Returns what follows a prefix on the lines of every model: its matchers, for instance."""
    lines = (line for content in _seeds("model.conf") for line in content.split(b"\n") if line.startswith(prefix))
    return _beginnings(line.partition(b"=")[2].strip() for line in lines)


READERS: Mapping[str, Reader] = {
    "model": Reader(_file("model.conf", PLAIN_SET), _seeds("model.conf")),
    "rules": Reader(_file("policy.csv", PLAIN_SET), _seeds("policy.csv")),
    "governed-rules": Reader(_file("policy.csv", GOVERNED_SET), _seeds("policy.csv")),
    "settings": Reader(_file("gatebook.yaml", GOVERNED_SET), _seeds("gatebook.yaml")),
    "catalogue": Reader(_file("catalogue.yaml", GOVERNED_SET), _seeds("catalogue.yaml")),
    "purposes": Reader(_file("purposes.yaml", GOVERNED_SET), _seeds("purposes.yaml")),
    "directory": Reader(_directory, _seeds("*.jsonl")),
    "expression": Reader(_expression, _said(b"m")),
    "pattern": Reader(
        _pattern, (b"/a/:id", b"/{id}/*", b"^(GET|PUT)$", b"/a/**/[!b]?", b"[[:alpha:]]{2,3}", b"10.0.0.0/8")
    ),
}
