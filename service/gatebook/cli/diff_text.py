"""What a change gains and loses, as text for a terminal.

Owns the words that the report shares: what sort of change it is, how many it concerns, and what they got and get.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console

from gatebook.cli.output import counted, stdout
from gatebook.v1 import policy_service_pb2 as pb

DIGEST_SHOWN = 12
COLUMNS_SHOWN = 6
ROLES_SHOWN = 4

ASPECTS = {
    pb.ASPECT_ACCESS: "access",
    pb.ASPECT_ROWS: "rows",
    pb.ASPECT_MASKS: "masks",
    pb.ASPECT_MINIMUM_GROUP: "minimum group",
    pb.ASPECT_TIME: "time",
    pb.ASPECT_CONSENT: "consent",
    pb.ASPECT_SHARING: "sharing",
    pb.ASPECT_CALLERS: "callers",
    pb.ASPECT_TYPES: "types",
}


def show_impact(impact: pb.Impact) -> None:
    """Prints an impact for people."""
    console = stdout()
    digests = f"{impact.old_digest[:DIGEST_SHOWN]} -> {impact.new_digest[:DIGEST_SHOWN]}"
    _print(console, f"{impact.policy_set} {digests}, {counted(impact.people, 'person', 'people')} in the directory")
    gains = [change for change in impact.changes if change.gained]
    losses = [change for change in impact.changes if not change.gained]
    for title, style, changes in (("gained", "red", gains), ("lost", "green", losses)):
        if changes:
            console.print(f"\n{title}", style="bold", markup=False)
        for group in grouped(changes):
            _show_group(console, group, style)
    if impact.changes_left_out:
        told = counted(impact.changes_left_out, "more change")
        _print(console, f"\n... and {told}: ask with a larger --limit")
    if impact.set_changes:
        console.print("\nsaid otherwise", style="bold", markup=False)
    for said in impact.set_changes:
        sign = "+" if said.loosens else "-"
        _print(console, f"{sign} {said.file}:{said.line}: {said.message} ({said.what})")
    if impact.changes or impact.set_changes:
        _print(console, "")
    _print(console, f"gained by {whom(impact.gaining)}; lost by {whom(impact.losing)}")


def grouped(changes: Iterable[pb.AccessChange]) -> list[list[pb.AccessChange]]:
    """Returns changes of the same people through the same new steps together, in order."""
    groups: dict[tuple[object, ...], list[pb.AccessChange]] = {}
    for change in changes:
        groups.setdefault((tuple(change.subjects), change.subjects_left_out, *_cause(change)), []).append(change)
    return list(groups.values())


def _cause(change: pb.AccessChange) -> tuple[object, ...]:
    """Returns what a change comes of: the steps that are new or gone, and what is no more, or now, in the way."""
    if not change.HasField("example"):
        return (change.dataset,)
    path = change.example.counterexample.path
    steps = tuple(path[place].text for place in change.example.new_steps)
    return steps or (change.dataset, tuple(step.text for step in change.example.obstacles))


def _show_group(console: Console, group: list[pb.AccessChange], style: str) -> None:
    change = group[0]
    sign = "+" if change.gained else "-"
    console.print(f"{sign} {headline(group)}", style=style, markup=False, soft_wrap=True)
    _print(console, f"    {names(change)}{roles(change)}")
    for one in group:
        _print(console, f"    {subject_of(one)}")
        if one.before != one.after:
            _print(console, f"      {access(one.before)} -> {access(one.after)}")
    for line in _example(change):
        _print(console, f"    {line}")


def names(change: pb.AccessChange) -> str:
    """Returns the first of those whom a change concerns, and how many there are more."""
    more = f" and {change.subjects_left_out:,} more" if change.subjects_left_out else ""
    return f"{', '.join(change.subjects)}{more}"


def roles(change: pb.AccessChange) -> str:
    """Returns which roles their people have, in brackets."""
    told = listed([f"{it.role} {it.people:,}" for it in change.roles], ROLES_SHOWN)
    return f" ({told})" if told else ""


def subject_of(change: pb.AccessChange) -> str:
    """Returns what a change is about: action, dataset, columns and purposes."""
    columns = listed(change.columns, COLUMNS_SHOWN)
    return f"{change.action} {change.dataset} ({columns}) for {listed(widest(change.purposes), COLUMNS_SHOWN)}"


def _example(change: pb.AccessChange) -> Iterator[str]:
    if not change.HasField("example"):
        return
    example = change.example
    shown = example.counterexample
    # Somebody of whom not everything is decided may well be allowed the one request that was asked of both.
    how = f"not confirmed: {shown.why_not}" if shown.why_not else "confirmed by asking both"
    yield f"for one, {shown.subject} ({how})"
    marked = "new" if change.gained else "gone"
    for place, step in enumerate(shown.path):
        mark = marked if place in example.new_steps else "by"
        yield f"  {mark:<5}{step.file}:{step.line}  {step.text}"
    for step in example.obstacles:
        yield f"  {'off' if change.gained else 'now':<5}{step.file}:{step.line}  {step.text}"


def headline(group: Sequence[pb.AccessChange]) -> str:
    """Returns who gains or loses what in one line."""
    first = group[0]
    verb = "gain" if first.gained else "lose"
    if _heads(first.count) == 1:
        verb += "s"
    told = f"{whom(first.count)} {verb} {_aspects(it.gained or it.lost for it in group)}"
    if first.gained and any(it.lost for it in group):
        told += f", and may lose {_aspects(it.lost for it in group)}"
    return told


def _aspects(changed: Iterable[Iterable[pb.Aspect.ValueType]]) -> str:
    found = sorted({aspect for aspects in changed for aspect in aspects})
    return ", ".join(ASPECTS.get(aspect, "?") for aspect in found)


def _heads(count: pb.ImpactCount) -> int:
    return int(count.people_certain + count.people_possible + count.people_own_rows + count.services)


def whom(count: pb.ImpactCount) -> str:
    """Returns how many subjects in words."""
    people = count.people_certain + count.people_possible
    told = []
    if people or not (count.services or count.people_own_rows):
        told.append(counted(people, "person", "people") if people else "nobody")
        if count.people_possible:
            told[-1] += f" ({count.people_possible} of them possibly)" if count.people_certain else " possibly"
    if count.services:
        told.append(counted(count.services, "service"))
    if count.people_own_rows:
        told.append(f"{counted(count.people_own_rows, 'person', 'people')} of their own rows alone")
    return ", ".join(told)


def access(said: pb.ImpactAccess) -> str:
    """Returns what somebody gets in words."""
    if not said.rows:
        return "nothing"
    told = "all rows" if said.rows == "True" else f"rows where {said.rows}"
    if said.masks:
        told += f", masked {', '.join(said.masks)}"
    return told + (f", in groups of {said.minimum_group} or more" if said.minimum_group else "")


def listed(names: Sequence[str], most: int) -> str:
    """Returns the first of some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(list(names)[:most]) + more


def widest(purposes: Sequence[str]) -> list[str]:
    """Returns purposes without those below another one of them."""
    return [it for it in purposes if not any(it.startswith(f"{other}.") for other in purposes)]


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
