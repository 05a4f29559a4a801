"""The typed reading of YAML nodes, one finding for each thing that is wrong.

Owns the words of the findings about shape: a missing or unknown key, a value of the wrong kind, a
name that is not well formed. A method returns None (or skips the item) after it has noted a finding,
so that a reader goes on to the end of the file and reports everything at once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from datetime import UTC, datetime

from gatebook.policy.suggest import did_you_mean
from gatebook.policy.yaml_nodes import FINDINGS_MAX, Listing, Node, Scalar, Table, parse_yaml
from gatebook.values import Finding, Severity

MISSING_KEY = "MISSING_KEY"
UNKNOWN_KEY = "UNKNOWN_KEY"
WRONG_VALUE = "WRONG_VALUE"
MALFORMED_NAME = "MALFORMED_NAME"
UNKNOWN_NAME = "UNKNOWN_NAME"
DUPLICATE_NAME = "DUPLICATE_NAME"

TEXT_CHARACTERS_MAX = 4_096
NAME_CHARACTERS_MAX = 128
SHOWN_CHARACTERS_MAX = 60


class Reader:
    """Reads one file; `findings` grows while it is read and is sorted by `sorted_findings`."""

    def __init__(self, file: str) -> None:
        """Takes the path of the file within the policy set."""
        self.file = file
        self.findings: list[Finding] = []

    def root(self, text: str) -> Node | None:
        """Parses the text; None after a syntax error."""
        node, findings = parse_yaml(text, self.file)
        self.findings += findings
        if node is None and not findings:
            self.findings.append(Finding(self.file, 1, 1, WRONG_VALUE, "the file is empty"))
        return node

    def refuse(self, node: Node, invariant: str, message: str) -> None:
        """Notes a finding at the node."""
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(self.file, node.line, node.column, invariant, message))

    def sorted_findings(self) -> list[Finding]:
        """Returns the findings by line and column."""
        return sorted(self.findings)

    @property
    def failed(self) -> bool:
        """Tells whether anything found refuses the file."""
        return any(finding.severity is Severity.ERROR for finding in self.findings)

    def entries(self, node: Node, where: str) -> Iterator[tuple[Scalar, Node]]:
        """Yields the entries of a mapping whose keys are names of the author's choice."""
        if isinstance(node, Table):
            yield from node.entries
        else:
            self.refuse(node, WRONG_VALUE, f"`{where}` must be a mapping, not {shown(node)}")

    def fields(
        self, node: Node, where: str, known: Collection[str], required: Collection[str] = ()
    ) -> dict[str, Node] | None:
        """Returns the entries of a mapping with a fixed set of keys; None when it is no mapping."""
        if not isinstance(node, Table):
            self.refuse(node, WRONG_VALUE, f"`{where}` must be a mapping, not {shown(node)}")
            return None
        found: dict[str, Node] = {}
        for key, value in node.entries:
            if key.text in known:
                found[key.text] = value
            else:
                hint = did_you_mean(key.text, known) or f"; known are {listed(known)}"
                self.refuse(key, UNKNOWN_KEY, f"unknown key `{cut(key.text)}` in `{where}`{hint}")
        for name in required:
            if name not in found:
                self.refuse(node, MISSING_KEY, f"`{where}` lacks the key `{name}`")
        return found

    def text(self, node: Node, where: str) -> str | None:
        """Returns a text; numbers and truth values must be quoted to be one."""
        if not isinstance(node, Scalar) or not isinstance(node.value, str) or not node.value.strip():
            self.refuse(node, WRONG_VALUE, f"`{where}` must be text, not {shown(node)}")
            return None
        if len(node.value) > TEXT_CHARACTERS_MAX:
            self.refuse(node, WRONG_VALUE, f"`{where}` is over {TEXT_CHARACTERS_MAX:,} characters")
            return None
        return node.value

    def name(self, node: Node, where: str, pattern: re.Pattern[str], example: str) -> str | None:
        """Returns a name that matches the pattern; the example shows how one looks."""
        # A key or an item such as `true` or `7` is text in its place, so the written form counts; `null` is nothing.
        if not isinstance(node, Scalar) or node.value is None or not node.text:
            self.refuse(node, WRONG_VALUE, f"`{where}` must be a name such as `{example}`, not {shown(node)}")
            return None
        if len(node.text) > NAME_CHARACTERS_MAX or not pattern.fullmatch(node.text):
            message = f"`{cut(node.text)}` is not well formed as `{where}`; it looks like `{example}`"
            self.refuse(node, MALFORMED_NAME, message)
            return None
        return node.text

    def choice(self, node: Node, where: str, allowed: Collection[str]) -> str | None:
        """Returns one of the allowed words."""
        if not isinstance(node, Scalar) or node.text not in allowed:
            hint = did_you_mean(node.text, allowed) if isinstance(node, Scalar) else ""
            message = f"`{where}` must be one of {listed(allowed)}, not {shown(node)}{hint}"
            self.refuse(node, WRONG_VALUE, message)
            return None
        return node.text

    def integer(self, node: Node, where: str, least: int, most: int, otherwise: str = "") -> int | None:
        """Returns a whole number between two bounds, both included."""
        value = node.value if isinstance(node, Scalar) else None
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            message = f"`{where}` must be a whole number from {least} to {most}{otherwise}, not {shown(node)}"
            self.refuse(node, WRONG_VALUE, message)
            return None
        return value

    def flag(self, node: Node, where: str) -> bool | None:
        """Returns true or false."""
        if not isinstance(node, Scalar) or not isinstance(node.value, bool):
            self.refuse(node, WRONG_VALUE, f"`{where}` must be `true` or `false`, not {shown(node)}")
            return None
        return node.value

    def moment(self, node: Node, where: str) -> datetime | None:
        """Returns a time with an offset from UTC, as an aware datetime in UTC (RFC 3339)."""
        value = node.value if isinstance(node, Scalar) else None
        moment = utc_time(value) if isinstance(value, str) else None
        if moment is None:
            message = f"`{where}` must be a time such as `2026-03-01T00:00:00Z`, not {shown(node)}"
            self.refuse(node, WRONG_VALUE, message)
        return moment

    def items(self, node: Node, where: str) -> tuple[Node, ...]:
        """Returns the items of a list."""
        if isinstance(node, Listing):
            return node.items
        self.refuse(node, WRONG_VALUE, f"`{where}` must be a list, not {shown(node)}")
        return ()

    def names(self, node: Node, where: str, pattern: re.Pattern[str], example: str) -> list[tuple[str, Node]]:
        """Returns the names of a list with their nodes; one that stands twice is a finding."""
        found: dict[str, Node] = {}
        for item in self.items(node, where):
            name = self.name(item, where, pattern, example)
            if name is None:
                continue
            if name in found:
                self.refuse(item, DUPLICATE_NAME, f"`{name}` stands twice in `{where}`")
            found.setdefault(name, item)
        return list(found.items())


def utc_time(text: str) -> datetime | None:
    """Returns a time of RFC 3339 as an aware datetime in UTC; None when it is none or lacks its offset."""
    try:
        moment = datetime.fromisoformat(text)
        return None if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def shown(node: Node) -> str:
    """Returns a node in the words of a finding."""
    if isinstance(node, Listing):
        return "a list"
    if isinstance(node, Table):
        return "a mapping"
    return f"`{cut(node.text)}`" if node.text else "nothing"


def cut(text: str) -> str:
    """Returns a text short enough for a message, and of characters that UTF-8 can hold."""
    short = text if len(text) <= SHOWN_CHARACTERS_MAX else f"{text[:SHOWN_CHARACTERS_MAX]}..."
    return short.encode("utf-8", "backslashreplace").decode()


def listed(words: Collection[str]) -> str:
    """Returns words in backticks, in their order (a set: in alphabetical order)."""
    ordered = sorted(words) if isinstance(words, set | frozenset) else words
    return ", ".join(f"`{word}`" for word in ordered)
