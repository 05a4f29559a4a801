"""Finds the rules that concern a request, by hash.

Owns the nested index of one alternative of a matcher: one level per key, each a mapping from the
value of a rule's field to the next level, and at the end the rules with these values. It is walked with
one set of values per key (a value, all that a name inherits, the beginnings of a path), at each level over the
smaller of the set and the level, so rules that do not concern the request cost nothing.

Where a value of the request is UNKNOWN, its key says nothing of any rule: all of the level is walked,
and the match is UNKNOWN at best. Where a key says EVERY, all of the level is walked too, and what is left of the
matcher decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter, itemgetter
from typing import Any

import msgspec

from gatebook.compiler.closure import Closure, Fields, Tokens
from gatebook.compiler.keys import Form, Key
from gatebook.compiler.lookups import EVERY, Values
from gatebook.expression.prefixes import prefix_of
from gatebook.expression.tree import Expression
from gatebook.pace import Pause, no_pause, paced
from gatebook.values import Rule

Outcome = bool | Expression | None
"""Whether a rule applies: True, False, None (UNKNOWN), or an expression over a row that is not known."""

Blind = Callable[[Tokens, Fields], Outcome]
_ORDER = attrgetter("order")


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A rule in an index: `rest` is what is left of the matcher, None if nothing is.

    `order` is the place of the rule in the policy. `blind` is there if the rest reads the row, and gives
    the outcome without one, which is `fixed` where it is the same for every request. `late` tells whether the
    rest reads the late token; `certain` is False where a key is UNKNOWN.
    """

    order: int
    rule: Rule
    rest: Closure | None = None
    blind: Blind | None = None
    fixed: bool = False
    late: bool = False
    certain: bool = True


class Index:
    """The rules of one alternative, by its keys; they match only if `guard` is there and not False. Immutable."""

    def __init__(
        self,
        keys: Sequence[Key],
        names: Sequence[str],
        guard: Closure | None,
        entries: Sequence[Entry],
        pause: Pause = no_pause,
    ) -> None:
        """Takes the keys, the names of the rules' fields, and the entries in order."""
        readers = {key: _reader(key, names.index(key.field)) for key in keys}
        used = {
            key: frozenset(read(entry.rule.fields) for entry in paced(entries, pause)) for key, read in readers.items()
        }
        # Equalities come first, since they leave the fewest rules; of these, those with the fewest values, so
        # that the index has the fewest nodes.
        self.keys = tuple(sorted(keys, key=lambda key: (key.form, len(used[key]))))
        self.guard = guard
        self.used = tuple(used[key] for key in self.keys)
        self.root = _nest(entries, [readers[key] for key in self.keys], pause)
        self.bare = all(entry.rest is None for entry in paced(entries, pause))

    def reach(self, values: Sequence[Values]) -> tuple[Entry, ...]:
        """Returns the entries whose keys hold or are UNKNOWN, in order."""
        nodes: list[Any] = [self.root]
        for names in values:
            nodes = _descend(nodes, names)
        if not nodes:
            return ()
        found: tuple[Entry, ...] = nodes[0]
        if len(nodes) > 1:
            found = tuple(sorted([entry for leaf in nodes for entry in leaf], key=_ORDER))
        return tuple(msgspec.structs.replace(it, certain=False) for it in found) if None in values else found


def _descend(nodes: list[Any], values: Values) -> list[Any]:
    """Goes one level down, by the smaller of the values and each level; by all of it where they do not narrow."""
    reached: list[Any] = []
    for node in nodes:
        if values is None or values is EVERY:
            reached.extend(node.values())
        elif len(values) <= len(node):
            reached.extend([node[value] for value in values if value in node])
        else:
            reached.extend([child for value, child in node.items() if value in values])
    return reached


def _nest(entries: Sequence[Entry], readers: Sequence[_Reader], pause: Pause) -> Any:  # noqa: ANN401 - a mapping of mappings, as deep as there are keys
    if not readers:
        return tuple(entries)
    grouped: dict[str, list[Entry]] = {}
    read, *inner = readers
    for entry in paced(entries, pause):
        grouped.setdefault(read(entry.rule.fields), []).append(entry)
    return {value: _nest(grouped[value], inner, pause) for value in paced(grouped, pause)}


_Reader = Callable[[Fields], str]
"""Reads from the fields of a rule what a level knows it by."""


def _reader(key: Key, position: int) -> _Reader:
    if key.form is not Form.PREFIX:
        return itemgetter(position)
    return lambda fields: prefix_of(key.role, fields[position])
