"""The groups that left, recounted: SQL on the store says independently of the client what may leave.

Owns the check of the least group: the same groups, each with the people that the store counts, none smaller
than `k`, and a remainder of everybody else or none.
"""

from __future__ import annotations

from collections.abc import Iterator

from gatebook.demo.company import Company
from gatebook.demo.question import Outcome, Question


def small_groups(company: Company, question: Question, outcome: Outcome) -> Iterator[str]:
    """Yields each group that should not have left as it did."""
    (column,) = question.by
    (person,) = company.catalogue.datasets[question.dataset].subject_keys
    where = f" WHERE {question.where}" if question.where else ""
    counted = company.query(
        f"SELECT {column}, count(DISTINCT {person}) FROM {question.dataset}{where} GROUP BY 1"  # noqa: S608  # the demo's own
    )
    large = {key: people for key, people in counted if key is not None and people >= outcome.group}
    named = {group[column]: group.get("people") for group in outcome.got if group[column] is not None}
    yield from (f"group `{key}` is smaller than {outcome.group}" for key in named.keys() - large.keys())
    yield from (f"group `{key}` is missing" for key in large.keys() - named.keys())
    for key in named.keys() & large.keys():
        if named[key] not in (None, large[key]):
            yield f"group `{key}` counts {named[key]} people, the store {large[key]}"
    others = sum(people for key, people in counted if key not in large)
    remainders = [group for group in outcome.got if group[column] is None]
    if len(remainders) > 1 or (remainders and others < outcome.group):
        yield f"a remainder of {others} people left"
