"""Frees an old revision a little at a time, once nobody reads it any more.

Owns the end of a snapshot. Python frees what is made of a hundred thousand rules in one go, with the last
reference to it, wherever that happens to be: on the event loop, most likely. So somebody else holds the many
small parts until the whole is gone, and then lets go of them in steps. That changes nothing for who still reads.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterator

from gatebook.compiler.index import Index
from gatebook.engine.snapshot import Snapshot
from gatebook.pace import STEP, Pause, paced
from gatebook.revisions.pacing import Pacer

SMALL = 5_000
"""A set of fewer lines is freed in less than a millisecond."""
LOOK_SECONDS = 0.05
READ_SECONDS_MAX = 120.0
"""How long a revision may still be read by somebody before its parts are let go all the same."""


def is_large(snapshot: Snapshot) -> bool:
    """Tells whether a snapshot is worth the trouble."""
    return len(snapshot.policy_set.rules) + len(snapshot.policy_set.edges) > SMALL


async def retire(snapshot: Snapshot) -> None:
    """Frees a snapshot that was replaced, as soon as it is read no more."""
    gone = weakref.ref(snapshot)
    parts = await asyncio.to_thread(parts_of, snapshot, Pacer())
    del snapshot
    for _ in range(int(READ_SECONDS_MAX / LOOK_SECONDS)):
        if gone() is None:
            break
        await asyncio.sleep(LOOK_SECONDS)
    await asyncio.to_thread(let_go, parts, Pacer())


def parts_of(snapshot: Snapshot, pause: Pause) -> list[object]:
    """Returns the many small parts of a snapshot: rules, links and the nodes of indexes."""
    policy_set, program = snapshot.policy_set, snapshot.program
    parts: list[object] = []
    for many in (policy_set.rules, policy_set.edges, program.main.rules):
        parts.extend(paced(many, pause))
    for index in (*program.planner.indexes(), *program.near.indexes()):
        parts.extend(paced(nodes_of(index), pause))
    return parts


def nodes_of(index: Index) -> Iterator[object]:
    """Yields the nodes of an index below its root."""
    pending = [index.root]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            for child in node.values():
                yield child
                pending.append(child)


def let_go(parts: list[object], pause: Pause) -> None:
    """Empties a list, a few parts at a time."""
    while parts:
        del parts[-STEP:]
        pause()
