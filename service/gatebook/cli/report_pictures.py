"""The pictures of a report: who gains what, and the way of somebody through roles and rules.

Owns the drawing. Each picture is an inline SVG with a title and a description for those who do not see it; the colours
are those of the page, so that it follows light, dark and print.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import msgspec

from gatebook.cli.markup import Element, element
from gatebook.v1 import policy_service_pb2 as pb

ROWS_MAX = 40
ROLES_MAX = 10
LINES_MAX = 5

_LABEL, _CELL, _ROW, _HEAD = 250, 74, 34, 118
_LETTER = 7.3
_BOX, _GAP, _PAD, _LINE = 204, 48, 12, 17


def heads(count: pb.ImpactCount) -> int:
    """Returns the number of people of a count."""
    return int(count.people_certain + count.people_possible + count.people_own_rows)


def matrix(impact: pb.Impact) -> Element:
    """Draws who gains and loses what: datasets by roles, with how many people."""
    datasets = [tally for tally in impact.tallies if not tally.role]
    datasets = sorted(datasets, key=lambda it: (-_others(it.gaining), -heads(it.losing), it.dataset))[:ROWS_MAX]
    roles = _roles(impact)
    of = {(tally.dataset, tally.role): tally for tally in impact.tallies}
    width = _LABEL + _CELL * (len(roles) + 1) + 40
    height = _HEAD + _ROW * len(datasets) + 12
    most = max([_others(it.gaining) for it in datasets] + [heads(it.losing) for it in datasets] + [1])
    drawn: list[Element] = [
        element("title", "Who gains what"),
        element("desc", "Datasets in rows, roles in columns: how many people gain (+) or lose (-) something."),
    ]
    for place, role in enumerate(("everybody", *roles)):
        left = _LABEL + _CELL * place + _CELL / 2
        told = _cut(role.removeprefix("role:"), 18)
        drawn.append(
            element("text", told, x=left, y=_HEAD - 14, class_="head", transform=f"rotate(-38 {left} {_HEAD - 14})")
        )
    for row, total in enumerate(datasets):
        top = _HEAD + _ROW * row
        drawn.append(element("text", _cut(total.dataset, 32), x=_LABEL - 14, y=top + 21, class_="label"))
        for place, role in enumerate(("", *roles)):
            tally = of.get((total.dataset, role))
            drawn += _cell(tally, _LABEL + _CELL * place, top, most)
    box = f"0 0 {width} {height}"
    return element("svg", *drawn, viewBox=box, width=width, role="img", aria_label="Who gains what", class_="matrix")


def _others(count: pb.ImpactCount) -> int:
    return int(count.people_certain + count.people_possible)


def _roles(impact: pb.Impact) -> list[str]:
    """Returns the roles of most people whom the change concerns."""
    most: dict[str, int] = {}
    for tally in impact.tallies:
        if tally.role:
            concerned = 2 * _others(tally.gaining) + heads(tally.losing) + tally.gaining.people_own_rows
            most[tally.role] = max(most.get(tally.role, 0), concerned)
    return sorted(most, key=lambda role: (-most[role], role))[:ROLES_MAX]


def _cell(tally: pb.ImpactTally | None, left: int, top: int, most: int) -> list[Element]:
    """Draws one cell, deeper in colour the more people it concerns."""
    size = {"width": _CELL - 4, "height": _ROW - 4, "rx": 5}
    if tally is None:
        return [element("rect", x=left, y=top, class_="none", **size)]
    gaining, own, losing = _others(tally.gaining), tally.gaining.people_own_rows, heads(tally.losing)
    kind, count = ("gain", gaining) if gaining else ("own", own) if own else ("loss", losing)
    deep = 0.25 + 0.75 * min(1.0, count / most) ** 0.5
    told = [f"+{gaining}"] if gaining else []
    told += [f"+{own}*"] if own and not gaining else []
    told += [f"\u2212{losing}"] if losing else []
    words = f"{tally.dataset}, {tally.role or 'everybody'}: {gaining} gain, {own} own rows, {losing} lose"
    middle = left + (_CELL - 4) / 2
    strong = " strong" if deep > 0.62 else ""  # noqa: PLR2004  # where white is read better than black
    return [
        element("rect", element("title", words), x=left, y=top, class_=kind, fill_opacity=round(deep, 2), **size),
        element("text", " ".join(told), x=middle, y=top + 20, class_=f"count {kind}{strong}"),
    ]


class Node(msgspec.Struct, frozen=True):
    """A box of a way: what it is, what it says, and where that stands in the files."""

    kind: str
    title: str
    lines: Sequence[str]
    place: str = ""
    marked: bool = False
    """Whether it came with the change, or went with it."""


def way(change: pb.AccessChange) -> Element:
    """Draws the way of the example of a change: subject, roles, rule, dataset; below, what stood in the way."""
    shown = change.example.counterexample
    nodes = [Node("subject", shown.subject_type or "subject", _wrapped(shown.subject, 2), _others_of(change))]
    for place, step in enumerate(shown.path):
        marked = place in change.example.new_steps
        where = f"{step.file}:{step.line}"
        if place == len(shown.path) - 1:
            nodes.append(Node("rule", "rule", _wrapped(step.text, LINES_MAX), where, marked))
        else:
            role = step.text.rpartition(" ")[2]
            nodes.append(Node("role", "role", _wrapped(role.removeprefix("role:"), 2), where, marked))
    columns = ", ".join(change.columns)
    nodes.append(Node("dataset", change.action, [*_wrapped(change.dataset, 2), *_wrapped(columns, 3)]))
    tall = max(_height(node) for node in nodes)
    obstacles = list(change.example.obstacles)[:3]
    width = len(nodes) * _BOX + (len(nodes) - 1) * _GAP + 4
    below = tall + 40
    height = tall + 8 + (40 + 62 * len(obstacles) if obstacles else 0)
    verb = "gains" if change.gained else "loses"
    told = " \u2192 ".join(" ".join(node.lines) for node in nodes)
    drawn = [
        element("title", f"How {shown.subject} {verb} {change.action} of {change.dataset}"),
        element("desc", told),
        _arrow_head(),
    ]
    gone = not change.gained
    for place, node in enumerate(nodes):
        left = 2 + place * (_BOX + _GAP)
        drawn += _box(node, left, 4 + (tall - _height(node)) / 2, "gone" if gone else "new")
        if place:
            marked = node.marked and node.kind != "dataset"
            drawn += _arrow(left - _GAP, 4 + tall / 2, _mark(marked=marked, gone=gone))
    for place, step in enumerate(obstacles):
        lines = _wrapped(step.text, 2, 70)
        node = Node("obstacle", "no longer in the way" if change.gained else "now in the way", lines)
        drawn += _wide(node, f"{step.file}:{step.line}", below + 62 * place, width)
    label = f"The way of {shown.subject} to {change.dataset}"
    return element(
        "svg", *drawn, viewBox=f"0 0 {width} {height}", width=width, role="img", aria_label=label, class_="way"
    )


def _mark(*, marked: bool, gone: bool) -> str:
    if not marked:
        return ""
    return "gone" if gone else "new"


def _others_of(change: pb.AccessChange) -> str:
    more = heads(change.count) + change.count.services - 1
    return f"and {more:,} more alike" if more > 0 else ""


def _wrapped(text: str, most: int, letters: int = 24) -> list[str]:
    lines = textwrap.wrap(text, letters, break_on_hyphens=False) or [""]
    return lines if len(lines) <= most else [*lines[: most - 1], _cut(" ".join(lines[most - 1 :]), letters)]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}\u2026"


def _height(node: Node) -> float:
    return 2 * _PAD + _LINE * (1 + len(node.lines) + bool(node.place))


def _box(node: Node, left: float, top: float, mark: str) -> list[Element]:
    marked = f" {mark}" if node.marked else ""
    drawn = [
        element("rect", x=left, y=top, width=_BOX, height=_height(node), rx=9, class_=f"box {node.kind}{marked}"),
        element("text", node.title, x=left + _PAD, y=top + _PAD + 10, class_="kind"),
    ]
    if node.marked:
        drawn.append(element("text", mark, x=left + _BOX - _PAD, y=top + _PAD + 10, class_=f"flag {mark}"))
    for row, line in enumerate(node.lines):
        strong = "said" if node.kind == "rule" or (node.kind == "dataset" and row) else "said name"
        drawn.append(element("text", line, x=left + _PAD, y=top + _PAD + 11 + _LINE * (row + 1), class_=strong))
    if node.place:
        drawn.append(
            element(
                "text",
                _cut(node.place, 30),
                x=left + _PAD,
                y=top + _PAD + 11 + _LINE * (len(node.lines) + 1),
                class_="place",
            )
        )
    return drawn


def _wide(node: Node, place: str, top: float, width: float) -> list[Element]:
    """Draws what stands in the way as a broad box under the path."""
    drawn = [
        element(
            "rect", x=2, y=top, width=min(width - 4, 70 * _LETTER + 2 * _PAD), height=54, rx=9, class_="box obstacle"
        ),
        element("text", f"{node.title}: {place}", x=2 + _PAD, y=top + 16, class_="kind"),
    ]
    return drawn + [
        element("text", line, x=2 + _PAD, y=top + 32 + 14 * row, class_="said struck")
        for row, line in enumerate(node.lines)
    ]


def _arrow_head() -> Element:
    tip = element("path", d="M0,0 L8,4 L0,8 z", class_="tip")
    marker = element(
        "marker",
        tip,
        id="tip",
        markerWidth=8,
        markerHeight=8,
        refX=7,
        refY=4,
        orient="auto",
        markerUnits="userSpaceOnUse",
    )
    return element("defs", marker)


def _arrow(left: float, middle: float, mark: str) -> list[Element]:
    return [
        element(
            "line",
            x1=left + 5,
            y1=middle,
            x2=left + _GAP - 5,
            y2=middle,
            class_=f"arrow {mark}".strip(),
            marker_end="url(#tip)",
        )
    ]
