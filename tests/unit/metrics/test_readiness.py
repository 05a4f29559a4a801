"""Readiness: what a load balancer is told while the book or the server cannot take calls."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from gatebook.config import Limits
from gatebook.door.door import Door
from gatebook.metrics.listening import application


@pytest.mark.parametrize(
    ("healthy", "draining", "expected"),
    [(True, False, 200), (False, False, 503), (True, True, 503), (False, True, 503)],
)
async def test_readiness(healthy: bool, draining: bool, expected: int) -> None:
    """A server is ready exactly while its book can be written and it is not stopping, and alive all the while."""
    door = Door(Limits(), cast("Any", None))
    if draining:
        door.admission.draining.set()
    app = application(cast("Any", None), cast("Any", SimpleNamespace(healthy=healthy)), door)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
        assert expected == (await client.get("/readyz")).status_code
        assert 200 == (await client.get("/livez")).status_code
