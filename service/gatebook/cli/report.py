"""A change of a policy set as one page that can be attached to a pull request: it loads nothing and runs nothing."""

from __future__ import annotations

from collections.abc import Iterator

from gatebook.cli.diff_text import ASPECTS, access, grouped, headline, listed, names, roles, whom, widest
from gatebook.cli.markup import Element, element, page
from gatebook.cli.output import counted, to_json
from gatebook.cli.report_pictures import heads, matrix, way
from gatebook.cli.report_style import STYLE
from gatebook.v1 import policy_service_pb2 as pb

CARDS_MAX = 100
ROWS_MAX = 100
COLUMNS_MAX = 24


def report_of(impact: pb.Impact, old: str, new: str) -> str:
    """Returns the page; `old` and `new` are how the sides were named."""
    gains = [change for change in impact.changes if change.gained]
    losses = [change for change in impact.changes if not change.gained]
    body = [
        *_opening(impact, old, new),
        *_pictured(impact),
        *_cards("What is gained", gains),
        *_cards("What is lost", losses),
        *_said_otherwise(impact),
        _closing(impact),
    ]
    return page(f"{impact.policy_set}: what changes", STYLE, element("main", *body))


def _opening(impact: pb.Impact, old: str, new: str) -> Iterator[Element]:
    yield element("h1", "What changes in ", element("code", impact.policy_set, class_="mono"))
    yield element(
        "p",
        element("code", old),
        f" ({impact.old_digest[:12]}) \u2192 ",
        element("code", new),
        f" ({impact.new_digest[:12]}), under a directory of {counted(impact.people, 'person', 'people')}",
        class_="soft",
    )
    if heads(impact.gaining) or impact.gaining.services:
        yield element("p", f"{whom(impact.gaining)} would gain something.".capitalize(), class_="verdict gain")
    else:
        yield element(
            "p", "Nobody gains anything: this is proved for everybody in the directory.", class_="verdict none"
        )
    touched = len({tally.dataset for tally in impact.tallies})
    yield element(
        "div",
        _number("gain", impact.gaining.people_certain + impact.gaining.people_possible, "people gain"),
        _number("own", impact.gaining.people_own_rows, "gain their own rows alone"),
        _number("loss", heads(impact.losing), "people lose"),
        _number("", impact.gaining.services + impact.losing.services, "services concerned"),
        _number("", touched, "datasets concerned"),
        class_="numbers",
    )


def _number(kind: str, number: int, what: str) -> Element:
    return element("div", element("b", f"{number:,}"), what, class_=f"number {kind}".strip())


def _pictured(impact: pb.Impact) -> Iterator[Element]:
    if not impact.tallies:
        return
    yield element("h2", "Who gains what")
    rows = [
        element(
            "tr",
            element("td", tally.dataset),
            element("td", tally.role or "everybody"),
            element("td", whom(tally.gaining), class_="n"),
            element("td", whom(tally.losing), class_="n"),
        )
        for tally in impact.tallies
    ]
    head = element("tr", *(element("th", name, scope="col") for name in ("dataset", "role", "gain", "lose")))
    yield element(
        "div",
        element("div", matrix(impact), class_="picture"),
        element(
            "p",
            "+ gain, \u2212 lose, +* gain their own rows alone. A person with several roles is in each.",
            class_="soft",
        ),
        element("details", element("summary", "The same as a table"), element("table", head, *rows)),
        class_="matrix-card",
    )


def _cards(title: str, changes: list[pb.AccessChange]) -> Iterator[Element]:
    if not changes:
        return
    groups = grouped(changes)
    yield element("h2", title)
    for group in groups[:CARDS_MAX]:
        yield _card(group)
    if len(groups) > CARDS_MAX:
        yield element("p", f"... and {len(groups) - CARDS_MAX} more, in the JSON", class_="soft")


def _card(group: list[pb.AccessChange]) -> Element:
    first = group[0]
    own = not (first.count.people_certain or first.count.people_possible or first.count.services)
    kind = "loss" if not first.gained else "own" if own else "gain"
    parts = [
        element("h3", headline(group)),
        element("p", names(first), element("span", roles(first), class_="soft")),
    ]
    if any(change.count.people_possible for change in group):
        parts.append(element("p", element("span", "not decided, so it counts", class_="chip own")))
    if first.HasField("example"):
        parts += _shown(first)
    head = element("tr", *(element("th", name, scope="col") for name in ("what", "columns", "for", "before", "after")))
    rows = [
        element(
            "tr",
            element("td", element("b", change.action), f" {change.dataset}", element("br"), *_chips(change)),
            element("td", listed(change.columns, COLUMNS_MAX)),
            element("td", listed(widest(change.purposes), COLUMNS_MAX)),
            element("td", access(change.before)),
            element("td", access(change.after)),
        )
        for change in group[:ROWS_MAX]
    ]
    parts.append(element("div", element("table", head, *rows, class_="what"), class_="picture"))
    if len(group) > ROWS_MAX:
        parts.append(element("p", f"... and {len(group) - ROWS_MAX} more, in the JSON", class_="soft"))
    return element("section", *parts, class_=f"card {kind}")


def _chips(change: pb.AccessChange) -> Iterator[Element]:
    for aspect in change.gained:
        yield element("span", f"+ {ASPECTS.get(aspect, '?')}", class_="chip gain")
    for aspect in change.lost:
        yield element("span", f"\u2212 {ASPECTS.get(aspect, '?')}", class_="chip loss")


def _shown(change: pb.AccessChange) -> Iterator[Element]:
    shown = change.example.counterexample
    told = f"For one, {shown.subject}: "
    if shown.confirmed:
        told += "the request below was put to both revisions, and they answer differently."
    else:
        told += f"not confirmed by a request: {shown.why_not}."
    yield element("p", told)
    yield element("div", way(change), class_="picture")
    steps = [f"{step.file}:{step.line}  {step.text}" for step in shown.path]
    gone = "no longer in the way" if change.gained else "now in the way"
    steps += [f"{step.file}:{step.line}  {step.text}  ({gone})" for step in change.example.obstacles]
    yield element(
        "details",
        element("summary", "The way and the request as text"),
        element("pre", "\n".join(steps)),
        element("pre", to_json(shown.request)),
    )


def _said_otherwise(impact: pb.Impact) -> Iterator[Element]:
    if not impact.set_changes:
        return
    yield element("h2", f"What else the files say otherwise ({len(impact.set_changes)})")
    rows = [
        element(
            "tr",
            element(
                "td",
                element(
                    "span",
                    "loosens" if said.loosens else "does not",
                    class_=f"chip {'gain' if said.loosens else 'loss'}",
                ),
            ),
            element("td", said.message),
            element("td", element("code", f"{said.file}:{said.line}")),
        )
        for said in impact.set_changes
    ]
    yield element("div", element("table", *rows), class_="matrix-card")


def _closing(impact: pb.Impact) -> Element:
    left = f" {counted(impact.changes_left_out, 'more change')} left out." if impact.changes_left_out else ""
    return element(
        "footer",
        element("p", f"Everything that is not decided counts as gained.{left}"),
        element("p", "impact ", element("code", impact.digest)),
        element("p", "old ", element("code", impact.old_digest)),
        element("p", "new ", element("code", impact.new_digest)),
        element("p", "directory ", element("code", impact.directory_digest)),
    )
