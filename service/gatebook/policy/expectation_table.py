"""Reads the `expect` of a policy test: an outcome for each subject, resource and action.

Owns the shape of that table. What stands at a level holds for everything below it, `others` for
all that are not named, and a blank is a finding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product

from gatebook.expression.parse import parse
from gatebook.expression.tokens import ParseError
from gatebook.policy.expectation import OUTCOMES, REASON_NAMES, Expectation, ExpectedMask
from gatebook.policy.masks import MaskError, parse_mask
from gatebook.policy.model import without_spans
from gatebook.policy.suggest import did_you_mean
from gatebook.policy.yaml_nodes import Listing, Node, Table
from gatebook.policy.yaml_reader import UNKNOWN_NAME, WRONG_VALUE, Reader, cut
from gatebook.values import Effect, Reason

OTHERS = "others"
OUTCOME = "outcome"
GROUP_MAX = 2**31 - 1
_OUTCOME_KEYS = (OUTCOME, "columns", "masks", "minimum_group")
_MASK = re.compile(r"(?P<mask>.*?)(?: if (?P<condition>.+))?", re.DOTALL)


class ExpectationTable:
    """The table of one test: an expectation for each subject, resource and action."""

    def __init__(self, reader: Reader, levels: Mapping[str, tuple[str, ...]]) -> None:
        """Takes who reads, and the names of each level under the word for it."""
        self._reader = reader
        self._words = tuple(levels)
        self._levels = tuple(levels.values())
        self._cells: dict[tuple[str, ...], Expectation] = {}

    def fill(self, node: Node) -> dict[tuple[str, ...], Expectation]:
        """Returns the expectation of each cell that has one."""
        self._fill(node, ())
        return self._cells

    def _fill(self, node: Node, chosen: tuple[str, ...]) -> None:
        depth = len(chosen)
        if not isinstance(node, Table) or any(key.text == OUTCOME for key, _ in node.entries):
            expectation = self._expectation(node)
            for rest in product(*self._levels[depth:]) if expectation else ():
                self._cells[(*chosen, *rest)] = expectation  # type: ignore[assignment]  # not None where there is a rest
            return
        if depth == len(self._levels):
            self._reader.refuse(
                node, WRONG_VALUE, f"nothing goes below an action but an outcome, a mapping with `{OUTCOME}`"
            )
            return
        self._fill_level(node, chosen)

    def _fill_level(self, node: Table, chosen: tuple[str, ...]) -> None:
        word, names = self._words[len(chosen)], self._levels[len(chosen)]
        entries = {key.text: value for key, value in node.entries}
        for key, _ in node.entries:
            if key.text != OTHERS and key.text not in names:
                hint = did_you_mean(key.text, names) or f"; list it under `{word}s`"
                self._reader.refuse(key, UNKNOWN_NAME, f"`{cut(key.text)}` is no {word} of this test{hint}")
        for name in names:
            child = entries.get(name, entries.get(OTHERS))
            if child is None:
                message = f"nothing is expected for the {word} `{name}`; add it, or `{OTHERS}`"
                self._reader.refuse(node, "MISSING_EXPECTATION", message)
            else:
                self._fill(child, (*chosen, name))

    def _expectation(self, node: Node) -> Expectation | None:
        if not isinstance(node, Table):
            word = self._reader.choice(node, "expect", OUTCOMES)
            return None if word is None else Expectation(node.line, _effect(word), REASON_NAMES.get(word))
        found = self._reader.fields(node, "expect", _OUTCOME_KEYS) or {}
        word = self._reader.choice(found[OUTCOME], OUTCOME, OUTCOMES) if OUTCOME in found else None
        if word is None:
            return None
        return Expectation(
            line=node.line,
            effect=_effect(word),
            reason=REASON_NAMES.get(word),
            columns=self._columns(found["columns"]) if "columns" in found else None,
            masks=self._masks(found["masks"]) if "masks" in found else None,
            minimum_group=self._reader.integer(found["minimum_group"], "minimum_group", 0, 2**31 - 1)
            if "minimum_group" in found
            else None,
        )

    def _columns(self, node: Node) -> dict[str, Reason | None]:
        columns: dict[str, Reason | None] = {}
        for key, value in self._reader.entries(node, "columns"):
            word = self._reader.choice(value, f"columns.{cut(key.text)}", ("DENY", *REASON_NAMES))
            if word is not None:
                columns[key.text] = REASON_NAMES.get(word)
        return columns

    def _masks(self, node: Node) -> dict[str, tuple[ExpectedMask, ...]]:
        masks = {}
        for key, value in self._reader.entries(node, "masks"):
            items = value.items if isinstance(value, Listing) else (value,)
            expected = [self._mask(item, f"masks.{cut(key.text)}") for item in items]
            masks[key.text] = tuple(mask for mask in expected if mask is not None)
        return masks

    def _mask(self, node: Node, where: str) -> ExpectedMask | None:
        text = self._reader.text(node, where)
        match = None if text is None else _MASK.fullmatch(text)
        if text is None or match is None:
            return None
        condition = match["condition"]
        try:
            tree = None if condition is None else without_spans(parse(condition))
            return ExpectedMask(text, parse_mask(match["mask"]), tree)
        except (MaskError, ParseError) as err:
            self._reader.refuse(node, WRONG_VALUE, f"`{where}`: {err.message}")
            return None


def _effect(word: str) -> Effect:
    return Effect.ALLOW if word == Effect.ALLOW.name else Effect.DENY
