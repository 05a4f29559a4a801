"""Decides past decisions of the book again, under a draft.

Owns which of them: those of the set that match a filter and that the caller sees, the newest first, up to a limit. It
is one read of the book, and an entry; checks do not wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from gatebook.audit.reader import BookReader
from gatebook.audit.sight import Sight
from gatebook.errors import NotReplayableError
from gatebook.replay.asked_then import AskedThen, asked_then
from gatebook.replay.comparing import Comparing
from gatebook.replay.tallies import Place, Tallies
from gatebook.v1 import audit_service_pb2 as pb
from gatebook.v1 import entry_pb2
from gatebook.values import Revision

PAGE_SIZE = 200
PAUSE_SECONDS = 0.02
"""Between pages, so that other reads get their turn."""
OTHER_SET, CLOSED = "another policy set", "cannot be opened any more"


async def replay_past(  # what is read, by whom, and under what it is decided
    reader: BookReader,
    comparing: Comparing,
    wanted: pb.EntryFilter,
    policy_set: str,
    entries_max: int,
    sight: Callable[[], Sight],
    caller: str,
    directory: Revision | None,
) -> AsyncIterator[Tallies]:
    """Yields how far it has come, page by page; the last is the whole."""
    tallies = Tallies()
    size = (await reader.fresh()).checkpoint.size
    asked = pb.ListEntriesRequest(filter=wanted, page_size=PAGE_SIZE)
    asked.filter.kind = entry_pb2.ENTRY_KIND_DECISION
    more = True
    while more and tallies.seen < entries_max:
        asked.page_size = min(PAGE_SIZE, entries_max - tallies.seen)
        page = await reader.page(asked, size, sight(), caller)
        tallies.seen += len(page.records)
        places, questions = _questions(page.records, policy_set, tallies)
        for place, question, judged in zip(places, questions, await comparing.judge(questions, directory), strict=True):
            tallies.add(place, question, judged)
        yield tallies
        asked.page_token = page.next_page_token
        more = bool(page.next_page_token)
        await asyncio.sleep(PAUSE_SECONDS)


def _questions(
    records: Sequence[pb.EntryRecord], policy_set: str, tallies: Tallies
) -> tuple[list[Place], list[AskedThen]]:
    """Returns what was asked in entries; what is of another set or closed is counted."""
    places, questions = [], []
    for record in records:
        if record.entry.decision.policy_set != policy_set:
            tallies.left_out[OTHER_SET] += 1
            continue
        try:
            questions.append(asked_then(record))
        except NotReplayableError:
            tallies.left_out[CLOSED] += 1
            continue
        places.append(Place(record.entry.decision.decision_id, record.origin, record.index))
    return places, questions
