"""How late the event loop is: what a caller waits for that no step of a call explains."""

from __future__ import annotations

import asyncio
import time

from gatebook.tally import Distribution

LOOK_EVERY_SECONDS = 0.1


async def watch_lag(lag: Distribution) -> None:
    """Counts again and again how much later than asked the loop wakes this up. Runs until it is cancelled."""
    while True:
        due = time.perf_counter() + LOOK_EVERY_SECONDS
        await asyncio.sleep(LOOK_EVERY_SECONDS)
        lag.observe(max(0.0, time.perf_counter() - due))
